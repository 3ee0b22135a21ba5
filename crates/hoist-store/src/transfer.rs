//! Reads and writes: spans to ranges of files in one or more directories, completions to events.

use crate::free_space::occupied;
use crate::ids::{self, CALLER_IDS, OWN_ID};
use crate::in_place::Rest;
use crate::{Error, Span, Store, StoreEvent};
use hoist_format::Extent;
use hoist_io::{Completion, FileRange, Priority, Request, RequestId, Transfer};
use hoist_memory::{Slot, SlotReader};
use std::time::Instant;

/// A request that the I/O threads have, each directory's its own part of it.
pub(crate) struct Pending {
    pub span: Span,
    pub extents: Vec<Extent>,
    /// Whether the thread of the sources has a part.
    pub in_sources: bool,
    /// What follows when that has come.
    pub rest: Option<Rest>,
    pub kind: Kind,
    /// Parts that have not come back.
    pub left: u32,
    /// What went wrong, by directory.
    pub errors: Vec<(usize, Error)>,
}

/// What a request does, with its memory.
pub(crate) enum Kind {
    Read {
        /// Back from the thread that was done last.
        slot: Option<Slot>,
    },
    Write {
        slot: SlotReader,
        /// Whether the extents are new ones; else the bytes go over what was there.
        new: bool,
        checksums: Vec<u64>,
        /// Directories that have failed this write; it went on elsewhere.
        avoided: Vec<usize>,
    },
}

impl Store {
    /// Reads the newest bytes of `span` to the start of `slot`. They are not verified here: compare
    /// [`Store::checksums`] with [`crate::verify_parts`] before use. Ends with [`StoreEvent::Read`].
    ///
    /// # Errors
    /// [`Error::BadSpan`], [`Error::NoBytes`]; the slot comes back.
    pub fn read(
        &mut self,
        id: RequestId,
        span: Span,
        slot: Slot,
        priority: Priority,
    ) -> Result<(), (Slot, Error)> {
        let checked = self
            .check_request(id, &span, slot.bytes())
            .and_then(|()| if self.has_bytes(&span) { Ok(()) } else { Err(self.no_bytes(span)) });
        if let Err(error) = checked {
            return Err((slot, error));
        }
        if self.is_in_place(&span) {
            if let Err(error) = self.check_open(&span) {
                return Err((slot, error));
            }
            self.read_in_place(id, span, slot, priority);
            return Ok(());
        }
        let extents = self.current_extents(&span);
        self.read_extents(id, span, extents, slot, priority);
        Ok(())
    }

    /// Reads bytes of a span that some epoch has in these extents.
    pub(crate) fn read_extents(
        &mut self,
        id: RequestId,
        span: Span,
        extents: Vec<Extent>,
        slot: Slot,
        priority: Priority,
    ) {
        let left = self.push_parts(id, priority, &extents, |_| true, Transfer::Read(slot));
        let (kind, errors) = (Kind::Read { slot: None }, Vec::new());
        self.pending.insert(id, Pending { span, extents, in_sources: false, rest: None, kind, left, errors });
    }

    /// Writes the start of `slot` as the newest bytes of `span`, with their checksums, which the caller has computed.
    /// They are there for reads when [`StoreEvent::Written`] has come. At `step` the bytes of a durable span belong to
    /// the epoch that the next commit makes, and go to free extents, or over bytes of the same epoch when none are free;
    /// else they go in place. A directory that fails is quarantined, and its part goes to the others.
    ///
    /// # Errors
    /// [`Error::BadSpan`], [`Error::Busy`] when a write overlaps, [`Error::NoSpace`], [`Error::Poisoned`]; the slot
    /// comes back.
    pub fn write(
        &mut self,
        id: RequestId,
        span: Span,
        slot: SlotReader,
        checksums: &[u64],
    ) -> Result<(), (SlotReader, Error)> {
        let placed = match self.place_write(id, &span, slot.bytes(), checksums) {
            Ok(extents) => extents,
            Err(error) => return Err((slot, error)),
        };
        let new = placed.is_some();
        let extents = placed.unwrap_or_else(|| self.current_extents(&span));
        let transfer = Transfer::Write(slot.clone());
        let left = self.push_parts(id, Priority::WriteBack, &extents, |_| true, transfer);
        let mut kept = self.spare_checksums.pop().unwrap_or_default();
        kept.extend_from_slice(checksums);
        let kind = Kind::Write { slot, new, checksums: kept, avoided: Vec::new() };
        let (in_sources, errors) = (false, Vec::new());
        self.pending.insert(id, Pending { span, extents, in_sources, rest: None, kind, left, errors });
        Ok(())
    }

    /// Moves a queued request to another priority.
    pub fn promote(&mut self, id: RequestId, priority: Priority) {
        if let Some(rest) = self.pending.get_mut(&id).and_then(|pending| pending.rest.as_mut()) {
            rest.priority = priority;
        }
        for place in self.directories_of(id) {
            self.io(place).promote(ids::in_directory(id, place), priority);
        }
    }

    /// Gives up on a request; it comes back as an event all the same, soon.
    pub fn abandon(&mut self, id: RequestId) {
        for place in self.directories_of(id) {
            self.io(place).abandon(ids::in_directory(id, place));
        }
    }

    /// The threads that have a part of a request, or had.
    fn directories_of(&self, id: RequestId) -> impl Iterator<Item = usize> {
        let pending = self.pending.get(&id);
        let extents = pending.map_or(&[][..], |pending| &pending.extents);
        let in_sources = pending.is_some_and(|pending| pending.in_sources);
        (0..self.directories.len())
            .filter(|place| extents.iter().any(|extent| self.place_of(extent) == *place))
            .chain(in_sources.then_some(self.directories.len()))
    }

    /// The directory that an extent lies in.
    pub(crate) fn place_of(&self, extent: &Extent) -> usize {
        self.segments[extent.segment as usize].directory
    }

    /// Takes back what `deliver` got. `None` for a completion that ends nothing yet.
    ///
    /// # Panics
    /// On a completion that is not of this store.
    pub fn handle(&mut self, completion: Completion) -> Option<StoreEvent> {
        let Completion { id, transfer, mut ranges, result, .. } = completion;
        let (place, id) = ids::split(id);
        let moved = if result.is_ok() { ranges.iter().map(|range| range.bytes).sum() } else { 0 };
        ranges.clear();
        self.spare_ranges.push(ranges);
        if matches!(transfer, Transfer::Write(_) | Transfer::WriteBuffer(_)) {
            self.written_bytes += moved;
        }
        if id >= OWN_ID {
            return self.commit_completed(place, transfer, result.map_err(Error::from));
        }
        if place < self.directories.len() {
            self.spread.ended(place, moved, Instant::now());
        }
        let Some(pending) = self.pending.get_mut(&id) else {
            panic!("request {id} with {transfer:?} is not one of this store")
        };
        pending.left -= 1;
        match (&mut pending.kind, transfer) {
            (Kind::Read { slot }, Transfer::Read(back)) => *slot = Some(back),
            // The last one has the slot; one that a thread had to leave behind has an empty one.
            (Kind::Read { slot }, Transfer::Fill(filler)) => {
                if let Ok(back) = filler.try_into_slot() {
                    slot.get_or_insert(back);
                }
            }
            (Kind::Write { .. }, Transfer::Write(_)) => {}
            (_, transfer) => panic!("{transfer:?} came back for request {id}"),
        }
        match result {
            Ok(()) => {}
            Err(hoist_io::Error::Abandoned { .. }) => {
                pending.errors.push((place, hoist_io::Error::Abandoned { id }.into()));
            }
            Err(error) => pending.errors.push((place, error.into())),
        }
        if pending.left > 0 || self.read_rest(id) || self.write_elsewhere(id) { None } else { self.ended(id) }
    }

    /// All parts of a request have come back.
    fn ended(&mut self, id: RequestId) -> Option<StoreEvent> {
        let Pending { span, mut extents, kind, errors, .. } = self.pending.remove(&id)?;
        let result = errors.into_iter().next().map_or(Ok(()), |(_, error)| Err(error));
        match kind {
            Kind::Read { slot } => {
                let slot = slot.unwrap_or_else(|| panic!("the slot of read {id} did not come back"));
                self.free_held();
                extents.clear();
                self.spare_extents.push(extents);
                Some(StoreEvent::Read { id, slot, result })
            }
            Kind::Write { slot, new, mut checksums, .. } => {
                self.written(&span, new.then_some(&extents), &checksums, result.is_ok());
                checksums.clear();
                self.spare_checksums.push(checksums);
                extents.clear();
                self.spare_extents.push(extents);
                Some(StoreEvent::Written { id, slot, result })
            }
        }
    }

    pub(crate) fn check_request(&self, id: RequestId, span: &Span, slot_bytes: u64) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::BadSpan { span: *span, what });
        self.contents.check(span)?;
        if span.bytes == 0 {
            return wrong("it is empty: there is nothing to move".into());
        }
        if slot_bytes < span.bytes {
            return wrong(format!("its slot has only {slot_bytes} bytes"));
        }
        if id >= CALLER_IDS || self.pending.contains_key(&id) {
            return wrong(format!("request id {id} is in use, or not below 2^48"));
        }
        Ok(())
    }

    /// The spans of all writes in flight.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &Span> {
        let writes = self.pending.values().filter(|pending| matches!(pending.kind, Kind::Write { .. }));
        writes.map(|pending| &pending.span)
    }

    /// Where the newest bytes of `span` are.
    pub(crate) fn current_extents(&mut self, span: &Span) -> Vec<Extent> {
        let mut extents = self.spare_extents.pop().unwrap_or_default();
        extents.extend(self.contents.bytes[span.run.0 as usize].locations.extents(span.offset, span.end()));
        extents
    }

    /// Hands each directory what it has of the extents that are `wanted`, by their number, with its share of the memory.
    /// Returns how many directories got a part.
    pub(crate) fn push_parts(
        &mut self,
        id: RequestId,
        priority: Priority,
        extents: &[Extent],
        wanted: impl Fn(usize) -> bool,
        transfer: Transfer,
    ) -> u32 {
        let now = Instant::now();
        let has = |store: &Store, place| {
            let mut wanted = extents.iter().enumerate().filter(|(index, _)| wanted(*index));
            wanted.any(|(_, extent)| store.place_of(extent) == place)
        };
        let count = (0..self.directories.len()).filter(|place| has(self, *place)).count();
        let mut transfer = Some(match transfer {
            Transfer::Read(slot) if count > 1 => Transfer::Fill(slot.divide()),
            transfer => transfer,
        });
        let mut left = count;
        for place in 0..self.directories.len() {
            if !has(self, place) {
                continue;
            }
            left -= 1;
            // The last one gets what the others have a share of.
            let shared = if left > 0 { transfer.as_ref().and_then(share) } else { transfer.take() };
            let Some(transfer) = shared else { unreachable!("one of {count} parts has no memory") };
            let mut ranges = self.spare_ranges.pop().unwrap_or_default();
            let mut buffer_offset = 0;
            for (index, extent) in extents.iter().enumerate() {
                let segment = &self.segments[extent.segment as usize];
                if wanted(index) && segment.directory == place {
                    let (file, offset, bytes) = (segment.file, extent.offset, occupied(extent.bytes));
                    ranges.push(FileRange { file, offset, bytes, buffer_offset });
                }
                buffer_offset += extent.bytes;
            }
            self.spread.started(place, now);
            let id = ids::in_directory(id, place);
            self.directories[place].push(Request { id, priority, ranges, transfer });
        }
        count as u32
    }
}

/// The same memory for another directory.
pub(crate) fn share(transfer: &Transfer) -> Option<Transfer> {
    match transfer {
        Transfer::Fill(filler) => Some(Transfer::Fill(filler.clone())),
        Transfer::Write(reader) => Some(Transfer::Write(reader.clone())),
        _ => None,
    }
}
