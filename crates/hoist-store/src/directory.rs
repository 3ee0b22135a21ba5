//! One directory of a store: its lock, its I/O thread, its segments and its journals.

use crate::free_space::{FreeSpace, occupied};
use crate::lock::Lock;
use crate::{Error, SEGMENT_GRAIN_BYTES};
use hoist_format::Extent;
use hoist_io::{FileId, FileOp, FileRange, IoThread, Request};
use hoist_memory::AlignedBuffer;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The two journals of a directory: one is in use, the next image goes to the other. Swapping them needs no new name,
/// so a commit never waits for a folder to be synced.
pub(crate) const JOURNAL_NAMES: [&str; 2] = ["0000.journal", "0001.journal"];

/// Room for epochs behind an image, at least: 256 small epochs.
pub(crate) const JOURNAL_ROOM_BYTES_MIN: u64 = 1 << 20;

/// A file of data.
pub(crate) struct Segment {
    pub file: FileId,
    /// Durable bytes were written since it was last synced for a commit.
    pub dirty: bool,
}

/// Where the journal in use ends.
#[derive(Default)]
pub(crate) struct Journals {
    pub files: [Option<FileId>; 2],
    pub active: usize,
    pub tail: u64,
    pub capacity: u64,
    /// Kept between commits.
    pub buffer: Option<AlignedBuffer>,
}

/// One directory, open. Declared in the order in which it must be dropped: the lock last.
pub(crate) struct Directory {
    pub path: PathBuf,
    pub io: IoThread,
    pub segments: Vec<Segment>,
    pub free: FreeSpace,
    pub journals: Journals,
    pub _lock: Lock,
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

/// Sizes of segments for `bytes`: as large as allowed, the last one rounded up to the grain.
pub(crate) fn segment_sizes(bytes: u64, segment_bytes_max: u64) -> Vec<u64> {
    let mut sizes = vec![segment_bytes_max; (bytes / segment_bytes_max) as usize];
    let rest = bytes % segment_bytes_max;
    if rest > 0 {
        sizes.push(rest.next_multiple_of(SEGMENT_GRAIN_BYTES).min(segment_bytes_max));
    }
    sizes
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
    /// Opens a file of the directory for direct I/O.
    pub fn open_file(&self, path: PathBuf, create: bool) -> Result<(FileId, u64), Error> {
        let reply = self.io.file(FileOp::Open { path, create, direct: true })?;
        Ok((reply.file(), reply.length_bytes()))
    }

    /// Ranges of the files that hold `extents`, for memory from its start on; whole pages of 4096.
    pub fn ranges(&self, extents: impl Iterator<Item = Extent>, ranges: &mut Vec<FileRange>) {
        let mut buffer_offset = 0;
        ranges.clear();
        ranges.extend(extents.map(|extent| {
            let Extent { segment, offset, bytes } = extent;
            let file = self.segments[segment as usize].file;
            let range = FileRange { file, offset, bytes: occupied(bytes), buffer_offset };
            buffer_offset += bytes;
            range
        }));
    }

    /// Hands a request to the thread.
    pub fn push(&self, request: Request) {
        self.io.push(request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_fit_the_need() {
        let (mib, gib) = (1 << 20, 1 << 30);
        assert_eq!(segment_sizes(0, gib), Vec::<u64>::new());
        assert_eq!(segment_sizes(1, gib), [64 * mib]);
        assert_eq!(segment_sizes(2 * gib + 65 * mib, gib), [gib, gib, 128 * mib]);
        assert_eq!(segment_sizes(3 * mib + 1, mib), [mib; 4]);
    }
}
