//! The stages of a commit: data synced, then the journal's record written, then the journal synced, in every directory.

use crate::commit::JournalWrite;
use crate::history::{Deleted, PREVIOUS};
use crate::journal::no_preamble;
use crate::rollback::Retract;
use crate::{Error, Store, StoreEvent};
use hoist_io::{FileRange, Priority, Request, Transfer};

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The segments written since the last commit.
    DataSynced,
    /// The record, or a whole new journal.
    JournalWritten,
    JournalSynced,
    /// The journal that a new one replaced.
    OldRetired,
}

impl Store {
    pub(crate) fn push_own(&mut self, place: usize, transfer: Transfer, ranges: Vec<FileRange>) {
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
    pub(crate) fn next_stage(&mut self) -> Option<StoreEvent> {
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

    /// The commit is over: what no epoch has any more is free, or nothing is written until it is rolled back.
    fn end_commit(&mut self) -> Option<StoreEvent> {
        let mut commit = self.commit.take()?;
        let makes_epoch = commit.makes_epoch();
        let result = match commit.error.take() {
            None => {
                (self.epoch, self.batch) = (commit.epoch.clone(), commit.batch);
                self.held.extend(commit.deleted.iter().flat_map(Deleted::extents));
                commit.changes.retire(commit.batch, &mut self.history, &mut self.held);
                self.free_held();
                if commit.added.iter().any(|name| name != PREVIOUS) {
                    self.warn_of_little_room();
                }
                Ok(())
            }
            Some(error) => {
                let epoch = commit.epoch.number;
                tracing::error!(epoch, batch = commit.batch, %error, "the commit failed");
                let what = if makes_epoch { "" } else { "a snapshot, made or deleted at " };
                self.poisoned = Some(format!("{what}epoch {epoch}: {error}"));
                self.unrecord(&mut commit);
                (self.failed_changes, self.retracts) = (commit.changes, commit.retracts);
                Err(error)
            }
        };
        Some(match makes_epoch {
            true => StoreEvent::Committed { epoch: commit.epoch.number, result },
            false => StoreEvent::Recorded { result },
        })
    }
}
