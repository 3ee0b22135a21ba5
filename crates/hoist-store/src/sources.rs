//! Files outside the store that hold bytes of its tensors: what lies where in them, and whether they are what they were.

use crate::blocking_io::Switch;
use crate::bundle::Layout;
use crate::open::Threads;
use crate::{Error, RunId, TensorId};
use hoist_format::{SourcePlace, SourceRecord};
use hoist_io::{Completion, FileId, FileOp, IoThread};
use std::collections::BTreeMap;
use std::fs::File;
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

/// Opens the sources on a thread of their own, which is in the place behind those of the directories. None for a store
/// that has no sources. One that is not there, or not what it was, is left out: who needs it hears why.
///
/// # Errors
/// What the thread says.
pub(crate) fn open_sources<D>(
    sources: &[SourceRecord],
    threads: &Threads<'_, D>,
    place: usize,
    switch: &Switch,
) -> Result<Option<OpenSources>, Error>
where
    D: Fn(Completion) + Send + Clone + 'static,
{
    if sources.is_empty() {
        return Ok(None);
    }
    let io = (threads.start)(place, Box::new(switch.deliver_to(threads.deliver.clone())))?;
    let mut files = Vec::with_capacity(sources.len());
    for source in sources {
        files.push(match open(source) {
            Ok(file) => {
                let id = io.file(FileOp::OpenSource { path: PathBuf::from(&source.path) })?.file();
                // Another may have taken its place in between.
                open(source).map(|_| OpenSource { id, file })
            }
            Err(what) => Err(what),
        });
        if let Some(Err(what)) = files.last() {
            tracing::error!(source = source.path, what, "a file in place is not what it was: it is not read");
        }
    }
    Ok(Some(OpenSources { io, files }))
}

impl OpenSources {
    /// Whether all are what they were.
    ///
    /// # Errors
    /// [`Error::SourceChanged`].
    pub fn check_all(&self, records: &[SourceRecord]) -> Result<(), Error> {
        (0..).zip(records).try_for_each(|(number, record)| self.check(number, record))
    }

    /// Whether one is still what it was.
    ///
    /// # Errors
    /// [`Error::SourceChanged`].
    pub fn check(&self, number: u32, record: &SourceRecord) -> Result<(), Error> {
        let what = match &self.files[number as usize] {
            Ok(open) => check(record, &open.file).err(),
            Err(what) => Some(what.clone()),
        };
        let path = || PathBuf::from(&record.path);
        what.map_or(Ok(()), |what| Err(Error::SourceChanged { path: path(), what }))
    }
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
