//! What can go wrong when a device is opened.

use crate::Problem;

/// Why a device could not be opened. An open device has no errors of its own: what it may hold was
/// claimed by the plan, and a claim that does not fit is an impossible state, which asserts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The config cannot work; every problem at once.
    #[error("the device config cannot work: {}", list(.0))]
    Config(Vec<Problem>),
    /// The kernel refused the arena.
    #[error("cannot {call} the device arena of {bytes} bytes: {errno}; lower device.budget or free memory")]
    Arena {
        /// The system call that failed.
        call: &'static str,
        /// The size asked for, `device.budget` in bytes.
        bytes: u64,
        /// What the kernel said.
        errno: std::io::Error,
    },
    /// The kernel refused a thread.
    #[error(
        "cannot start the device thread {name}: {errno}; raise the limit of tasks (ulimit -u) or stop others"
    )]
    Thread {
        /// The thread's name.
        name: &'static str,
        /// What the kernel said.
        errno: std::io::Error,
    },
}

/// All problems in one line.
fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}
