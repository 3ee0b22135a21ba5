//! io_uring: one ring, driven by the thread that made it.

mod probe;
mod registration;
mod ring;
mod table;

use crate::backend::{Backend, FileOp, FileReply, Wait};
use crate::config::CLOSE_DEADLINE;
use crate::faults::Faults;
use crate::{Completion, Config, Error, Obtained, Priority, Request, RequestId, Waker};
use hoist_memory::Slab;
use ring::Ring;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whether a ring of so many entries works here, found by a read.
///
/// # Errors
/// [`Error::NoRing`] with the call that the kernel refuses.
pub(crate) fn check_ring(entries: u32) -> Result<(), Error> {
    probe::check_ring(entries)
}

/// A backend on one ring.
pub(crate) struct Uring {
    /// Forgotten instead of dropped when the drive does not answer: closing a ring does not wait for the transfers in
    /// flight (measured), and the kernel would go on writing memory that was given back.
    ring: ManuallyDrop<Ring>,
    waker: Waker,
    close_deadline: Duration,
}

impl Uring {
    pub(crate) fn open(config: &Config, slab: &Arc<Slab>, faults: Option<&Faults>) -> Result<Uring, Error> {
        let ring = Ring::open(config, slab, faults)?;
        let wake_fd = ring.wake_fd();
        let waker = Waker::new(move || wake_fd.wake());
        Ok(Uring { ring: ManuallyDrop::new(ring), waker, close_deadline: CLOSE_DEADLINE })
    }

    /// Starts and finishes everything; on a ring that has failed, waits for what the kernel has. As long as blocks end,
    /// it goes on.
    fn wait_for_all(&mut self, deadline: Duration) -> Result<(), Error> {
        let mut progress = Instant::now();
        let mut results = self.ring.results();
        loop {
            if self.ring.check().is_err() {
                self.ring.core.abandon_all();
            }
            if !self.ring.core.busy() {
                return Ok(());
            }
            let left = deadline.saturating_sub(progress.elapsed());
            if left.is_zero() {
                return Err(Error::NotDrained { in_flight: self.ring.core.in_flight(), deadline });
            }
            self.ring.fill();
            // Faults on purpose end blocks that the kernel never gets.
            if !self.ring.core.busy() {
                return Ok(());
            }
            // A ring that fails now is still asked for what the kernel has; one that had failed has had its chance.
            let failed = self.ring.check().is_err();
            match self.ring.enter(1, Some(left)).and_then(|()| self.ring.collect()) {
                Err(error) if failed => return Err(error),
                _ => {}
            }
            if self.ring.results() != results {
                (results, progress) = (self.ring.results(), Instant::now());
            }
        }
    }

    /// Waits until the kernel has nothing of ours any more, the waker's own read included.
    fn release(&mut self) -> Result<(), Error> {
        self.ring.core.abandon_all();
        self.wait_for_all(self.close_deadline)?;
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
        self.ring.check()?;
        self.ring.fill();
        self.ring.enter(0, None)
    }

    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>) -> Result<(), Error> {
        self.ring.check()?;
        let deadline = wait.deadline();
        loop {
            self.ring.fill();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let last = wait == Wait::No || left.is_some_and(|left| left.is_zero());
            let ready = self.ring.core.requests.any_finished() || self.ring.is_woken();
            self.ring.enter(usize::from(!last && !ready), left)?;
            self.ring.collect()?;
            if last || self.ring.core.requests.any_finished() || self.ring.is_woken() {
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
        self.ring.file(op)
    }

    fn drain(&mut self, deadline: Duration, done: &mut Vec<Completion>) -> Result<(), Error> {
        let drained = self.wait_for_all(deadline);
        if drained.is_err() {
            self.ring.core.abandon_all();
            self.close_deadline = Duration::ZERO;
        }
        self.ring.core.requests.take_finished(done);
        drained.and_then(|()| self.ring.check())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileRange, Transfer};

    /// Blocks that the kernel has come back done; those that it has not, and what is queued, with an error; and all of
    /// the memory.
    #[test]
    fn a_ring_that_failed_gives_everything_back() {
        fail_after(4);
        fail_after(0);
    }

    fn fail_after(submitted: u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, vec![7; 16 * 4096]).unwrap();
        let memory = hoist_memory::Config { budget_bytes: 16 * 4096, page_bytes: 4096, piece_bytes: 2 << 20 };
        let slab = Slab::map(&memory).unwrap();
        let config = Config { block_size: 4096, queue_depth: 8, ..Config::default() };
        let mut backend = Uring::open(&config, &slab, None).unwrap();
        let file = backend.file(FileOp::Open { path, create: false, direct: true }).unwrap().file();
        let push = |backend: &mut Uring, ids: std::ops::Range<u64>| {
            for id in ids {
                let ranges = vec![FileRange { file, offset: id * 4096, bytes: 4096, buffer_offset: 0 }];
                let transfer = Transfer::Read(slab.allocate(4096).unwrap());
                backend.push(Request { id, priority: Priority::Demand, ranges, transfer });
            }
        };
        if submitted > 0 {
            push(&mut backend, 0..submitted);
            backend.submit().unwrap();
        }
        push(&mut backend, submitted..16);
        // Those to 7 lie in the submission queue, and the rest wait for the depth.
        backend.ring.fill();
        backend.ring.fail(&Error::UnknownFile { file: 5 });
        let mut done = Vec::new();
        assert!(matches!(backend.reap(Wait::No, &mut done), Err(Error::Stopped { .. })));
        let drained = backend.drain(Duration::from_secs(60), &mut done);
        assert!(matches!(drained, Err(Error::Stopped { .. })), "{drained:?}");
        done.sort_unstable_by_key(|completion| completion.id);
        assert_eq!(
            done.iter().map(|completion| completion.id).collect::<Vec<_>>(),
            (0..16).collect::<Vec<_>>()
        );
        for Completion { id, transfer, result, .. } in done {
            let Transfer::Read(slot) = transfer else { panic!("{transfer:?} came back for a read") };
            match (id, result) {
                (_, Ok(())) if id < submitted => assert!(slot.parts().flatten().all(|byte| *byte == 7)),
                (..8, Err(Error::Stopped { .. })) if id >= submitted => {}
                (8.., Err(Error::Abandoned { .. })) => {}
                (id, result) => panic!("request {id}: {result:?}"),
            }
        }
        drop(backend);
        assert_eq!((slab.pages_free(), Arc::strong_count(&slab)), (16, 1));
    }
}
