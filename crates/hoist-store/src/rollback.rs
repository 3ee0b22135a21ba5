//! Back to the newest durable epoch, in a store that stays open.

use crate::journal::no_preamble;
use crate::{Durability, Error, Store};
use hoist_format::JOURNAL_ALIGN_BYTES;
use hoist_io::{FileId, FileRange, Transfer};

/// A journal that a failed commit may have written to, and what it was before.
pub(crate) struct Retract {
    pub place: usize,
    /// The first block of the record, or of the new journal: without it there is none.
    pub file: FileId,
    pub offset: u64,
    /// Which of the two was in use, where it ended, and its capacity.
    pub before: (usize, u64, u64),
}

impl Store {
    /// Drops all that was written since the newest durable epoch, after a failed commit, too: what is read is of that
    /// epoch again, and the store takes writes. Scratch and derived bytes stay as they are. Blocks while the record of a
    /// commit that failed is taken back, where one may have reached a drive. Called again, it tries that again.
    ///
    /// # Errors
    /// [`Error::NotYet`] while anything is in flight; [`Error::InPlace`] when durable bytes were written at durability
    /// `none`; nothing is changed by either. [`Error::Poisoned`] when a failed commit's record cannot be taken back: what
    /// is read is of the durable epoch, and nothing is written.
    pub fn rollback(&mut self) -> Result<(), Error> {
        let epoch = self.epoch + 1;
        if self.commit.is_some() || !self.pending.is_empty() {
            let what = "requests are in flight, or a commit is under way".to_owned();
            return Err(Error::NotYet { epoch, what });
        }
        if self.durability == Durability::None && !self.changes.is_empty() {
            return Err(Error::InPlace);
        }
        // The newest first: it may have replaced what the failed epoch has written.
        for changes in [std::mem::take(&mut self.changes), std::mem::take(&mut self.failed_changes)] {
            changes.undo(&mut self.contents, &mut self.held);
        }
        self.free_held();
        self.switch.set_waits(true);
        let retracted = self.retract();
        self.switch.set_waits(false);
        if let Err(error) = retracted {
            tracing::error!(epoch, %error, "the record of a failed commit cannot be taken back");
            let cause = format!("epoch {epoch}, whose record cannot be taken back: {error}");
            self.poisoned = Some(cause.clone());
            return Err(Error::Poisoned { cause });
        }
        self.poisoned = None;
        Ok(())
    }

    /// Makes sure that no journal ever tells of the epoch whose commit failed: its extents are about to be used again.
    fn retract(&mut self) -> Result<(), Error> {
        while let Some(Retract { place, file, offset, before }) = self.retracts.last() {
            let directory = &mut self.directories[*place];
            let bytes = JOURNAL_ALIGN_BYTES as u64;
            let ranges = vec![FileRange { file: *file, offset: *offset, bytes, buffer_offset: 0 }];
            self.switch.run(directory, Transfer::WriteBuffer(no_preamble()?), ranges)?;
            self.switch.sync(directory, *file)?;
            let journals = &mut directory.journals;
            (journals.active, journals.tail, journals.capacity) = *before;
            self.retracts.pop();
        }
        Ok(())
    }
}
