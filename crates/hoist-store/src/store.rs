//! The store: what it offers, and its state.

use crate::blocking_io::Switch;
use crate::changes::Changes;
use crate::commit::Commit;
use crate::contents::Contents;
use crate::create;
use crate::directory::Directory;
use crate::history::History;
use crate::lock::Holders;
use crate::open::{self, Deliver, Threads};
use crate::rollback::Retract;
use crate::segments::Segments;
use crate::shared::ReadOnly;
use crate::shares::Shares;
use crate::sources::OpenSources;
use crate::spread::Spread;
use crate::touched::Touched;
use crate::transfer::Pending;
use crate::{Config, Durability, Error, RunInfo, Scalars, Span, TensorId, TensorInfo, TensorSpec, Tensors};
use hoist_format::{EpochRecord, Extent, Header, RECORD_BYTES_MAX, StoreId};
use hoist_io::{Completion, FileRange, IoThread, Obtained, RequestId};
use hoist_memory::{Slab, Slot, SlotReader};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// The largest note, key and value together: a record less its fields.
pub const NOTE_BYTES_MAX: usize = RECORD_BYTES_MAX as usize - 64;

/// What a completion came to.
#[derive(Debug)]
pub enum StoreEvent {
    /// A read is done. After an error the slot holds anything.
    Read {
        /// The request.
        id: RequestId,
        /// Its slot.
        slot: Slot,
        /// Whether the bytes are there (not whether they match their checksums).
        result: Result<(), Error>,
    },
    /// A write is done. After an error a span that went to new extents still has its bytes from before; in place it
    /// has none.
    Written {
        /// The request.
        id: RequestId,
        /// Its slot.
        slot: SlotReader,
        /// Whether the bytes are written.
        result: Result<(), Error>,
    },
    /// A commit is over.
    Committed {
        /// The epoch.
        epoch: u64,
        /// Whether it is durable. After an error nothing durable is written until [`Store::rollback`].
        result: Result<(), Error>,
    },
    /// A snapshot was made or deleted.
    Recorded {
        /// Whether that is durable. After an error nothing durable is written until [`Store::rollback`].
        result: Result<(), Error>,
    },
}

/// An open store. Owned by one thread; its directories' threads deliver completions, which come back to [`Store::handle`].
///
/// Dropping it is like a crash, except that what is in flight is waited for: the last durable epoch is what a later
/// `open` finds.
pub struct Store {
    pub(crate) header: Header,
    pub(crate) durability: Durability,
    /// What is read and written: the epoch under construction.
    pub(crate) contents: Contents,
    pub(crate) history: History,
    pub(crate) shares: Shares,
    /// The newest durable epoch.
    pub(crate) epoch: EpochRecord,
    /// The newest durable batch of the journals.
    pub(crate) batch: u64,
    /// Why nothing durable is written, ever.
    pub(crate) read_only: Option<ReadOnly>,
    /// What belongs to the next epoch, and, where steps are not committed one by one, what the last one said of itself.
    pub(crate) changes: Changes,
    pub(crate) scalars: Option<Scalars>,
    pub(crate) commit: Option<Commit>,
    /// Why nothing durable is written: a commit failed and is not rolled back. What it would have changed, and the
    /// journals that it may have written to.
    pub(crate) poisoned: Option<String>,
    pub(crate) failed_changes: Changes,
    pub(crate) retracts: Vec<Retract>,
    /// Extents that a lost epoch has written, until its record is taken back.
    pub(crate) lost: Vec<Extent>,
    pub(crate) pending: HashMap<RequestId, Pending>,
    /// Extents that are free as soon as no read uses them.
    pub(crate) held: Vec<Extent>,
    /// Emptied vectors of finished requests, so that a running store allocates none.
    pub(crate) spare_ranges: Vec<Vec<FileRange>>,
    pub(crate) spare_extents: Vec<Vec<Extent>>,
    pub(crate) spare_checksums: Vec<Vec<u64>>,
    pub(crate) directories: Vec<Directory>,
    /// Of all directories, by number.
    pub(crate) segments: Segments,
    /// Directories that are not there: what lies in them has no bytes.
    pub(crate) missing: Vec<String>,
    /// Files outside the store.
    pub(crate) sources: Option<OpenSources>,
    /// Checksums of what lies in them that no batch tells of.
    pub(crate) unsaved_touches: Touched,
    pub(crate) spread: Spread,
    /// What a write was divided into, kept empty between writes.
    pub(crate) portions: Vec<(u32, u64)>,
    pub(crate) written_bytes: u64,
    pub(crate) switch: Switch,
}

/// What a store is made of on its drives.
pub(crate) struct Drives {
    pub directories: Vec<Directory>,
    pub segments: Segments,
    /// The directories that are not there, as they were called when the store was made.
    pub missing: Vec<String>,
    pub spread: Spread,
    pub sources: Option<OpenSources>,
}

/// What the journals tell of.
pub(crate) struct Durable {
    pub contents: Contents,
    pub history: History,
    pub shares: Shares,
    /// The newest.
    pub epoch: EpochRecord,
    pub batch: u64,
}

impl Store {
    pub(crate) fn new(
        config: &Config,
        header: Header,
        durable: Durable,
        drives: Drives,
        switch: Switch,
    ) -> Store {
        switch.set_waits(false);
        let Drives { directories, segments, spread, sources, missing } = drives;
        let Durable { contents, history, shares, epoch, batch } = durable;
        Store {
            header,
            durability: config.durability,
            contents,
            history,
            shares,
            epoch,
            batch,
            read_only: None,
            changes: Changes::default(),
            scalars: None,
            commit: None,
            poisoned: None,
            failed_changes: Changes::default(),
            retracts: Vec::new(),
            lost: Vec::new(),
            pending: HashMap::new(),
            held: Vec::new(),
            spare_ranges: Vec::new(),
            spare_extents: Vec::new(),
            spare_checksums: Vec::new(),
            directories,
            segments,
            missing,
            sources,
            unsaved_touches: Touched::default(),
            spread,
            portions: Vec::new(),
            written_bytes: 0,
            switch,
        }
    }

    /// Makes a store of these tensors, none of which has bytes yet, at epoch 0. Blocks until all its space is allocated
    /// and written once. At `step` and `snapshot` it reserves twice the durable bytes, and once more for each of
    /// `config.snapshots` (at `snapshot` the first is among the two), at `none` once; scratch and derived once.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::BadTensor`], [`Error::Exists`], [`Error::Locked`], [`Error::NoRoom`], and what the file
    /// system says; files that were made are removed then.
    pub fn create<D>(
        config: &Config,
        io: &hoist_io::Config,
        slab: &Arc<Slab>,
        tensors: &[TensorSpec],
        deliver: D,
    ) -> Result<Store, Error>
    where
        D: Fn(Completion) + Send + Clone + 'static,
    {
        Store::create_on(config, &open::starter(io, slab), tensors, deliver)
    }

    /// Like [`Store::create`], on threads of the caller's making: `start` gets the place of a directory in
    /// `config.nvme_path` and what its thread must call with every completion. For backends that inject faults or
    /// throttle.
    ///
    /// # Errors
    /// Those of [`Store::create`] and of `start`.
    pub fn create_on<D>(
        config: &Config,
        start: &dyn Fn(usize, Deliver) -> Result<IoThread, hoist_io::Error>,
        tensors: &[TensorSpec],
        deliver: D,
    ) -> Result<Store, Error>
    where
        D: Fn(Completion) + Send + Clone + 'static,
    {
        create::create(config, None, tensors, &Threads { start, deliver })
    }

    /// Opens a store at its newest epoch; blocks. What a cut-off commit left behind is dropped. The directories are
    /// those it was created with, in any order and under any path; `segment_bytes` is not looked at. A store created
    /// with durability `none` has room for one copy only: opened at `step` its writes find no space.
    ///
    /// # Errors
    /// [`Error::NoStore`], [`Error::Locked`], [`Error::OtherVersion`], [`Error::Directories`] when some are missing or
    /// foreign, [`Error::Damaged`].
    pub fn open<D>(
        config: &Config,
        io: &hoist_io::Config,
        slab: &Arc<Slab>,
        deliver: D,
    ) -> Result<Store, Error>
    where
        D: Fn(Completion) + Send + Clone + 'static,
    {
        Store::open_on(config, &open::starter(io, slab), deliver)
    }

    /// Like [`Store::open`], on threads of the caller's making; see [`Store::create_on`].
    ///
    /// # Errors
    /// Those of [`Store::open`] and of `start`.
    pub fn open_on<D>(
        config: &Config,
        start: &dyn Fn(usize, Deliver) -> Result<IoThread, hoist_io::Error>,
        deliver: D,
    ) -> Result<Store, Error>
    where
        D: Fn(Completion) + Send + Clone + 'static,
    {
        open::open(config, &Threads { start, deliver }, Holders::One)
    }

    /// All tensors, in order of creation; a [`TensorId`] is a place in it.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.contents.layout.tensors
    }

    /// The same, for other threads.
    #[must_use]
    pub fn shared_tensors(&self) -> Tensors {
        Tensors(Arc::clone(&self.contents.layout))
    }

    /// All runs; a [`crate::RunId`] is a place in it.
    #[must_use]
    pub fn runs(&self) -> &[RunInfo] {
        &self.contents.layout.runs
    }

    /// The tensor called `name`.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<TensorId> {
        self.contents.layout.find(name)
    }

    /// The newest durable epoch; 0 before the first commit (at durability `none`: before the first `close`).
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.number
    }

    /// What a commit promises.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The store's name for itself.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.header.store
    }

    /// What each directory's thread got, in the store's order of directories, and that of files in place, if there is one.
    #[must_use]
    pub fn obtained(&self) -> Vec<Obtained> {
        let threads = self.directories.iter().map(|directory| &directory.io);
        threads.chain(self.sources.iter().map(|sources| &sources.io)).map(IoThread::obtained).collect()
    }

    /// Bytes that the drives have taken since the store was made or opened: data in whole blocks of 4 KiB, and the journal
    /// in every directory.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// The directories, in the store's order.
    pub fn directories(&self) -> impl Iterator<Item = DirectoryInfo<'_>> {
        let shares = self.directories.iter().zip(self.spread.shares()).enumerate();
        shares.map(|(place, (Directory { path, free, .. }, write_share))| DirectoryInfo {
            path,
            free_bytes: free.bytes(),
            write_share,
            quarantined: self.spread.quarantined(place),
        })
    }

    /// All notes, by key, as they will be in the next epoch.
    pub fn notes(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.contents.notes.iter().map(|(key, note)| (key.as_str(), note.bytes.as_slice()))
    }

    /// The note called `key`.
    #[must_use]
    pub fn note(&self, key: &str) -> Option<&[u8]> {
        self.contents.notes.get(key).map(|note| note.bytes.as_slice())
    }

    /// Sets a note; it is durable with the next commit.
    ///
    /// # Errors
    /// [`Error::Format`] when it is larger than [`NOTE_BYTES_MAX`].
    pub fn set_note(&mut self, key: &str, bytes: Vec<u8>) -> Result<(), Error> {
        self.check_writable()?;
        if key.len() + bytes.len() > NOTE_BYTES_MAX {
            return Err(hoist_format::Error::RecordTooLarge { limit: RECORD_BYTES_MAX }.into());
        }
        self.changes.set_note(&mut self.contents, key, Some(bytes));
        Ok(())
    }

    /// Whether all bytes of `span` were written: ever, if durable, else since the store was opened. Not while a write
    /// in place of any of them is under way, and not after it failed. True of no bytes.
    #[must_use]
    pub fn has_bytes(&self, span: &Span) -> bool {
        self.contents.has_bytes(span)
    }

    /// The checksums of the newest bytes of `span`, one per 256 KiB; `None` when it has no bytes, or some of them lie in
    /// files outside the store: see [`Store::expected`].
    #[must_use]
    pub fn checksums(&self, span: &Span) -> Option<&[u64]> {
        self.contents.checksums(span)
    }

    /// Removes the store's files: for one that was just made and cannot be used. One that has an epoch keeps them.
    pub fn discard(self) {
        if self.epoch.number == 0 {
            create::discard(&self.directories);
        }
    }
}

/// One directory of a store.
#[derive(Debug, Clone, Copy)]
pub struct DirectoryInfo<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// Bytes in its segments that no version uses.
    pub free_bytes: u64,
    /// The part of the bytes written from now on that it gets while there is space: in proportion to what the drives
    /// are seen to move.
    pub write_share: f64,
    /// Why it gets no more writes: one failed. It is tried again when the store is opened again.
    pub quarantined: Option<&'a str>,
}
