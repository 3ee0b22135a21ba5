//! SIGKILL at any instant of a training run: the store opens at the last epoch that the trainer was told to be durable,
//! or at the one whose commit it had begun, whole, and the next run goes on from there.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod child;
mod history;
mod trainer;

use history::History;
use hoist_testkit::Random;

/// Of each test; `HOIST_KILLS` is another number of them.
const KILLS: u64 = 10;

#[test]
fn one_directory() {
    run("one_directory", 1);
}

#[test]
fn two_directories() {
    run("two_directories", 2);
}

fn run(test: &str, directories: usize) {
    if let Some(history) = child::history() {
        trainer::train(&history);
    }
    let kills = std::env::var("HOIST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let folders: Vec<_> = (0..directories).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut history = History::new(folders.iter().map(|folder| folder.path().to_owned()).collect());
    trainer::create(&history);
    let mut random = Random::new(directories as u64);
    for kill in 0..kills {
        let seen = child::run_and_kill(test, &history, &mut random);
        let durable = seen.durable.unwrap_or(history.epoch());
        let begun = seen.begun.unwrap_or(durable).max(durable);
        let epoch = trainer::open_and_check(&mut history);
        assert!(
            (durable..=begun).contains(&epoch),
            "kill {kill}: {durable} was durable, {begun} begun, {epoch} found"
        );
    }
    assert!(history.epoch() > 1, "no run got as far as to its second epoch in {kills} kills");
}
