//! What can go wrong with a store.

use crate::{Problem, RanksError, Span};
use std::path::PathBuf;

/// What went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The config is wrong; every problem at once.
    #[error("the store's config is wrong: {}", list(.0))]
    Config(Vec<Problem>),
    /// A tensor cannot be created as it was given.
    #[error("tensor {tensor:?} cannot be created: {what}")]
    BadTensor {
        /// Its name.
        tensor: String,
        /// What is wrong with it.
        what: String,
    },
    /// Another process, or another opening in this one, has the store.
    #[error(
        "{} is in use by process {pid}: close it there, or wait for it, and for children that it forked, to end",
        .directory.display()
    )]
    Locked {
        /// The directory whose lock is held.
        directory: PathBuf,
        /// The process that wrote the lock file; "unknown" when it could not be read.
        pid: String,
    },
    /// Somebody reads the store, and another opener was to write it.
    #[error("{} is being read: wait until all readers have closed it", .directory.display())]
    BeingRead {
        /// The directory whose lock is shared.
        directory: PathBuf,
    },
    /// A store is there already.
    #[error("{} holds a store already: open it, choose another directory, or remove this one", .directory.display())]
    Exists {
        /// The directory.
        directory: PathBuf,
    },
    /// The file system has too little room for the store.
    #[error(
        "a store in {} needs {need_bytes} bytes and its file system has {free_bytes} free: make room, or spread it \
         over more directories", .directory.display()
    )]
    NoRoom {
        /// The directory.
        directory: PathBuf,
        /// Bytes of its part of the store.
        need_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// There is no store.
    #[error("{} holds no store: {what}; create or import one, or check the path", .directory.display())]
    NoStore {
        /// The directory.
        directory: PathBuf,
        /// What is missing.
        what: String,
    },
    /// The store was written in another version of the format.
    #[error("{} has format version {found}, this hoist reads version {supported}: use the hoist that wrote it", .path.display())]
    OtherVersion {
        /// The journal.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// What this build reads.
        supported: u32,
    },
    /// The directories given are not those of one store.
    #[error("the directories given are not one store's: {what}")]
    Directories {
        /// Which are missing, foreign or given twice.
        what: String,
    },
    /// The journal is damaged in a way that a cut-off write cannot explain.
    #[error("the journal in {} is damaged: {what}; restore it from its mirror or a backup", .directory.display())]
    Damaged {
        /// The directory.
        directory: PathBuf,
        /// What shows it.
        what: String,
    },
    /// No free extents.
    #[error(
        "{span} needs {need_bytes} bytes and the store has {free_bytes} free for it: commit, or create a larger store \
         (for a model's tensors in place: one with more room for them)"
    )]
    NoSpace {
        /// What was to be written.
        span: Span,
        /// Bytes that it needs.
        need_bytes: u64,
        /// Bytes that are free in the directories that take writes.
        free_bytes: u64,
    },
    /// At durability `none` a write over bytes of a model's file was asked for.
    #[error(
        "{span} lies in a model's file: with durability \"none\" a write that is lost would leave the file's bytes there; \
         open the store with \"step\" or \"snapshot\", or import the model"
    )]
    InModel {
        /// What was to be written.
        span: Span,
    },
    /// The span is not one that may be read or written by itself, or slot or checksums do not fit it.
    #[error("{span}: {what}")]
    BadSpan {
        /// The span.
        span: Span,
        /// What does not fit.
        what: String,
    },
    /// The span was never written, or is not whole: nothing to read.
    #[error(
        "{span} has no bytes: it was never written (scratch and derived: not since the store was opened)"
    )]
    NoBytes {
        /// The span.
        span: Span,
    },
    /// Not all of the store's directories are there.
    #[error(
        "{span} has no bytes in the directories that were given, and these are missing: {directories}; \
             the newest epoch may be told of in them alone"
    )]
    Missing {
        /// The span.
        span: Span,
        /// Their names when the store was made.
        directories: String,
    },
    /// A write overlaps one in flight.
    #[error("{span} is being written: wait for that write")]
    Busy {
        /// The span.
        span: Span,
    },
    /// A commit was asked for while one is under way, or while writes of its epoch are.
    #[error("epoch {epoch} cannot be committed yet: {what}")]
    NotYet {
        /// The epoch that was to be made.
        epoch: u64,
        /// What it must wait for.
        what: String,
    },
    /// A commit failed, and was not rolled back, or could not be: a drive may hold its record.
    #[error(
        "an earlier commit failed ({cause}): nothing durable is written until it is rolled back, or the store opened again"
    )]
    Poisoned {
        /// The failed commit's error.
        cause: String,
    },
    /// What was written in place cannot be taken back.
    #[error("durable tensors were written at durability \"none\": there is nothing to roll back to")]
    InPlace,
    /// The store is open at a snapshot.
    #[error(
        "the store is open at snapshot {snapshot:?}, which does not change: open it without one to write"
    )]
    ReadOnly {
        /// Its name.
        snapshot: String,
    },
    /// The store is open beside other readers.
    #[error("the store is open to be read alone: open it without sharing it to write")]
    ReadAlone,
    /// The stores of several ranks do not make one whole.
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// The store is another rank's.
    #[error("the store is rank {} of {}'s, and rank {} of {} was to open it: check store.rank and store.world_size",
        .found.0, .found.1, .asked.0, .asked.1)]
    Rank {
        /// Rank and number of ranks of the store.
        found: (u32, u32),
        /// Those of the config.
        asked: (u32, u32),
    },
    /// The store cannot be opened at this epoch.
    #[error("the store has no epoch {asked} any more, or not yet: it can be opened at {}",
        .epochs.iter().map(u64::to_string).collect::<Vec<_>>().join(" and "))]
    NoEpoch {
        /// What was asked for.
        asked: u64,
        /// What there is.
        epochs: Vec<u64>,
    },
    /// There is no such snapshot.
    #[error("there is no snapshot {name:?}: there {}", if .others.is_empty() { "are none".into() } else { format!("is {others}") })]
    NoSnapshot {
        /// What was asked for.
        name: String,
        /// Those that there are.
        others: String,
    },
    /// No snapshot can be made under this name.
    #[error("a snapshot cannot be called {name:?}: {what}")]
    BadSnapshotName {
        /// The name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// Writes go in place.
    #[error(
        "no snapshot can be made at durability \"none\", where bytes are written over those of the newest epoch: open the \
         store with \"step\" or \"snapshot\""
    )]
    NoSnapshots,
    /// The scalars of a step are too large.
    #[error(
        "the scalars of a step have {bytes} bytes: {} at most; keep larger values as tensors",
        crate::SCALARS_BYTES_MAX
    )]
    LargeScalars {
        /// Bytes of their names and values.
        bytes: usize,
    },
    /// At durability `snapshot`: bytes could not be written, and no epoch is made of the rest.
    #[error(
        "{what} could not be written, {spans} in all, so that nothing of what was written since the last snapshot is kept: \
         the store opens at that"
    )]
    Unsaved {
        /// Tensor and place of the first.
        what: String,
        /// How many spans.
        spans: usize,
    },
    /// At durability `none`: bytes could not be written, and the store is closed without them.
    #[error(
        "{what} could not be written, {spans} in all: the store has no bytes there any more, all else is kept; \
         restore them from a backup"
    )]
    Lost {
        /// Tensor and place of the first.
        what: String,
        /// How many spans.
        spans: usize,
    },
    /// A record does not fit the format.
    #[error("a record of the journal cannot be written: {0}")]
    Format(#[from] hoist_format::Error),
    /// The journal's records for an epoch do not fit memory.
    #[error("no memory for journal records: {0}")]
    Memory(#[from] hoist_memory::Error),
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] hoist_io::Error),
    /// Bytes read are not those written.
    #[error(
        "the bytes of {what} do not match their checksums: restore the tensor from a backup (`hoist verify` lists all)"
    )]
    Corrupt {
        /// Tensor and place.
        what: String,
    },
    /// A file outside the store could not be read or written.
    #[error("{doing} {}: {source}", .path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is no valid safetensors file.
    #[error("{} is no valid safetensors file: {what}", .path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file whose bytes a store has in place is not what it was.
    #[error(
        "{} is not the file that this store was made over: {what}; put that file back, or make the store anew",
        .path.display()
    )]
    SourceChanged {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A directory that was given as a model holds none.
    #[error(
        "{} holds neither model.safetensors.index.json nor model.safetensors: name the model's file or index itself",
        .directory.display()
    )]
    NoModel {
        /// The directory.
        directory: PathBuf,
    },
    /// A model's shards cannot have this index.
    #[error("{} cannot be used as an index of safetensors files: {what}", .path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A shard is not what its model's index says.
    #[error(
        "{} does not go with its index {}: {what}; get both again from where they came, as one version of the model",
        .path.display(), .index.display()
    )]
    Shard {
        /// The shard.
        path: PathBuf,
        /// The index.
        index: PathBuf,
        /// What differs.
        what: String,
    },
    /// What an export would write is there already, or would be taken for a part of it.
    #[error("{} is there already and does not go with what is exported: remove it, or choose another name", .path.display())]
    InTheWay {
        /// What is there.
        path: PathBuf,
    },
    /// A tool's slab is too small.
    #[error("{need_bytes} bytes of slab are needed and {free_bytes} are free: give the tool a larger budget")]
    NoMemory {
        /// Bytes of the smallest step.
        need_bytes: u64,
        /// Free bytes.
        free_bytes: u64,
    },
}

fn list(problems: &[Problem]) -> String {
    let lines =
        problems.iter().map(|p| format!("{}: {} (right would be {})", p.key, p.what, p.would_be_right));
    lines.collect::<Vec<_>>().join("; ")
}
