//! What can go wrong with host memory.

use crate::Problem;
use std::io;

/// Why memory could not be had or may not be touched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The config is wrong; nothing was mapped.
    #[error("the host memory config is wrong: {}", list(.0))]
    Config(Vec<Problem>),
    /// The kernel refused to reserve addresses.
    #[error(
        "cannot reserve {bytes} bytes of addresses: {source}; check `ulimit -v` and vm.overcommit_memory"
    )]
    Reserve {
        /// Bytes that were asked for.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// A piece could not be mapped and filled even with small pages.
    #[error(
        "cannot {call} {bytes} bytes of host memory at {offset} of {budget_bytes}: {source}; \
         lower host.budget or free memory"
    )]
    Map {
        /// The system call.
        call: &'static str,
        /// Where in the slab.
        offset: usize,
        /// Bytes of the part.
        bytes: usize,
        /// Bytes of the whole slab.
        budget_bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// This process is a forked child of the one that mapped the memory, which is not there in a child.
    #[error(
        "process {pid} is a forked child of {owner_pid}, which owns the host memory; open hoist after the fork, \
         or start workers with spawn instead of fork"
    )]
    Forked {
        /// The process that mapped it.
        owner_pid: u32,
        /// This process.
        pid: u32,
    },
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems
        .iter()
        .map(|problem| {
            format!("{}: {} ({} would be right)", problem.key, problem.what, problem.would_be_right)
        })
        .collect();
    lines.join("; ")
}
