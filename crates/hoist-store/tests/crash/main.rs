//! Power cuts in the middle of anything: the store opens at the last epoch that was told to be durable, or at the one
//! whose commit was under way, whole.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

#[path = "../common/mod.rs"]
mod common;
mod machine;
mod model;
mod work;

use hoist_testkit::each_seed;
use machine::{End, Machine};

/// Of each test: a few seconds' worth. `just crash` runs thousands.
const SEEDS: u64 = 100;

#[test]
fn one_directory() {
    run("one_directory", 1);
}

/// The two drives' threads race for the place of the cut, so that a seed is not wholly the same each time.
#[test]
fn two_directories() {
    run("two_directories", 2);
}

/// Kills: a new journal that could not be written, of an epoch that is lost, which comes to light by a power cut when its
/// extents have other bytes.
#[test]
fn a_refused_journal_stays_lost() {
    let slab = common::slab();
    for seed in 0..16 {
        let mut machine = Machine::new(seed, 1 + seed as usize % 2, &slab);
        machine.create();
        machine.fail_new_journal().unwrap();
        machine.end(End::Killed);
        machine.open();
        machine.end(End::Cut);
        machine.open();
    }
}

fn run(test: &str, directories: usize) {
    let slab = common::slab();
    each_seed(SEEDS, &format!("cargo test -p hoist-store --test crash {test}"), |seed| {
        let mut machine = Machine::new(seed, directories, &slab);
        machine.create();
        for _ in 0..1 + machine.random.below(4) {
            machine.work_until_it_ends();
            machine.open();
        }
        machine.finish();
    });
}
