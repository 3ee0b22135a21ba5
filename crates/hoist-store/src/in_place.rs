//! Stores over files outside them, which are read where they lie.

use crate::create;
use crate::free_space::occupied;
use crate::ids;
use crate::open::{self, Deliver, Threads};
use crate::sources::SourceRange;
use crate::transfer::{Kind, Pending, share};
use crate::{Config, Error, ModelFiles, RunId, Span, Store, TensorSpec};
use hoist_format::Extent;
use hoist_io::{Completion, FileRange, IoThread, Priority, Request, RequestId, Transfer};
use hoist_memory::{Slab, Slot};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

impl Store {
    /// Makes a store over a model's files: its tensors have their bytes there, durable parameters at epoch 0, and come
    /// before `tensors`. The files are only read, at whatever offset, on a thread of their own, and must stay as they
    /// are; a tensor of theirs that is written has its bytes in the store from then on, for which
    /// `config.in_place_room_bytes` is the space. Checksums are found at the first read, so that the second is verified.
    ///
    /// # Errors
    /// Those of [`Store::create`]; [`Error::SourceChanged`].
    pub fn create_over<D>(
        config: &Config,
        io: &hoist_io::Config,
        slab: &Arc<Slab>,
        (model, tensors): (&ModelFiles, &[TensorSpec]),
        deliver: D,
    ) -> Result<Store, Error>
    where
        D: Fn(Completion) + Send + Clone + 'static,
    {
        Store::create_over_on(config, &open::starter(io, slab), (model, tensors), deliver)
    }

    /// Like [`Store::create_over`], on threads of the caller's making: see [`Store::create_on`]. The place of the files'
    /// thread is the one behind those of the directories.
    ///
    /// # Errors
    /// Those of [`Store::create_over`] and of `start`.
    pub fn create_over_on<D>(
        config: &Config,
        start: &dyn Fn(usize, Deliver) -> Result<IoThread, hoist_io::Error>,
        (model, tensors): (&ModelFiles, &[TensorSpec]),
        deliver: D,
    ) -> Result<Store, Error>
    where
        D: Fn(Completion) + Send + Clone + 'static,
    {
        create::create(config, Some(model), tensors, &Threads { start, deliver })
    }

    /// The thread of a directory, or that of the sources, which comes behind all of them.
    pub(crate) fn io(&self, place: usize) -> &IoThread {
        match (self.directories.get(place), &self.sources) {
            (Some(directory), _) => &directory.io,
            (None, Some(sources)) => &sources.io,
            (None, None) => panic!("there is no place {place}"),
        }
    }

    /// Whether any of `span` lies in a source, as far as the newest bytes go.
    #[must_use]
    pub fn is_in_place(&self, span: &Span) -> bool {
        let locations = &self.contents.bytes[span.run.0 as usize].locations;
        let own_bytes = || locations.extents(span.offset, span.end()).map(|extent| extent.bytes).sum::<u64>();
        self.contents.layout.is_sourced(span.run) && own_bytes() < span.bytes
    }

    /// What of the newest bytes of `span` lies in sources: files, offsets, lengths.
    #[must_use]
    pub fn in_sources(&self, span: &Span) -> Vec<(PathBuf, u64, u64)> {
        if !self.is_in_place(span) {
            return Vec::new();
        }
        let gaps = self.contents.bytes[span.run.0 as usize].locations.gaps(span.offset, span.end());
        let parts = gaps.into_iter().map(|(from, to)| Span { offset: from, bytes: to - from, ..*span });
        parts.flat_map(|part| self.places_in_sources(&part)).collect()
    }

    /// Where a span lies in sources, whatever the newest epoch has.
    pub(crate) fn places_in_sources(&self, span: &Span) -> Vec<(PathBuf, u64, u64)> {
        let layout = &self.contents.layout;
        let path = |source: u32| PathBuf::from(&layout.sources.files[source as usize].path);
        let ranges = layout.source_ranges(span.run, span.offset, span.end());
        ranges.map(|range| (path(range.source), range.offset, range.bytes)).collect()
    }

    /// The sources that `from..to` of a run needs, each as often as it comes.
    pub(crate) fn sources_of(&self, run: RunId, from: u64, to: u64) -> impl Iterator<Item = u32> {
        self.contents.layout.source_ranges(run, from, to).map(|range| range.source)
    }

    /// Whether all that `span` needs of sources is open.
    ///
    /// # Errors
    /// [`Error::SourceChanged`].
    pub(crate) fn check_open(&self, span: &Span) -> Result<(), Error> {
        let Some(open) = &self.sources else { return Ok(()) };
        let records = &self.contents.layout.sources.files;
        for source in self.sources_of(span.run, span.offset, span.end()) {
            if open.files[source as usize].is_err() {
                open.check(source, &records[source as usize])?;
            }
        }
        Ok(())
    }

    /// Reads a span of which some lies in sources: that first, which is copied into the slot, and then the rest. What is
    /// between tensors, which no file has, is zeros.
    pub(crate) fn read_in_place(&mut self, id: RequestId, span: Span, mut slot: Slot, priority: Priority) {
        let mut ranges = self.spare_ranges.pop().unwrap_or_default();
        let mut extents = self.spare_extents.pop().unwrap_or_default();
        let locations = &self.contents.bytes[span.run.0 as usize].locations;
        let pieces = || locations.between(span.offset, span.end());
        extents.extend(pieces().map(|piece| piece.extent));
        let mut from = span.offset;
        let mut offsets = Vec::new();
        for (to, next) in pieces().map(|piece| (piece.offset, piece.end())).chain([(span.end(), span.end())])
        {
            self.add_from_sources(&span, (from, to), &mut slot, &mut ranges);
            if to < span.end() {
                offsets.push(to - span.offset);
            }
            from = next;
        }
        let rest = (!extents.is_empty()).then_some(Rest { priority, offsets });
        self.push_source_read(id, (span, extents, rest), (ranges, slot), priority);
    }

    /// Reads a span from sources, whatever the newest epoch has: for what snapshots have there.
    ///
    /// # Errors
    /// [`Error::SourceChanged`]; the slot comes back.
    pub(crate) fn read_source(
        &mut self,
        id: RequestId,
        span: Span,
        mut slot: Slot,
        priority: Priority,
    ) -> Result<(), (Slot, Error)> {
        if let Err(error) = self.check_open(&span) {
            return Err((slot, error));
        }
        let mut ranges = self.spare_ranges.pop().unwrap_or_default();
        self.add_from_sources(&span, (span.offset, span.end()), &mut slot, &mut ranges);
        self.push_source_read(id, (span, Vec::new(), None), (ranges, slot), priority);
        Ok(())
    }

    fn push_source_read(
        &mut self,
        id: RequestId,
        (span, extents, rest): (Span, Vec<Extent>, Option<Rest>),
        (ranges, slot): (Vec<FileRange>, Slot),
        priority: Priority,
    ) {
        assert!(!ranges.is_empty(), "{span} lies in sources, and they have nothing of it");
        let (kind, left, errors) = (Kind::Read { slot: None }, 1, Vec::new());
        self.pending.insert(id, Pending { span, extents, in_sources: true, rest, kind, left, errors });
        let place = self.directories.len();
        let (id, transfer) = (ids::in_directory(id, place), Transfer::Read(slot));
        self.io(place).push(Request { id, priority, ranges, transfer });
    }

    /// The ranges of the files that hold `from..to` of a span's run; zeros between them.
    fn add_from_sources(
        &self,
        span: &Span,
        (from, to): (u64, u64),
        slot: &mut Slot,
        ranges: &mut Vec<FileRange>,
    ) {
        let mut at = from;
        for range in self.contents.layout.source_ranges(span.run, from, to) {
            let SourceRange { source, offset, at: start, bytes } = range;
            fill_zeros(slot, at - span.offset, start - span.offset);
            let open = self.sources.as_ref().and_then(|open| open.files[source as usize].as_ref().ok());
            let Some(open) = open else { unreachable!("source {source} is read, and is not open") };
            let buffer_offset = start - span.offset;
            ranges.push(FileRange { file: open.id, offset, bytes, buffer_offset });
            at = start + bytes;
        }
        fill_zeros(slot, at - span.offset, to - span.offset);
    }

    /// What a read needs of the store's own files, when its part of the sources has come: `false` when that is nothing, or
    /// it has failed.
    pub(crate) fn read_rest(&mut self, id: RequestId) -> bool {
        let Some(pending) = self.pending.get_mut(&id) else { return false };
        let (Some(rest), true, Kind::Read { slot }) =
            (pending.rest.take(), pending.errors.is_empty(), &mut pending.kind)
        else {
            return false;
        };
        let Some(slot) = slot.take() else { unreachable!("the slot of read {id} did not come back") };
        let extents = std::mem::take(&mut pending.extents);
        let mut parts: Vec<Vec<FileRange>> = vec![Vec::new(); self.directories.len()];
        for (extent, buffer_offset) in extents.iter().zip(&rest.offsets) {
            let segment = &self.segments[extent.segment as usize];
            let (file, offset, bytes) = (segment.file, extent.offset, occupied(extent.bytes));
            parts[segment.directory].push(FileRange { file, offset, bytes, buffer_offset: *buffer_offset });
        }
        let mut left = parts.iter().filter(|ranges| !ranges.is_empty()).count();
        let count = left as u32;
        let mut transfer = Some(match left {
            1 => Transfer::Read(slot),
            _ => Transfer::Fill(slot.divide()),
        });
        for (place, ranges) in parts.into_iter().enumerate().filter(|(_, ranges)| !ranges.is_empty()) {
            left -= 1;
            // The last one gets what the others have a share of.
            let part = if left > 0 { transfer.as_ref().and_then(share) } else { transfer.take() };
            let Some(transfer) = part else { unreachable!("{left} parts have no memory") };
            self.spread.started(place, Instant::now());
            let (id, priority) = (ids::in_directory(id, place), rest.priority);
            self.io(place).push(Request { id, priority, ranges, transfer });
        }
        if let Some(pending) = self.pending.get_mut(&id) {
            (pending.extents, pending.left) = (extents, count);
        }
        true
    }
}

/// What a read needs of the store's own files, besides what sources have.
pub(crate) struct Rest {
    pub priority: Priority,
    /// Where each of its extents goes in the slot.
    offsets: Vec<u64>,
}

/// Makes a part of a slot zero.
fn fill_zeros(slot: &mut Slot, from: u64, to: u64) {
    /// What lies between tensors of a bundle is shorter.
    const ZEROS: [u8; crate::BUNDLE_ALIGN_BYTES as usize] = [0; crate::BUNDLE_ALIGN_BYTES as usize];
    for at in (from..to).step_by(ZEROS.len()) {
        slot.put(at, &ZEROS[..(to - at).min(ZEROS.len() as u64) as usize]);
    }
}
