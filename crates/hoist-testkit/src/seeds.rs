//! Which seeds a test runs, and how one is repeated.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many seeds instead of a test's own number.
const SEEDS: &str = "HOIST_SEEDS";

/// The one seed to repeat.
const SEED: &str = "HOIST_SEED";

/// Runs `test` with the seeds from 0 on: `count` of them, or as many as `HOIST_SEEDS` says, or the one in `HOIST_SEED`.
/// `command` is what runs this test and no other.
///
/// # Panics
/// When a seed does, with the command that repeats it; when a variable holds no number.
pub fn each_seed(count: u64, command: &str, mut test: impl FnMut(u64)) {
    let seeds = match variable(SEED) {
        Some(seed) => seed..seed + 1,
        None => 0..variable(SEEDS).unwrap_or(count),
    };
    for seed in seeds {
        // What the test says of it is printed when it panics.
        if catch_unwind(AssertUnwindSafe(|| test(seed))).is_err() {
            panic!("seed {seed} failed, as is said above; again: {SEED}={seed} {command}");
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_that_fails_says_how_it_is_repeated() {
        let run = || each_seed(1, "cargo test x", |seed| panic!("{seed}"));
        let panicked = catch_unwind(run).unwrap_err();
        let text = panicked.downcast_ref::<String>().unwrap();
        assert!(text.ends_with(" cargo test x") && text.contains("HOIST_SEED="), "{text}");
    }
}
