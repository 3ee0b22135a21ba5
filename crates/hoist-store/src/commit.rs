//! Commits: what becomes an epoch, and what the journals get.

use crate::batch::{BatchWriter, Image};
use crate::changes::Changes;
use crate::history::{Deleted, PREVIOUS};
use crate::journal::image_buffer;
use crate::rollback::Retract;
use crate::segments::Segment;
use crate::shared::ReadOnly;
use crate::stages::Stage;
use crate::touched::Touched;
use crate::{Durability, Error, Scalars, Span, Store};
use hoist_format::{EpochRecord, Header, Lifetime};
use hoist_io::{FileId, Transfer};
use hoist_memory::AlignedBuffer;
use std::collections::BTreeSet;
use std::time::SystemTime;

/// What a batch is written for.
pub(crate) enum Purpose {
    /// A new epoch of all that was written, with what the trainer says of it; kept under a name, if there is one.
    Epoch { scalars: Scalars, name: Option<String> },
    /// The same, of what the epoch before the newest has, whose number it takes: the newest is no more.
    Again { previous: EpochRecord },
    /// The newest epoch is kept.
    Snapshot { name: String },
    /// A snapshot is kept no more, or the epoch before the newest.
    Delete { name: String },
    /// What was read of files outside the store.
    Touches,
}

/// A commit under way.
pub(crate) struct Commit {
    /// The batch, and the newest epoch when that is durable.
    pub batch: u64,
    pub epoch: EpochRecord,
    pub stage: Stage,
    /// Own requests in flight.
    pub left: usize,
    /// What the epoch changes; nothing where no epoch is made.
    pub changes: Changes,
    /// The snapshot that is made, and the one that is deleted.
    pub added: Vec<String>,
    pub deleted: Option<Deleted>,
    /// Checksums of bytes in sources that it tells of.
    pub touches: Touched,
    /// What each journal gets; taken when it is written.
    pub writes: Vec<JournalWrite>,
    /// Whether `writes` are whole new journals.
    pub image: bool,
    /// The journals that were written to.
    pub retracts: Vec<Retract>,
    pub error: Option<Error>,
}

impl Commit {
    /// Whether it makes an epoch.
    pub fn makes_epoch(&self) -> bool {
        self.epoch.batch == self.batch
    }
}

pub(crate) struct JournalWrite {
    pub place: usize,
    pub buffer: AlignedBuffer,
    /// Where the journal ends, and its capacity, when it is written.
    pub tail: u64,
    pub capacity: u64,
    /// How much of it, and where in which file.
    pub bytes: u64,
    pub offset: u64,
    pub file: FileId,
}

impl Store {
    /// Ends the epoch under construction: all that was written since the last call. All its writes have completed. The
    /// commit runs by itself as completions are handled, and ends with [`StoreEvent::Committed`]; meanwhile writes of
    /// the next epoch may begin. Where [`Store::commits`] is false nothing is done, no event comes, and the answer is the
    /// epoch that `close` or the next snapshot will make.
    ///
    /// # Errors
    /// [`Error::NotYet`] when a commit or a durable write is under way, or when one failed and was not made good;
    /// [`Error::Poisoned`] after a failed commit; [`Error::ReadAlone`]; [`Error::Memory`]. None of these changes anything.
    pub fn commit(&mut self, scalars: &Scalars) -> Result<u64, Error> {
        scalars.check()?;
        if !self.commits() {
            match &self.read_only {
                Some(ReadOnly::Snapshot(_)) => return Ok(self.epoch.number),
                Some(why) => return Err(why.error()),
                None => {}
            }
            self.scalars = Some(scalars.clone());
            return Ok(self.epoch.number + 1);
        }
        self.start_commit(Purpose::Epoch { scalars: scalars.clone(), name: None }, false)
    }

    /// What was said of the last step.
    pub(crate) fn newest_scalars(&self) -> Scalars {
        self.scalars.clone().unwrap_or_else(|| self.newest().scalars)
    }

    /// Whether each [`Store::commit`] makes an epoch, which ends with an event: at durability `step`, unless the store is
    /// open at a snapshot, or to be read.
    #[must_use]
    pub fn commits(&self) -> bool {
        self.durability == Durability::Step && self.read_only.is_none()
    }

    /// Whether a batch can be written, and an epoch be made of what was written.
    pub(crate) fn check_commit(&self, epoch: u64, makes_epoch: bool) -> Result<(), Error> {
        let not_yet = |what: String| Err(Error::NotYet { epoch, what });
        if let Some(cause) = &self.poisoned {
            return Err(Error::Poisoned { cause: cause.clone() });
        }
        if let Some(commit) = &self.commit {
            let what = if commit.makes_epoch() {
                "is being committed"
            } else {
                "is newest, and a snapshot is being made or deleted"
            };
            return not_yet(format!("epoch {} {what}", commit.epoch.number));
        }
        if !makes_epoch {
            return Ok(());
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

    /// `image`: journals are written whole, whether they have room or not. Returns the newest epoch when it is done.
    pub(crate) fn start_commit(&mut self, purpose: Purpose, image: bool) -> Result<u64, Error> {
        let makes_epoch = matches!(purpose, Purpose::Epoch { .. } | Purpose::Again { .. });
        let number = self.epoch.number + u64::from(makes_epoch);
        self.check_commit(number, makes_epoch)?;
        if let Purpose::Epoch { name: Some(name), .. } | Purpose::Snapshot { name } = &purpose {
            self.history.check_name(name)?;
        }
        if let Purpose::Delete { name } = &purpose {
            self.history.snapshot(name)?;
        }
        if matches!(purpose, Purpose::Epoch { .. }) && self.awaits_final() {
            let what = format!("epoch {} is not final: say so when all ranks have it", self.epoch.number);
            return Err(Error::NotYet { epoch: number, what });
        }
        let (batch, mut added, mut deleted) = (self.batch + 1, Vec::new(), None);
        let mut epoch = self.epoch.clone();
        match purpose {
            Purpose::Epoch { scalars: Scalars { step, values }, name } => {
                let time_s =
                    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
                if self.header.world_size > 1 && self.durability != Durability::None {
                    added.push((PREVIOUS.to_owned(), epoch));
                }
                epoch = EpochRecord { number, batch, time_s, step, scalars: values.into_iter().collect() };
                added.extend(name.map(|name| (name, epoch.clone())));
            }
            Purpose::Again { previous } => {
                epoch = EpochRecord { batch, ..previous };
                deleted = self.history.remove(PREVIOUS);
            }
            Purpose::Snapshot { name } => added.push((name, epoch.clone())),
            Purpose::Delete { name } => deleted = self.history.remove(&name),
            Purpose::Touches => {}
        }
        if makes_epoch {
            self.changes.set_born(&mut self.contents, batch);
        }
        let names = added.iter().map(|(name, _)| name.clone()).collect();
        added.into_iter().for_each(|(name, epoch)| assert!(self.history.insert(name, epoch), "kept twice"));
        let added = names;
        let (changes, left, stage, retracts) = (Changes::default(), 0, Stage::DataSynced, Vec::new());
        let (writes, error) = (Vec::new(), None);
        let touches = std::mem::take(&mut self.unsaved_touches);
        let mut commit = Commit {
            batch,
            epoch,
            stage,
            left,
            changes,
            added,
            deleted,
            touches,
            writes,
            image,
            retracts,
            error,
        };
        if let Err(error) = self.journal_writes(&mut commit) {
            self.unrecord(&mut commit);
            return Err(error);
        }
        let written = if makes_epoch { self.written_segments() } else { BTreeSet::new() };
        if makes_epoch {
            commit.changes = std::mem::take(&mut self.changes);
            self.scalars = None;
        }
        self.commit = Some(commit);
        if written.is_empty() {
            self.next_stage();
        }
        for number in written {
            let Segment { directory, file, .. } = self.segments[number as usize];
            self.push_own(directory, Transfer::Sync(file), Vec::new());
        }
        Ok(number)
    }

    /// Snapshots are again as they were before a commit that did not come to be.
    pub(crate) fn unrecord(&mut self, commit: &mut Commit) {
        for name in &commit.added {
            self.history.remove(name);
        }
        if let Some(deleted) = commit.deleted.take() {
            self.history.put_back(deleted);
        }
        self.unsaved_touches.extend(&commit.touches);
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
    fn journal_writes(&mut self, commit: &mut Commit) -> Result<(), Error> {
        let batch = self.batch_bytes(commit)?;
        let bytes = batch.len() as u64;
        let current = self.directories.iter().map(|directory| &directory.journals).filter(|one| !one.behind);
        commit.image |= current.clone().any(|journals| journals.tail + bytes > journals.capacity);
        // What is being written belongs to an epoch that is still to come.
        let mut durable = None;
        if commit.image && !commit.makes_epoch() && !self.changes.is_empty() {
            let contents = durable.insert(self.contents.clone());
            self.changes.clone().undo(contents, &mut Vec::new());
        }
        let contents = durable.as_ref().unwrap_or(&self.contents);
        // And what it replaces is not in the history yet: what snapshots have of that, no other journal tells of.
        let mut kept = None;
        if commit.image && commit.makes_epoch() {
            let history = kept.insert(self.history.clone());
            self.changes.clone().retire(commit.batch, history, &mut Vec::new());
        }
        let history = kept.as_ref().unwrap_or(&self.history);
        let image = Image { contents, history, epoch: &commit.epoch, batch: commit.batch };
        for (place, directory) in self.directories.iter_mut().enumerate() {
            let journals = &mut directory.journals;
            if journals.behind {
                continue;
            }
            commit.writes.push(if commit.image {
                let header = Header { directory: place as u32, ..self.header.clone() };
                let (buffer, tail) = image_buffer(header, &image)?;
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
        Ok(())
    }

    /// The batch as it is appended.
    fn batch_bytes(&self, commit: &Commit) -> Result<Vec<u8>, Error> {
        let mut batch = BatchWriter::new(Vec::new(), commit.batch)?;
        if let Some(deleted) = &commit.deleted {
            batch.push_deleted(deleted.name())?;
        }
        for (name, epoch) in
            self.history.kept().filter(|(name, _)| commit.added.iter().any(|one| one == name))
        {
            batch.push_snapshot(name, epoch)?;
        }
        if commit.makes_epoch() {
            let life = Lifetime { born: commit.batch, died: None };
            for key in self.changes.notes() {
                batch.push_note(key, self.note(key), life)?;
            }
            for (run, ranges) in &self.changes.spans {
                batch.push_changed(&self.contents, *run, ranges)?;
            }
        }
        batch.push_touched(&commit.touches)?;
        batch.finish(&commit.epoch)
    }
}
