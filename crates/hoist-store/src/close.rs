//! The end of a store.

use crate::commit::Purpose;
use crate::directory::Directory;
use crate::{Durability, Error, Store};
use hoist_format::LifeKind;

impl Store {
    /// Ends the store; blocks. What was written since the last commit is dropped at `step`; at `none` it is kept, with
    /// its checksums. What is in flight is waited for and delivered, but changes nothing any more; a commit that is under
    /// way is cut off, as by a crash: wait for it first.
    ///
    /// # Errors
    /// What the file system says; when a drive does not answer, the directory's lock is held until this process ends. At
    /// `none`, also [`Error::NotYet`] while writes are in flight, and [`Error::Lost`] when some had failed: everything else
    /// is kept.
    pub fn close(mut self) -> Result<(), Error> {
        let writes = self.writes().any(|span| self.contents.run(span).life == LifeKind::Durable);
        let mut kept = Ok(());
        if self.durability != Durability::Step
            && (writes || !self.changes.is_empty() || self.scalars.is_some())
        {
            kept = self.commit_at_close();
        }
        kept.and(self.end_directories())
    }

    /// Ends the threads, and then lets go of the locks.
    fn end_directories(&mut self) -> Result<(), Error> {
        let mut ended = Ok(());
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

    /// Commits all that was written, for a store that closes and has not committed each step; waits. What could not be written has
    /// no bytes from then on: the records from before no longer say what its extents hold.
    ///
    /// # Errors
    /// Those of [`Store::commit`]; [`Error::Lost`] when all else was kept.
    fn commit_at_close(&mut self) -> Result<(), Error> {
        self.switch.set_waits(true);
        let failed = std::mem::take(&mut self.changes.failed);
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
