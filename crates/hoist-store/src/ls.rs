//! What a store holds, one tensor at a time.

use crate::{Span, Store, TensorId, TensorInfo};
use hoist_format::CHECKSUM_BYTES;

/// A tensor as `hoist ls` shows it.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// Its number.
    pub id: TensorId,
    /// What it is.
    pub tensor: &'a TensorInfo,
    /// How many tensors share its run: more than one in a bundle.
    pub run_tensors: usize,
    /// Whether all its bytes were written.
    pub has_bytes: bool,
}

impl Store {
    /// The smallest span that holds a tensor; empty for one without bytes.
    ///
    /// # Panics
    /// When there is no such tensor.
    #[must_use]
    pub fn covering(&self, tensor: TensorId) -> Span {
        let info = &self.tensors()[tensor.0 as usize];
        let run_bytes = self.runs()[info.run.0 as usize].bytes;
        let offset = info.offset - info.offset % CHECKSUM_BYTES;
        let end = (info.offset + info.bytes).next_multiple_of(CHECKSUM_BYTES).min(run_bytes);
        let bytes = if info.bytes == 0 { 0 } else { end - offset };
        Span { run: info.run, offset, bytes }
    }

    /// All tensors, in order of creation.
    pub fn ls(&self) -> impl Iterator<Item = Listed<'_>> {
        self.tensors().iter().enumerate().map(|(id, tensor)| {
            let id = TensorId(id as u32);
            let run = &self.runs()[tensor.run.0 as usize];
            Listed {
                id,
                tensor,
                run_tensors: run.tensors.len(),
                has_bytes: self.has_bytes(&self.covering(id)),
            }
        })
    }
}
