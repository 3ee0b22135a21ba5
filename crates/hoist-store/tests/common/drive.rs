//! Drives with a will of their own: what goes to a backend, and comes back, passes by a test.

use hoist_io::{
    Backend, Completion, Error, FileOp, FileReply, Obtained, Priority, Request, RequestId, Wait, Waker,
};
use std::time::Duration;

/// What a test does about it.
pub trait Will: Send {
    /// Whether the backend as a whole still works.
    fn check(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// A request goes in.
    fn pushed(&mut self, _request: &Request) {}

    /// A request comes back.
    fn done(&mut self, _completion: &mut Completion) {}

    /// Whether a file operation may be done.
    fn file(&mut self, _op: &FileOp) -> Result<(), Error> {
        Ok(())
    }

    /// A file operation was done.
    fn file_done(&mut self, _op: &FileOp, _reply: FileReply) {}
}

/// A backend under it.
pub struct Drive<W> {
    pub inner: Box<dyn Backend>,
    pub will: W,
}

impl<W: Will> Backend for Drive<W> {
    fn push(&mut self, request: Request) {
        self.will.pushed(&request);
        self.inner.push(request);
    }

    fn promote(&mut self, id: RequestId, priority: Priority) {
        self.inner.promote(id, priority);
    }

    fn abandon(&mut self, id: RequestId) {
        self.inner.abandon(id);
    }

    fn submit(&mut self) -> Result<(), Error> {
        self.will.check()?;
        self.inner.submit()
    }

    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>) -> Result<(), Error> {
        self.will.check()?;
        let first = done.len();
        let reaped = self.inner.reap(wait, done);
        done[first..].iter_mut().for_each(|completion| self.will.done(completion));
        reaped
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn file(&mut self, op: FileOp) -> Result<FileReply, Error> {
        self.will.check()?;
        self.will.file(&op)?;
        let reply = self.inner.file(op.clone())?;
        self.will.file_done(&op, reply);
        Ok(reply)
    }

    fn drain(&mut self, deadline: Duration, done: &mut Vec<Completion>) -> Result<(), Error> {
        self.will.check()?;
        self.inner.drain(deadline, done)
    }

    fn obtained(&self) -> &Obtained {
        self.inner.obtained()
    }
}
