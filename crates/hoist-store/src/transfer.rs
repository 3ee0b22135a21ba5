//! Reads and writes: spans to ranges of files, completions to events.

use crate::blocking_io::OWN_ID;
use crate::free_space::occupied;
use crate::{Durability, Error, Span, Store, StoreEvent};
use hoist_format::{Extent, LifeKind, blocks};
use hoist_io::{Completion, Priority, Request, RequestId, Transfer};
use hoist_memory::{Slot, SlotReader};

/// A request that the I/O threads have.
pub(crate) enum Pending {
    Read {
        span: Span,
        extents: Vec<Extent>,
    },
    Write {
        span: Span,
        /// New ones; none when it goes in place.
        extents: Option<Vec<Extent>>,
        checksums: Vec<u64>,
    },
}

impl Pending {
    fn span(&self) -> &Span {
        match self {
            Pending::Read { span, .. } | Pending::Write { span, .. } => span,
        }
    }
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
            .and_then(|()| if self.has_bytes(&span) { Ok(()) } else { Err(Error::NoBytes { span }) });
        if let Err(error) = checked {
            return Err((slot, error));
        }
        let mut extents = self.spare_extents.pop().unwrap_or_default();
        extents.extend(self.contents.bytes[span.run.0 as usize].locations.extents(span.offset, span.end()));
        self.push(id, priority, &span, &extents, Transfer::Read(slot));
        self.pending.insert(id, Pending::Read { span, extents });
        Ok(())
    }

    /// Writes the start of `slot` as the newest bytes of `span`, with their checksums, which the caller has computed.
    /// They are there for reads when [`StoreEvent::Written`] has come. At `step` the bytes of a durable span belong to
    /// the epoch that the next commit makes, and go to free extents, or over bytes of the same epoch when none are free;
    /// else they go in place.
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
        let extents = match self.place_write(id, &span, slot.bytes(), checksums) {
            Ok(extents) => extents,
            Err(error) => return Err((slot, error)),
        };
        let durable = self.contents.run(&span).life == LifeKind::Durable;
        if let Some(extents) = &extents {
            self.push(id, Priority::WriteBack, &span, extents, Transfer::Write(slot));
        } else {
            let mut here = self.spare_extents.pop().unwrap_or_default();
            here.extend(self.contents.bytes[span.run.0 as usize].locations.extents(span.offset, span.end()));
            self.push(id, Priority::WriteBack, &span, &here, Transfer::Write(slot));
            here.clear();
            self.spare_extents.push(here);
        }
        if durable {
            self.mark_dirty(&span, extents.as_deref());
        }
        let mut kept = self.spare_checksums.pop().unwrap_or_default();
        kept.extend_from_slice(checksums);
        self.pending.insert(id, Pending::Write { span, extents, checksums: kept });
        Ok(())
    }

    /// Moves a queued request to another priority.
    pub fn promote(&mut self, id: RequestId, priority: Priority) {
        if let Some(pending) = self.pending.get(&id) {
            self.directories[self.contents.run(pending.span()).directory as usize].io.promote(id, priority);
        }
    }

    /// Gives up on a request; it comes back as an event all the same, soon.
    pub fn abandon(&mut self, id: RequestId) {
        if let Some(pending) = self.pending.get(&id) {
            self.directories[self.contents.run(pending.span()).directory as usize].io.abandon(id);
        }
    }

    /// Takes back what `deliver` got. `None` for a completion of the store's own that ends nothing yet.
    ///
    /// # Panics
    /// On a completion that is not of this store.
    pub fn handle(&mut self, completion: Completion) -> Option<StoreEvent> {
        let Completion { id, transfer, mut ranges, result, .. } = completion;
        ranges.clear();
        self.spare_ranges.push(ranges);
        let result = result.map_err(Error::from);
        if id >= OWN_ID {
            return self.commit_completed(transfer, result);
        }
        match (self.pending.remove(&id), transfer) {
            (Some(Pending::Read { mut extents, .. }), Transfer::Read(slot)) => {
                extents.clear();
                self.spare_extents.push(extents);
                self.free_held();
                Some(StoreEvent::Read { id, slot, result })
            }
            (Some(Pending::Write { span, extents, mut checksums }), Transfer::Write(slot)) => {
                self.written(&span, extents, &checksums, result.is_ok());
                checksums.clear();
                self.spare_checksums.push(checksums);
                Some(StoreEvent::Written { id, slot, result })
            }
            (_, transfer) => panic!("request {id} with {transfer:?} is not one of this store"),
        }
    }

    fn check_request(&self, id: RequestId, span: &Span, slot_bytes: u64) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::BadSpan { span: *span, what });
        self.contents.check(span)?;
        if span.bytes == 0 {
            return wrong("it is empty: there is nothing to move".into());
        }
        if slot_bytes < span.bytes {
            return wrong(format!("its slot has only {slot_bytes} bytes"));
        }
        if id >= OWN_ID || self.pending.contains_key(&id) {
            return wrong(format!("request id {id} is in use, or not below 2^63"));
        }
        Ok(())
    }

    /// Checks a write and finds its place: new extents, or none when it goes in place.
    fn place_write(
        &mut self,
        id: RequestId,
        span: &Span,
        slot_bytes: u64,
        checksums: &[u64],
    ) -> Result<Option<Vec<Extent>>, Error> {
        self.check_request(id, span, slot_bytes)?;
        if checksums.len() != blocks(span.bytes) {
            let what =
                format!("it has {} blocks, and {} checksums came", blocks(span.bytes), checksums.len());
            return Err(Error::BadSpan { span: *span, what });
        }
        if self.writes().any(|other| other.overlaps(span)) {
            return Err(Error::Busy { span: *span });
        }
        let durable = self.contents.run(span).life == LifeKind::Durable;
        if let Some(cause) = self.poisoned.clone().filter(|_| durable) {
            return Err(Error::Poisoned { cause });
        }
        if durable && self.durability == Durability::Step {
            match self.allocate(span, span.bytes) {
                // What this epoch has written is in no record yet, so it may be written over: an epoch that writes all
                // its bytes twice still fits twice the durable bytes.
                Err(Error::NoSpace { .. }) if self.changes.covers(span) => {}
                placed => return placed.map(Some),
            }
        }
        self.place_in_place(span)?;
        Ok(None)
    }

    /// The spans of all writes in flight.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &Span> {
        self.pending.values().filter_map(|pending| match pending {
            Pending::Write { span, .. } => Some(span),
            Pending::Read { .. } => None,
        })
    }

    fn allocate(&mut self, span: &Span, bytes: u64) -> Result<Vec<Extent>, Error> {
        let directory = &mut self.directories[self.contents.run(span).directory as usize];
        let mut extents = self.spare_extents.pop().unwrap_or_default();
        if directory.free.allocate(bytes, &mut extents) {
            return Ok(extents);
        }
        self.spare_extents.push(extents);
        Err(Error::NoSpace { span: *span, need_bytes: occupied(bytes), free_bytes: directory.free.bytes() })
    }

    /// Gives every byte of `span` an extent, and takes its bytes for gone until they are written.
    fn place_in_place(&mut self, span: &Span) -> Result<(), Error> {
        for (from, to) in self.contents.bytes[span.run.0 as usize].locations.gaps(span.offset, span.end()) {
            let mut extents = self.allocate(span, to - from)?;
            let locations = &mut self.contents.bytes[span.run.0 as usize].locations;
            locations.replace(from, &extents, false, &mut Vec::new());
            extents.clear();
            self.spare_extents.push(extents);
        }
        let locations = &mut self.contents.bytes[span.run.0 as usize].locations;
        locations.set_valid(span.offset, span.end(), false);
        Ok(())
    }

    fn mark_dirty(&mut self, span: &Span, extents: Option<&[Extent]>) {
        let segments = &mut self.directories[self.contents.run(span).directory as usize].segments;
        let mut mark = |extent: &Extent| segments[extent.segment as usize].dirty = true;
        match extents {
            Some(extents) => extents.iter().for_each(mark),
            None => {
                let locations = &self.contents.bytes[span.run.0 as usize].locations;
                locations.extents(span.offset, span.end()).for_each(|extent| mark(&extent));
            }
        }
    }

    fn push(
        &mut self,
        id: RequestId,
        priority: Priority,
        span: &Span,
        extents: &[Extent],
        transfer: Transfer,
    ) {
        let mut ranges = self.spare_ranges.pop().unwrap_or_default();
        let directory = &self.directories[self.contents.run(span).directory as usize];
        directory.ranges(extents.iter().copied(), &mut ranges);
        directory.push(Request { id, priority, ranges, transfer });
    }

    fn written(&mut self, span: &Span, extents: Option<Vec<Extent>>, checksums: &[u64], done: bool) {
        let (durable, directory) = {
            let run = self.contents.run(span);
            (run.life == LifeKind::Durable, run.directory)
        };
        if durable {
            self.changes.note_write(span, done);
        }
        if done {
            if extents.is_some() {
                self.drop_extents(span, directory);
            }
            self.contents.written(span, extents.as_deref(), checksums);
            if durable {
                self.changes.spans.entry(span.run).or_default().insert(span.offset, span.end());
            }
        } else {
            for extent in extents.iter().flatten() {
                self.directories[directory as usize].free.free(*extent);
            }
        }
        if let Some(mut extents) = extents {
            extents.clear();
            self.spare_extents.push(extents);
        }
    }

    /// Drops the extents that `span` had: those of the epoch under construction are free now, older ones when it is
    /// durable.
    fn drop_extents(&mut self, span: &Span, directory: u32) {
        let parts = match self.changes.spans.get(&span.run) {
            Some(changed) => changed.split(span.offset, span.end()),
            None => vec![(span.offset, span.end(), false)],
        };
        let locations = &self.contents.bytes[span.run.0 as usize].locations;
        for (from, to, in_this_epoch) in parts {
            let extents = locations.extents(from, to).map(|extent| (directory, extent));
            if in_this_epoch { self.held.extend(extents) } else { self.changes.dropped.extend(extents) }
        }
        self.free_held();
    }

    /// Frees the held extents that no read in flight uses.
    pub(crate) fn free_held(&mut self) {
        let (pending, directories, runs) = (&self.pending, &mut self.directories, &self.contents.layout.runs);
        self.held.retain(|(directory, extent)| {
            let end = extent.offset + extent.bytes;
            let used = pending.values().any(|pending| match pending {
                Pending::Read { span, extents } => {
                    runs[span.run.0 as usize].directory == *directory
                        && extents.iter().any(|read| {
                            read.segment == extent.segment
                                && read.offset < end
                                && extent.offset < read.offset + read.bytes
                        })
                }
                Pending::Write { .. } => false,
            });
            if !used {
                directories[*directory as usize].free.free(*extent);
            }
            used
        });
    }
}
