//! A thread whose backend fails: whoever pushed hears of it, once.

use crate::common::{BACKENDS, byte, config, contents, filled, request, slab};
use hoist_io::memory::{AlignedBuffer, Slab};
use hoist_io::{
    Backend, Completion, Error, FileId, FileOp, FileReply, IoThread, Obtained, Priority, Request, RequestId,
    Transfer, Wait, Waker,
};
use std::mem::ManuallyDrop;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// What the backend does once it has this many requests.
const HELD: u64 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// `reap` fails; what is held comes back.
    Reap,
    /// `reap` fails, and the drive does not answer.
    Drive,
    ReapPanics,
    PushPanics,
    /// `reap` fails, and the drain panics.
    DrainPanics,
}

/// Holds what it is given and does none of it, but for request 0, which it answers twice.
struct Failing {
    fault: Failure,
    /// As the kernel may have it, it is leaked unless it was drained.
    held: ManuallyDrop<Vec<Request>>,
    abandoned: Vec<Completion>,
    waker: Waker,
    wakes: mpsc::Receiver<()>,
    obtained: Obtained,
}

impl Failing {
    fn new(fault: Failure) -> Failing {
        let (sender, wakes) = mpsc::channel();
        let waker = Waker::new(move || {
            let _ = sender.send(());
        });
        let (held, abandoned) = (ManuallyDrop::new(Vec::new()), Vec::new());
        Failing { fault, held, abandoned, waker, wakes, obtained: Obtained::default() }
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        let panicked = matches!(self.fault, Failure::ReapPanics | Failure::PushPanics | Failure::DrainPanics);
        assert!(!panicked, "dropping it might give back what the drive has");
    }
}

fn completion(request: Request, result: Result<(), Error>) -> Completion {
    let Request { id, transfer, ranges, .. } = request;
    Completion { id, transfer, ranges, result, seconds_ns: 1 }
}

impl Backend for Failing {
    fn push(&mut self, request: Request) {
        assert!(self.fault != Failure::PushPanics || self.held.len() < HELD as usize, "the push panics");
        self.held.push(request);
    }

    fn promote(&mut self, _: RequestId, _: Priority) {}

    fn abandon(&mut self, id: RequestId) {
        if self.fault == Failure::Reap
            && let Some(place) = self.held.iter().position(|request| request.id == id)
        {
            self.abandoned.push(completion(self.held.remove(place), Err(Error::Abandoned { id })));
        }
    }

    fn submit(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn reap(&mut self, _: Wait, done: &mut Vec<Completion>) -> Result<(), Error> {
        if let Some(place) = self.held.iter().position(|request| request.id == 0) {
            let again = request(0, Priority::Demand, Vec::new(), Transfer::Sync(FileId(0)));
            done.extend([self.held.remove(place), again].map(|request| completion(request, Ok(()))));
            return Ok(());
        }
        if self.held.len() >= HELD as usize && self.fault != Failure::PushPanics {
            assert_ne!(self.fault, Failure::ReapPanics, "the reap panics");
            return Err(Error::Call { call: "the test", source: std::io::ErrorKind::Other.into() });
        }
        self.wakes.recv().unwrap();
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn in_flight(&self) -> usize {
        self.held.len()
    }

    fn file(&mut self, _: FileOp) -> Result<FileReply, Error> {
        Ok(FileReply::Done)
    }

    fn drain(&mut self, deadline: Duration, done: &mut Vec<Completion>) -> Result<(), Error> {
        assert_ne!(self.fault, Failure::DrainPanics, "the drain panics");
        done.append(&mut self.abandoned);
        match self.held.len() {
            0 => Ok(()),
            in_flight => Err(Error::NotDrained { in_flight, deadline }),
        }
    }

    fn obtained(&self) -> &Obtained {
        &self.obtained
    }
}

/// Every kind in turn; slots and buffers hold what step `id` writes.
fn transfer(slab: &Arc<Slab>, id: RequestId) -> Transfer {
    let buffer = || {
        let mut buffer = AlignedBuffer::new(4096).unwrap();
        buffer.iter_mut().zip(0..).for_each(|(place, index)| *place = byte(id, index));
        buffer
    };
    match id % 5 {
        0 => Transfer::Sync(FileId(id as u32)),
        1 => Transfer::Read(filled(slab, 4096, id)),
        2 => Transfer::Write(filled(slab, 4096, id).share()),
        3 => Transfer::ReadBuffer(buffer()),
        _ => Transfer::WriteBuffer(buffer()),
    }
}

/// Whether a completion has the memory of its request; panics when it is of another kind.
fn has_memory(completion: &Completion) -> bool {
    let id = completion.id;
    let bytes = match (id % 5, &completion.transfer) {
        (0, Transfer::Sync(file)) => return *file == FileId(id as u32),
        (1, Transfer::Read(slot)) => contents(slot.parts()),
        (2, Transfer::Write(reader)) => contents(reader.parts()),
        (3, Transfer::ReadBuffer(buffer)) | (4, Transfer::WriteBuffer(buffer)) => buffer.to_vec(),
        (_, other) => panic!("{other:?} came back for request {id}"),
    };
    bytes.len() == 4096 && bytes.into_iter().zip(0..).all(|(found, index)| found == byte(id, index))
}

fn push(thread: &IoThread, slab: &Arc<Slab>, ids: std::ops::Range<u64>) {
    for id in ids {
        thread.push(request(id, Priority::Demand, Vec::new(), transfer(slab, id)));
    }
}

fn until_stopped(thread: &IoThread) {
    let op = FileOp::Remove { path: "/nonexistent/file".into() };
    while !matches!(thread.file(op.clone()), Err(Error::Stopped { .. })) {}
}

#[test]
fn every_request_is_answered_once_whatever_the_backend_does() {
    use Failure::*;
    for (fault, cause) in [
        (Reap, "the test"),
        (Drive, "the test"),
        (ReapPanics, "the backend panicked"),
        (PushPanics, "the push panics"),
        (DrainPanics, "the drain panics"),
    ] {
        let slab = slab(4 << 20);
        let (sender, receiver) = mpsc::channel();
        let open = move || Ok(Box::new(Failing::new(fault)) as Box<dyn Backend>);
        let thread = IoThread::spawn_with("io-test", open, move |done| sender.send(done).unwrap()).unwrap();
        // Some before it fails, some while, some after.
        push(&thread, &slab, 0..20);
        until_stopped(&thread);
        thread.promote(1, Priority::Prefetch);
        thread.abandon(2);
        push(&thread, &slab, 20..30);
        assert_eq!(thread.obtained().backend, Obtained::default().backend);
        let mut done: Vec<_> =
            (0..30).map(|_| receiver.recv_timeout(Duration::from_secs(60)).unwrap()).collect();
        let closed = thread.close();
        assert!(matches!(&closed, Err(Error::Stopped { cause: said }) if said.contains(cause)), "{closed:?}");
        assert!(receiver.recv().is_err(), "{fault:?}: a request was answered twice");
        done.sort_unstable_by_key(|completion| completion.id);
        for (completion, id) in done.iter().zip(0..) {
            assert_eq!(completion.id, id, "{fault:?}");
            match &completion.result {
                Ok(()) => assert_eq!(id, 0),
                Err(Error::Stopped { cause: said }) if said.contains(cause) => {}
                Err(error) => panic!("{fault:?}: request {id}: {error}"),
            }
            assert!(id < 20 || has_memory(completion), "{fault:?}: request {id} was never under way");
        }
        let lost = done.iter().filter(|completion| !has_memory(completion)).count();
        drop(done);
        if fault == Reap {
            assert_eq!((lost, slab.pages_free()), (0, slab.pages()));
        } else {
            assert!(
                lost > 0 && slab.pages_free() < slab.pages(),
                "{fault:?}: memory in flight was given back"
            );
        }
    }
}

#[test]
fn a_request_whose_id_is_under_way_comes_back() {
    let slab = slab(1 << 20);
    let (sender, receiver) = mpsc::channel();
    let open = || Ok(Box::new(Failing::new(Failure::Reap)) as Box<dyn Backend>);
    let thread = IoThread::spawn_with("io-test", open, move |done| sender.send(done).unwrap()).unwrap();
    push(&thread, &slab, 1..2);
    push(&thread, &slab, 1..2);
    let second = receiver.recv().unwrap();
    assert!(matches!(second.result, Err(Error::DuplicateId { id: 1 })) && has_memory(&second));
    // The first is answered even though the drive does not.
    assert!(matches!(thread.close(), Err(Error::NotDrained { in_flight: 1, .. })));
    let done: Vec<_> = receiver.iter().collect();
    assert!(matches!(done[..], [Completion { id: 1, result: Err(Error::Stopped { .. }), .. }]), "{done:?}");
}

#[test]
fn a_delivery_that_panics_stops_the_thread_and_not_the_answers() {
    for choice in BACKENDS {
        let slab = slab(1 << 20);
        let (sender, receiver) = mpsc::channel();
        let deliver = move |completion: Completion| {
            assert!(completion.id != 1, "on purpose");
            sender.send(completion).unwrap();
        };
        let thread = IoThread::spawn("io-panic", &config(choice), slab.clone(), deliver).unwrap();
        push(&thread, &slab, 1..2);
        until_stopped(&thread);
        push(&thread, &slab, 2..9);
        for id in 2..9 {
            let completion = receiver.recv().unwrap();
            assert!(completion.id == id && has_memory(&completion));
            assert!(
                matches!(completion.result, Err(Error::Stopped { cause }) if cause.contains("on purpose"))
            );
        }
        assert!(matches!(thread.close(), Err(Error::Stopped { .. })));
        assert_eq!(slab.pages_free(), slab.pages());
    }
}
