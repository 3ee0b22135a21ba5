//! One direction between host and device: a thread that copies at a bandwidth.

use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::copy::Copy;
use crate::pace::{Pace, sleep_finely, sleep_until};
use crate::{Completion, Error};

/// Copies that may wait for a link. The plan's credits keep it to the few that hide a copy's latency;
/// a full queue makes `push` wait.
const PUSHED_MAX: usize = 1024;

/// A copy with the instant at which it was asked for.
type Pushed = (Instant, Copy);

/// A link and its thread. Copies are carried out one at a time, in the order they were pushed.
pub(crate) struct Link {
    name: &'static str,
    sender: Option<Sender<Pushed>>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Starts the thread of a link of `bytes_per_second`; `deliver` runs on it.
    pub fn spawn(
        name: &'static str,
        bytes_per_second: u64,
        deliver: impl FnMut(Completion) + Send + 'static,
    ) -> Result<Self, Error> {
        let (sender, receiver) = bounded(PUSHED_MAX);
        let pace = Pace::new(bytes_per_second);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || run(&receiver, pace, deliver))
            .map_err(|errno| Error::Thread { name, errno })?;
        Ok(Self { name, sender: Some(sender), thread: Some(thread) })
    }

    /// Queues a copy; its link time counts from now or from the end of the copy before it.
    pub fn push(&self, copy: Copy) {
        let sent = self.sender.as_ref().is_some_and(|sender| sender.send((Instant::now(), copy)).is_ok());
        assert!(sent, "thread {} has ended before a copy: its deliver panicked", self.name);
    }
}

impl Drop for Link {
    /// Returns when every copy pushed was carried out and delivered: nothing is in flight afterwards.
    fn drop(&mut self) {
        self.sender = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("thread {} panicked; copies after that were not carried out", self.name);
        }
    }
}

/// Carries copies out until the link is dropped and its queue is empty.
fn run(receiver: &Receiver<Pushed>, mut pace: Pace, mut deliver: impl FnMut(Completion)) {
    sleep_finely();
    for (pushed, mut copy) in receiver {
        let begun = Instant::now();
        copy.carry_out();
        let end = pace.occupy(pushed, copy.bytes(), begun.elapsed());
        sleep_until(end);
        deliver(copy.into_completion());
    }
}
