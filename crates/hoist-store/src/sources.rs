//! Files outside the store that hold bytes of its tensors: what lies where in them, and what is known of it.

use crate::bundle::Layout;
use crate::{Error, RunId, TensorId};
use hoist_format::{CHECKSUM_BYTES, SourcePlace, SourceRecord, TouchRecord};
use hoist_io::{FileId, IoThread};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The files, and the places of tensors in them.
#[derive(Default)]
pub(crate) struct Sources {
    pub files: Vec<SourceRecord>,
    pub places: BTreeMap<TensorId, SourcePlace>,
}

/// Bytes of a run that lie in a source.
pub(crate) struct SourceRange {
    pub source: u32,
    /// Where they start in the file.
    pub offset: u64,
    /// Where they start in the run.
    pub at: u64,
    pub bytes: u64,
}

impl Layout {
    /// Whether bytes that the store has not itself lie in sources: of all tensors of a run, or of none.
    pub fn is_sourced(&self, run: RunId) -> bool {
        let first = self.runs[run.0 as usize].tensors.first();
        first.is_some_and(|tensor| self.sources.places.contains_key(tensor))
    }

    /// What of `from..to` of a run lies in sources, in order: all but what is between tensors.
    pub fn source_ranges(&self, run: RunId, from: u64, to: u64) -> impl Iterator<Item = SourceRange> {
        let tensors = &self.runs[run.0 as usize].tensors[..];
        let start = |id: &TensorId| self.tensors[id.0 as usize].offset;
        // The last that starts before may reach into it: of those that start together all but the last are empty.
        let first = tensors.partition_point(|id| start(id) <= from).saturating_sub(1);
        tensors[first..].iter().take_while(move |id| start(id) < to).filter_map(move |id| {
            let info = &self.tensors[id.0 as usize];
            let SourcePlace { source, offset } = *self.sources.places.get(id)?;
            let (at, end) = (info.offset.max(from), (info.offset + info.bytes).min(to));
            let skipped = at - info.offset;
            (at < end).then(|| SourceRange { source, offset: offset + skipped, at, bytes: end - at })
        })
    }
}

/// Checksums of what lies in sources, as it was when it was read first, by block. They are of no epoch: the files do not
/// change. By block alone, as a journal may name any.
#[derive(Default, Clone)]
pub(crate) struct Touched {
    checksums: BTreeMap<(RunId, u64), u64>,
}

impl Touched {
    pub fn is_empty(&self) -> bool {
        self.checksums.is_empty()
    }

    /// The checksum of a block of a run, if it is known.
    pub fn get(&self, run: RunId, block: u64) -> Option<u64> {
        self.checksums.get(&(run, block)).copied()
    }

    /// Learns the checksum of a block.
    pub fn set(&mut self, run: RunId, block: u64, checksum: u64) {
        self.checksums.insert((run, block), checksum);
    }

    /// Learns what another knows.
    pub fn extend(&mut self, other: &Touched) {
        self.checksums.extend(other.checksums.iter().map(|(place, checksum)| (*place, *checksum)));
    }

    /// All that is known, a record for each row of at most so many blocks.
    pub fn records(&self, blocks_max: usize) -> Vec<TouchRecord> {
        let mut records: Vec<TouchRecord> = Vec::new();
        for ((run, block), checksum) in &self.checksums {
            let offset = block * CHECKSUM_BYTES;
            let end = |last: &TouchRecord| last.offset + last.checksums.len() as u64 * CHECKSUM_BYTES;
            match records.last_mut() {
                Some(last)
                    if (last.run, end(last)) == (run.0, offset) && last.checksums.len() < blocks_max =>
                {
                    last.checksums.push(*checksum);
                }
                _ => records.push(TouchRecord { run: run.0, offset, checksums: vec![*checksum] }),
            }
        }
        records
    }
}

/// The sources, open.
pub(crate) struct OpenSources {
    pub io: IoThread,
    /// In the order of the records; why one is not open.
    pub files: Vec<Result<OpenSource, String>>,
}

/// A source.
pub(crate) struct OpenSource {
    pub id: FileId,
    /// The same, to be asked whether it was changed.
    pub file: File,
}

/// What a file is known by in a store.
///
/// # Errors
/// [`Error::File`]; [`Error::Safetensors`] for a path that is no text.
pub(crate) fn record(path: &Path, file: &File) -> Result<SourceRecord, Error> {
    let failed = |source| Error::File { doing: "finding", path: path.to_owned(), source };
    let metadata = file.metadata().map_err(failed)?;
    let path = path.canonicalize().map_err(failed)?;
    let Some(text) = path.to_str().map(str::to_owned) else {
        let what = "a store can only name files whose paths are UTF-8: rename it".to_owned();
        return Err(Error::Safetensors { path, what });
    };
    let (mtime, inode) = ((metadata.mtime(), metadata.mtime_nsec() as u32), metadata.ino());
    Ok(SourceRecord { path: text, bytes: metadata.len(), mtime, inode })
}

/// A source, if it is what it was when the store was made; else what differs.
///
/// # Errors
/// The text says what differs, or why it cannot be opened.
pub(crate) fn open(source: &SourceRecord) -> Result<File, String> {
    let file = File::open(&source.path).map_err(|error| error.to_string())?;
    check(source, &file).map(|()| file)
}

/// Whether an open source is what it was when the store was made.
///
/// # Errors
/// The text says what differs.
pub(crate) fn check(source: &SourceRecord, file: &File) -> Result<(), String> {
    let found = file.metadata().map_err(|error| error.to_string())?;
    if found.len() != source.bytes {
        Err(format!("it has {} bytes, and had {}", found.len(), source.bytes))
    } else if (found.mtime(), found.mtime_nsec() as u32) != source.mtime {
        Err("it was written to since".to_owned())
    } else if found.ino() != source.inode {
        Err("it is another file of the same size and time".to_owned())
    } else {
        Ok(())
    }
}
