//! The seam: what every way of moving bytes can do.

use crate::faults::Faults;
use crate::uring::Uring;
use crate::{
    BackendChoice, Completion, Config, Error, FileId, Obtained, Priority, Request, RequestId, Waker, pread,
    tokio_uring,
};
use hoist_memory::Slab;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whether [`Backend::reap`] waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Takes what is there.
    No,
    /// Returns when a request is done, or when a [`Waker`] was used since the last wait. A wrapper may return earlier,
    /// with nothing: whoever waits looks, and waits again.
    UntilSomething,
    /// The same, but no longer than this.
    AtMost(Duration),
}

impl Wait {
    /// When the wait ends at the latest.
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            Wait::AtMost(duration) => Instant::now().checked_add(duration),
            Wait::No | Wait::UntilSomething => None,
        }
    }

    /// This wait, cut short.
    pub(crate) fn limited(self, limit: Option<Duration>) -> Wait {
        match (self, limit) {
            (Wait::UntilSomething, Some(limit)) => Wait::AtMost(limit),
            (Wait::AtMost(duration), Some(limit)) => Wait::AtMost(duration.min(limit)),
            (wait, _) => wait,
        }
    }
}

/// An operation on a file or folder. Synchronous: it is done when the call returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp {
    /// Opens for reading and writing, CLOEXEC. Answered with [`FileReply::Opened`].
    Open {
        /// The file.
        path: PathBuf,
        /// Make it, with mode 0600, if it is not there.
        create: bool,
        /// Past the page cache if the file system can; else buffered, noted in [`Backend::obtained`].
        direct: bool,
    },
    /// Like `Open` with `direct`, for reading alone: a file of one's own that nothing must change. Answered with
    /// [`FileReply::Opened`].
    OpenRead {
        /// The file.
        path: PathBuf,
    },
    /// Opens for reading alone, past the page cache if the file system can, CLOEXEC: a file of somebody else's, whose
    /// ranges begin and end anywhere. Past the page cache a transfer takes whole sectors, into memory of the slab that the
    /// backend keeps for it from then on ([`Obtained::bounce_bytes`]), and the bytes asked for are copied from there; so a
    /// request reads into memory that nobody else fills. Fewer blocks are under way from then on where the slab is small.
    /// Answered with [`FileReply::Opened`].
    OpenSource {
        /// The file.
        path: PathBuf,
    },
    /// Closes a file that no request uses.
    Close(FileId),
    /// fallocate: blocks for these bytes, the file grown to hold them.
    Allocate {
        /// The file.
        file: FileId,
        /// The first byte.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// Cuts the file, or grows it with a hole.
    Truncate {
        /// The file.
        file: FileId,
        /// Its new length.
        bytes: u64,
    },
    /// Renames a file over another. Durable after [`FileOp::SyncDir`].
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new name.
        to: PathBuf,
    },
    /// Removes a file. Durable after [`FileOp::SyncDir`].
    Remove {
        /// The file.
        path: PathBuf,
    },
    /// fsync of a folder: names that changed in it are on the drive.
    SyncDir {
        /// The folder.
        path: PathBuf,
    },
    /// The file's length. Answered with [`FileReply::Length`].
    Length {
        /// The file.
        file: FileId,
    },
}

/// What an operation answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileReply {
    /// The file that was opened.
    Opened {
        /// Its number.
        file: FileId,
        /// Its length.
        bytes: u64,
        /// Whether transfers pass by the page cache.
        direct: bool,
    },
    /// A length in bytes.
    Length(u64),
    /// It is done.
    Done,
}

impl FileReply {
    /// The file that was opened.
    ///
    /// # Panics
    /// When the operation was another: that is the caller's mistake.
    #[must_use]
    pub fn file(self) -> FileId {
        match self {
            FileReply::Opened { file, .. } => file,
            other => panic!("{other:?} is not the reply to an opening"),
        }
    }

    /// The length, of [`FileOp::Length`] or [`FileOp::Open`].
    ///
    /// # Panics
    /// When the operation was another: that is the caller's mistake.
    #[must_use]
    pub fn length_bytes(self) -> u64 {
        match self {
            FileReply::Opened { bytes, .. } | FileReply::Length(bytes) => bytes,
            FileReply::Done => panic!("Done is not the reply to Length"),
        }
    }
}

/// Moves file ranges into memory and back. Used by one thread, the one that opened it.
///
/// Every request that is pushed comes back exactly once, with its memory, from [`Backend::reap`] or
/// [`Backend::drain`]. Dropping a backend abandons what is queued and waits for what is in flight; if the drive does
/// not answer, the memory is leaked rather than unmapped.
pub trait Backend {
    /// Queues a request. A request that cannot be done (misaligned, outside its memory, a file that is not open)
    /// comes back with the error.
    fn push(&mut self, request: Request);

    /// Moves a queued request to the end of another priority's queue; its blocks in flight are not touched. Nothing
    /// happens when it has come back already, or has that priority.
    fn promote(&mut self, id: RequestId, priority: Priority);

    /// Gives up on a request: no further block of it is started, and when none is in flight it comes back, with
    /// [`Error::Abandoned`] unless all of it was done. Nothing happens when it has come back already.
    fn abandon(&mut self, id: RequestId);

    /// Hands as many blocks to the kernel as the depth allows, strictly by priority.
    ///
    /// # Errors
    /// When the ring itself fails, from then on every time; a failing file is its request's error.
    fn submit(&mut self) -> Result<(), Error>;

    /// Does what `submit` does, in the same system call where there is one, and appends the requests that are done,
    /// in the order in which they were.
    ///
    /// # Errors
    /// When the ring itself fails, from then on every time: what is left then comes back from [`Backend::drain`].
    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>) -> Result<(), Error>;

    /// What makes a waiting `reap` return, from any thread.
    fn waker(&self) -> Waker;

    /// Blocks that the kernel has.
    fn in_flight(&self) -> usize;

    /// Does a file operation, now.
    ///
    /// # Errors
    /// [`Error::File`] with operation, path and errno, [`Error::UnknownFile`], [`Error::FileInUse`].
    fn file(&mut self, op: FileOp) -> Result<FileReply, Error>;

    /// Finishes everything that was pushed, and appends it to `done`. As long as blocks end, it goes on: the deadline
    /// is for a drive that gives no sign of life.
    ///
    /// # Errors
    /// [`Error::NotDrained`] when no block has ended for `deadline`: then no further block is started, what was queued
    /// comes back abandoned, and dropping the backend leaks what is in flight. When the ring has failed, its error:
    /// nothing was started any more, and what does not come back is leaked likewise.
    fn drain(&mut self, deadline: Duration, done: &mut Vec<Completion>) -> Result<(), Error>;

    /// What the machine gave.
    fn obtained(&self) -> &Obtained;
}

/// Opens a backend on the thread that will drive it (a ring belongs to its thread: SINGLE_ISSUER). The slab's pieces
/// are registered with the ring where the kernel lets us; slots of another slab work too, unregistered.
///
/// # Errors
/// [`Error::Config`] with every problem; [`Error::NoRing`] when io_uring was asked for and cannot be had.
pub fn open(config: &Config, slab: &Arc<Slab>) -> Result<Box<dyn Backend>, Error> {
    open_with(config, slab, None)
}

/// Like [`open`]; blocks meet the faults, if there are such, on their way to the kernel.
pub(crate) fn open_with(
    config: &Config,
    slab: &Arc<Slab>,
    faults: Option<&Faults>,
) -> Result<Box<dyn Backend>, Error> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(Error::Config(problems));
    }
    slab.check_owner()?;
    match config.backend {
        BackendChoice::Pread => Ok(Box::new(pread::open(config, slab, Obtained::default(), faults)?)),
        BackendChoice::Uring => Ok(Box::new(Uring::open(config, slab, faults)?)),
        BackendChoice::TokioUring => {
            Ok(Box::new(tokio_uring::open(config, slab, Obtained::default(), faults)?))
        }
        BackendChoice::Auto => match Uring::open(config, slab, faults) {
            Ok(ring) => Ok(Box::new(ring)),
            Err(error) => {
                let mut obtained = Obtained::default();
                obtained.step_down(format!("pread instead of io_uring: {error}"));
                Ok(Box::new(pread::open(config, slab, obtained, faults)?))
            }
        },
    }
}
