//! What the journal records. The order of fields and of variants is the format: `docs/format.md`.

use crate::Dtype;
use serde::{Deserialize, Serialize};

/// Names one store, on all its directories. Random, drawn when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoreId(pub u128);

impl std::fmt::Display for StoreId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The first record of a journal: which store, and which of its directories this copy lies in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The store.
    pub store: StoreId,
    /// The paths of all directories, as they were when the store was created.
    pub directories: Vec<String>,
    /// Which of `directories` holds this copy.
    pub directory: u32,
    /// For each directory the sizes of its data segments in bytes, in order of their files' names.
    pub segments: Vec<Vec<u64>>,
    /// Whose shards the store holds, from 0 on, and how many ranks there are.
    pub rank: u32,
    /// See `rank`.
    pub world_size: u32,
}

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// Weights of the model.
    Parameter,
    /// Gradients of the weights.
    Gradient,
    /// What the optimizer keeps: master weights, moments.
    OptimizerState,
    /// What the forward pass keeps for the backward pass.
    Activation,
}

impl Class {
    /// The name in config, docs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Class::Parameter => "parameter",
            Class::Gradient => "gradient",
            Class::OptimizerState => "optimizer_state",
            Class::Activation => "activation",
        }
    }
}

/// Whether epochs hold a run's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LifeKind {
    /// Belongs to epochs.
    Durable,
    /// Gone at close.
    Scratch,
    /// Kept like scratch, made again from durable tensors.
    Derived,
}

impl LifeKind {
    /// The name in docs and reports.
    pub fn name(self) -> &'static str {
        match self {
            LifeKind::Durable => "durable",
            LifeKind::Scratch => "scratch",
            LifeKind::Derived => "derived",
        }
    }
}

/// A run: bytes that lie together, one large shard or one bundle. Its number is its place among all run records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Length in bytes, without padding.
    pub bytes: u64,
    /// The class of all its tensors.
    pub class: Class,
    /// Whether epochs hold it.
    pub life: LifeKind,
    /// The group (layer) of all its tensors.
    pub group: String,
}

/// A tensor. Its number is its place among all tensor records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorRecord {
    /// The name, unique in the store.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, the slowest first; none for a scalar.
    pub shape: Vec<u64>,
    /// The run that holds it.
    pub run: u32,
    /// Where it starts in the run, in bytes.
    pub offset: u64,
    /// The number of the tensor that a derived one is cast of.
    pub cast_of: Option<u32>,
    /// Where its bytes are as long as the store has none of its own for them.
    pub source: Option<SourcePlace>,
    /// Which part of a larger tensor it is; `None`: it is the whole.
    pub shard: Option<ShardRecord>,
}

/// A place in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePlace {
    /// The number of the source, its place in all records of sources.
    pub source: u32,
    /// Where the tensor's bytes start in the file: any number.
    pub offset: u64,
}

/// A contiguous part of a tensor that several ranks share, its elements in order, the last dimension fastest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Dimensions of the whole tensor.
    pub shape: Vec<u64>,
    /// The number of the shard's first element in the whole.
    pub start: u64,
}

/// A file outside the store that holds bytes of its tensors, as it was when the store was made. It is only read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Its absolute path.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// When it was changed last: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Its inode.
    pub inode: u64,
}

/// Checksums of bytes that lie in a source, as they were when they were read first. They belong to no epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TouchRecord {
    /// The number of the run.
    pub run: u32,
    /// Where the bytes start in the run: a multiple of [`crate::CHECKSUM_BYTES`].
    pub offset: u64,
    /// One per [`crate::CHECKSUM_BYTES`] from there on.
    pub checksums: Vec<u64>,
}

/// A run of bytes in a data segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Extent {
    /// The number of the segment, among those of all directories: they follow each other as in [`Header::segments`].
    pub segment: u32,
    /// Where it starts in the segment: a multiple of 4096.
    pub offset: u64,
    /// Length in bytes, without the padding to 4096 that it occupies.
    pub bytes: u64,
}

/// A part of a run as some epochs have it; it replaces what earlier records said of these bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanRecord {
    /// The number of the run.
    pub run: u32,
    /// Where the span starts in the run: a multiple of [`crate::CHECKSUM_BYTES`].
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// Where its bytes are, in order. Their lengths add up to the span's; none at all: it has no bytes from then on.
    pub extents: Vec<Extent>,
    /// One per [`crate::CHECKSUM_BYTES`] of the span, if it has bytes.
    pub checksums: Vec<u64>,
    /// The batches in which these bytes came and went.
    pub life: Lifetime,
}

/// A small named value, committed with an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteRecord {
    /// The name.
    pub key: String,
    /// The value; `None`: there is none from then on.
    pub bytes: Option<Vec<u8>>,
    /// The batches in which it came and went.
    pub life: Lifetime,
}

/// From which batch on something was so, and until which: the first in which it is not. An epoch that a batch has made
/// has it if it was born in that batch or before and did not die before or in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetime {
    /// The first batch with it.
    pub born: u64,
    /// The first batch without it; `None`: the newest has it. Only the first batch of a journal tells of what has died.
    pub died: Option<u64>,
}

/// A committed state of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Its number.
    pub number: u64,
    /// The batch that made it.
    pub batch: u64,
    /// When that was written, in seconds since 1970.
    pub time_s: u64,
    /// The step that the trainer says has made it.
    pub step: u64,
    /// What else the trainer keeps with it: small values by name, in order of names.
    pub scalars: Vec<(String, Vec<u8>)>,
}

/// An epoch that is kept under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The name, unique in the store.
    pub name: String,
    /// The epoch.
    pub epoch: EpochRecord,
}

/// One record of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// First in every journal.
    Header(Header),
    /// Some of the runs, in order; the first has the number of run records before it.
    Runs(Vec<RunRecord>),
    /// Some of the tensors, in order.
    Tensors(Vec<TensorRecord>),
    /// Spans that this batch changes, or, in the first batch, that any epoch has.
    Spans(Vec<SpanRecord>),
    /// A note that this batch sets, or, in the first batch, that any epoch has.
    Note(NoteRecord),
    /// An epoch that is kept from now on.
    Snapshot(SnapshotRecord),
    /// The name of a snapshot that is not kept any more.
    SnapshotDeleted(String),
    /// Files outside the store, in order; they come before the tensors.
    Sources(Vec<SourceRecord>),
    /// Checksums of what lies in them, as far as it was read.
    Touched(Vec<TouchRecord>),
    /// Ends a batch: with it, and only with it, the batch's records hold. The newest epoch: the batch's own, or, when it
    /// changes none of what epochs hold, that of an earlier batch.
    Epoch(EpochRecord),
}
