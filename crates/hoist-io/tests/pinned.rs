//! A slab's memory is pinned once, however many rings use it. In a process of its own, as pinned memory is the process's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use hoist_io::{
    BackendChoice, Completion, Config, Error, FileOp, FileRange, IoThread, Priority, Request, Transfer, open,
};
use hoist_memory::Slab;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Two pieces.
const SLAB_BYTES: u64 = 4 << 20;

/// More than one piece, so that both are named by their numbers.
const BYTES: u64 = 3 << 20;

/// Bytes of this process that are pinned (proc_pid_status(5)).
fn pinned_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

fn byte(step: u64, index: u64) -> u8 {
    ((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15 ^ (step << 32)) >> 56) as u8
}

/// A ring with its thread and file.
struct Load {
    thread: IoThread,
    back: mpsc::Receiver<Completion>,
    slab: Arc<Slab>,
    ranges: Vec<FileRange>,
}

impl Load {
    fn start(slab: &Arc<Slab>, path: &Path) -> Load {
        let (sender, back) = mpsc::channel();
        let config = Config { backend: BackendChoice::Uring, ..Config::default() };
        let deliver = move |completion| drop(sender.send(completion));
        let thread = IoThread::spawn("io-test", &config, slab.clone(), deliver).unwrap();
        let file =
            thread.file(FileOp::Open { path: path.to_owned(), create: true, direct: true }).unwrap().file();
        let ranges = vec![FileRange { file, offset: 0, bytes: BYTES, buffer_offset: 0 }];
        Load { thread, back, slab: slab.clone(), ranges }
    }

    fn run(&self, transfer: Transfer) -> Transfer {
        let ranges = self.ranges.clone();
        self.thread.push(Request { id: 1, priority: Priority::Demand, ranges, transfer });
        let completion = self.back.recv_timeout(Duration::from_secs(60)).unwrap();
        completion.result.unwrap();
        completion.transfer
    }

    /// Writes and reads back all of the file.
    fn check(&self, step: u64) {
        let mut slot = self.slab.allocate(BYTES).unwrap();
        slot.parts_mut().flatten().zip(0..).for_each(|(place, index)| *place = byte(step, index));
        let Transfer::Write(reader) = self.run(Transfer::Write(slot.share())) else { panic!("no write") };
        let mut slot = reader.try_into_slot().unwrap();
        slot.parts_mut().for_each(|part| part.fill(0));
        let Transfer::Read(slot) = self.run(Transfer::Read(slot)) else { panic!("no read") };
        assert!(slot.parts().flatten().zip(0..).all(|(found, index)| *found == byte(step, index)));
    }

    fn close(self) {
        self.thread.close().unwrap();
    }
}

/// Kills: a registration for each ring; one that ends with the first ring; a source ring that never closes.
#[test]
fn rings_over_one_slab_pin_it_once() {
    let memory = hoist_memory::Config { budget_bytes: SLAB_BYTES, page_bytes: 1 << 20, piece_bytes: 2 << 20 };
    let (slab, other) = (Slab::map(&memory).unwrap(), Slab::map(&memory).unwrap());
    if let Err(error @ Error::NoRing { .. }) =
        open(&Config { backend: BackendChoice::Uring, ..Config::default() }, &slab)
    {
        return println!("skipped: {error}");
    }
    wait_for_pinned(0);
    let folder = tempfile::tempdir().unwrap();
    let first = Load::start(&slab, &folder.path().join("first"));
    let obtained = first.thread.obtained();
    if obtained.registered_pieces == 0 {
        return println!("skipped: {obtained}");
    }
    assert_eq!(pinned_bytes(), SLAB_BYTES);
    first.check(1);
    let second = Load::start(&slab, &folder.path().join("second"));
    assert_eq!(second.thread.obtained().registered_once, obtained.registered_once);
    // A kernel before 6.12 pins for each ring.
    let rings = if obtained.registered_once { 1 } else { 2 };
    assert_eq!(pinned_bytes(), rings * SLAB_BYTES);
    second.check(2);
    first.check(3);
    first.close();
    second.check(4);
    let third = Load::start(&slab, &folder.path().join("third"));
    third.check(5);
    if obtained.registered_once {
        assert_eq!(pinned_bytes(), SLAB_BYTES, "the source outlives the ring that it was made for");
    }
    // Another slab has a registration of its own.
    let fourth = Load::start(&other, &folder.path().join("fourth"));
    fourth.check(6);
    if obtained.registered_once {
        assert_eq!(pinned_bytes(), 2 * SLAB_BYTES);
    }
    for load in [second, third, fourth] {
        load.check(7);
        load.close();
    }
    wait_for_pinned(0);
    assert_eq!((Arc::strong_count(&slab), Arc::strong_count(&other)), (1, 1), "no source is left");
}

/// The kernel gives back in the background what a closed ring had pinned.
fn wait_for_pinned(bytes: u64) {
    let start = Instant::now();
    while pinned_bytes() != bytes {
        assert!(start.elapsed() < Duration::from_secs(30), "{} bytes are pinned", pinned_bytes());
        std::thread::sleep(Duration::from_millis(1));
    }
}
