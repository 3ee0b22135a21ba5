use std::sync::Arc;

use crate::config::Problem;

/// What can go wrong, with what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The config has problems.
    #[error("the configuration cannot be used: {}", list(.0))]
    Config(Vec<Problem>),
    /// The host slab could not be made.
    #[error(transparent)]
    Memory(Arc<hoist_memory::Error>),
    /// The store refused or failed.
    #[error(transparent)]
    Store(Arc<hoist_store::Error>),
    /// The device could not be opened.
    #[error(transparent)]
    Device(Arc<hoist_device::Error>),
    /// The engine's threads could not be started.
    #[error("cannot start thread {name}: {source}: raise the limit on threads (ulimit -u)")]
    Thread {
        /// Which.
        name: &'static str,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// A derived tensor is no cast that the engine can make.
    #[error("tensor {tensor} cannot be derived from {from}: {why}")]
    BadCast {
        /// The derived tensor.
        tensor: String,
        /// Its source.
        from: String,
        /// What does not fit.
        why: String,
    },
    /// An access of an order cannot be used.
    #[error("access {access} ({layer}): {what}")]
    BadAccess {
        /// Its index.
        access: usize,
        /// Its layer.
        layer: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// There is no such access or order.
    #[error("{what} {index} does not exist: there are {count}")]
    NoSuch {
        /// "access" or "order".
        what: &'static str,
        /// What was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A tensor was asked for that holds nothing.
    #[error("tensor {tensor} holds nothing: write it first (the order may have given leave to forget it)")]
    NoContents {
        /// Which.
        tensor: String,
    },
    /// Bytes on NVMe are not what was written.
    #[error(
        "tensor {tensor} is corrupt: {place} does not have the checksum that was recorded when it was written; \
         restore it from a copy, and look at the drive's health"
    )]
    Corrupt {
        /// Which.
        tensor: String,
        /// File, offset and length.
        place: String,
    },
    /// A read or write of a tensor failed.
    #[error("tensor {tensor}: {cause}")]
    Transfer {
        /// Which.
        tensor: String,
        /// What the store said: path, offset, length, errno.
        cause: Arc<hoist_store::Error>,
    },
    /// Every client that holds a lease waits for another, and nothing in flight will end it.
    #[error(
        "would deadlock: waiting for {waiting_for} while every lease is held by a client that waits itself; \
         release leases before acquiring, or raise the budget"
    )]
    WouldDeadlock {
        /// What the refused acquire waited for.
        waiting_for: &'static str,
    },
    /// The call needs a step, or needs there to be none.
    #[error("{call} {rule}")]
    Step {
        /// Which call.
        call: &'static str,
        /// What it needs.
        rule: &'static str,
    },
    /// The call cannot be made while leases are held.
    #[error("{call} with {count} leases held: release them first")]
    LeasesHeld {
        /// Which call.
        call: &'static str,
        /// How many.
        count: usize,
    },
    /// A step could not be made durable. What it has written is dropped, and what the running step has: durable tensors
    /// are those of the epoch before it again, derived ones are made anew, scratch is as it was left. Every call says so
    /// until a step begins; that one makes this epoch. A record that has reached the drive is taken back as soon as all
    /// leases are released; a process that ends before may find either epoch, whole.
    #[error(
        "epoch {epoch} could not be committed: {cause}; what it and the running step wrote is dropped, and the \
         next step begins at epoch {}: mend the cause, release all leases and begin the step again", epoch - 1
    )]
    Commit {
        /// The epoch that is not.
        epoch: u64,
        /// Why.
        cause: Box<Error>,
    },
    /// The step was aborted, or the engine rolled back, while the call waited, or before it.
    #[error("the step was aborted: begin another one")]
    Aborted,
    /// A snapshot was not made or deleted, or not gone back to. At durability "step" nothing else has changed; at "snapshot"
    /// bytes of the steps since the last one may be lost: the engine ends, and opens at the last snapshot.
    #[error("the snapshot could not be recorded: {cause}; mend the cause and try again")]
    Record {
        /// Why.
        cause: Box<Error>,
    },
    /// What steps write goes over what was there.
    #[error(
        "{call} cannot take back what a step has written: only durability \"step\" keeps what was there before it"
    )]
    NotTaken {
        /// Which call.
        call: &'static str,
    },
    /// A note is too large.
    #[error("note {key} of {bytes} bytes is too large: at most {} bytes", hoist_store::NOTE_BYTES_MAX)]
    LargeNote {
        /// Its key.
        key: String,
        /// Its length.
        bytes: usize,
    },
    /// One of the engine's threads has ended: a defect. The store is at its last epoch.
    #[error(
        "thread {name} of the engine has ended unexpectedly: report it with the log; the store is at its last epoch"
    )]
    Died {
        /// Which.
        name: &'static str,
    },
    /// The engine has been closed.
    #[error("the engine is closed")]
    Closed,
    /// The handle is used in a forked child.
    #[error("a forked child cannot use the engine of its parent: open another store there")]
    Forked,
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| format!("{} {}: {}", problem.key, problem.what, problem.would_be_right))
        .collect();
    lines.join("; ")
}

impl From<hoist_memory::Error> for Error {
    fn from(error: hoist_memory::Error) -> Error {
        Error::Memory(Arc::new(error))
    }
}

impl From<hoist_store::Error> for Error {
    fn from(error: hoist_store::Error) -> Error {
        Error::Store(Arc::new(error))
    }
}

impl From<hoist_device::Error> for Error {
    fn from(error: hoist_device::Error) -> Error {
        Error::Device(Arc::new(error))
    }
}
