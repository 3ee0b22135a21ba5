//! The thread that says when events have passed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::pace::sleep_finely;
use crate::{Completion, Error, Event};

/// Events that may wait for the thread to take them up. One is pushed per lease or stream wait, and the
/// thread takes them up within microseconds; a full queue makes `notify` wait.
const PUSHED_MAX: usize = 1024;

/// The thread's name, as `ps -L` shows it.
const NAME: &str = "hoist-timer";

/// Delivers a `Completion::Event` for each event pushed, once it has passed.
pub(crate) struct Timer {
    sender: Option<Sender<(Instant, u64)>>,
    thread: Option<JoinHandle<()>>,
}

impl Timer {
    /// Starts the thread.
    pub fn spawn(deliver: impl FnMut(Completion) + Send + 'static) -> Result<Self, Error> {
        let (sender, receiver) = bounded(PUSHED_MAX);
        let thread = std::thread::Builder::new()
            .name(NAME.into())
            .spawn(move || run(&receiver, deliver))
            .map_err(|errno| Error::Thread { name: NAME, errno })?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Delivers `id` when `event` has passed.
    pub fn push(&self, id: u64, event: Event) {
        let at = event.instant().unwrap_or_else(Instant::now);
        let sent = self.sender.as_ref().is_some_and(|sender| sender.send((at, id)).is_ok());
        assert!(sent, "thread {NAME} has ended before event {id}: its deliver panicked");
    }
}

impl Drop for Timer {
    /// Returns when every event pushed has passed and was delivered.
    fn drop(&mut self) {
        self.sender = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("thread {NAME} panicked; events after that were not delivered");
        }
    }
}

/// Takes events up and delivers them in the order in which they pass.
fn run(receiver: &Receiver<(Instant, u64)>, mut deliver: impl FnMut(Completion)) {
    sleep_finely();
    let mut waiting = BinaryHeap::with_capacity(PUSHED_MAX);
    let mut open = true;
    while open || !waiting.is_empty() {
        let next = waiting.peek().map(|Reverse((at, _))| *at);
        match (open, next) {
            (true, None) => match receiver.recv() {
                Ok(pushed) => waiting.push(Reverse(pushed)),
                Err(_) => open = false,
            },
            (true, Some(at)) => match receiver.recv_deadline(at) {
                Ok(pushed) => waiting.push(Reverse(pushed)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            },
            (false, Some(at)) => crate::pace::sleep_until(at),
            (false, None) => {}
        }
        let now = Instant::now();
        while let Some(Reverse((at, id))) = waiting.pop() {
            if at > now {
                waiting.push(Reverse((at, id)));
                break;
            }
            deliver(Completion::Event { id });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Ids in the order of delivery, each with whether its instant had passed then.
    fn deliver_all(events: &[(u64, Event)]) -> Vec<(u64, bool)> {
        let (sender, receiver) = bounded(events.len());
        let timer = Timer::spawn(move |completion| {
            let Completion::Event { id } = completion else { panic!("{completion:?} is no event") };
            sender.send((id, Instant::now())).unwrap();
        })
        .unwrap();
        for (id, event) in events {
            timer.push(*id, *event);
        }
        drop(timer);
        let at = |id| events.iter().find(|(pushed, _)| *pushed == id).unwrap().1;
        receiver.iter().map(|(id, seen)| (id, at(id).instant().is_none_or(|due| seen >= due))).collect()
    }

    #[test]
    fn events_are_delivered_after_they_passed_and_in_that_order() {
        let t0 = Instant::now();
        let at = |ms| Event::at(t0 + Duration::from_millis(ms));
        let delivered = deliver_all(&[(7, at(50)), (8, at(20)), (9, at(35))]);
        assert_eq!(delivered, [(8, true), (9, true), (7, true)]);
    }

    #[test]
    fn every_event_is_delivered_before_the_timer_is_gone() {
        let far = Event::at(Instant::now() + Duration::from_millis(20));
        let mut ids: Vec<_> = deliver_all(&[(1, far), (2, Event::done()), (3, far)]);
        ids.sort_unstable();
        assert_eq!(ids, [(1, true), (2, true), (3, true)]);
    }
}
