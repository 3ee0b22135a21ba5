//! Every request that a thread was given is answered once, whatever becomes of its backend.

use crate::config::REQUESTS_MANY;
use crate::{Completion, Error, FileId, Request, RequestId, Transfer};
use foldhash::fast::RandomState;
use hoist_memory::{AlignedBuffer, SECTOR_BYTES, Slab, Slot};
use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a request moves: enough to answer it without its memory.
enum Kind {
    Read,
    Fill,
    Write,
    ReadBuffer,
    WriteBuffer,
    Sync(FileId),
}

/// The requests that the backend has, and where their completions go.
pub(crate) struct Answers<Deliver> {
    deliver: Deliver,
    owed: HashMap<RequestId, Kind, RandomState>,
    /// Why what comes back undone from now on was not done.
    stopped: Option<String>,
}

impl<Deliver: FnMut(Completion)> Answers<Deliver> {
    pub(crate) fn new(deliver: Deliver) -> Answers<Deliver> {
        Answers {
            deliver,
            owed: HashMap::with_capacity_and_hasher(REQUESTS_MANY, RandomState::default()),
            stopped: None,
        }
    }

    /// Notes a request that the backend is to get. None when it is answered already, as its id is under way.
    ///
    /// # Errors
    /// Those of [`Answers::give`].
    pub(crate) fn owe(&mut self, request: Request) -> Result<Option<Request>, Error> {
        let id = request.id;
        if self.owed.contains_key(&id) {
            self.refuse(request, Error::DuplicateId { id })?;
            return Ok(None);
        }
        self.owed.insert(id, kind(&request.transfer));
        Ok(Some(request))
    }

    /// How many requests are owed an answer.
    pub(crate) fn owed_count(&self) -> usize {
        self.owed.len()
    }

    /// The requests that are owed an answer.
    pub(crate) fn owed(&self) -> Vec<RequestId> {
        self.owed.keys().copied().collect()
    }

    /// Delivers what the backend has answered. A second answer to a request goes no further.
    ///
    /// # Errors
    /// [`Error::Stopped`] when `deliver` panicked. It can be called again.
    pub(crate) fn give(&mut self, mut completion: Completion) -> Result<(), Error> {
        if self.owed.remove(&completion.id).is_none() {
            tracing::error!(?completion, "the backend answers what is not owed");
            return Ok(());
        }
        if let (Err(Error::Abandoned { .. }), Some(cause)) = (&completion.result, &self.stopped) {
            completion.result = Err(Error::Stopped { cause: cause.clone() });
        }
        self.deliver(completion)
    }

    /// From now on nothing is done any more, for this cause.
    pub(crate) fn stop(&mut self, cause: &str) {
        self.stopped = Some(cause.to_owned());
    }

    /// Answers what the backend does not. It has the memory, and maybe so has the drive: the answer goes without it, and
    /// it stays with the backend, which gives it back or leaks it when it is dropped.
    pub(crate) fn forfeit(&mut self, cause: &str) {
        for (id, kind) in std::mem::take(&mut self.owed) {
            let result = Err(Error::Stopped { cause: cause.to_owned() });
            let transfer = without_memory(&kind);
            self.deliver_still(Completion { id, transfer, ranges: Vec::new(), result, seconds_ns: 0 });
        }
    }

    /// Answers a request that the backend never gets.
    ///
    /// # Errors
    /// Those of [`Answers::give`].
    pub(crate) fn refuse(&mut self, request: Request, error: Error) -> Result<(), Error> {
        let Request { id, transfer, ranges, .. } = request;
        self.deliver(Completion { id, transfer, ranges, result: Err(error), seconds_ns: 0 })
    }

    fn deliver(&mut self, completion: Completion) -> Result<(), Error> {
        contain("what completions are delivered to", || {
            (self.deliver)(completion);
            Ok(())
        })
        .and_then(|delivered| delivered)
    }

    /// Delivers when the thread has stopped already: a panic then says nothing new.
    fn deliver_still(&mut self, completion: Completion) {
        if let Err(error) = self.deliver(completion) {
            tracing::error!(%error, "a completion was not taken");
        }
    }
}

/// Calls what may panic. The panic's message is the outer error: what was called is in no state to be trusted then.
pub(crate) fn contain<T>(
    what: &str,
    call: impl FnOnce() -> Result<T, Error>,
) -> Result<Result<T, Error>, Error> {
    // What the call left half done is either not used after a panic, or `deliver`, which is the caller's.
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| Error::Stopped { cause: describe(what, &*panic) })
}

fn describe(what: &str, panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("{what} panicked: {}", text.unwrap_or("without a message"))
}

fn kind(transfer: &Transfer) -> Kind {
    match transfer {
        Transfer::Read(_) => Kind::Read,
        Transfer::Fill(_) => Kind::Fill,
        Transfer::Write(_) => Kind::Write,
        Transfer::ReadBuffer(_) => Kind::ReadBuffer,
        Transfer::WriteBuffer(_) => Kind::WriteBuffer,
        Transfer::Sync(file) => Kind::Sync(*file),
    }
}

fn without_memory(kind: &Kind) -> Transfer {
    match kind {
        Kind::Read => Transfer::Read(empty_slot()),
        Kind::Fill => Transfer::Fill(empty_slot().divide()),
        Kind::Write => Transfer::Write(empty_slot().share()),
        Kind::ReadBuffer => Transfer::ReadBuffer(smallest_buffer()),
        Kind::WriteBuffer => Transfer::WriteBuffer(smallest_buffer()),
        Kind::Sync(file) => Transfer::Sync(*file),
    }
}

/// A slot of no bytes. Every slot has a slab, and the thread knows none: this one has one page, and goes with the slot.
fn empty_slot() -> Slot {
    let config = hoist_memory::Config {
        budget_bytes: SECTOR_BYTES as u64,
        page_bytes: SECTOR_BYTES,
        piece_bytes: 2 << 20,
    };
    let slab = Slab::map(&config).unwrap_or_else(|error| panic!("no memory for one page: {error}"));
    slab.allocate(0).unwrap_or_else(|| panic!("a slot of no bytes was refused by {slab:?}"))
}

fn smallest_buffer() -> AlignedBuffer {
    AlignedBuffer::new(0).unwrap_or_else(|error| panic!("no memory for one page: {error}"))
}
