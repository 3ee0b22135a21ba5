//! Tensors and the runs that hold them.

use crate::DIMENSIONS_MAX;
use crate::few::Few;
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

/// Which part of a larger tensor a rank has: elements that follow each other in the whole, its last dimension fastest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shard {
    /// Dimensions of the whole tensor, the slowest first.
    pub shape: Vec<u64>,
    /// The number of the shard's first element in the whole, from 0 on.
    pub start: u64,
}

impl Shard {
    /// What is wrong with it as the place of a tensor of `shape`.
    pub(crate) fn check(&self, dtype: Dtype, shape: &[u64]) -> Result<(), String> {
        let Shard { shape: whole, start } = self;
        if whole.len() > DIMENSIONS_MAX {
            return Err(format!("its whole has {} dimensions, {DIMENSIONS_MAX} is the most", whole.len()));
        }
        let (Some(all), Some(_), Some(own)) = (elements(whole), dtype.bytes(whole), elements(shape)) else {
            return Err(format!("{whole:?} elements of {dtype} are no whole number of bytes under 2^61"));
        };
        if start.checked_add(own).is_none_or(|end| end > all) {
            return Err(format!("{own} elements from {start} on are not within a whole of {whole:?}"));
        }
        // No overflow: the whole's bits have been counted.
        if !(start * dtype.bits()).is_multiple_of(8) {
            return Err(format!("element {start} of {dtype} does not begin with a byte"));
        }
        Ok(())
    }
}

/// How many elements a tensor of `shape` has; `None` when that overflows.
pub(crate) fn elements(shape: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1u64, |product, length| product.checked_mul(*length))
}

/// A tensor to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Unique in the store, not empty.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions of what the store holds, the slowest first; none for a scalar; a zero makes it empty.
    pub shape: Vec<u64>,
    /// What it is for.
    pub class: Class,
    /// Whether epochs hold it.
    pub life: Life,
    /// Its layer: small tensors of one group, class and life travel as one bundle.
    pub group: String,
    /// The place of what the store holds in a tensor that several ranks share; `None`: it is the whole tensor, on one rank
    /// or on each.
    pub shard: Option<Box<Shard>>,
}

impl TensorSpec {
    /// Length in bytes; `None` when it overflows or is no whole number.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.dtype.bytes(&self.shape)
    }

    /// Dimensions of the whole tensor: its own where there is no shard.
    #[must_use]
    pub fn whole_shape(&self) -> &[u64] {
        self.shard.as_ref().map_or(&self.shape, |shard| &shard.shape)
    }

    /// The number of its first element in the whole tensor.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.shard.as_ref().map_or(0, |shard| shard.start)
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
    pub tensors: Few<TensorId>,
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
