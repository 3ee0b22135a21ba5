//! A signal a millisecond while bytes move, in a process of its own: a timer's signals go to whoever does not block them,
//! and so to any test beside this one. Without the harness, whose main thread would take them all and do nothing.
//!
//! Kills: a wait that a signal ended taken for the ring's error.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use hoist_io::memory::{Slab, Slot};
use hoist_io::{
    Backend, BackendChoice, Config, FileId, FileOp, FileRange, Priority, Request, Transfer, Wait, open,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// What is in flight at a time, and the length of the file.
const FILE_BYTES: u64 = 32 << 20;
const REQUEST_BYTES: u64 = 2 << 20;

/// All of the file is written and then read so often: 1 GiB each way through the ring.
const TURNS: u64 = 32;

/// The same for each of the others: 1 GiB in all, half of it while their own threads take the signals.
const TURNS_ELSEWHERE: u64 = 16;

static DRIVER: AtomicI32 = AtomicI32::new(0);
static AT_DRIVER: AtomicU64 = AtomicU64::new(0);
static ELSEWHERE: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_signal: libc::c_int) {
    // SAFETY: takes nothing and cannot fail; like the atomics it may be used in a handler (signal-safety(7)).
    let own = unsafe { libc::gettid() };
    let counter = if own == DRIVER.load(Ordering::Relaxed) { &AT_DRIVER } else { &ELSEWHERE };
    counter.fetch_add(1, Ordering::Relaxed);
}

fn start_signals() {
    // SAFETY: a zeroed sigaction with a handler is valid, and so is the timer; without SA_RESTART, so that system calls
    // see EINTR. gettid takes nothing and cannot fail.
    unsafe {
        DRIVER.store(libc::gettid(), Ordering::Relaxed);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), 0);
        let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()), 0);
    }
}

/// Whether this thread takes the signals; if not, one of the backend's own does.
fn take_signals(take: bool) {
    let how = if take { libc::SIG_UNBLOCK } else { libc::SIG_BLOCK };
    // SAFETY: the set is made empty before it is used.
    unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGALRM);
        assert_eq!(libc::pthread_sigmask(how, &raw const signals, std::ptr::null_mut()), 0);
    }
}

/// The eight bytes at `offset` of what step `step` writes.
fn word(step: u64, offset: u64) -> [u8; 8] {
    (step << 40 ^ offset).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()
}

fn fill(slot: &mut Slot, step: u64, mut offset: u64) {
    for place in slot.parts_mut().flat_map(|part| part.chunks_exact_mut(8)) {
        place.copy_from_slice(&word(step, offset));
        offset += 8;
    }
}

fn assert_holds(slot: &Slot, step: u64, mut offset: u64) {
    for found in slot.parts().flat_map(|part| part.chunks_exact(8)) {
        assert!(found == word(step, offset), "wrong bytes at {offset} of step {step}");
        offset += 8;
    }
}

/// All of the file in requests, written or read and compared. Returns the bytes that came back.
fn pass(backend: &mut dyn Backend, slab: &Arc<Slab>, file: FileId, step: u64, write: bool) -> u64 {
    let places = FILE_BYTES / REQUEST_BYTES;
    for id in 0..places {
        let offset = id * REQUEST_BYTES;
        let mut slot = slab.allocate(REQUEST_BYTES).unwrap();
        fill(&mut slot, step + u64::from(!write) * 1000, offset);
        let transfer = if write { Transfer::Write(slot.share()) } else { Transfer::Read(slot) };
        let ranges = vec![FileRange { file, offset, bytes: REQUEST_BYTES, buffer_offset: 0 }];
        backend.push(Request { id, priority: Priority::Demand, ranges, transfer });
    }
    let mut done = Vec::new();
    while (done.len() as u64) < places {
        backend.reap(Wait::UntilSomething, &mut done).unwrap();
    }
    let mut moved_bytes = 0;
    for completion in done {
        completion.result.unwrap();
        moved_bytes += completion.ranges.iter().map(|range| range.bytes).sum::<u64>();
        if let Transfer::Read(slot) = completion.transfer {
            assert_holds(&slot, step, completion.id * REQUEST_BYTES);
        }
    }
    moved_bytes
}

/// Returns the bytes that were moved.
fn work(choice: BackendChoice, step: u64) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let memory = hoist_memory::Config { budget_bytes: FILE_BYTES, ..Default::default() };
    let slab = Slab::map(&memory).unwrap();
    // Small blocks, so that many are under way when a signal comes.
    let config = Config { backend: choice, block_size: 256 << 10, queue_depth: 16 };
    let mut backend = open(&config, &slab).unwrap();
    let path = folder.path().join("data");
    let file = backend.file(FileOp::Open { path, create: true, direct: true }).unwrap().file();
    // A ring has no threads that take signals.
    let (halves, turns): (&[bool], _) = match choice {
        BackendChoice::Uring => (&[true], TURNS),
        _ => (&[true, false], TURNS_ELSEWHERE),
    };
    let mut moved_bytes = 0;
    for driver in halves {
        take_signals(*driver);
        let counter = if *driver { &AT_DRIVER } else { &ELSEWHERE };
        let before = counter.load(Ordering::Relaxed);
        for turn in 0..turns / halves.len() as u64 {
            let step = step + turn + u64::from(*driver) * 100;
            moved_bytes += pass(&mut *backend, &slab, file, step, true);
            moved_bytes += pass(&mut *backend, &slab, file, step, false);
        }
        let signals = counter.load(Ordering::Relaxed) - before;
        println!("{choice:?}: {signals} signals, at the driver: {driver}");
        assert!(signals > 10, "{choice:?}: {signals} signals, driver {driver}");
    }
    take_signals(true);
    drop(backend);
    assert_eq!(slab.pages_free(), slab.pages());
    moved_bytes
}

fn main() {
    start_signals();
    for (choice, step, bytes) in [
        (BackendChoice::Uring, 1, 2 << 30),
        (BackendChoice::TokioUring, 2000, 1 << 30),
        (BackendChoice::Pread, 4000, 1 << 30),
    ] {
        assert_eq!(work(choice, step), bytes, "{choice:?}");
    }
}
