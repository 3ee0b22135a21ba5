//! Nothing is allocated for a request once an I/O thread runs. In a process of its own, whose allocator counts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use hoist_io::memory::Slab;
use hoist_io::{BackendChoice, Completion, Config, FileOp, FileRange, IoThread, Priority, Request, Transfer};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

const REQUEST_BYTES: u64 = 128 << 10;
const UNDER_WAY: u64 = 16;

/// Requests until tables, queues and channels are as large as they get.
const WARM_UP: u64 = 1000;
const COUNTED: u64 = 5000;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread's allocations are counted. Without a destructor, so an allocator may use it.
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

fn count() {
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATED.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: everything is the system allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: what the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: what the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: what the caller promised.
        unsafe { System.realloc(memory, layout, bytes) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: what the caller promised.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Reads and writes in turn, with the ranges that came back; each third one is promoted and each fifth abandoned.
struct Load {
    thread: IoThread,
    back: mpsc::Receiver<Completion>,
    ranges: Vec<Vec<FileRange>>,
    slab: std::sync::Arc<Slab>,
    next: u64,
}

impl Load {
    fn start(choice: BackendChoice, folder: &tempfile::TempDir) -> Load {
        let memory = hoist_memory::Config {
            budget_bytes: UNDER_WAY * REQUEST_BYTES,
            page_bytes: 64 << 10,
            piece_bytes: 2 << 20,
        };
        let slab = Slab::map(&memory).unwrap();
        // As it is in an engine: bounded, with room for everything that is under way.
        let (sender, back) = mpsc::sync_channel(UNDER_WAY as usize);
        let config = Config { backend: choice, block_size: 32 << 10, queue_depth: 8 };
        let deliver = move |completion| {
            IS_COUNTED.set(true);
            sender.send(completion).unwrap();
        };
        let thread = IoThread::spawn("io-test", &config, slab.clone(), deliver).unwrap();
        let path = folder.path().join(format!("{choice:?}"));
        let file = thread.file(FileOp::Open { path, create: true, direct: true }).unwrap().file();
        let bytes = UNDER_WAY * REQUEST_BYTES;
        thread.file(FileOp::Allocate { file, offset: 0, bytes }).unwrap();
        let range =
            |place| FileRange { file, offset: place * REQUEST_BYTES, bytes: REQUEST_BYTES, buffer_offset: 0 };
        let ranges = (0..UNDER_WAY).map(|place| vec![range(place)]).collect();
        Load { thread, back, ranges, slab, next: 0 }
    }

    fn run(&mut self, requests: u64) {
        let end = self.next + requests;
        let mut under_way = 0;
        while self.next < end || under_way > 0 {
            while self.next < end
                && let Some(ranges) = self.ranges.pop()
            {
                self.push(ranges);
                under_way += 1;
            }
            let completion = self.back.recv_timeout(Duration::from_secs(60)).unwrap();
            under_way -= 1;
            self.ranges.push(completion.ranges);
        }
    }

    fn push(&mut self, ranges: Vec<FileRange>) {
        let (id, slot) = (self.next, self.slab.allocate(REQUEST_BYTES).unwrap());
        self.next += 1;
        let transfer =
            if id.is_multiple_of(2) { Transfer::Read(slot) } else { Transfer::Write(slot.share()) };
        self.thread.push(Request { id, priority: Priority::Prefetch, ranges, transfer });
        if id.is_multiple_of(3) {
            self.thread.promote(id, Priority::Demand);
        }
        if id.is_multiple_of(5) {
            self.thread.abandon(id);
        }
    }
}

/// Kills: a buffer, a box or a message per request or block anywhere between push and deliver on the I/O thread. (The
/// runtime of tokio-uring has a thread of its own, which allocates a task for each block and is not counted.)
#[test]
fn an_io_thread_allocates_nothing_for_a_request() {
    for choice in [BackendChoice::Uring, BackendChoice::TokioUring, BackendChoice::Pread] {
        let folder = tempfile::tempdir().unwrap();
        let mut load = Load::start(choice, &folder);
        load.run(WARM_UP);
        let before = ALLOCATED.load(Ordering::Relaxed);
        load.run(COUNTED);
        let allocated = ALLOCATED.load(Ordering::Relaxed) - before;
        assert_eq!(allocated, 0, "{choice:?}: allocations for {COUNTED} requests");
        // That thread is counted at all: an operation on a file has a path to copy.
        let before = ALLOCATED.load(Ordering::Relaxed);
        let missing = folder.path().join("missing");
        load.thread.file(FileOp::Open { path: missing, create: false, direct: true }).unwrap_err();
        assert!(ALLOCATED.load(Ordering::Relaxed) > before, "{choice:?}: allocations are not counted");
        load.thread.close().unwrap();
    }
}
