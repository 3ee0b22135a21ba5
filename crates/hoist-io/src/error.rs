//! What can go wrong with a file, a ring, a request.

use crate::{Problem, RequestId, advice};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Bytes from a file.
    Read,
    /// Bytes to a file.
    Write,
    /// fdatasync.
    Sync,
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Sync => "sync",
        })
    }
}

/// Why something was not done. Every kind that concerns a file names it, with offset, length and errno where there
/// are such.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The config is wrong; nothing was opened.
    #[error("the io config is wrong: {}", list(.0))]
    Config(Vec<Problem>),
    /// No ring, and io_uring was asked for.
    #[error("io_uring is not available: {call}: {source}; {advice}, or set io.backend = \"pread\"")]
    NoRing {
        /// The call that failed.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// Who refuses it, as far as this process can see, and what to do.
        advice: &'static str,
    },
    /// A file that was opened for reading alone was to be written.
    #[error("{} is only read: it is not written", path.display())]
    ReadOnly {
        /// The file.
        path: Arc<Path>,
    },
    /// A source was to be read into memory that others fill at the same time.
    #[error("{} is read in place, into memory of its own alone: read the rest when that is done", path.display())]
    SharedMemory {
        /// The file.
        path: Arc<Path>,
    },
    /// There is no memory for what a source's sectors are read into.
    #[error(
        "no {bytes} bytes of the slab are free for the sectors of a file that is read in place: give it more memory"
    )]
    NoBounce {
        /// Bytes of one block.
        bytes: u64,
    },
    /// A call that concerns no single file failed.
    #[error("{call}: {source}")]
    Call {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a block, or went on refusing it for a moment until `attempts` ran out.
    #[error(
        "cannot {operation} {bytes} bytes at {offset} of {}: {source} ({attempts} attempts){}",
        path.display(), advice::for_file(source)
    )]
    Transfer {
        /// What was being done.
        operation: Operation,
        /// The file.
        path: Arc<Path>,
        /// Where the block begins in the file.
        offset: u64,
        /// Bytes of the block.
        bytes: u64,
        /// How often it was tried.
        attempts: u32,
        /// What the kernel said; its `raw_os_error` is the errno.
        source: io::Error,
    },
    /// The file ends before the range does.
    #[error(
        "{} ends too early: {missing_bytes} of the {bytes} bytes at {offset} are missing; the file was truncated or \
         is another one", path.display()
    )]
    EndOfFile {
        /// The file.
        path: Arc<Path>,
        /// Where the block begins in the file.
        offset: u64,
        /// Bytes of the block.
        bytes: u64,
        /// Bytes of it that are not there.
        missing_bytes: u64,
    },
    /// The drive took nothing, again and again, and said no error.
    #[error("writing {bytes} bytes at {offset} of {}: only {done_bytes} were taken in {attempts} attempts", path.display())]
    Stuck {
        /// The file.
        path: Arc<Path>,
        /// Where the block begins in the file.
        offset: u64,
        /// Bytes of the block.
        bytes: u64,
        /// Bytes that were taken.
        done_bytes: u64,
        /// How often it was tried.
        attempts: u32,
    },
    /// A range is not what direct I/O can move.
    #[error(
        "the range of {bytes} bytes at {offset} of {}, at {buffer_offset} of the memory: not all multiples of \
         {alignment_bytes}", path.display()
    )]
    Misaligned {
        /// The file.
        path: Arc<Path>,
        /// Where in the file.
        offset: u64,
        /// How many bytes.
        bytes: u64,
        /// Where in the memory.
        buffer_offset: u64,
        /// What all three must be multiples of.
        alignment_bytes: u64,
    },
    /// A range lies outside the request's memory, or outside what a file offset can say.
    #[error(
        "the range of {bytes} bytes at {offset} of {}, at {buffer_offset} of the memory, does not fit \
         (the memory has {capacity_bytes} bytes)", path.display()
    )]
    OutOfRange {
        /// The file.
        path: Arc<Path>,
        /// Where in the file.
        offset: u64,
        /// How many bytes.
        bytes: u64,
        /// Where in the memory.
        buffer_offset: u64,
        /// Bytes of the memory, padding included.
        capacity_bytes: u64,
    },
    /// The file is not open in this backend.
    #[error("file number {file} is not open")]
    UnknownFile {
        /// Its number.
        file: u32,
    },
    /// A file cannot be closed while requests use it.
    #[error("{} cannot be closed: {requests} requests still use it; wait for them", path.display())]
    FileInUse {
        /// The file.
        path: Arc<Path>,
        /// How many requests.
        requests: u32,
    },
    /// Too many files.
    #[error("{} cannot be opened: {limit} files are open already", path.display())]
    TooManyFiles {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u32,
    },
    /// A request with this id has not come back yet.
    #[error("request {id} is under way already")]
    DuplicateId {
        /// The id.
        id: RequestId,
    },
    /// The caller abandoned the request before all of it was done.
    #[error("request {id} was abandoned")]
    Abandoned {
        /// The id.
        id: RequestId,
    },
    /// A file operation failed.
    #[error("cannot {operation} {}: {source}{}", path.display(), advice::for_file(source))]
    File {
        /// What was being done.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said; its `raw_os_error` is the errno.
        source: io::Error,
    },
    /// The drive did not answer in time. The memory of what is in flight stays with the kernel: it is leaked, never
    /// unmapped.
    #[error(
        "{in_flight} blocks are still in flight after {deadline:?}: the drive does not answer; see dmesg"
    )]
    NotDrained {
        /// Blocks that the kernel still has.
        in_flight: usize,
        /// How long was waited.
        deadline: Duration,
    },
    /// The backend failed before, or its thread has ended.
    #[error("the I/O thread has stopped: {cause}")]
    Stopped {
        /// What stopped it.
        cause: String,
    },
    /// Memory for the backend itself.
    #[error(transparent)]
    Memory(#[from] hoist_memory::Error),
}

impl Error {
    /// [`Error::NoRing`] with who refuses.
    pub(crate) fn no_ring(call: &'static str, source: io::Error) -> Error {
        let advice = advice::for_ring(&source);
        Error::NoRing { call, source, advice }
    }
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
