//! Tensors and the runs that hold them.

use hoist_format::{Class, Dtype, LifeKind};

/// Whether epochs hold a tensor's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Life {
    /// It belongs to epochs.
    Durable,
    /// Its bytes are gone at close.
    Scratch,
    /// Kept like scratch; a cast of the durable tensor `from`, made again from it after open.
    Derived {
        /// The name of the source.
        from: String,
    },
}

impl Life {
    /// Without the source.
    #[must_use]
    pub fn kind(&self) -> LifeKind {
        match self {
            Life::Durable => LifeKind::Durable,
            Life::Scratch => LifeKind::Scratch,
            Life::Derived { .. } => LifeKind::Derived,
        }
    }
}

/// A tensor to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Unique in the store, not empty.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, the slowest first; none for a scalar; a zero makes it empty.
    pub shape: Vec<u64>,
    /// What it is for.
    pub class: Class,
    /// Whether epochs hold it.
    pub life: Life,
    /// Its layer: small tensors of one group, class and life travel as one bundle.
    pub group: String,
}

impl TensorSpec {
    /// Length in bytes; `None` when it overflows or is no whole number.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.dtype.bytes(&self.shape)
    }
}

/// A tensor by its place in [`crate::Store::tensors`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub u32);

/// A run by its place in [`crate::Store::runs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u32);

/// A tensor of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// As it was created.
    pub spec: TensorSpec,
    /// What holds it.
    pub run: RunId,
    /// Where it starts in the run, in bytes: 0, or a multiple of 256 in a bundle.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Bytes that lie together: one large shard, or one bundle of small ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInfo {
    /// Length in bytes, without padding. Zero when all its tensors are empty.
    pub bytes: u64,
    /// The class of all its tensors.
    pub class: Class,
    /// The life of all its tensors.
    pub life: LifeKind,
    /// In order of their offsets.
    pub tensors: Vec<TensorId>,
}

/// A part of a run that is read or written by itself: it starts at a multiple of 256 KiB
/// ([`hoist_format::CHECKSUM_BYTES`]) and ends at one or at the run's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The run.
    pub run: RunId,
    /// Where it starts, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl Span {
    /// Where it ends.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }

    pub(crate) fn overlaps(&self, other: &Span) -> bool {
        self.run == other.run && self.offset < other.end() && other.offset < self.end()
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bytes {}+{} of run {}", self.offset, self.bytes, self.run.0)
    }
}
