//! A drive whose thread stops.

use hoist_io::{
    Backend, Completion, Error, FileOp, FileReply, Obtained, Priority, Request, RequestId, Wait, Waker,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A backend that fails as a whole once it is told to.
pub struct Dying {
    pub inner: Box<dyn Backend>,
    pub dead: Arc<AtomicBool>,
}

impl Dying {
    fn check(&self) -> Result<(), Error> {
        match self.dead.load(Ordering::Acquire) {
            true => Err(Error::Stopped { cause: "it was told to".to_owned() }),
            false => Ok(()),
        }
    }
}

impl Backend for Dying {
    fn push(&mut self, request: Request) {
        self.inner.push(request);
    }

    fn promote(&mut self, id: RequestId, priority: Priority) {
        self.inner.promote(id, priority);
    }

    fn abandon(&mut self, id: RequestId) {
        self.inner.abandon(id);
    }

    fn submit(&mut self) -> Result<(), Error> {
        self.check()?;
        self.inner.submit()
    }

    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>) -> Result<(), Error> {
        self.check()?;
        self.inner.reap(wait, done)
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn file(&mut self, op: FileOp) -> Result<FileReply, Error> {
        self.check()?;
        self.inner.file(op)
    }

    fn drain(&mut self, deadline: Duration, done: &mut Vec<Completion>) -> Result<(), Error> {
        self.check()?;
        self.inner.drain(deadline, done)
    }

    fn obtained(&self) -> &Obtained {
        self.inner.obtained()
    }
}
