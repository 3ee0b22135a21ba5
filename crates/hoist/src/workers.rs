//! The pool that computes checksums and casts, so that the engine's thread never does.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use hoist_memory::{Slot, SlotReader};
use hoist_plan::RequestId;
use hoist_store::{checksum, verify_touched};

use crate::cast::Cast;
use crate::error::Error;
use crate::message::Message;

/// Work that was asked for, with the memory it needs, by value.
pub(crate) enum Job {
    /// Compare a slot that was just read with what the manifest says, but for blocks that were never read before.
    Verify { request: RequestId, slot: Slot, expected: Vec<u64>, unknown: Vec<usize> },
    /// Compute the checksums that will be recorded with the write that follows.
    Record { request: RequestId, slot: SlotReader, sums: Vec<u64> },
    /// Make a derived unit.
    Derive { request: RequestId, casts: Vec<(SlotReader, Cast)>, target: Slot },
    /// A bundle that was never written holds zeros.
    Blank { request: RequestId, target: Slot },
}

/// Work that is done, with its memory.
pub(crate) enum Worked {
    Verified { request: RequestId, slot: Slot, sums: Vec<u64>, unknown: Vec<usize>, bad: Vec<usize> },
    Recorded { request: RequestId, sums: Vec<u64> },
    Derived { request: RequestId, target: Slot },
    Blanked { request: RequestId, target: Slot },
}

/// Threads in the pool: a checksum runs at memory speed (CRC-64/NVME by carry-less multiplication
/// passes 10 GB/s a core), so a few keep up with any drive; one core is left to the trainer.
const WORKERS_MAX: usize = 4;

/// Jobs that wait: more than the plan keeps in flight, so that handing one out never blocks.
const JOBS_MAX: usize = 16_384;

/// The pool. Dropping it lets the threads finish what they have, and waits for them.
pub(crate) struct Workers {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(crate) fn start(done: &Sender<Message>) -> Result<Workers, Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (jobs, queue) = bounded(JOBS_MAX);
        let mut workers = Workers { jobs: Some(jobs), threads: Vec::new() };
        for _ in 0..(cores - 1).clamp(1, WORKERS_MAX) {
            let (queue, done) = (queue.clone(), done.clone());
            let thread = std::thread::Builder::new().name("hoist-worker".into());
            let thread = thread.spawn(move || work(&queue, &done));
            let failed = |source| Error::Thread { name: "hoist-worker", source: Arc::new(source) };
            workers.threads.push(thread.map_err(failed)?);
        }
        Ok(workers)
    }

    pub(crate) fn push(&self, job: Job) {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job).is_ok());
        assert_eq!(sent, Some(true), "the workers outlive the engine's thread");
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a checksum worker panicked");
            }
        }
    }
}

/// Tells the engine when the thread that holds it panics: what it had in hand never comes back.
struct Alive<'a>(&'a Sender<Message>);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Message::Died("hoist-worker"));
        }
    }
}

fn work(queue: &Receiver<Job>, done: &Sender<Message>) {
    let _alive = Alive(done);
    while let Ok(job) = queue.recv() {
        if done.send(Message::Worked(carry_out(job))).is_err() {
            return;
        }
    }
}

fn carry_out(job: Job) -> Worked {
    match job {
        Job::Verify { request, slot, expected: mut sums, unknown } => {
            let bad = verify_touched(&mut sums, &unknown, slot.parts()).err().unwrap_or_default();
            Worked::Verified { request, slot, sums, unknown, bad }
        }
        Job::Record { request, slot, mut sums } => {
            checksum(slot.parts(), &mut sums);
            // The reader goes before the engine hears of it, which may then hand the slot to a writer.
            drop(slot);
            Worked::Recorded { request, sums }
        }
        Job::Derive { request, casts, mut target } => {
            for (source, cast) in casts {
                cast.carry_out(source.parts(), target.parts_mut());
            }
            Worked::Derived { request, target }
        }
        Job::Blank { request, mut target } => {
            target.parts_mut().for_each(|part| part.fill(0));
            Worked::Blanked { request, target }
        }
    }
}
