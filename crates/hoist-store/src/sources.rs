//! Files outside the store that hold bytes of its tensors: what lies where in them, and what is known of it.

use crate::bundle::Layout;
use crate::ranges::Ranges;
use crate::{Error, RunId, TensorId};
use hoist_format::{CHECKSUM_BYTES, SourcePlace, SourceRecord, blocks};
use hoist_io::{FileId, IoThread};
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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

/// Checksums of what lies in sources, as it was when it was read first. They are of no epoch: the files do not change.
#[derive(Default, Clone)]
pub(crate) struct Touched {
    runs: BTreeMap<RunId, TouchedRun>,
}

#[derive(Default, Clone)]
struct TouchedRun {
    /// The bytes whose checksums are known: whole blocks.
    known: Ranges,
    /// One per block of the run.
    checksums: Vec<u64>,
}

impl Touched {
    /// The checksum of a block, if it is known.
    pub fn get(&self, run: RunId, block: usize) -> Option<u64> {
        let touched = self.runs.get(&run)?;
        let offset = block as u64 * CHECKSUM_BYTES;
        let (_, _, known) = *touched.known.split(offset, offset + 1).first()?;
        known.then(|| touched.checksums[block])
    }

    /// Learns the checksum of a block, which reaches from `offset` to `end`, of a run of `run_bytes`.
    pub fn set(&mut self, run: RunId, run_bytes: u64, block: usize, checksum: u64) {
        let touched = self.runs.entry(run).or_default();
        touched.checksums.resize(blocks(run_bytes), 0);
        touched.checksums[block] = checksum;
        let offset = block as u64 * CHECKSUM_BYTES;
        touched.known.insert(offset, (offset + CHECKSUM_BYTES).min(run_bytes));
    }

    /// Learns what another knows.
    pub fn extend(&mut self, other: &Touched) {
        for (run, touched) in &other.runs {
            let own = self.runs.entry(*run).or_default();
            own.checksums.resize(touched.checksums.len(), 0);
            for (from, to) in touched.known.iter() {
                let blocks = (from / CHECKSUM_BYTES) as usize..blocks(to);
                own.checksums[blocks.clone()].copy_from_slice(&touched.checksums[blocks]);
                own.known.insert(from, to);
            }
        }
    }

    /// All that is known: runs and ranges of them.
    pub fn all(&self) -> impl Iterator<Item = (RunId, u64, u64)> {
        self.runs.iter().flat_map(|(run, touched)| touched.known.iter().map(|(from, to)| (*run, from, to)))
    }

    /// The checksums of a range that is known.
    pub fn checksums(&self, run: RunId, from: u64, to: u64) -> &[u64] {
        let blocks = (from / CHECKSUM_BYTES) as usize..blocks(to);
        self.runs.get(&run).map_or(&[], |touched| &touched.checksums[blocks])
    }
}

/// The sources, open.
pub(crate) struct OpenSources {
    pub io: IoThread,
    /// In the order of the records.
    pub files: Vec<FileId>,
}

/// What a file is known by in a store.
///
/// # Errors
/// [`Error::File`]; [`Error::Safetensors`] for a path that is no text.
pub(crate) fn record(path: &Path) -> Result<SourceRecord, Error> {
    let failed = |source| Error::File { doing: "finding", path: path.to_owned(), source };
    let path = path.canonicalize().map_err(failed)?;
    let metadata = path.metadata().map_err(failed)?;
    let Some(text) = path.to_str().map(str::to_owned) else {
        let what = "a store can only name files whose paths are UTF-8: rename it".to_owned();
        return Err(Error::Safetensors { path, what });
    };
    let (mtime, inode) = ((metadata.mtime(), metadata.mtime_nsec() as u32), metadata.ino());
    Ok(SourceRecord { path: text, bytes: metadata.len(), mtime, inode })
}

/// Whether a source is what it was when the store was made.
///
/// # Errors
/// [`Error::SourceChanged`], [`Error::File`].
pub(crate) fn check(source: &SourceRecord) -> Result<PathBuf, Error> {
    let path = PathBuf::from(&source.path);
    let failed = |source| Error::File { doing: "finding", path: path.clone(), source };
    let found: Metadata = path.metadata().map_err(failed)?;
    let what = if found.len() != source.bytes {
        format!("it has {} bytes, and had {}", found.len(), source.bytes)
    } else if (found.mtime(), found.mtime_nsec() as u32) != source.mtime {
        "it was written to since".to_owned()
    } else if found.ino() != source.inode {
        "it is another file of the same size and time".to_owned()
    } else {
        return Ok(path);
    };
    Err(Error::SourceChanged { path, what })
}
