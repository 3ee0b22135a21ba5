//! A backend that fails what it is told to fail, and does the rest.

use hoist_io::*;
use hoist_memory::Slab;
use hoist_store::Deliver;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Nothing,
    Reads,
    Writes,
    JournalWrites,
    Syncs,
}

pub struct Fault(AtomicU8);

impl Fault {
    pub fn new() -> Arc<Fault> {
        Arc::new(Fault(AtomicU8::new(What::Nothing as u8)))
    }

    pub fn set(&self, what: What) {
        self.0.store(what as u8, Ordering::SeqCst);
    }

    fn hits(&self, transfer: &Transfer) -> bool {
        let what = match transfer {
            Transfer::Read(_) | Transfer::Fill(_) => What::Reads,
            Transfer::Write(_) => What::Writes,
            Transfer::WriteBuffer(_) => What::JournalWrites,
            Transfer::Sync(_) => What::Syncs,
            Transfer::ReadBuffer(_) => return false,
        };
        self.0.load(Ordering::SeqCst) == what as u8
    }

    pub fn start(self: &Arc<Fault>, slab: &Arc<Slab>, deliver: Deliver) -> Result<IoThread, Error> {
        let (fault, slab) = (Arc::clone(self), Arc::clone(slab));
        let open = move || {
            let inner = open(&Config::default(), &slab)?;
            Ok(Box::new(Faulty { inner, fault, failed: Vec::new() }) as Box<dyn Backend>)
        };
        IoThread::spawn_with("faulty", open, deliver)
    }
}

struct Faulty {
    inner: Box<dyn Backend>,
    fault: Arc<Fault>,
    failed: Vec<Completion>,
}

impl Backend for Faulty {
    fn push(&mut self, request: Request) {
        if !self.fault.hits(&request.transfer) {
            return self.inner.push(request);
        }
        let Request { id, ranges, transfer, .. } = request;
        let result = Err(Error::Stopped { cause: "the test has it so".into() });
        self.failed.push(Completion { id, transfer, ranges, result, seconds_ns: 0 });
    }

    fn promote(&mut self, id: RequestId, priority: Priority) {
        self.inner.promote(id, priority);
    }

    fn abandon(&mut self, id: RequestId) {
        self.inner.abandon(id);
    }

    fn submit(&mut self) -> Result<(), Error> {
        self.inner.submit()
    }

    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>) -> Result<(), Error> {
        let wait = if self.failed.is_empty() { wait } else { Wait::No };
        done.append(&mut self.failed);
        self.inner.reap(wait, done)
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn file(&mut self, op: FileOp) -> Result<FileReply, Error> {
        self.inner.file(op)
    }

    fn drain(&mut self, deadline: Duration, done: &mut Vec<Completion>) -> Result<(), Error> {
        done.append(&mut self.failed);
        self.inner.drain(deadline, done)
    }

    fn obtained(&self) -> &Obtained {
        self.inner.obtained()
    }
}
