//! Back to the newest durable epoch, in a store that stays open.

use crate::{Durability, Error, Store};
use hoist_io::{FileId, FileRange, Transfer};
use hoist_memory::AlignedBuffer;

/// A journal that a failed commit may have written to, and what it was before.
pub(crate) struct Retract {
    pub place: usize,
    /// The record, or the new journal, all of it: the next attempt has the same epoch and place, and torn after a part that
    /// is equal it would be completed by what is left of this one.
    pub file: FileId,
    pub offset: u64,
    pub bytes: u64,
    /// Which of the two was in use, where it ended, and its capacity.
    pub before: (usize, u64, u64),
}

impl Store {
    /// Drops all that was written since the newest durable epoch, after a failed commit, too: what is read is of that
    /// epoch again, and the store takes writes. Scratch bytes stay as they are; derived ones are forgotten, as their sources
    /// are others. Blocks while the record of a
    /// commit that failed is taken back, where one may have reached a drive. Called again, it tries that again.
    ///
    /// # Errors
    /// The record is taken back in every directory that the commit wrote to, so that one which is at its end keeps the others
    /// from going on until the store is opened again. [`Error::NotYet`] while anything is in flight; [`Error::InPlace`] when durable bytes were written at durability
    /// `none`; nothing is changed by either. [`Error::Poisoned`] when a failed commit's record cannot be taken back: what
    /// is read is of the durable epoch, nothing durable is written, and what the lost epoch has written stays as it is: a
    /// later open may find it, whole.
    pub fn rollback(&mut self) -> Result<(), Error> {
        let epoch = self.epoch.number + 1;
        if self.commit.is_some() || !self.pending.is_empty() {
            let what = "requests are in flight, or a commit is under way".to_owned();
            return Err(Error::NotYet { epoch, what });
        }
        if self.durability == Durability::None && self.changes.has_bytes() {
            return if self.poisoned.is_some() { self.take_back_record() } else { Err(Error::InPlace) };
        }
        // The newest first: it may have replaced what the failed epoch has written.
        for changes in [std::mem::take(&mut self.changes), std::mem::take(&mut self.failed_changes)] {
            changes.undo(&mut self.contents, &mut self.lost);
        }
        self.scalars = None;
        self.contents.outdate_derived();
        self.take_back_record()?;
        // Not before: a record that comes to light names them.
        self.held.append(&mut self.lost);
        self.free_held();
        Ok(())
    }

    /// Takes back the record of a snapshot that could not be made or deleted, and nothing else: what was written since the
    /// newest epoch stays. Blocks. Called again, it tries that again.
    ///
    /// # Errors
    /// [`Error::NotYet`] while a commit is under way; [`Error::Poisoned`] when it cannot be taken back, or when an epoch was
    /// lost with it, which is for [`Store::rollback`].
    pub fn retract_record(&mut self) -> Result<(), Error> {
        if self.commit.is_some() {
            let what = "a commit is under way".to_owned();
            return Err(Error::NotYet { epoch: self.epoch.number + 1, what });
        }
        match self.poisoned.clone().filter(|_| !self.failed_changes.is_empty()) {
            Some(cause) => Err(Error::Poisoned { cause }),
            None => self.take_back_record(),
        }
    }

    pub(crate) fn take_back_record(&mut self) -> Result<(), Error> {
        self.switch.set_waits(true);
        let retracted = self.retract();
        self.switch.set_waits(false);
        if let Err(error) = retracted {
            let epoch = self.epoch.number;
            tracing::error!(epoch, %error, "the record of a failed commit cannot be taken back");
            let cause = format!("a record behind epoch {epoch} cannot be taken back: {error}");
            self.poisoned = Some(cause.clone());
            return Err(Error::Poisoned { cause });
        }
        self.poisoned = None;
        Ok(())
    }

    /// Makes sure that no journal ever tells of the epoch whose commit failed: its extents are about to be used again.
    fn retract(&mut self) -> Result<(), Error> {
        while let Some(Retract { place, file, offset, bytes, before }) = self.retracts.last() {
            let directory = &mut self.directories[*place];
            let zeros = AlignedBuffer::new(*bytes as usize)?;
            let ranges = vec![FileRange { file: *file, offset: *offset, bytes: *bytes, buffer_offset: 0 }];
            self.switch.run(directory, Transfer::WriteBuffer(zeros), ranges)?;
            self.switch.sync(directory, *file)?;
            let journals = &mut directory.journals;
            (journals.active, journals.tail, journals.capacity) = *before;
            self.retracts.pop();
        }
        Ok(())
    }
}
