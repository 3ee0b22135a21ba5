//! Commits: data synced, then the journal's record written, then the journal synced, in every directory.

use crate::changes::Changes;
use crate::journal::{image_buffer, no_preamble};
use crate::records::BatchWriter;
use crate::rollback::Retract;
use crate::segments::Segment;
use crate::{Durability, Error, Span, Store, StoreEvent};
use hoist_format::Header;
use hoist_io::{FileId, FileRange, Priority, Request, Transfer};
use hoist_memory::AlignedBuffer;
use std::collections::BTreeSet;

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The segments written since the last commit.
    DataSynced,
    /// The record, or a whole new journal.
    JournalWritten,
    JournalSynced,
    /// The journal that a new one replaced.
    OldRetired,
}

/// A commit under way.
pub(crate) struct Commit {
    epoch: u64,
    stage: Stage,
    /// Own requests in flight.
    left: usize,
    changes: Changes,
    /// What each journal gets; taken when it is written.
    writes: Vec<JournalWrite>,
    /// Whether `writes` are whole new journals.
    image: bool,
    /// The journals that were written to.
    retracts: Vec<Retract>,
    error: Option<Error>,
}

struct JournalWrite {
    place: usize,
    buffer: AlignedBuffer,
    /// Where the journal ends, and its capacity, when it is written.
    tail: u64,
    capacity: u64,
    /// How much of it, and where in which file.
    bytes: u64,
    offset: u64,
    file: FileId,
}

impl Store {
    /// Ends the epoch under construction: all that was written since the last call. All its writes have completed. The
    /// commit runs by itself as completions are handled, and ends with [`StoreEvent::Committed`]; meanwhile writes of
    /// the next epoch may begin. At durability `none` nothing is done, no event comes, and the answer is always the epoch
    /// that `close` will make.
    ///
    /// # Errors
    /// [`Error::NotYet`] when a commit or a durable write is under way, or when one failed and was not made good;
    /// [`Error::Poisoned`] after a failed commit; [`Error::Memory`]. None of these changes anything.
    pub fn commit(&mut self) -> Result<u64, Error> {
        if self.durability == Durability::None {
            return Ok(self.epoch + 1);
        }
        self.start_commit(false)
    }

    /// Commits all that was written, for a store of durability `none` that closes; waits. What could not be written has
    /// no bytes from then on: the records from before no longer say what its extents hold.
    ///
    /// # Errors
    /// Those of [`Store::commit`]; [`Error::Lost`] when all else was kept.
    pub(crate) fn commit_at_close(&mut self) -> Result<(), Error> {
        self.switch.set_waits(true);
        let failed = std::mem::take(&mut self.changes.failed);
        self.start_commit(!failed.is_empty())?;
        loop {
            let completion = self.switch.wait()?;
            if let Some(StoreEvent::Committed { result, .. }) = self.handle(completion) {
                result?;
                break;
            }
        }
        match failed.first() {
            None => Ok(()),
            Some(first) => Err(Error::Lost { what: self.describe(first), spans: failed.len() }),
        }
    }

    /// Whether an epoch can be made of what was written.
    fn check_commit(&self, epoch: u64) -> Result<(), Error> {
        let not_yet = |what: String| Err(Error::NotYet { epoch, what });
        if let Some(cause) = &self.poisoned {
            return Err(Error::Poisoned { cause: cause.clone() });
        }
        if let Some(commit) = &self.commit {
            return not_yet(format!("epoch {} is being committed", commit.epoch));
        }
        let durable = |span: &&Span| self.contents.run(span).life == hoist_format::LifeKind::Durable;
        if let Some(span) = self.writes().find(durable) {
            return not_yet(format!("{span} is being written"));
        }
        if let Some(span) = self.changes.failed.first() {
            return not_yet(format!("writing {span} failed: write it again, or open the store again"));
        }
        Ok(())
    }

    /// `image`: journals are written whole, whether they have room or not.
    fn start_commit(&mut self, image: bool) -> Result<u64, Error> {
        let epoch = self.epoch + 1;
        self.check_commit(epoch)?;
        let (writes, image) = self.journal_writes(epoch, image)?;
        let written = self.written_segments();
        let changes = std::mem::take(&mut self.changes);
        let (stage, retracts) = (Stage::DataSynced, Vec::new());
        self.commit = Some(Commit { epoch, stage, left: 0, changes, writes, image, retracts, error: None });
        if written.is_empty() {
            self.next_stage();
        }
        for number in written {
            let Segment { directory, file, .. } = self.segments[number as usize];
            self.push_own(directory, Transfer::Sync(file), Vec::new());
        }
        Ok(epoch)
    }

    /// The segments that hold what this epoch has written. Not those of a drive that failed a write, when all that it had
    /// lies elsewhere by now: it may fail the sync, too.
    fn written_segments(&self) -> BTreeSet<u32> {
        let ranges = self.changes.spans.iter().flat_map(|(run, ranges)| {
            let locations = &self.contents.bytes[run.0 as usize].locations;
            ranges.iter().flat_map(|(from, to)| locations.extents(from, to))
        });
        ranges.map(|extent| extent.segment).collect()
    }

    /// What each journal gets: the batch, or a whole new journal where one has no room for it, or `image` says so.
    fn journal_writes(&mut self, epoch: u64, image: bool) -> Result<(Vec<JournalWrite>, bool), Error> {
        let mut batch = BatchWriter::new(Vec::new(), epoch);
        for key in self.changes.notes() {
            batch.push_note(key, &self.contents.notes[key])?;
        }
        for (run, ranges) in &self.changes.spans {
            batch.push_spans(&self.contents, *run, ranges)?;
        }
        let batch = batch.finish()?;
        let bytes = batch.len() as u64;
        let current = self.directories.iter().map(|directory| &directory.journals).filter(|one| !one.behind);
        let image = image || current.clone().any(|journals| journals.tail + bytes > journals.capacity);
        let mut writes = Vec::with_capacity(self.directories.len());
        for (place, directory) in self.directories.iter_mut().enumerate() {
            let journals = &mut directory.journals;
            if journals.behind {
                continue;
            }
            writes.push(if image {
                let header = Header { directory: place as u32, ..self.header.clone() };
                let (buffer, tail) = image_buffer(header, &self.contents, epoch)?;
                let (capacity, file) = (buffer.len() as u64, journals.file(1 - journals.active));
                JournalWrite { place, buffer, tail, capacity, bytes: capacity, offset: 0, file }
            } else {
                let mut buffer = match journals.buffer.take().filter(|buffer| buffer.len() >= batch.len()) {
                    Some(buffer) => buffer,
                    None => AlignedBuffer::new(batch.len())?,
                };
                buffer[..batch.len()].copy_from_slice(&batch);
                let (offset, capacity) = (journals.tail, journals.capacity);
                let (tail, file) = (offset + bytes, journals.file(journals.active));
                JournalWrite { place, buffer, tail, capacity, bytes, offset, file }
            });
        }
        Ok((writes, image))
    }

    fn push_own(&mut self, place: usize, transfer: Transfer, ranges: Vec<FileRange>) {
        let id = self.switch.next_id(place);
        if let Some(commit) = &mut self.commit {
            commit.left += 1;
        }
        // A trainer waits for its commit, and the bytes are few: they pass prefetches.
        self.directories[place].push(Request { id, priority: Priority::Demand, ranges, transfer });
    }

    /// Takes back one of the commit's own requests, and goes on when it was the last of its stage.
    pub(crate) fn commit_completed(
        &mut self,
        place: usize,
        transfer: Transfer,
        result: Result<(), Error>,
    ) -> Option<StoreEvent> {
        let mut commit = self.commit.as_mut()?;
        commit.left -= 1;
        if let Err(error) = result {
            // The old journal is superseded already: a failure to mark it so costs nothing that is promised.
            if commit.stage == Stage::OldRetired {
                tracing::warn!(%error, "the old journal could not be retired");
            } else if commit.stage == Stage::DataSynced || !self.leave_behind(place, &error) {
                let commit = self.commit.as_mut()?;
                commit.error.get_or_insert(error);
            }
            commit = self.commit.as_mut()?;
        }
        if let (Transfer::WriteBuffer(buffer), false, Stage::JournalWritten) =
            (transfer, commit.image, commit.stage)
        {
            let slot = self.directories.iter_mut().find(|directory| directory.journals.buffer.is_none());
            if let Some(directory) = slot {
                directory.journals.buffer = Some(buffer);
            }
        }
        if commit.left > 0 {
            return None;
        }
        if commit.error.is_some() {
            return self.end_commit();
        }
        self.next_stage()
    }

    /// Starts the next stage of the commit, all requests of the last one being done.
    fn next_stage(&mut self) -> Option<StoreEvent> {
        let commit = self.commit.as_mut()?;
        let (stage, image) = (commit.stage, commit.image);
        match stage {
            Stage::DataSynced => {
                commit.stage = Stage::JournalWritten;
                let writes = std::mem::take(&mut commit.writes);
                for JournalWrite { place, buffer, tail, capacity, bytes, offset, file } in writes {
                    let journals = &mut self.directories[place].journals;
                    let before = (journals.active, journals.tail, journals.capacity);
                    if let Some(commit) = &mut self.commit {
                        commit.retracts.push(Retract { place, file, offset, bytes, before });
                    }
                    (journals.tail, journals.capacity) = (tail, capacity);
                    let ranges = vec![FileRange { file, offset, bytes, buffer_offset: 0 }];
                    self.push_own(place, Transfer::WriteBuffer(buffer), ranges);
                }
            }
            Stage::JournalWritten => {
                commit.stage = Stage::JournalSynced;
                for place in self.current_journals() {
                    let journals = &mut self.directories[place].journals;
                    if image {
                        journals.active = 1 - journals.active;
                    }
                    let file = journals.file(journals.active);
                    self.push_own(place, Transfer::Sync(file), Vec::new());
                }
            }
            Stage::JournalSynced if image => {
                commit.stage = Stage::OldRetired;
                let current = self.current_journals();
                let zeros: Result<Vec<_>, _> = current.iter().map(|_| no_preamble()).collect();
                let Ok(zeros) = zeros else { return self.end_commit() };
                for (place, buffer) in current.into_iter().zip(zeros) {
                    let journals = &self.directories[place].journals;
                    let (file, bytes) = (journals.file(1 - journals.active), buffer.len() as u64);
                    let ranges = vec![FileRange { file, offset: 0, bytes, buffer_offset: 0 }];
                    self.push_own(place, Transfer::WriteBuffer(buffer), ranges);
                }
            }
            Stage::JournalSynced | Stage::OldRetired => return self.end_commit(),
        }
        None
    }

    /// The directories whose journals get every epoch.
    fn current_journals(&self) -> Vec<usize> {
        (0..self.directories.len()).filter(|place| !self.directories[*place].journals.behind).collect()
    }

    /// A journal could not be written: the others go on without it. Its directory's copy stays at an older epoch, and a
    /// later open takes the newest. `false`, and nothing changed, when there is no other.
    fn leave_behind(&mut self, place: usize, error: &Error) -> bool {
        let others = self.current_journals().into_iter().any(|other| other != place);
        if others {
            let directory = &mut self.directories[place];
            tracing::error!(directory = %directory.path.display(), %error, "its journal is left behind");
            directory.journals.behind = true;
            if error.is_drives_end() {
                self.spread.quarantine(place, &error.to_string());
            }
        }
        others
    }

    /// The commit is over: what it dropped is free, or nothing is written until it is rolled back.
    fn end_commit(&mut self) -> Option<StoreEvent> {
        let Commit { epoch, changes, retracts, error, .. } = self.commit.take()?;
        let result = match error {
            None => {
                self.epoch = epoch;
                self.held.extend(changes.dropped());
                self.free_held();
                Ok(())
            }
            Some(error) => {
                tracing::error!(epoch, %error, "the commit failed");
                self.poisoned = Some(format!("epoch {epoch}: {error}"));
                (self.failed_changes, self.retracts) = (changes, retracts);
                Err(error)
            }
        };
        Some(StoreEvent::Committed { epoch, result })
    }
}
