//! One directory of a store: its lock, its I/O thread, its free space and its journals.

use crate::Error;
use crate::free_space::FreeSpace;
use crate::lock::Lock;
use hoist_io::{FileId, FileOp, IoThread, Request};
use hoist_memory::AlignedBuffer;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The two journals of a directory: one is in use, the next image goes to the other. Swapping them needs no new name,
/// so a commit never waits for a folder to be synced.
pub(crate) const JOURNAL_NAMES: [&str; 2] = ["0000.journal", "0001.journal"];

/// Room for epochs behind an image, at least: 256 small epochs.
pub(crate) const JOURNAL_ROOM_BYTES_MIN: u64 = 1 << 20;

/// Where the journal in use ends.
#[derive(Default)]
pub(crate) struct Journals {
    pub files: [Option<FileId>; 2],
    pub active: usize,
    pub tail: u64,
    pub capacity: u64,
    /// A write to them failed: they stay at the epoch that they have until the store is opened again.
    pub behind: bool,
    /// Kept between commits.
    pub buffer: Option<AlignedBuffer>,
}

/// One directory, open. Declared in the order in which it must be dropped: the lock last.
pub(crate) struct Directory {
    pub path: PathBuf,
    pub io: IoThread,
    pub free: FreeSpace,
    pub journals: Journals,
    pub lock: Lock,
}

pub(crate) fn manifest(directory: &Path) -> PathBuf {
    directory.join("manifest")
}

pub(crate) fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

pub(crate) fn segment_path(directory: &Path, segment: u32) -> PathBuf {
    data(directory).join(format!("{segment:04}.seg"))
}

/// Makes a folder private to its owner, and those above it.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| Error::File {
        doing: "making folder",
        path: path.to_owned(),
        source,
    })
}

impl Journals {
    /// One of the two files.
    ///
    /// # Panics
    /// Before they are open.
    pub fn file(&self, place: usize) -> FileId {
        let Some(file) = self.files[place] else { panic!("journal {place} is used before it is open") };
        file
    }
}

impl Directory {
    /// Opens a file of the directory for direct I/O; where others read, to be read, and never made.
    pub fn open_file(&self, path: PathBuf, create: bool) -> Result<(FileId, u64), Error> {
        let op = if self.lock.is_shared() {
            FileOp::OpenRead { path }
        } else {
            FileOp::Open { path, create, direct: true }
        };
        let reply = self.io.file(op)?;
        Ok((reply.file(), reply.length_bytes()))
    }

    /// Hands a request to the thread.
    pub fn push(&self, request: Request) {
        self.io.push(request);
    }
}
