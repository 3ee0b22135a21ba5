//! A store for tools: it waits for its own requests.

use crate::{Config, Error, ModelFiles, Scalars, Span, Store, StoreEvent, TensorSpec};
use crossbeam_channel::Receiver;
use hoist_format::{CHECKSUM_BYTES, Extent, checksum};
use hoist_io::{Completion, Priority, RequestId};
use hoist_memory::{Slab, Slot};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Requests of a tool in flight, at most: with the chunks below, 64 MiB, which keeps a drive busy.
const IN_FLIGHT_MAX: usize = 4;

/// The most that a tool moves in one request.
const CHUNK_BYTES_MAX: u64 = 16 << 20;

/// A store with its completions: `hoist import`, `export`, `verify`, `ls` and tests use it.
pub struct BlockingStore {
    pub(crate) store: Store,
    slab: Arc<Slab>,
    /// What of it the store's threads leave.
    pages: usize,
    completions: Receiver<Completion>,
    last_id: RequestId,
    /// Kept between requests: the checksums of one.
    pub(crate) sums: Vec<u64>,
    /// The error of a write that came back behind its caller's back.
    failed: Option<Error>,
    writes_in_flight: usize,
}

impl BlockingStore {
    /// See [`Store::create`]. The slab needs 1 MiB at least, and 64 MiB to go at full speed.
    ///
    /// # Errors
    /// Those of [`Store::create`].
    pub fn create(
        config: &Config,
        io: &hoist_io::Config,
        slab: &Arc<Slab>,
        tensors: &[TensorSpec],
    ) -> Result<BlockingStore, Error> {
        let (deliver, completions) = channel();
        Ok(BlockingStore::new(Store::create(config, io, slab, tensors, deliver)?, slab, completions))
    }

    /// See [`Store::create_over`].
    ///
    /// # Errors
    /// Those of [`Store::create_over`].
    pub fn create_over(
        config: &Config,
        io: &hoist_io::Config,
        slab: &Arc<Slab>,
        model: &ModelFiles,
    ) -> Result<BlockingStore, Error> {
        let (deliver, completions) = channel();
        let store = Store::create_over(config, io, slab, (model, &[]), deliver)?;
        Ok(BlockingStore::new(store, slab, completions))
    }

    /// See [`Store::open`].
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn open(config: &Config, io: &hoist_io::Config, slab: &Arc<Slab>) -> Result<BlockingStore, Error> {
        let (deliver, completions) = channel();
        Ok(BlockingStore::new(Store::open(config, io, slab, deliver)?, slab, completions))
    }

    /// See [`Store::open_shared`].
    ///
    /// # Errors
    /// Those of [`Store::open_shared`].
    pub fn open_shared(
        config: &Config,
        io: &hoist_io::Config,
        slab: &Arc<Slab>,
    ) -> Result<BlockingStore, Error> {
        let (deliver, completions) = channel();
        Ok(BlockingStore::new(Store::open_shared(config, io, slab, deliver)?, slab, completions))
    }

    /// Leaves half of what is free of the slab to another store that is used in turns with this one.
    pub(crate) fn share_slab(&mut self) {
        self.pages = self.slab.pages_free() / 2;
    }

    fn new(store: Store, slab: &Arc<Slab>, completions: Receiver<Completion>) -> BlockingStore {
        BlockingStore {
            store,
            slab: Arc::clone(slab),
            pages: slab.pages_free(),
            completions,
            last_id: 0,
            sums: Vec::new(),
            failed: None,
            writes_in_flight: 0,
        }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// See [`Store::set_note`].
    ///
    /// # Errors
    /// Those of [`Store::set_note`].
    pub fn set_note(&mut self, key: &str, bytes: Vec<u8>) -> Result<(), Error> {
        self.store.set_note(key, bytes)
    }

    pub(crate) fn event(&mut self) -> Result<StoreEvent, Error> {
        loop {
            let stopped = |_| hoist_io::Error::Stopped { cause: "its completions have ended".to_owned() };
            let completion = self.completions.recv().map_err(stopped)?;
            if let Some(event) = self.store.handle(completion) {
                return Ok(event);
            }
        }
    }

    /// How much a tool moves at once, so that all it has in flight fits the slab: a multiple of 256 KiB.
    pub(crate) fn chunk_bytes(&self) -> Result<u64, Error> {
        let pages = self.pages / (IN_FLIGHT_MAX + 1);
        let chunk = ((pages * self.slab.page_bytes()) as u64).min(CHUNK_BYTES_MAX);
        let whole = chunk - chunk % CHECKSUM_BYTES;
        if whole == 0 {
            let need_bytes = (IN_FLIGHT_MAX as u64 + 1) * (self.slab.page_bytes() as u64).max(CHECKSUM_BYTES);
            let free_bytes = (self.pages * self.slab.page_bytes()) as u64;
            return Err(Error::NoMemory { need_bytes, free_bytes });
        }
        Ok(whole)
    }

    /// The chunks that `span` is moved in.
    pub(crate) fn chunks(&self, span: Span) -> Result<impl Iterator<Item = Span> + use<>, Error> {
        let chunk = self.chunk_bytes()?;
        let starts = (span.offset..span.end()).step_by(chunk as usize);
        Ok(starts.map(move |offset| Span { offset, bytes: chunk.min(span.end() - offset), ..span }))
    }

    fn slot(&mut self, bytes: u64) -> Result<Slot, Error> {
        self.slab.allocate(bytes).ok_or_else(|| self.no_memory(bytes))
    }

    pub(crate) fn no_memory(&self, need_bytes: u64) -> Error {
        Error::NoMemory { need_bytes, free_bytes: (self.slab.pages_free() * self.slab.page_bytes()) as u64 }
    }

    /// Writes `span`, a chunk at a time; `fill` puts the bytes from an offset of the run on into a slot. Returns when
    /// all is under way; [`BlockingStore::commit`] waits.
    ///
    /// # Errors
    /// Those of [`Store::write`], of `fill`, and of writes before.
    pub fn write(
        &mut self,
        span: Span,
        mut fill: impl FnMut(u64, &mut Slot) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for chunk in self.chunks(span)? {
            while self.writes_in_flight >= IN_FLIGHT_MAX {
                self.wait_for_write()?;
            }
            let mut slot = self.slot(chunk.bytes)?;
            fill(chunk.offset, &mut slot)?;
            let mut checksums = std::mem::take(&mut self.sums);
            checksum(slot.parts(), &mut checksums);
            self.last_id += 1;
            let pushed = self.store.write(self.last_id, chunk, slot.share(), &checksums);
            self.sums = checksums;
            pushed.map_err(|(_, error)| error)?;
            self.writes_in_flight += 1;
        }
        Ok(())
    }

    fn wait_for_write(&mut self) -> Result<(), Error> {
        match self.event()? {
            StoreEvent::Written { result, .. } => {
                self.writes_in_flight -= 1;
                result
            }
            other => unreachable!("a write was waited for and {other:?} came"),
        }
    }

    /// Waits for all writes.
    ///
    /// # Errors
    /// The first error of any.
    pub fn finish_writes(&mut self) -> Result<(), Error> {
        while self.writes_in_flight > 0 {
            if let Err(error) = self.wait_for_write() {
                self.failed.get_or_insert(error);
            }
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Waits for all writes and commits; the epoch is durable then.
    ///
    /// # Errors
    /// Those of the writes and of [`Store::commit`].
    pub fn commit(&mut self) -> Result<u64, Error> {
        self.commit_with(&Scalars::default())
    }

    /// The same, with what is kept of a step.
    ///
    /// # Errors
    /// Those of [`BlockingStore::commit`].
    pub fn commit_with(&mut self, scalars: &Scalars) -> Result<u64, Error> {
        self.finish_writes()?;
        let epoch = self.store.commit(scalars)?;
        if self.store.commits() { self.wait_for_record().map(|()| epoch) } else { Ok(epoch) }
    }

    pub(crate) fn wait_for_record(&mut self) -> Result<(), Error> {
        match self.event()? {
            StoreEvent::Committed { result, .. } | StoreEvent::Recorded { result } => result,
            other => unreachable!("a commit was waited for and {other:?} came"),
        }
    }

    /// Makes a snapshot and waits; see [`Store::snapshot`].
    ///
    /// # Errors
    /// Those of the writes and of [`Store::snapshot`].
    pub fn snapshot(&mut self, name: &str) -> Result<(), Error> {
        self.finish_writes()?;
        self.store.snapshot(name)?;
        self.wait_for_record()
    }

    /// Deletes a snapshot and waits; see [`Store::delete_snapshot`].
    ///
    /// # Errors
    /// Those of [`Store::delete_snapshot`].
    pub fn delete_snapshot(&mut self, name: &str) -> Result<(), Error> {
        self.store.delete_snapshot(name)?;
        self.wait_for_record()
    }

    /// Goes back to a snapshot and waits; see [`Store::rollback_to`].
    ///
    /// # Errors
    /// Those of [`Store::rollback_to`].
    pub fn rollback_to(&mut self, name: &str) -> Result<u64, Error> {
        let epoch = self.store.rollback_to(name)?;
        self.wait_for_record().map(|()| epoch)
    }

    /// Reads `spans`, which have bytes and are chunks at most, several at a time, and gives each to `take` in order,
    /// with its slot or the error of reading it. Bytes are not verified.
    pub(crate) fn read_each(
        &mut self,
        spans: impl Iterator<Item = Span>,
        take: impl FnMut(&mut BlockingStore, Span, Result<Slot, Error>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.read_each_by(Store::read, spans, take)
    }

    /// The same, with what begins a read.
    pub(crate) fn read_each_by(
        &mut self,
        read: impl Fn(&mut Store, RequestId, Span, Slot, Priority) -> Result<(), (Slot, Error)>,
        spans: impl Iterator<Item = Span>,
        mut take: impl FnMut(&mut BlockingStore, Span, Result<Slot, Error>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut spans = spans.peekable();
        let mut order: VecDeque<(RequestId, Span)> = VecDeque::new();
        let mut done: HashMap<RequestId, Result<Slot, Error>> = HashMap::new();
        loop {
            while order.len() < IN_FLIGHT_MAX {
                let Some(span) = spans.next() else { break };
                let slot = self.slot(span.bytes)?;
                self.last_id += 1;
                if let Err((_, error)) = read(&mut self.store, self.last_id, span, slot, Priority::Demand) {
                    done.insert(self.last_id, Err(error));
                }
                order.push_back((self.last_id, span));
            }
            let Some((id, span)) = order.pop_front() else { return Ok(()) };
            while !done.contains_key(&id) {
                match self.event()? {
                    StoreEvent::Read { id, slot, result } => done.insert(id, result.map(|()| slot)),
                    other => unreachable!("a read was waited for and {other:?} came"),
                };
            }
            let Some(result) = done.remove(&id) else { unreachable!("request {id} is done") };
            if let Err(error) = take(self, span, result) {
                // What is in flight comes back first, so that the store can be used again.
                while done.len() < order.len() {
                    if let StoreEvent::Read { id, slot, result } = self.event()? {
                        done.insert(id, result.map(|()| slot));
                    }
                }
                return Err(error);
            }
        }
    }

    /// A slot, if there is memory for it now.
    pub(crate) fn free_slot(&mut self, bytes: u64) -> Option<Slot> {
        self.slab.allocate(bytes)
    }

    /// Starts to read bytes wherever they are, of whatever epoch. Not verified.
    pub(crate) fn read_extents(&mut self, span: &Span, extents: &[Extent], slot: Slot) -> RequestId {
        self.last_id += 1;
        self.store.read_extents(self.last_id, *span, extents.to_vec(), slot, Priority::Demand);
        self.last_id
    }

    /// Removes the store's files.
    pub(crate) fn discard(self) {
        self.store.discard();
    }

    /// See [`Store::close`].
    ///
    /// # Errors
    /// Those of [`Store::close`].
    pub fn close(mut self) -> Result<(), Error> {
        self.finish_writes()?;
        self.store.close()
    }
}

fn channel() -> (impl Fn(Completion) + Send + Clone + 'static, Receiver<Completion>) {
    let (sender, receiver) = crossbeam_channel::unbounded();
    // The receiver is gone when the tool is: then nobody wants the completion.
    let deliver = move |completion| drop(sender.send(completion));
    (deliver, receiver)
}
