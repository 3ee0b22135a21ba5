//! Snapshots: epochs that are kept under a name. Neither making nor deleting one nor going back to one moves data.

use crate::commit::Purpose;
use crate::contents::Contents;
use crate::free_space::occupied;
use crate::location::UNCOMMITTED;
use crate::{Durability, Error, RunId, Scalars, Span, Store};
use hoist_format::{EpochRecord, LifeKind};

/// A committed state of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Its number: how many were committed before it.
    pub number: u64,
    /// When it was committed, in seconds since 1970.
    pub time_s: u64,
    /// What the trainer has said of it.
    pub scalars: Scalars,
}

impl From<&EpochRecord> for Epoch {
    fn from(record: &EpochRecord) -> Epoch {
        let EpochRecord { number, time_s, step, scalars, .. } = record.clone();
        Epoch { number, time_s, scalars: Scalars { step, values: scalars.into_iter().collect() } }
    }
}

impl Store {
    /// The newest durable epoch, or the one of the snapshot that the store is open at.
    #[must_use]
    pub fn newest(&self) -> Epoch {
        Epoch::from(&self.epoch)
    }

    /// All snapshots, by name.
    pub fn snapshots(&self) -> impl Iterator<Item = (&str, Epoch)> {
        self.history.snapshots().map(|(name, epoch)| (name, Epoch::from(epoch)))
    }

    /// Keeps an epoch as `name` until it is deleted. At durability `step` it is the newest durable one, and nothing but a
    /// record of a few hundred bytes is written; else it is an epoch of all that was written, and all of that has completed.
    /// Ends with [`crate::StoreEvent::Recorded`], or, where an epoch is made, with [`crate::StoreEvent::Committed`].
    ///
    /// While a snapshot is kept, what it has and is written anew takes space for both: see [`crate::Config::snapshots`].
    ///
    /// # Errors
    /// Those of [`Store::commit`]; [`Error::BadSnapshotName`]; [`Error::ReadOnly`]; [`Error::NoSnapshots`] at durability
    /// `none`. None of these changes anything.
    pub fn snapshot(&mut self, name: &str) -> Result<(), Error> {
        self.check_writable()?;
        let name = name.to_owned();
        let purpose = match self.durability {
            Durability::None => return Err(Error::NoSnapshots),
            Durability::Step => Purpose::Snapshot { name },
            Durability::Snapshot => Purpose::Epoch { scalars: self.newest_scalars(), name: Some(name) },
        };
        self.start_commit(purpose, false).map(drop)
    }

    pub(crate) fn warn_of_little_room(&self) {
        let (free_bytes, need_bytes) = self.room_for_steps();
        if free_bytes < need_bytes {
            tracing::warn!(
                free_bytes,
                need_bytes,
                "the store has too little space for steps that write all durable tensors while this snapshot is kept: \
                 delete it before, or create the store with store.snapshots"
            );
        }
    }

    /// Bytes that are free, and those that must be so that steps can write all durable tensors again and again while the
    /// newest epoch is kept.
    #[must_use]
    pub fn room_for_steps(&self) -> (u64, u64) {
        let free_bytes = self.directories.iter().map(|directory| directory.free.bytes()).sum();
        let durable: u64 = self.contents.durable_runs().map(|(_, run)| occupied(run.bytes)).sum();
        let versions = if self.durability == Durability::Step { 2 } else { 1 };
        (free_bytes, versions * durable)
    }

    /// Keeps a snapshot no more: what only it has is free when [`crate::StoreEvent::Recorded`] has come.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`]; those of [`Store::snapshot`].
    pub fn delete_snapshot(&mut self, name: &str) -> Result<(), Error> {
        self.check_writable()?;
        self.start_commit(Purpose::Delete { name: name.to_owned() }, false).map(drop)
    }

    /// Makes a new epoch of what a snapshot has: its bytes, its notes, its scalars. Nothing is copied, the snapshot stays,
    /// and so do all others. What was written since the newest durable epoch must be committed or rolled back first. Bytes
    /// of derived tensors are forgotten, as their sources change. Ends with [`crate::StoreEvent::Committed`].
    ///
    /// # Errors
    /// [`Error::NoSnapshot`]; [`Error::NotYet`] while anything is in flight, or when something was written; those of
    /// [`Store::commit`]. None of these changes anything.
    pub fn rollback_to(&mut self, name: &str) -> Result<u64, Error> {
        self.check_writable()?;
        let epoch = self.history.snapshot(name)?.clone();
        let scalars = Epoch::from(&epoch).scalars;
        self.go_to(&epoch, Purpose::Epoch { scalars, name: None })
    }

    /// Commits a new epoch that has what an older one has.
    pub(crate) fn go_to(&mut self, epoch: &EpochRecord, purpose: Purpose) -> Result<u64, Error> {
        let not_yet = |what: &str| Err(Error::NotYet { epoch: self.epoch.number + 1, what: what.to_owned() });
        if self.commit.is_some() || !self.pending.is_empty() {
            return not_yet("requests are in flight, or a commit is under way");
        }
        if !self.changes.is_empty() {
            return not_yet("something was written since the newest epoch: commit it, or roll it back");
        }
        self.check_commit(self.epoch.number + 1, true)?;
        self.change_to(self.history.contents_at(&self.contents, epoch.batch));
        let started = self.start_commit(purpose, false);
        if started.is_err() {
            let mut given_up = Vec::new();
            std::mem::take(&mut self.changes).undo(&mut self.contents, &mut given_up);
            self.held.append(&mut given_up);
            self.free_held();
        } else {
            self.contents.outdate_derived();
        }
        started
    }

    /// Makes what is different in `then` the changes of the epoch under construction. Its extents have a holder more.
    fn change_to(&mut self, then: Contents) {
        for (run, bytes) in then.bytes.into_iter().enumerate() {
            let run = RunId(run as u32);
            let info = &self.contents.layout.runs[run.0 as usize];
            let now = &mut self.contents.bytes[run.0 as usize];
            if info.life != LifeKind::Durable || bytes.locations == now.locations {
                continue;
            }
            let whole = Span { run, offset: 0, bytes: info.bytes };
            self.changes.keep_before(now, &whole);
            bytes.locations.all().iter().for_each(|piece| self.shares.add(piece.extent));
            (now.locations, now.checksums) = (bytes.locations, bytes.checksums);
            now.locations.set_born(0, whole.bytes, UNCOMMITTED);
            self.changes.spans.entry(run).or_default().insert(0, whole.bytes);
        }
        let gone = self.contents.notes.keys().filter(|key| !then.notes.contains_key(*key));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.changes.set_note(&mut self.contents, &key, None);
        }
        for (key, note) in then.notes {
            if self.note(&key) != Some(note.bytes.as_slice()) {
                self.changes.set_note(&mut self.contents, &key, Some(note.bytes));
            }
        }
    }
}
