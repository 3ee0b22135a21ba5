//! Threads that call pread and pwrite: for where there is no io_uring.

use crate::backend::{Backend, FileOp, FileReply, Wait};
use crate::config::CLOSE_DEADLINE;
use crate::core::{Core, Part};
use crate::error::Operation;
use crate::{Completion, Config, Error, Obtained, Priority, Request, RequestId, Waker};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, select};
use std::mem::ManuallyDrop;
use std::thread::JoinHandle;
use std::time::Duration;

/// Threads at most. A thread is a stack and a context switch per block; past this many, more of them cost more than
/// the drive gains by a deeper queue of 1 MiB blocks.
const WORKERS_MAX: u32 = 64;

/// A backend of worker threads, each with one block at a time.
pub(crate) struct Pread {
    /// Forgotten instead of dropped when the drive does not answer: a worker may still write its memory.
    core: ManuallyDrop<Core>,
    /// None when closing.
    parts: Option<Sender<Part>>,
    results: Receiver<(usize, i32)>,
    wakes: Receiver<()>,
    waker: Waker,
    workers: Vec<JoinHandle<()>>,
    close_deadline: Duration,
}

impl Pread {
    pub(crate) fn open(config: &Config, mut obtained: Obtained) -> Result<Pread, Error> {
        let depth = config.queue_depth.min(WORKERS_MAX);
        if depth < config.queue_depth {
            let asked = config.queue_depth;
            obtained
                .step_down(format!("queue depth {depth} instead of {asked}: pread takes a thread per block"));
        }
        obtained.backend = "pread";
        obtained.queue_depth = depth;
        // Room for all that can be in flight, so that neither side ever waits for room.
        let (parts, parts_receiver) = bounded::<Part>(depth as usize);
        let (results_sender, results) = bounded(depth as usize);
        let (wakes_sender, wakes) = bounded(1);
        let waker = Waker::new(move || match wakes_sender.try_send(()) {
            // Full: a wake is pending already. Disconnected: there is nobody to wake.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        });
        let mut workers = Vec::with_capacity(depth as usize);
        for index in 0..depth {
            let (parts, results) = (parts_receiver.clone(), results_sender.clone());
            let worker = std::thread::Builder::new()
                .name(format!("hoist-pread-{index}"))
                .spawn(move || work(&parts, &results))
                .map_err(|source| Error::Call { call: "starting a pread thread", source })?;
            workers.push(worker);
        }
        let core = ManuallyDrop::new(Core::new(config, obtained));
        Ok(Pread { core, parts: Some(parts), results, wakes, waker, workers, close_deadline: CLOSE_DEADLINE })
    }

    fn hand_over(&mut self) {
        let Some(parts) = &self.parts else { return };
        while let Some(part) = self.core.next_part() {
            // The channel holds the whole depth and its receivers live until `parts` is dropped.
            assert!(parts.try_send(part).is_ok(), "no room for {part:?}");
        }
    }

    fn take_results(&mut self) {
        while let Ok((block, result)) = self.results.try_recv() {
            self.core.on_result(block, result);
        }
    }
}

impl Backend for Pread {
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
        loop {
            self.take_results();
            self.hand_over();
            if wait == Wait::No || self.core.requests.any_finished() || self.wakes.try_recv().is_ok() {
                break;
            }
            select! {
                recv(self.results) -> result => match result {
                    Ok((block, result)) => self.core.on_result(block, result),
                    Err(_) => return Err(Error::Stopped { cause: "every pread thread has ended".to_owned() }),
                },
                recv(self.wakes) -> _ => break,
            }
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
                Ok((block, result)) => self.core.on_result(block, result),
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

impl Drop for Pread {
    fn drop(&mut self) {
        self.core.abandon_all();
        let drained = self.drain(self.close_deadline, &mut Vec::new());
        // Ends the workers: each leaves when the channel is empty and closed.
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

fn work(parts: &Receiver<Part>, results: &Sender<(usize, i32)>) {
    for part in parts {
        if results.send((part.block, execute(&part))).is_err() {
            return;
        }
    }
}

/// The bytes moved, or minus the errno.
fn execute(part: &Part) -> i32 {
    let Part { fd, offset, bytes, .. } = *part;
    let memory = std::ptr::with_exposed_provenance_mut::<libc::c_void>(part.address);
    let (offset, bytes) = (offset as libc::off64_t, bytes as usize);
    // SAFETY: the request table owns the memory behind `part`, and keeps the file open, until this part's result is
    // returned; the table is leaked rather than dropped before that. Nobody else touches the memory of a read; a
    // write's is only read. The bytes fit an i32, as a block is 1 GiB at most.
    let result = unsafe {
        match part.operation {
            Operation::Read => libc::pread64(fd, memory, bytes, offset) as i32,
            Operation::Write => libc::pwrite64(fd, memory.cast_const(), bytes, offset) as i32,
            Operation::Sync => libc::fdatasync(fd),
        }
    };
    if result < 0 { -std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) } else { result }
}
