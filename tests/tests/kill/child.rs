//! This program, run again for one test, and killed.

use crate::history::History;
use hoist_testkit::Random;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

/// Set for a child: what it goes on from.
const HISTORY: &str = "HOIST_KILL_HISTORY";

/// What a child says at most before it is killed: it opens the store, and each epoch begins and is durable.
const WORDS_MAX: u64 = 12;

/// How much longer it lives at most: a few times what a commit of this size takes on a drive.
const LONGER_MAX_US: u64 = 30_000;

/// What a child has said.
#[derive(Default)]
pub struct Seen {
    /// The newest epoch whose commit was over, and the newest whose commit had begun.
    pub durable: Option<u64>,
    pub begun: Option<u64>,
}

/// What to go on from, for a child; none in the program that was called.
pub fn history() -> Option<History> {
    std::env::var(HISTORY).ok().map(|text| History::read(&text))
}

/// Says something to the parent, at once.
pub fn say(word: &str, epoch: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word} {epoch}").and_then(|()| out.flush()).unwrap();
}

/// Runs the test in a child and kills it at a random instant.
pub fn run_and_kill(test: &str, history: &History, random: &mut Random) -> Seen {
    let mut child = Command::new("/proc/self/exe")
        .args([test, "--exact", "--nocapture"])
        .env(HISTORY, history.text())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = Seen::default();
    // However fast the machine is, it is killed as far on as others were.
    (0..random.below(WORDS_MAX)).for_each(|_| seen.hear(&mut lines));
    std::thread::sleep(Duration::from_micros(random.below(LONGER_MAX_US)));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    for line in lines {
        seen.take(&line.unwrap());
    }
    // 9: SIGKILL.
    assert_eq!(status.signal(), Some(9), "it ended by itself: {status}");
    seen
}

impl Seen {
    /// Waits for the next thing that the child says; not for ever.
    fn hear(&mut self, lines: &mut Lines<BufReader<ChildStdout>>) {
        while lines.next().transpose().unwrap().is_some_and(|line| !self.take(&line)) {}
    }

    /// Whether it is the child that says this, and not the test harness.
    fn take(&mut self, line: &str) -> bool {
        let Some((word, epoch)) = line.split_once(' ') else { return false };
        let epoch = epoch.parse().ok();
        match word {
            "opened" => {}
            "begun" => self.begun = epoch,
            "durable" => self.durable = epoch,
            _ => return false,
        }
        true
    }
}
