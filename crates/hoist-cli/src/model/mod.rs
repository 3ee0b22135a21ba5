//! From a model's shapes to tensors and the execution order of a step. Pure: nothing here touches a file.

mod cut;
mod gpt2;
mod layers;
mod safetensors;

use hoist::Order;
use hoist_store::{Life, TensorSpec};

use crate::contents::Kind;

pub use gpt2::gpt2;
pub use safetensors::{FileTensor, groups, safetensors};

/// Memory that accesses are cut for, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Budgets {
    /// Of the device tier.
    pub device_bytes: u64,
    /// Of the host tier.
    pub host_bytes: u64,
}

/// Where a tensor's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Made from (tensor, version, place).
    Made {
        /// What they look like.
        kind: Kind,
        /// What they are made from; a cast copy has its source's.
        seed: u64,
    },
    /// The model's files; the same in every version.
    File,
}

/// What a run does: tensors, and the accesses of a step.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The tensors; the engine numbers them in this order.
    pub tensors: Vec<TensorSpec>,
    /// Where each tensor's bytes come from.
    pub origins: Vec<Origin>,
    /// Writes version 0 of what is durable.
    pub initial: Order,
    /// One step.
    pub order: Order,
}

impl Workload {
    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().filter_map(|tensor| tensor.dtype.bytes(&tensor.shape)).sum()
    }

    /// The version of `tensor` that a reader finds in `step` (the first is 1): scratch is read in the step that
    /// wrote it, and what outlives a step is read before that step writes it.
    pub fn version_read(&self, tensor: usize, step: u64) -> u64 {
        if self.tensors[tensor].life == Life::Scratch { step } else { step - 1 }
    }
}
