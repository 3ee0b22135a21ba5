use std::ops::Range;
use std::time::Duration;

use hoist_plan::{Mode, Tier};
use hoist_store::TensorId;

/// Which part of a step an access belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Forward.
    Forward,
    /// Backward.
    Backward,
    /// Optimizer.
    Optimizer,
}

/// What an access does with one tensor, or with a piece of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorUse {
    /// Which tensor.
    pub tensor: TensorId,
    /// Which of its bytes: from a multiple of 256 KiB to another, or to its end.
    pub bytes: Range<u64>,
    /// Read, update, or overwrite: every byte of the range is written and none of the old is read.
    pub mode: Mode,
}

/// One entry of the execution order: the tensors that a trainer wants at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The layer, for reports and errors.
    pub layer: String,
    /// Forward, backward or optimizer.
    pub phase: Phase,
    /// Where the bytes are wanted.
    pub tier: Tier,
    /// The tensors. Two uses of one tensor in an access must not overlap.
    pub uses: Vec<TensorUse>,
    /// How long the trainer works on it, as far as it is known: for the bound and the placement.
    pub compute: Duration,
}

impl Access {
    /// An access of which the compute time is not known.
    pub fn new(layer: impl Into<String>, phase: Phase, tier: Tier, uses: Vec<TensorUse>) -> Access {
        Access { layer: layer.into(), phase, tier, uses, compute: Duration::ZERO }
    }

    /// Sum of the bytes that it uses.
    pub fn bytes(&self) -> u64 {
        self.uses.iter().map(|one| one.bytes.end.saturating_sub(one.bytes.start)).sum()
    }
}

/// The accesses of one step, in the order in which they will come.
///
/// A tensor that is overwritten after its last read of a step is forgotten in between, unless
/// another declared order begins by reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The accesses; `acquire` takes their index.
    pub accesses: Vec<Access>,
}
