//! A backend that hands blocks to other threads and takes their results: what pread and tokio-uring share.

use crate::backend::{Backend, FileOp, FileReply, Wait};
use crate::config::CLOSE_DEADLINE;
use crate::core::{Core, Part};
use crate::faults::Faults;
use crate::{Completion, Config, Error, Obtained, Priority, Request, RequestId, Waker};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, at, bounded, never, select};
use hoist_memory::Slab;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where the result of a block is sent: its place, and the bytes moved or minus the errno.
pub(crate) type Results = Sender<(usize, i32)>;

/// Hands a block to whoever does it. Dropping it says that no more come.
pub(crate) type HandOver = Box<dyn Fn(Part) + Send>;

/// A backend of other threads that do its blocks.
pub(crate) struct Workers {
    /// Forgotten instead of dropped when the drive does not answer: a worker may still write its memory.
    core: ManuallyDrop<Core>,
    /// None when closing.
    parts: Option<HandOver>,
    results: Receiver<(usize, i32)>,
    wakes: Receiver<()>,
    waker: Waker,
    workers: Vec<JoinHandle<()>>,
    close_deadline: Duration,
}

impl Workers {
    /// With the depth in `obtained`, and threads that `start` starts. They end when what hands over is dropped, and send
    /// one result for each block before that.
    pub(crate) fn open(
        config: &Config,
        slab: &Arc<Slab>,
        obtained: Obtained,
        faults: Option<&Faults>,
        start: impl FnOnce(Results) -> Result<(HandOver, Vec<JoinHandle<()>>), Error>,
    ) -> Result<Workers, Error> {
        // Room for all that can be in flight, so that no worker ever waits for room.
        let (results_sender, results) = bounded(obtained.queue_depth as usize);
        let (wakes_sender, wakes) = bounded(1);
        let waker = Waker::new(move || match wakes_sender.try_send(()) {
            // Full: a wake is pending already. Disconnected: there is nobody to wake.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        });
        let (parts, workers) = start(results_sender)?;
        let core = ManuallyDrop::new(Core::new(config, slab, obtained, faults));
        let parts = Some(parts);
        Ok(Workers { core, parts, results, wakes, waker, workers, close_deadline: CLOSE_DEADLINE })
    }

    fn hand_over(&mut self) {
        let Some(parts) = &self.parts else { return };
        while let Some(part) = self.core.next_part() {
            parts(part);
        }
    }

    fn take_results(&mut self) {
        while let Ok((block, result)) = self.results.try_recv() {
            self.core.on_result(block, result, Instant::now());
        }
    }
}

impl Backend for Workers {
    fn push(&mut self, request: Request) {
        self.core.push(request);
    }

    fn promote(&mut self, id: RequestId, priority: Priority) {
        self.core.requests.promote(id, priority);
    }

    fn abandon(&mut self, id: RequestId) {
        self.core.requests.abandon(id);
    }

    fn submit(&mut self) -> Result<(), Error> {
        self.hand_over();
        Ok(())
    }

    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>) -> Result<(), Error> {
        let timer = wait.deadline().map_or_else(never, at);
        loop {
            self.take_results();
            self.hand_over();
            if wait == Wait::No || self.core.requests.any_finished() || self.wakes.try_recv().is_ok() {
                break;
            }
            let result = select! {
                recv(self.results) -> result => result,
                recv(self.wakes) -> _ => break,
                recv(timer) -> _ => break,
            };
            let (block, result) = result.map_err(|_| {
                let cause = format!("every {} thread has ended", self.core.obtained.backend);
                Error::Stopped { cause }
            })?;
            self.core.on_result(block, result, Instant::now());
        }
        self.core.requests.take_finished(done);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn in_flight(&self) -> usize {
        self.core.in_flight()
    }

    fn file(&mut self, op: FileOp) -> Result<FileReply, Error> {
        self.core.file(op)
    }

    fn drain(&mut self, deadline: Duration, done: &mut Vec<Completion>) -> Result<(), Error> {
        loop {
            self.take_results();
            self.hand_over();
            if !self.core.busy() {
                self.core.requests.take_finished(done);
                return Ok(());
            }
            match self.results.recv_timeout(deadline) {
                Ok((block, result)) => self.core.on_result(block, result, Instant::now()),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    self.core.abandon_all();
                    self.core.requests.take_finished(done);
                    self.close_deadline = Duration::ZERO;
                    return Err(Error::NotDrained { in_flight: self.core.in_flight(), deadline });
                }
            }
        }
    }

    fn obtained(&self) -> &Obtained {
        &self.core.obtained
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.core.abandon_all();
        let drained = self.drain(self.close_deadline, &mut Vec::new());
        // Ends the workers.
        self.parts = None;
        if let Err(error) = drained {
            tracing::error!(%error, "memory in flight is leaked");
            return;
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        // SAFETY: dropped once, here, and not used again; no worker has a part of it any more.
        unsafe { ManuallyDrop::drop(&mut self.core) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileRange, Transfer};

    /// A thread that ends with a block in its hands may have handed it to the drive.
    #[test]
    fn threads_that_end_are_an_error_and_what_they_had_is_leaked() {
        let folder = tempfile::tempdir().unwrap();
        let memory = hoist_memory::Config { budget_bytes: 4 * 4096, page_bytes: 4096, piece_bytes: 2 << 20 };
        let slab = Slab::map(&memory).unwrap();
        let obtained = Obtained { backend: "test", queue_depth: 2, ..Obtained::default() };
        let mut backend = Workers::open(&Config::default(), &slab, obtained, None, |results| {
            let (parts, receiver) = bounded::<Part>(2);
            let worker = std::thread::spawn(move || {
                let _results = results;
                // All that are handed over, and none of them done.
                let _parts: Vec<_> = receiver.iter().take(2).collect();
            });
            Ok((Box::new(move |part| assert!(parts.send(part).is_ok())), vec![worker]))
        })
        .unwrap();
        let open = FileOp::Open { path: folder.path().join("data"), create: true, direct: true };
        let file = backend.file(open).unwrap().file();
        for id in 0..3 {
            let ranges = vec![FileRange { file, offset: 0, bytes: 4096, buffer_offset: 0 }];
            let transfer = Transfer::Read(slab.allocate(4096).unwrap());
            backend.push(Request { id, priority: Priority::Demand, ranges, transfer });
        }
        let mut done = Vec::new();
        let reaped = backend.reap(Wait::UntilSomething, &mut done);
        assert!(matches!(&reaped, Err(Error::Stopped { cause }) if cause.contains("test")), "{reaped:?}");
        let drained = backend.drain(Duration::from_secs(60), &mut done);
        assert!(matches!(drained, Err(Error::NotDrained { in_flight: 2, .. })), "{drained:?}");
        let undone: Vec<_> = done.drain(..).map(|completion| (completion.id, completion.result)).collect();
        assert!(matches!(undone[..], [(2, Err(Error::Abandoned { id: 2 }))]), "{undone:?}");
        drop(backend);
        // Two slots are with the core for good, which has the slab besides, and the third, which no thread had, came home.
        assert_eq!((slab.pages_free(), Arc::strong_count(&slab)), (2, 4));
    }
}
