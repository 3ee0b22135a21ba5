//! Against a backend that is all notes, by a clock that is told what time it is.

use super::*;
use crate::FileRange;
use hoist_memory::AlignedBuffer;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What the backend inside was told, and what it is to give back.
#[derive(Default)]
struct Notes {
    pushed: Vec<RequestId>,
    promoted: Vec<RequestId>,
    abandoned: Vec<RequestId>,
    held: Vec<Request>,
    waits: Vec<Wait>,
}

struct Fake {
    notes: Rc<RefCell<Notes>>,
    obtained: Obtained,
}

impl Fake {
    fn give_back(&self, done: &mut Vec<Completion>) {
        done.extend(self.notes.borrow_mut().held.drain(..).map(|request| {
            let Request { id, transfer, ranges, .. } = request;
            Completion { id, transfer, ranges, result: Ok(()), seconds_ns: 7 }
        }));
    }
}

impl Backend for Fake {
    fn push(&mut self, request: Request) {
        let mut notes = self.notes.borrow_mut();
        notes.pushed.push(request.id);
        notes.held.push(request);
    }

    fn promote(&mut self, id: RequestId, _: Priority) {
        self.notes.borrow_mut().promoted.push(id);
    }

    fn abandon(&mut self, id: RequestId) {
        self.notes.borrow_mut().abandoned.push(id);
    }

    fn submit(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>) -> Result<(), Error> {
        self.notes.borrow_mut().waits.push(wait);
        self.give_back(done);
        Ok(())
    }

    fn waker(&self) -> Waker {
        Waker::new(|| {})
    }

    fn in_flight(&self) -> usize {
        self.notes.borrow().held.len()
    }

    fn file(&mut self, _: FileOp) -> Result<FileReply, Error> {
        Ok(FileReply::Done)
    }

    fn drain(&mut self, _: Duration, done: &mut Vec<Completion>) -> Result<(), Error> {
        self.give_back(done);
        Ok(())
    }

    fn obtained(&self) -> &Obtained {
        &self.obtained
    }
}

/// A backend of 1 MB/s, which saves up 10,000 bytes at most, at time 0.
struct Bench {
    backend: Throttled,
    rate: Rate,
    notes: Rc<RefCell<Notes>>,
    now: Rc<Cell<Instant>>,
}

impl Bench {
    fn new() -> Bench {
        let notes = Rc::new(RefCell::new(Notes::default()));
        let now = Rc::new(Cell::new(Instant::now()));
        let rate = Rate::new(1_000_000);
        let fake = Fake { notes: Rc::clone(&notes), obtained: Obtained::default() };
        let clock = Rc::clone(&now);
        let backend = Throttled::with_clock(Box::new(fake), &rate, Box::new(move || clock.get()));
        Bench { backend, rate, notes, now }
    }

    fn push(&mut self, id: RequestId, priority: Priority, bytes: u64) {
        let ranges = vec![FileRange { file: FileId(3), offset: 0, bytes, buffer_offset: 0 }];
        let transfer = Transfer::ReadBuffer(AlignedBuffer::new(1).unwrap());
        self.backend.push(Request { id, priority, ranges, transfer });
    }

    /// After so much time: who has come back, with the result and the time that is told for it.
    fn after(&mut self, milliseconds: u64) -> Vec<Completion> {
        self.now.set(self.now.get() + Duration::from_millis(milliseconds));
        let mut done = Vec::new();
        self.backend.reap(Wait::UntilSomething, &mut done).unwrap();
        done
    }

    fn pushed(&self) -> Vec<RequestId> {
        self.notes.borrow().pushed.clone()
    }

    fn last_wait(&self) -> Wait {
        *self.notes.borrow().waits.last().unwrap()
    }
}

use Priority::{Demand, Prefetch, WriteBack};

#[test]
fn requests_pass_at_the_rate_and_waiting_is_one_sleep() {
    let mut bench = Bench::new();
    (0..3).for_each(|id| bench.push(id, Prefetch, 4000));
    assert!(bench.after(0).is_empty());
    assert_eq!(bench.last_wait(), Wait::AtMost(Duration::from_millis(4)), "not a moment of spinning");
    assert!(bench.after(3).is_empty());
    assert_eq!(bench.last_wait(), Wait::AtMost(Duration::from_millis(1)));
    let done = bench.after(1);
    assert_eq!((done[0].id, done[0].seconds_ns), (0, 4_000_007), "the time is from push to done");
    assert_eq!(bench.after(8).len(), 2, "what a late look missed is made up for");
    bench.after(0);
    assert_eq!(bench.last_wait(), Wait::UntilSomething, "nothing waits");
    bench.after(1000);
    (3..7).for_each(|id| bench.push(id, WriteBack, 4000));
    assert_eq!(bench.after(0).len(), 2, "idle time counts up to the burst");
}

#[test]
fn demand_comes_first_and_spends_what_others_saved() {
    let mut bench = Bench::new();
    bench.push(1, WriteBack, 1_000_000);
    bench.push(2, Prefetch, 4000);
    bench.push(3, Prefetch, 4000);
    assert!(bench.after(3).is_empty());
    bench.push(4, Demand, 3000);
    assert_eq!(bench.after(0)[0].id, 4, "at once: a prefetch had saved 3000 bytes");
    bench.after(4);
    bench.after(4);
    assert_eq!(bench.pushed(), [4, 2, 3]);
    assert!(bench.after(999).is_empty());
    bench.push(5, Demand, 900_000);
    assert_eq!(bench.after(0)[0].id, 5, "a large write-back that saves up delays no demand");
    bench.after(900);
    bench.after(1);
    assert_eq!(bench.pushed(), [4, 2, 3, 5, 1]);
}

#[test]
fn what_waits_is_promoted_and_abandoned_and_the_rest_is_passed_on() {
    let mut bench = Bench::new();
    for id in 1..=4 {
        bench.push(id, WriteBack, 1000);
    }
    bench.push(5, Prefetch, 1000);
    bench.backend.promote(3, Demand);
    bench.backend.promote(1, WriteBack);
    bench.backend.abandon(2);
    let done = bench.after(0);
    assert!(matches!((done[0].id, &done[0].result), (2, Err(Error::Abandoned { id: 2 }))), "{done:?}");
    assert_eq!(bench.last_wait(), Wait::No, "what is abandoned waits for nothing");
    bench.now.set(bench.now.get() + Duration::from_millis(1));
    bench.backend.submit().unwrap();
    bench.backend.promote(3, Prefetch);
    bench.backend.abandon(3);
    assert_eq!(
        (bench.notes.borrow().promoted.as_slice(), bench.notes.borrow().abandoned.as_slice()),
        (&[3][..], &[3][..])
    );
    (0..4).for_each(|_| drop(bench.after(1)));
    assert_eq!(bench.pushed(), [3, 5, 1, 4]);
}

#[test]
fn a_new_rate_holds_from_its_setting_on() {
    let mut bench = Bench::new();
    bench.push(1, Demand, 100_000);
    bench.after(50);
    bench.rate.set(0);
    assert!(bench.after(0).is_empty() && bench.after(1_000_000).is_empty());
    assert_eq!(bench.last_wait(), Wait::UntilSomething, "only a new rate ends this");
    bench.rate.set(10_000_000);
    bench.after(0);
    assert_eq!(bench.last_wait(), Wait::AtMost(Duration::from_millis(5)));
    assert_eq!(bench.after(5).len(), 1);
}

#[test]
fn a_rate_that_changes_wakes_each_backend() {
    let woken = Arc::new(AtomicU64::new(0));
    let rate = Rate::new(1);
    for _ in 0..2 {
        let woken = Arc::clone(&woken);
        rate.tell(Waker::new(move || {
            woken.fetch_add(1, Ordering::Relaxed);
        }));
    }
    rate.clone().set(2);
    assert_eq!((woken.load(Ordering::Relaxed), rate.bytes_per_second()), (2, 2));
}

#[test]
fn an_id_that_is_under_way_comes_back_and_syncs_cost_nothing() {
    let mut bench = Bench::new();
    bench.push(1, Prefetch, 1000);
    bench.push(1, Demand, 1000);
    let done = bench.after(0);
    assert!(matches!(done[..], [Completion { result: Err(Error::DuplicateId { id: 1 }), .. }]), "{done:?}");
    let sync = Transfer::Sync(FileId(3));
    bench.backend.push(Request { id: 2, priority: Demand, ranges: Vec::new(), transfer: sync });
    assert_eq!(bench.after(0)[0].id, 2);
    // The backend inside must hear of who uses the file.
    bench.backend.file(FileOp::Close(FileId(3))).unwrap();
    assert_eq!(bench.pushed(), [2, 1]);
}

#[test]
fn draining_at_rate_0_gives_back_what_waits() {
    let mut bench = Bench::new();
    bench.rate.set(0);
    bench.push(1, Demand, 1000);
    bench.after(0);
    let mut done = Vec::new();
    bench.backend.drain(Duration::from_secs(60), &mut done).unwrap();
    assert!(matches!(done[..], [Completion { id: 1, result: Err(Error::Abandoned { .. }), .. }]), "{done:?}");
}
