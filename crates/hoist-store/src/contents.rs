//! What a store holds: tensors, runs, the places and checksums of their bytes, notes.

use crate::bundle::Layout;
use crate::few::Few;
use crate::location::{Locations, UNCOMMITTED};
use crate::touched::Touched;
use crate::{Error, RunId, RunInfo, Span, TensorId};
use hoist_format::{CHECKSUM_BYTES, Extent, LifeKind, blocks};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The bytes of one run.
#[derive(Default, Clone)]
pub(crate) struct RunBytes {
    pub locations: Locations,
    /// One per block of the run once anything of it was written, else empty.
    pub checksums: Few<u64>,
}

/// What a note says, and the batch that told of it first.
#[derive(Clone)]
pub(crate) struct NoteValue {
    pub bytes: Vec<u8>,
    pub born: u64,
}

/// All of a store but its files.
#[derive(Clone)]
pub(crate) struct Contents {
    pub layout: Arc<Layout>,
    /// In the order of `layout.runs`.
    pub bytes: Vec<RunBytes>,
    pub notes: BTreeMap<String, NoteValue>,
    /// What is known of bytes in sources: of no epoch.
    pub touched: Touched,
}

/// The blocks of a run that a span covers.
pub(crate) fn blocks_of(span: &Span) -> std::ops::Range<usize> {
    (span.offset / CHECKSUM_BYTES) as usize..blocks(span.end())
}

impl Contents {
    /// Nothing written yet.
    pub fn new(layout: Arc<Layout>) -> Contents {
        let bytes = layout.runs.iter().map(|_| RunBytes::default()).collect();
        Contents { layout, bytes, notes: BTreeMap::new(), touched: Touched::default() }
    }

    /// The run of a span that was checked.
    pub fn run(&self, span: &Span) -> &RunInfo {
        &self.layout.runs[span.run.0 as usize]
    }

    /// What is wrong with `span` as a unit of reading and writing. An empty one is right.
    pub fn check(&self, span: &Span) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::BadSpan { span: *span, what });
        let Some(run) = self.layout.runs.get(span.run.0 as usize) else {
            return wrong(format!("there are only {} runs", self.layout.runs.len()));
        };
        let end = span.end();
        if end > run.bytes {
            return wrong(format!("the run has only {} bytes", run.bytes));
        }
        if !span.offset.is_multiple_of(CHECKSUM_BYTES)
            || !(end == run.bytes || end.is_multiple_of(CHECKSUM_BYTES))
        {
            return wrong(format!(
                "it must start at a multiple of {CHECKSUM_BYTES} and end at one or at {}",
                run.bytes
            ));
        }
        Ok(())
    }

    /// Whether all bytes of `span` were written. Always so of no bytes.
    pub fn has_bytes(&self, span: &Span) -> bool {
        if self.check(span).is_err() {
            return false;
        }
        let locations = &self.bytes[span.run.0 as usize].locations;
        match self.layout.is_sourced(span.run) {
            // What has no place in the store has one in a source.
            true => locations.between(span.offset, span.end()).all(|piece| piece.valid),
            false => locations.is_valid(span.offset, span.end()),
        }
    }

    /// The newest checksums of a span that has bytes in the store's own files.
    pub fn checksums(&self, span: &Span) -> Option<&[u64]> {
        if span.bytes == 0 {
            return Some(&[]);
        }
        let RunBytes { locations, checksums } = self.bytes.get(span.run.0 as usize)?;
        let is_here = self.check(span).is_ok() && locations.is_valid(span.offset, span.end());
        is_here.then(|| &checksums[blocks_of(span)])
    }

    /// Says that the bytes of `span` are these, in the extents that it has or in new ones.
    pub fn written(&mut self, span: &Span, extents: Option<&[Extent]>, checksums: &[u64]) {
        let run_blocks = blocks(self.run(span).bytes);
        let bytes = &mut self.bytes[span.run.0 as usize];
        match extents {
            Some(extents) => {
                bytes.locations.replace(span.offset, extents, (true, UNCOMMITTED), &mut Vec::new())
            }
            None => bytes.locations.set_valid(span.offset, span.end(), true),
        }
        if bytes.checksums.is_empty() {
            bytes.checksums = Few::of(0, run_blocks);
        }
        bytes.checksums[blocks_of(span)].copy_from_slice(checksums);
    }

    /// The tensors with bytes in `span`; an empty one counts when it lies strictly inside.
    pub fn tensors_in(&self, span: &Span) -> impl Iterator<Item = TensorId> {
        self.run(span).tensors.iter().copied().filter(|id| {
            let tensor = &self.layout.tensors[id.0 as usize];
            tensor.offset < span.end() && span.offset < tensor.offset + tensor.bytes
        })
    }

    /// Whatever was made from durable bytes is of an epoch that is no more: it is made anew.
    pub fn outdate_derived(&mut self) {
        for (run, bytes) in self.layout.runs.iter().zip(&mut self.bytes) {
            if run.life == LifeKind::Derived {
                bytes.locations.set_valid(0, run.bytes, false);
            }
        }
    }

    /// Every durable run.
    pub fn durable_runs(&self) -> impl Iterator<Item = (RunId, &RunInfo)> {
        let runs = self.layout.runs.iter().enumerate();
        runs.map(|(id, run)| (RunId(id as u32), run)).filter(|(_, run)| run.life == LifeKind::Durable)
    }
}
