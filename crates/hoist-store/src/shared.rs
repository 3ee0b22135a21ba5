//! Stores that are only read, beside other readers.

use crate::lock::Holders;
use crate::open::{self, Deliver, Threads};
use crate::{Config, Error, Store};
use hoist_io::{Completion, IoThread};
use hoist_memory::Slab;
use std::sync::Arc;

/// Why a store takes no durable writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadOnly {
    /// It is open at this snapshot.
    Snapshot(String),
    /// Others read it at the same time: nothing at all is written.
    Shared,
}

impl ReadOnly {
    /// What a call that would write gets.
    pub fn error(&self) -> Error {
        match self {
            ReadOnly::Snapshot(name) => Error::ReadOnly { snapshot: name.clone() },
            ReadOnly::Shared => Error::ReadAlone,
        }
    }
}

impl Store {
    /// Opens a store to be read, beside any number of other readers; blocks. Nothing of it changes, not even what a
    /// cut-off commit left behind, and an epoch that is newer than `config.epoch` stays. While it is open nobody can open
    /// it to write. Writes, commits, snapshots and notes are refused with [`Error::ReadAlone`]; scratch and derived
    /// tensors have no bytes.
    ///
    /// # Errors
    /// Those of [`Store::open`]; [`Error::Locked`] while somebody has it open to write.
    pub fn open_shared<D>(
        config: &Config,
        io: &hoist_io::Config,
        slab: &Arc<Slab>,
        deliver: D,
    ) -> Result<Store, Error>
    where
        D: Fn(Completion) + Send + Clone + 'static,
    {
        Store::open_shared_on(config, &open::starter(io, slab), deliver)
    }

    /// Like [`Store::open_shared`], on threads of the caller's making; see [`Store::create_on`].
    ///
    /// # Errors
    /// Those of [`Store::open_shared`] and of `start`.
    pub fn open_shared_on<D>(
        config: &Config,
        start: &dyn Fn(usize, Deliver) -> Result<IoThread, hoist_io::Error>,
        deliver: D,
    ) -> Result<Store, Error>
    where
        D: Fn(Completion) + Send + Clone + 'static,
    {
        open::open(config, &Threads { start, deliver }, Holders::Readers)
    }

    /// Shows an epoch of [`Store::epochs`] from then on. In the files nothing is dropped.
    pub(crate) fn look_at(&mut self, asked: u64) -> Result<(), Error> {
        if asked == self.epoch.number {
            return Ok(());
        }
        let previous = self.previous(asked)?;
        self.contents = self.history.contents_at(&self.contents, previous.batch);
        self.epoch = previous;
        Ok(())
    }

    /// The snapshot that the store is open at, if it is: then nothing durable is written.
    #[must_use]
    pub fn read_only(&self) -> Option<&str> {
        match &self.read_only {
            Some(ReadOnly::Snapshot(name)) => Some(name),
            Some(ReadOnly::Shared) | None => None,
        }
    }

    /// Whether the store takes durable writes, snapshots and notes.
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        self.read_only.as_ref().map_or(Ok(()), |why| Err(why.error()))
    }
}
