//! Stores over files outside them, which are read where they lie.

use crate::blocking_io::Switch;
use crate::contents::blocks_of;
use crate::create;
use crate::free_space::occupied;
use crate::ids;
use crate::open::{self, Deliver, Threads};
use crate::sources::{OpenSources, SourceRange, check};
use crate::transfer::{Kind, Pending, share};
use crate::{Config, Error, ModelFiles, Span, Store, TensorSpec};
use hoist_format::{CHECKSUM_BYTES, SourceRecord};
use hoist_io::{Completion, FileOp, FileRange, IoThread, Priority, Request, RequestId, Transfer};
use hoist_memory::{Slab, Slot};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Opens the sources on a thread of their own, which is in the place behind those of the directories. None for a store
/// that has no sources.
///
/// # Errors
/// [`Error::SourceChanged`], [`Error::File`], and what the thread says.
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
    let paths: Vec<PathBuf> = sources.iter().map(check).collect::<Result<_, _>>()?;
    let io = (threads.start)(place, Box::new(switch.deliver_to(threads.deliver.clone())))?;
    let open = |path| Ok::<_, Error>(io.file(FileOp::OpenSource { path })?.file());
    let files = paths.into_iter().map(open).collect::<Result<_, _>>()?;
    // Another may have taken a file's place before it was open.
    sources.iter().try_for_each(|source| check(source).map(drop))?;
    Ok(Some(OpenSources { io, files }))
}

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
        let layout = &self.contents.layout;
        let gaps = self.contents.bytes[span.run.0 as usize].locations.gaps(span.offset, span.end());
        let ranges = gaps.into_iter().flat_map(|(from, to)| layout.source_ranges(span.run, from, to));
        let path = |source: u32| PathBuf::from(&layout.sources.files[source as usize].path);
        ranges.map(|range| (path(range.source), range.offset, range.bytes)).collect()
    }

    /// Reads a span of which some lies in sources: each thread fills its part of the slot. What is between tensors, which
    /// no file has, is zeros.
    pub(crate) fn read_in_place(&mut self, id: RequestId, span: Span, mut slot: Slot, priority: Priority) {
        let mut parts = std::mem::take(&mut self.spare_parts);
        parts.resize_with(self.directories.len() + 1, || self.spare_ranges.pop().unwrap_or_default());
        let mut extents = self.spare_extents.pop().unwrap_or_default();
        let locations = &self.contents.bytes[span.run.0 as usize].locations;
        let pieces = || locations.between(span.offset, span.end());
        for piece in pieces() {
            let segment = &self.segments[piece.extent.segment as usize];
            let (file, offset, bytes) = (segment.file, piece.extent.offset, occupied(piece.extent.bytes));
            let buffer_offset = piece.offset - span.offset;
            parts[segment.directory].push(FileRange { file, offset, bytes, buffer_offset });
            extents.push(piece.extent);
        }
        let mut from = span.offset;
        for (to, next) in pieces().map(|piece| (piece.offset, piece.end())).chain([(span.end(), span.end())])
        {
            if let Some(ranges) = parts.last_mut().filter(|_| from < to) {
                self.add_from_sources(&span, (from, to), &mut slot, ranges);
            }
            from = next;
        }
        let left = parts.iter().filter(|ranges| !ranges.is_empty()).count() as u32;
        let (kind, errors) = (Kind::Read { slot: None }, Vec::new());
        self.pending.insert(id, Pending { span, extents, in_sources: true, kind, left, errors });
        self.push_reads(id, priority, &mut parts, slot);
        self.spare_parts = parts;
    }

    /// The ranges of the files that hold `from..to` of a span's run; zeros between them.
    fn add_from_sources(
        &self,
        span: &Span,
        (from, to): (u64, u64),
        slot: &mut Slot,
        ranges: &mut Vec<FileRange>,
    ) {
        let Some(sources) = &self.sources else { unreachable!("{span} lies in sources, and there are none") };
        let mut at = from;
        for range in self.contents.layout.source_ranges(span.run, from, to) {
            let SourceRange { source, offset, at: start, bytes } = range;
            fill_zeros(slot, at - span.offset, start - span.offset);
            let (file, buffer_offset) = (sources.files[source as usize], start - span.offset);
            ranges.push(FileRange { file, offset, bytes, buffer_offset });
            at = start + bytes;
        }
        fill_zeros(slot, at - span.offset, to - span.offset);
    }

    /// Hands each thread its ranges, with its share of the slot.
    fn push_reads(&mut self, id: RequestId, priority: Priority, parts: &mut Vec<Vec<FileRange>>, slot: Slot) {
        let mut left = parts.iter().filter(|ranges| !ranges.is_empty()).count();
        let several = left > 1;
        let mut transfer = Some(if several { Transfer::Fill(slot.divide()) } else { Transfer::Read(slot) });
        for (place, ranges) in parts.drain(..).enumerate() {
            if ranges.is_empty() {
                self.spare_ranges.push(ranges);
                continue;
            }
            left -= 1;
            // The last one gets what the others have a share of.
            let part = if left > 0 { transfer.as_ref().and_then(share) } else { transfer.take() };
            let Some(transfer) = part else { unreachable!("{left} parts have no memory") };
            if place < self.directories.len() {
                self.spread.started(place, Instant::now());
            }
            let id = ids::in_directory(id, place);
            self.io(place).push(Request { id, priority, ranges, transfer });
        }
    }

    /// Appends what the checksums of the newest bytes of `span` should be, one per 256 KiB, to `checksums`: 0 for those
    /// that nobody knows yet, since they lie in a source and were never read; their numbers in the span are the answer.
    /// `None`, and nothing appended, when not all of `span` has bytes.
    pub fn expected(&self, span: &Span, checksums: &mut Vec<u64>) -> Option<Vec<usize>> {
        if !self.has_bytes(span) {
            return None;
        }
        if let Some(known) = self.contents.checksums(span) {
            checksums.extend_from_slice(known);
            return Some(Vec::new());
        }
        let bytes = &self.contents.bytes[span.run.0 as usize];
        let mut unknown = Vec::new();
        for (number, block) in blocks_of(span).enumerate() {
            let offset = block as u64 * CHECKSUM_BYTES;
            let checksum = match bytes.locations.extents(offset, offset + 1).next() {
                Some(_) => Some(bytes.checksums[block]),
                None => self.contents.touched.get(span.run, block),
            };
            checksums.push(checksum.unwrap_or(0));
            if checksum.is_none() {
                unknown.push(number);
            }
        }
        Some(unknown)
    }

    /// Learns the checksums of those blocks of `span` that [`Store::expected`] did not know, from the first read of
    /// them; `checksums` are the span's. They are durable with the next commit, or when the store is closed.
    ///
    /// # Errors
    /// The blocks that another read has found otherwise meanwhile: the file has changed.
    pub fn touch(&mut self, span: &Span, unknown: &[usize], checksums: &[u64]) -> Result<(), Vec<usize>> {
        let run_bytes = self.contents.run(span).bytes;
        let first = blocks_of(span).start;
        let mut changed = Vec::new();
        for number in unknown.iter().copied() {
            let (block, checksum) = (first + number, checksums[number]);
            match self.contents.touched.get(span.run, block) {
                Some(known) if known != checksum => changed.push(number),
                Some(_) => {}
                None => {
                    self.contents.touched.set(span.run, run_bytes, block, checksum);
                    self.unsaved_touches.set(span.run, run_bytes, block, checksum);
                }
            }
        }
        if changed.is_empty() { Ok(()) } else { Err(changed) }
    }
}

/// Makes a part of a slot zero.
fn fill_zeros(slot: &mut Slot, from: u64, to: u64) {
    /// What lies between tensors of a bundle is shorter.
    const ZEROS: [u8; crate::BUNDLE_ALIGN_BYTES as usize] = [0; crate::BUNDLE_ALIGN_BYTES as usize];
    for at in (from..to).step_by(ZEROS.len()) {
        slot.put(at, &ZEROS[..(to - at).min(ZEROS.len() as u64) as usize]);
    }
}
