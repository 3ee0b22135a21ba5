//! io_uring: one ring, driven by the thread that made it.

mod probe;
mod ring;

use crate::backend::{Backend, FileOp, FileReply, Wait};
use crate::config::CLOSE_DEADLINE;
use crate::{Completion, Config, Error, Obtained, Priority, Request, RequestId, Waker};
use hoist_memory::Slab;
use ring::Ring;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A backend on one ring.
pub(crate) struct Uring {
    /// Forgotten instead of dropped when the drive does not answer: closing a ring does not wait for the transfers in
    /// flight (measured), and the kernel would go on writing memory that was given back.
    ring: ManuallyDrop<Ring>,
    waker: Waker,
    close_deadline: Duration,
}

impl Uring {
    pub(crate) fn open(config: &Config, slab: &Arc<Slab>) -> Result<Uring, Error> {
        let ring = Ring::open(config, slab)?;
        let wake_fd = ring.wake_fd();
        let waker = Waker::new(move || wake_fd.wake());
        Ok(Uring { ring: ManuallyDrop::new(ring), waker, close_deadline: CLOSE_DEADLINE })
    }

    /// Waits until the kernel has nothing of ours any more, the waker's own read included.
    fn release(&mut self) -> Result<(), Error> {
        self.ring.core.abandon_all();
        self.drain(self.close_deadline, &mut Vec::new())?;
        let start = Instant::now();
        self.waker.wake();
        while self.ring.is_wake_armed() {
            let left = self.close_deadline.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(Error::NotDrained { in_flight: 1, deadline: self.close_deadline });
            }
            self.ring.enter(1, Some(left))?;
            self.ring.collect()?;
        }
        Ok(())
    }
}

impl Backend for Uring {
    fn push(&mut self, request: Request) {
        self.ring.core.push(request);
    }

    fn promote(&mut self, id: RequestId, priority: Priority) {
        self.ring.core.requests.promote(id, priority);
    }

    fn abandon(&mut self, id: RequestId) {
        self.ring.core.requests.abandon(id);
    }

    fn submit(&mut self) -> Result<(), Error> {
        self.ring.fill();
        self.ring.enter(0, None)
    }

    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>) -> Result<(), Error> {
        loop {
            self.ring.fill();
            let ready = self.ring.core.requests.any_finished() || self.ring.is_woken();
            let want = usize::from(wait == Wait::UntilSomething && !ready);
            self.ring.enter(want, None)?;
            self.ring.collect()?;
            if wait == Wait::No || self.ring.core.requests.any_finished() || self.ring.is_woken() {
                break;
            }
        }
        self.ring.take_woken();
        self.ring.core.requests.take_finished(done);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn in_flight(&self) -> usize {
        self.ring.core.in_flight()
    }

    fn file(&mut self, op: FileOp) -> Result<FileReply, Error> {
        self.ring.core.file(op)
    }

    fn drain(&mut self, deadline: Duration, done: &mut Vec<Completion>) -> Result<(), Error> {
        let mut progress = Instant::now();
        let mut results = self.ring.results();
        while self.ring.core.busy() {
            let left = deadline.saturating_sub(progress.elapsed());
            if left.is_zero() {
                self.ring.core.abandon_all();
                self.ring.core.requests.take_finished(done);
                self.close_deadline = Duration::ZERO;
                return Err(Error::NotDrained { in_flight: self.ring.core.in_flight(), deadline });
            }
            self.ring.fill();
            self.ring.enter(1, Some(left))?;
            self.ring.collect()?;
            if self.ring.results() != results {
                (results, progress) = (self.ring.results(), Instant::now());
            }
        }
        self.ring.core.requests.take_finished(done);
        Ok(())
    }

    fn obtained(&self) -> &Obtained {
        &self.ring.core.obtained
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        match self.release() {
            // SAFETY: dropped once, here, and not used again; the kernel has none of its memory any more.
            Ok(()) => unsafe { ManuallyDrop::drop(&mut self.ring) },
            Err(error) => tracing::error!(%error, "memory in flight is leaked"),
        }
    }
}
