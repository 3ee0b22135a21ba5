//! Places for what is written: new extents, spread over the directories, and others when a directory fails.

use crate::free_space::occupied;
use crate::location::UNCOMMITTED;
use crate::shared::ReadOnly;
use crate::spread::STRIPE_BYTES;
use crate::transfer::{Kind, Pending};
use crate::{Durability, Error, Span, Store};
use hoist_format::{Extent, LifeKind, blocks};
use hoist_io::{Priority, RequestId, Transfer};

/// How far from its share a drive's part of a span may be, of the span, before it is divided anew: more than the
/// windows of a drive that does not change differ (a tenth, seen on a virtual disk).
const STRAYING_MAX: f64 = 0.125;

impl Store {
    /// Checks a write and finds its place: new extents, or none when it goes in place.
    pub(crate) fn place_write(
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
        // At a snapshot scratch is written as ever; beside other readers its space is theirs as much.
        if let Some(why) = self.read_only.as_ref().filter(|why| durable || **why == ReadOnly::Shared) {
            return Err(why.error());
        }
        if self.durability == Durability::None && self.contents.layout.is_sourced(span.run) {
            return Err(Error::InModel { span: *span });
        }
        if durable && !self.may_overwrite(span) {
            match self.allocate(span, span.bytes, &[]) {
                // What this epoch has written is in no record yet, so it may be written over: an epoch that writes all
                // its bytes twice still fits twice the durable bytes.
                Err(Error::NoSpace { .. }) if self.changes.covers(span) => {}
                placed => return placed.map(Some),
            }
        }
        self.place_in_place(span)?;
        Ok(None)
    }

    /// Whether bytes of `span` are written over what there is: no epoch that the store may be opened at has it.
    fn may_overwrite(&self, span: &Span) -> bool {
        match self.durability {
            Durability::Step => false,
            Durability::Snapshot => self.changes.covers(span),
            Durability::None => {
                let mut pieces =
                    self.contents.bytes[span.run.0 as usize].locations.between(span.offset, span.end());
                // A snapshot whose deletion is not durable yet has its bytes, too.
                let deleted = self.commit.as_ref().and_then(|commit| commit.deleted.as_ref());
                pieces.all(|piece| {
                    !self.history.holds(piece.born, UNCOMMITTED)
                        && !deleted.is_some_and(|deleted| deleted.had(piece.born))
                        && !self.shares.overlaps(&piece.extent)
                })
            }
        }
    }

    /// Extents for `bytes` of `span`, in the directories that take writes and are not to be avoided.
    fn allocate(&mut self, span: &Span, bytes: u64, avoided: &[usize]) -> Result<Vec<Extent>, Error> {
        let directories = &self.directories;
        let free = |place: usize| if avoided.contains(&place) { 0 } else { directories[place].free.bytes() };
        if !self.spread.divide(bytes, free, &mut self.portions) {
            let takes = (0..directories.len()).filter(|place| self.spread.quarantined(*place).is_none());
            let free_bytes = takes.map(free).sum();
            return Err(Error::NoSpace { span: *span, need_bytes: occupied(bytes), free_bytes });
        }
        let mut extents = self.spare_extents.pop().unwrap_or_default();
        for (place, bytes) in self.portions.drain(..) {
            let fits = self.directories[place as usize].free.allocate(bytes, &mut extents);
            assert!(fits, "directory {place} was given {bytes} bytes that it has no space for");
        }
        Ok(extents)
    }

    /// Gives every byte of `span` an extent, in a directory that takes writes if there is space, and takes its bytes for
    /// gone until they are written.
    fn place_in_place(&mut self, span: &Span) -> Result<(), Error> {
        if self.strays(span) {
            // What is there is about to be overwritten: its space is as good as free.
            self.contents.bytes[span.run.0 as usize].locations.remove(
                span.offset,
                span.end(),
                &mut self.held,
            );
            self.free_held();
        }
        for (from, to) in self.contents.bytes[span.run.0 as usize].locations.gaps(span.offset, span.end()) {
            let extents = self.allocate(span, to - from, &[])?;
            self.relocate(span, from, extents);
        }
        self.leave_quarantined(span);
        let locations = &mut self.contents.bytes[span.run.0 as usize].locations;
        locations.set_valid(span.offset, span.end(), false);
        Ok(())
    }

    /// Whether the drives have other parts of `span` than they would get now, by more than stripes account for, and
    /// nobody reads it, so that it can be divided anew: all of its space is free again then, for it if for nobody else.
    fn strays(&self, span: &Span) -> bool {
        if (0..self.directories.len()).any(|place| self.spread.quarantined(place).is_some()) {
            return false;
        }
        let locations = &self.contents.bytes[span.run.0 as usize].locations;
        let bytes_in = |place| {
            let here =
                locations.extents(span.offset, span.end()).filter(|extent| self.place_of(extent) == place);
            here.map(|extent| extent.bytes).sum::<u64>()
        };
        let tolerance = (STRIPE_BYTES as f64).max(STRAYING_MAX * span.bytes as f64);
        let wished = self.spread.shares().map(|share| share * span.bytes as f64).enumerate();
        let strays =
            wished.into_iter().any(|(place, wish)| (bytes_in(place) as f64 - wish).abs() > tolerance);
        let mut reads = self.pending.values().filter(|pending| matches!(pending.kind, Kind::Read { .. }));
        strays
            && locations.gaps(span.offset, span.end()).is_empty()
            && !reads.any(|read| read.span.overlaps(span))
    }

    /// What lies where writes have failed gets another place; without space it is tried where it is.
    fn leave_quarantined(&mut self, span: &Span) {
        if (0..self.directories.len()).all(|place| self.spread.quarantined(place).is_none()) {
            return;
        }
        let mut from = span.offset;
        for extent in self.current_extents(span) {
            let quarantined = self.spread.quarantined(self.place_of(&extent)).is_some();
            if let Some(extents) = quarantined.then(|| self.allocate(span, extent.bytes, &[]).ok()).flatten()
            {
                self.relocate(span, from, extents);
            }
            from += extent.bytes;
        }
    }

    /// The bytes from `from` on are to be written to these extents from now on; what is read of those from before may
    /// still be under way.
    fn relocate(&mut self, span: &Span, from: u64, mut extents: Vec<Extent>) {
        let locations = &mut self.contents.bytes[span.run.0 as usize].locations;
        locations.replace(from, &extents, (false, UNCOMMITTED), &mut self.held);
        extents.clear();
        self.spare_extents.push(extents);
        self.free_held();
    }

    /// After a write of which parts failed: quarantines what failed, and writes those parts elsewhere. `false`: it is over,
    /// as nothing failed, or there is no other place.
    pub(crate) fn write_elsewhere(&mut self, id: RequestId) -> bool {
        let failed = self.pending.get_mut(&id).filter(|pending| !pending.errors.is_empty());
        let Some(Pending { kind: Kind::Write { avoided, .. }, errors, .. }) = failed else { return false };
        if errors.iter().any(|(_, error)| !error.may_be_the_drives()) {
            return false;
        }
        avoided.extend(errors.iter().map(|(place, _)| *place));
        for (place, error) in errors {
            // What a full file system or a machine short of memory refuses now it may take later.
            if error.is_drives_end() && self.spread.quarantine(*place, &error.to_string()) {
                let directory = self.directories[*place].path.display();
                tracing::error!(%directory, %error, "a write failed: nothing more is written there until the store is opened again");
            }
        }
        // Taken out while its extents change.
        let Some(mut pending) = self.pending.remove(&id) else { return false };
        let moved = self.replace_extents(&mut pending);
        if let (Some(moved), Kind::Write { slot, .. }) = (&moved, &pending.kind) {
            pending.errors.clear();
            let transfer = Transfer::Write(slot.clone());
            let wanted = |index: usize| moved[index];
            pending.left = self.push_parts(id, Priority::WriteBack, &pending.extents, wanted, transfer);
        }
        self.pending.insert(id, pending);
        moved.is_some()
    }

    /// Gives a write new extents for those in directories that have just failed. Which of its extents are new; `None`,
    /// and nothing changed, when there is no space.
    fn replace_extents(&mut self, pending: &mut Pending) -> Option<Vec<bool>> {
        let Pending { span, extents, kind: Kind::Write { new, avoided, .. }, errors, .. } = pending else {
            return None;
        };
        let failed: Vec<usize> = errors.iter().map(|(place, _)| *place).collect();
        let (mut replaced, mut moved) = (Vec::new(), Vec::new());
        for extent in extents.iter() {
            let mut others = vec![*extent];
            let fails = failed.contains(&self.place_of(extent));
            if fails {
                match self.allocate(span, extent.bytes, avoided) {
                    Ok(found) => others = found,
                    Err(_) => {
                        let taken = replaced.iter().zip(&moved).filter(|(_, moved)| **moved);
                        taken.for_each(|(extent, _)| self.free(*extent));
                        return None;
                    }
                }
            }
            moved.extend(others.iter().map(|_| fails));
            replaced.extend(others);
        }
        if *new {
            let given_up = extents.iter().filter(|extent| failed.contains(&self.place_of(extent)));
            given_up.copied().collect::<Vec<_>>().into_iter().for_each(|extent| self.free(extent));
        } else {
            // What stays where it is was replaced by itself: it must not become free.
            let locations = &mut self.contents.bytes[span.run.0 as usize].locations;
            let mut given_up = Vec::new();
            locations.replace(span.offset, &replaced, (false, UNCOMMITTED), &mut given_up);
            given_up.retain(|extent| failed.contains(&self.segments[extent.segment as usize].directory));
            self.held.append(&mut given_up);
            self.free_held();
        }
        *extents = replaced;
        Some(moved)
    }

    fn free(&mut self, extent: Extent) {
        let place = self.place_of(&extent);
        let free = &mut self.directories[place].free;
        self.shares.release(extent, |part| free.free(part));
    }

    /// A write is over: its extents are the bytes' place from now on, or free again.
    pub(crate) fn written(&mut self, span: &Span, new: Option<&Vec<Extent>>, checksums: &[u64], done: bool) {
        let durable = self.contents.run(span).life == LifeKind::Durable;
        if durable {
            self.changes.note_write(span, done);
        }
        if done {
            if new.is_some() {
                self.drop_extents(span);
            }
            self.contents.written(span, new.map(Vec::as_slice), checksums);
            if durable {
                self.changes.spans.entry(span.run).or_default().insert(span.offset, span.end());
            }
        } else {
            new.into_iter().flatten().for_each(|extent| self.free(*extent));
        }
    }

    /// Drops the extents that `span` had: those of the epoch under construction are free now, older ones are kept until
    /// it is durable.
    fn drop_extents(&mut self, span: &Span) {
        let parts = match self.changes.spans.get(&span.run) {
            Some(changed) => changed.split(span.offset, span.end()),
            None => vec![(span.offset, span.end(), false)],
        };
        let locations = &self.contents.bytes[span.run.0 as usize].locations;
        for (from, to, in_this_epoch) in parts {
            let extents = locations.extents(from, to);
            if in_this_epoch {
                self.held.extend(extents);
            } else {
                let part = Span { run: span.run, offset: from, bytes: to - from };
                let bytes = &self.contents.bytes[span.run.0 as usize];
                self.changes.keep_before(bytes, &part);
            }
        }
        self.free_held();
    }

    /// Frees the held extents that no read in flight uses.
    pub(crate) fn free_held(&mut self) {
        let (pending, directories, segments) = (&self.pending, &mut self.directories, &self.segments);
        let shares = &mut self.shares;
        self.held.retain(|extent| {
            let end = extent.offset + extent.bytes;
            let overlaps = |read: &Extent| {
                read.segment == extent.segment
                    && read.offset < end
                    && extent.offset < read.offset + read.bytes
            };
            let reads = |pending: &&Pending| matches!(pending.kind, Kind::Read { .. });
            let used = pending.values().filter(reads).any(|pending| pending.extents.iter().any(overlaps));
            if !used {
                let free = &mut directories[segments[extent.segment as usize].directory].free;
                shares.release(*extent, |part| free.free(part));
            }
            used
        });
    }
}
