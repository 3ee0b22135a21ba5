//! The end of a store.

use crate::commit::Purpose;
use crate::directory::Directory;
use crate::sources::OpenSources;
use crate::{Durability, Error, Store};
use hoist_format::LifeKind;

impl Store {
    /// Ends the store; blocks. What was written since the last commit is dropped at `step`; at `none` and `snapshot` it is
    /// kept, with its checksums, as a new epoch. What is in flight is waited for and delivered, but changes nothing any
    /// more; a commit that is under way is cut off, as by a crash: wait for it first.
    ///
    /// # Errors
    /// What the file system says; when a drive does not answer, the directory's lock is held until this process ends. At
    /// `none` and `snapshot`, also [`Error::NotYet`] while writes are in flight. When some had failed, at `none`
    /// [`Error::Lost`], everything else being kept, and at `snapshot` [`Error::Unsaved`]: the last snapshot is the newest epoch.
    pub fn close(mut self) -> Result<(), Error> {
        let writes = self.writes().any(|span| self.contents.run(span).life == LifeKind::Durable);
        let mut kept = Ok(());
        if self.durability != Durability::Step
            && (writes || !self.changes.is_empty() || self.scalars.is_some())
        {
            kept = self.commit_at_close();
        }
        self.save_touches();
        kept.and(self.end_directories())
    }

    /// Has the checksums of what was read in place in the journal. Without them the next first read finds them again: a
    /// failure costs no more than that.
    fn save_touches(&mut self) {
        let may = self.read_only.is_none() && self.commit.is_none() && self.poisoned.is_none();
        if !may || self.unsaved_touches.is_empty() {
            return;
        }
        self.switch.set_waits(true);
        let saved = self.start_commit(Purpose::Touches, false).and_then(|_| self.wait_for_commit());
        if let Err(error) = saved {
            tracing::warn!(%error, "checksums of files in place are not kept");
        }
    }

    /// Ends the threads, and then lets go of the locks.
    fn end_directories(&mut self) -> Result<(), Error> {
        let mut ended = Ok(());
        if let Some(OpenSources { io, .. }) = self.sources.take() {
            ended = io.close().map_err(Error::from);
        }
        for Directory { path, io, lock, .. } in std::mem::take(&mut self.directories) {
            if let Err(error) = io.close() {
                // The kernel may write yet what it has: nobody else must use the extents.
                tracing::error!(directory = %path.display(), %error, "its lock is held until this process ends");
                std::mem::forget(lock);
                ended = ended.and(Err(error.into()));
            }
        }
        ended
    }

    /// Ends a store whose owner is in the middle of something: what was written since the newest epoch is dropped, or, at
    /// `none`, told of by nobody.
    ///
    /// # Errors
    /// What the file system says.
    pub fn close_uncommitted(mut self) -> Result<(), Error> {
        if self.durability == Durability::Step {
            self.save_touches();
        }
        self.end_directories()
    }

    /// Commits all that was written, for a store that closes and has not committed each step; waits. At `none` what could
    /// not be written has no bytes from then on: what its extents hold nobody knows, or it is of another time than the rest.
    ///
    /// # Errors
    /// Those of [`Store::commit`]; [`Error::Lost`] when all else was kept; [`Error::Unsaved`].
    fn commit_at_close(&mut self) -> Result<(), Error> {
        if self.poisoned.is_some() && self.failed_changes.is_empty() {
            self.take_back_record()?;
        }
        if let Some(first) = self.changes.failed.first().filter(|_| self.durability == Durability::Snapshot) {
            return Err(Error::Unsaved { what: self.describe(first), spans: self.changes.failed.len() });
        }
        self.switch.set_waits(true);
        let failed = std::mem::take(&mut self.changes.failed);
        for span in &failed {
            let bytes = &mut self.contents.bytes[span.run.0 as usize];
            self.changes.keep_before(bytes, span);
            bytes.locations.remove(span.offset, span.end(), &mut Vec::new());
            self.changes.spans.entry(span.run).or_default().insert(span.offset, span.end());
        }
        let scalars = self.newest_scalars();
        self.start_commit(Purpose::Epoch { scalars, name: None }, !failed.is_empty())?;
        self.wait_for_commit()?;
        match failed.first() {
            None => Ok(()),
            Some(first) => Err(Error::Lost { what: self.describe(first), spans: failed.len() }),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // What went wrong is in the log.
        let _ = self.end_directories();
    }
}
