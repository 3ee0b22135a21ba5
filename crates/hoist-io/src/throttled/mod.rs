//! A backend that is slower than its drive, so that one disk can stand for several slower ones.

mod bucket;
#[cfg(test)]
mod tests;

use crate::backend::{Backend, FileOp, FileReply, Wait};
use crate::{Completion, Error, FileId, Obtained, Priority, Request, RequestId, Transfer, Waker};
use bucket::Bucket;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes per second, of reads and writes together. A clone is the same rate; used from any thread.
#[derive(Clone)]
pub struct Rate {
    shared: Arc<Shared>,
}

struct Shared {
    bytes_per_second: AtomicU64,
    /// Of the backends that have this rate, each of them by itself. Locked only when the rate is changed.
    wakers: Mutex<Vec<Waker>>,
}

impl Rate {
    /// A rate. At 0 nothing passes until it is changed.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Rate {
        let bytes_per_second = AtomicU64::new(bytes_per_second);
        Rate { shared: Arc::new(Shared { bytes_per_second, wakers: Mutex::default() }) }
    }

    /// Changes it, for what waits already, too.
    pub fn set(&self, bytes_per_second: u64) {
        self.shared.bytes_per_second.store(bytes_per_second, Ordering::Release);
        let wakers = self.shared.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.iter().for_each(Waker::wake);
    }

    /// What it is now.
    #[must_use]
    pub fn bytes_per_second(&self) -> u64 {
        self.shared.bytes_per_second.load(Ordering::Acquire)
    }

    fn tell(&self, waker: Waker) {
        self.shared.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(waker);
    }
}

/// A request that the backend inside does not have yet.
struct Waiting {
    request: Request,
    bytes: u64,
    pushed: Instant,
}

/// A backend that gets its requests at a [`Rate`]: whole ones, strictly by priority, each when its bytes have been saved
/// up. What waits can still be promoted and abandoned; what was handed on comes back as soon as it is done. A demand that
/// comes takes what a larger request has saved up, so it never waits behind one.
pub struct Throttled {
    inner: Box<dyn Backend>,
    rate: Rate,
    bucket: Bucket,
    now: Box<dyn Fn() -> Instant>,
    lanes: [VecDeque<Waiting>; 3],
    /// How long each request that was handed on has waited for that.
    waited: HashMap<RequestId, Duration>,
    finished: Vec<Completion>,
}

impl Throttled {
    /// Throttles a backend.
    #[must_use]
    pub fn new(inner: Box<dyn Backend>, rate: &Rate) -> Throttled {
        Throttled::with_clock(inner, rate, Box::new(Instant::now))
    }

    fn with_clock(inner: Box<dyn Backend>, rate: &Rate, now: Box<dyn Fn() -> Instant>) -> Throttled {
        rate.tell(inner.waker());
        let bucket = Bucket::new(rate.bytes_per_second(), now());
        let (lanes, waited, finished) = (Default::default(), HashMap::new(), Vec::new());
        Throttled { inner, rate: rate.clone(), bucket, now, lanes, waited, finished }
    }

    /// Hands on what may pass. Returns in what time more may; None when nothing waits, or nothing may ever pass.
    fn hand_on(&mut self) -> Option<Duration> {
        let now = (self.now)();
        // A small demand must not spill what a large write-back has saved up, or that would never pass.
        let heads = self.lanes.iter().filter_map(VecDeque::front);
        let largest_bytes = heads.map(|waiting| waiting.bytes).max().unwrap_or(0);
        self.bucket.fill(now, self.rate.bytes_per_second(), largest_bytes);
        while let Some(lane) = self.lanes.iter_mut().find(|lane| !lane.is_empty()) {
            let bytes = lane.front().map_or(0, |waiting| waiting.bytes);
            if !self.bucket.take(bytes) {
                return self.bucket.time_until(bytes);
            }
            if let Some(waiting) = lane.pop_front() {
                self.pass(waiting, now);
            }
        }
        None
    }

    fn pass(&mut self, waiting: Waiting, now: Instant) {
        let waited = now.saturating_duration_since(waiting.pushed);
        self.waited.insert(waiting.request.id, waited);
        self.inner.push(waiting.request);
    }

    /// Takes a request that waits out of its lane.
    fn take_waiting(&mut self, id: RequestId) -> Option<Waiting> {
        self.lanes.iter_mut().find_map(|lane| {
            let place = lane.iter().position(|waiting| waiting.request.id == id)?;
            lane.remove(place)
        })
    }

    fn end(&mut self, waiting: Waiting, error: Error) {
        let Waiting { request: Request { id, transfer, ranges, .. }, pushed, .. } = waiting;
        let seconds_ns = (self.now)().saturating_duration_since(pushed).as_nanos() as u64;
        self.finished.push(Completion { id, transfer, ranges, result: Err(error), seconds_ns });
    }

    fn abandon_waiting(&mut self) {
        for lane in 0..self.lanes.len() {
            while let Some(waiting) = self.lanes[lane].pop_front() {
                let id = waiting.request.id;
                self.end(waiting, Error::Abandoned { id });
            }
        }
    }

    /// Hands on what uses a file, so that the backend inside knows of it.
    fn pass_users(&mut self, file: FileId) {
        let now = (self.now)();
        for lane in 0..self.lanes.len() {
            let uses = |waiting: &Waiting| {
                matches!(waiting.request.transfer, Transfer::Sync(synced) if synced == file)
                    || waiting.request.ranges.iter().any(|range| range.file == file)
            };
            while let Some(place) = self.lanes[lane].iter().position(uses) {
                if let Some(waiting) = self.lanes[lane].remove(place) {
                    self.pass(waiting, now);
                }
            }
        }
    }

    /// Adds the time before the backend inside had them to the requests that it gave back.
    fn count_waits(&mut self, done: &mut [Completion]) {
        for completion in done {
            let waited = self.waited.remove(&completion.id).unwrap_or_default();
            completion.seconds_ns += waited.as_nanos() as u64;
        }
    }

    fn reap_inner(&mut self, wait: Wait, done: &mut Vec<Completion>) -> Result<(), Error> {
        let before = done.len();
        let result = self.inner.reap(wait, done);
        self.count_waits(&mut done[before..]);
        result
    }
}

impl Backend for Throttled {
    fn push(&mut self, request: Request) {
        let bytes = request.ranges.iter().map(|range| range.bytes).fold(0, u64::saturating_add);
        let (id, priority) = (request.id, request.priority);
        let waiting = Waiting { request, bytes, pushed: (self.now)() };
        let mut queued = self.lanes.iter().flatten().map(|waiting| waiting.request.id);
        if self.waited.contains_key(&id) || queued.any(|queued| queued == id) {
            return self.end(waiting, Error::DuplicateId { id });
        }
        self.lanes[priority as usize].push_back(waiting);
    }

    fn promote(&mut self, id: RequestId, priority: Priority) {
        let same = |waiting: &Waiting| waiting.request.id == id;
        if self.lanes[priority as usize].iter().any(same) {
            return;
        }
        match self.take_waiting(id) {
            Some(mut waiting) => {
                waiting.request.priority = priority;
                self.lanes[priority as usize].push_back(waiting);
            }
            None => self.inner.promote(id, priority),
        }
    }

    fn abandon(&mut self, id: RequestId) {
        match self.take_waiting(id) {
            Some(waiting) => self.end(waiting, Error::Abandoned { id }),
            None => self.inner.abandon(id),
        }
    }

    fn submit(&mut self) -> Result<(), Error> {
        self.hand_on();
        self.inner.submit()
    }

    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>) -> Result<(), Error> {
        let next = self.hand_on();
        let wait = if self.finished.is_empty() { wait.limited(next) } else { Wait::No };
        done.append(&mut self.finished);
        // A wait that ends when more may pass may also end by a wake: so it is the caller's to look, and come again.
        self.reap_inner(wait, done)
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    /// A file that waiting requests use is not closed: those that use it are handed on then, whatever the rate.
    fn file(&mut self, op: FileOp) -> Result<FileReply, Error> {
        if let FileOp::Close(file) = op {
            self.pass_users(file);
        }
        self.inner.file(op)
    }

    /// At the rate, as ever. The deadline is for a drive that gives no sign of life, and for a rate of 0.
    fn drain(&mut self, deadline: Duration, done: &mut Vec<Completion>) -> Result<(), Error> {
        loop {
            let next = self.hand_on();
            if self.lanes.iter().all(VecDeque::is_empty) {
                break;
            }
            let before = done.len();
            let reaped = self.reap_inner(Wait::AtMost(next.unwrap_or(deadline)), done);
            if reaped.is_err() || next.is_none() && done.len() == before {
                self.abandon_waiting();
                break;
            }
        }
        done.append(&mut self.finished);
        let before = done.len();
        let drained = self.inner.drain(deadline, done);
        self.count_waits(&mut done[before..]);
        drained
    }

    fn obtained(&self) -> &Obtained {
        self.inner.obtained()
    }
}
