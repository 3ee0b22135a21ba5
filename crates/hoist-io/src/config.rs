//! How deep and how large.

use std::time::Duration;

/// The most that one request to the kernel moves: its result is an `i32`, and it stops at 0x7ffff000 bytes (read(2)).
pub(crate) const BLOCK_BYTES_MAX: u64 = 1 << 30;

/// The deepest queue: `max_entries` of an io_uring is 32768 (io_uring_setup(2)), one of which the waker takes; no
/// drive has use for a tenth of it.
pub const QUEUE_DEPTH_MAX: u32 = 4096;

/// All of hoist's files and ranges are aligned to this, whatever less a drive would take.
pub(crate) const ALIGNMENT_BYTES: u64 = hoist_memory::SECTOR_BYTES as u64;

/// How long a drive may give no sign of life before its memory is given up: the kernel's NVMe driver aborts a command
/// after 30 s (nvme_core.io_timeout) and resets the drive when the abort hangs as long; then errors come back.
pub(crate) const CLOSE_DEADLINE: Duration = Duration::from_secs(90);

/// The same for a backend that has failed: those who wait for it should hear of it soon, a drive that works answers in
/// milliseconds, and what comes later than this costs no more than its memory.
pub(crate) const FAILURE_DEADLINE: Duration = Duration::from_secs(10);

/// More requests than are under way together: a plan's credits are a few times the queue depth, whose default is 32. A hash
/// map that has room for twice what lies in it never grows, however often that changes (it cleans up in place then).
pub(crate) const REQUESTS_MANY: usize = 1024;

/// Which backend moves the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// io_uring when a trial read through a ring works, else pread, with the cause in [`crate::Obtained`].
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// io_uring in a tokio-uring runtime, or an error: a peer to compare with, which registers neither memory nor
    /// files.
    TokioUring,
    /// Threads that call pread and pwrite.
    Pread,
}

impl BackendChoice {
    /// Each with its name in configs and on command lines.
    pub const ALL: [(&'static str, BackendChoice); 4] = [
        ("auto", BackendChoice::Auto),
        ("uring", BackendChoice::Uring),
        ("tokio-uring", BackendChoice::TokioUring),
        ("pread", BackendChoice::Pread),
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = BackendChoice::ALL.iter().find(|(_, choice)| *choice == self);
        found.map_or_else(|| panic!("{self:?} has no name"), |(name, _)| name)
    }
}

/// How a backend works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which backend.
    pub backend: BackendChoice,
    /// Bytes of the largest block that a request is cut or merged into, a multiple of 4096 up to 1 GiB.
    pub block_size: u64,
    /// Blocks that the kernel has at a time, 1 to 4096.
    pub queue_depth: u32,
}

impl Default for Config {
    /// 1 MiB blocks, 32 deep: where NVMe drives reach their peak (measured, and the same in agave and DeepSpeed).
    fn default() -> Config {
        Config { backend: BackendChoice::Auto, block_size: 1 << 20, queue_depth: 32 }
    }
}

/// One thing that is wrong in a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, as the user writes it.
    pub key: &'static str,
    /// What is wrong, with the value.
    pub what: String,
    /// A value that would do.
    pub would_be_right: String,
}

impl Config {
    /// Everything that is wrong, at once.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let (block, depth) = (self.block_size, self.queue_depth);
        if block == 0 || !block.is_multiple_of(ALIGNMENT_BYTES) || block > BLOCK_BYTES_MAX {
            let what = format!("{block} bytes is no multiple of {ALIGNMENT_BYTES} up to {BLOCK_BYTES_MAX}");
            problems.push(Problem { key: "io.block_size", what, would_be_right: "1 MiB".to_owned() });
        }
        if depth == 0 || depth > QUEUE_DEPTH_MAX {
            let what = format!("{depth} is not in 1..={QUEUE_DEPTH_MAX}");
            problems.push(Problem { key: "io.queue_depth", what, would_be_right: "32".to_owned() });
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_has_its_name() {
        for (name, choice) in BackendChoice::ALL {
            assert_eq!(choice.name(), name);
        }
    }

    #[test]
    fn all_problems_come_at_once() {
        assert!(Config::default().problems().is_empty());
        let config = Config { block_size: 5000, queue_depth: 0, ..Config::default() };
        let keys: Vec<_> = config.problems().iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["io.block_size", "io.queue_depth"]);
    }
}
