//! More reads than there is memory for: what waits takes none, the best comes first, and the budget holds. In a process
//! of its own, as what the kernel counts is a process's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use hoist_io::memory::Slab;
use hoist_io::{
    Backend, BackendChoice, Completion, Config, FileId, FileOp, FileRange, Priority, Request, RequestId,
    Transfer, Wait, open,
};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

const READS: u64 = 100;
const READ_BYTES: u64 = 64 << 20;

/// Room for two reads.
const BUDGET_BYTES: u64 = 128 << 20;

/// What a process may have besides: its program, stacks, tables, rings.
const BESIDES_BYTES: u64 = 96 << 20;

const FILE_BYTES: u64 = 256 << 20;

/// From one read's place in the file to the next one's. A prime number of sectors, so that no two reads have the same
/// bytes at the same place of their memory, nor in two blocks.
const STRIDE_BYTES: u64 = 479 * 4096;

/// Few in flight, so that of two reads in the backend the later one has most of its 64 blocks yet to start when a better
/// one comes.
const CONFIG: Config = Config { backend: BackendChoice::Auto, block_size: 1 << 20, queue_depth: 8 };

/// The eight bytes at `offset` of the file.
fn word(offset: u64) -> [u8; 8] {
    (offset + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()
}

/// A line of `/proc/self/status`, in bytes; 0 when the kernel has no such line.
fn status_bytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap());
    kib << 10
}

/// Most memory that the process ever had: pages of hugetlbfs are not in VmHWM (proc_pid_status(5)).
fn peak_bytes() -> u64 {
    status_bytes("VmHWM") + status_bytes("HugetlbPages")
}

/// Reads by rank: priority, then since when they have it.
#[derive(Default)]
struct Ranks {
    reads: Vec<(Priority, u64, RequestId)>,
    since: u64,
}

impl Ranks {
    fn add(&mut self, priority: Priority, id: RequestId) {
        self.since += 1;
        self.reads.push((priority, self.since, id));
        self.reads.sort_unstable();
    }

    fn take_best(&mut self) -> (Priority, RequestId) {
        let (priority, _, id) = self.reads.remove(0);
        (priority, id)
    }

    /// To the end of another priority.
    fn promote_worst(&mut self, priority: Priority) -> RequestId {
        let (before, since, id) = self.reads.pop().unwrap();
        if before == priority {
            self.reads.push((before, since, id));
        } else {
            self.add(priority, id);
        }
        id
    }
}

/// Reads that wait, reads that the backend has, and what has come of it.
struct Load {
    backend: Box<dyn Backend>,
    slab: Arc<Slab>,
    file: FileId,
    waiting: Ranks,
    reading: Ranks,
    passed: u64,
    promoted: u64,
    pinned_bytes: u64,
}

impl Load {
    fn start(path: &Path) -> Load {
        let slab =
            Slab::map(&hoist_memory::Config { budget_bytes: BUDGET_BYTES, ..Default::default() }).unwrap();
        let mut backend = open(&CONFIG, &slab).unwrap();
        let op = FileOp::Open { path: path.to_owned(), create: true, direct: true };
        let file = backend.file(op).unwrap().file();
        let mut waiting = Ranks::default();
        for id in 0..READS {
            // Most are of the last priority, so that there are some to promote to the end.
            let priority = match id * 7 % 8 {
                0 => Priority::Demand,
                1 => Priority::Prefetch,
                _ => Priority::WriteBack,
            };
            waiting.add(priority, id);
        }
        let (reading, passed, promoted, pinned_bytes) = (Ranks::default(), 0, 0, 0);
        Load { backend, slab, file, waiting, reading, passed, promoted, pinned_bytes }
    }

    /// Through the same slab: nothing else in the process is that large.
    fn fill_file(&mut self) {
        for start in (0..FILE_BYTES).step_by(READ_BYTES as usize) {
            let mut slot = self.slab.allocate(READ_BYTES).unwrap();
            let mut offset = start;
            for place in slot.parts_mut().flat_map(|part| part.chunks_exact_mut(8)) {
                place.copy_from_slice(&word(offset));
                offset += 8;
            }
            let ranges =
                vec![FileRange { file: self.file, offset: start, bytes: READ_BYTES, buffer_offset: 0 }];
            let transfer = Transfer::Write(slot.share());
            self.backend.push(Request { id: READS, priority: Priority::Demand, ranges, transfer });
            self.reap().into_iter().for_each(|completion| completion.result.unwrap());
        }
    }

    /// As many of the best as there is memory for.
    fn push(&mut self) {
        while !self.waiting.reads.is_empty()
            && let Some(slot) = self.slab.allocate(READ_BYTES)
        {
            let (priority, id) = self.waiting.take_best();
            let offset = id * STRIDE_BYTES;
            let ranges = vec![FileRange { file: self.file, offset, bytes: READ_BYTES, buffer_offset: 0 }];
            self.backend.push(Request { id, priority, ranges, transfer: Transfer::Read(slot) });
            self.passed += u64::from(self.reading.reads.last().is_some_and(|last| priority < last.0));
            self.reading.add(priority, id);
        }
        assert_eq!(self.reading.reads.len(), (self.waiting.reads.len() + self.reading.reads.len()).min(2));
    }

    /// By turns one that waits becomes a demand or a prefetch, and so passes what the backend has.
    fn promote_waiting(&mut self, turn: u64) {
        match turn % 6 {
            _ if self.waiting.reads.is_empty() => {}
            0 => drop(self.waiting.promote_worst(Priority::Demand)),
            3 => drop(self.waiting.promote_worst(Priority::Prefetch)),
            _ => {}
        }
    }

    /// What was passed in the backend passes in its turn.
    fn promote_reading(&mut self) {
        let priorities: Vec<_> = self.reading.reads.iter().map(|read| read.0).collect();
        if priorities == [Priority::Prefetch, Priority::WriteBack] {
            let id = self.reading.promote_worst(Priority::Demand);
            self.backend.promote(id, Priority::Demand);
            self.promoted += 1;
        }
    }

    fn reap(&mut self) -> Vec<Completion> {
        let mut done = Vec::new();
        while done.is_empty() {
            self.backend.reap(Wait::UntilSomething, &mut done).unwrap();
        }
        done
    }

    /// The best came back, with its bytes: of each 512 eight, another eight in each sector.
    fn check(&mut self, completion: Completion) {
        let Completion { id, transfer, result, .. } = completion;
        assert_eq!(id, self.reading.take_best().1, "the best comes first");
        result.unwrap();
        let Transfer::Read(slot) = transfer else { panic!("another transfer") };
        let mut at = 0;
        for part in slot.parts().flat_map(|part| part.chunks_exact(512)) {
            let inside = (at / 512 % 64 * 8) as usize;
            let offset = id * STRIDE_BYTES + at + inside as u64;
            assert!(part[inside..inside + 8] == word(offset), "read {id} has wrong bytes at {at}");
            at += 512;
        }
        assert_eq!(at, READ_BYTES);
    }

    fn check_memory(&mut self) {
        let pinned_bytes = status_bytes("VmPin");
        self.pinned_bytes = self.pinned_bytes.max(pinned_bytes);
        assert!(pinned_bytes <= BUDGET_BYTES, "{pinned_bytes} bytes are pinned");
        let peak_bytes = peak_bytes();
        assert!(peak_bytes <= BUDGET_BYTES + BESIDES_BYTES, "{peak_bytes} bytes at most");
    }
}

impl fmt::Display for Load {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (backend, memory) = (self.backend.obtained(), self.slab.obtained());
        writeln!(out, "{READS} reads of {READ_BYTES} bytes through {BUDGET_BYTES}: {backend}; {memory}")?;
        write!(out, "{} passed another in the backend, {} by promotion; ", self.passed, self.promoted)?;
        write!(out, "VmPin {} KiB, peak {} KiB", self.pinned_bytes >> 10, peak_bytes() >> 10)
    }
}

/// Kills: blocks that are started in the order they came, whatever their priority; a promotion that does nothing once
/// the backend has the request; memory that is pinned once more, or a buffer besides the slab.
#[test]
fn a_hundred_reads_through_memory_for_two_come_best_first_within_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let mut load = Load::start(&folder.path().join("data"));
    load.fill_file();
    load.push();
    let mut back = 0;
    while back < READS {
        for completion in load.reap() {
            load.check(completion);
            back += 1;
        }
        load.check_memory();
        // Not before the memory of what came back is free: a better one is pushed beside one that is under way.
        load.promote_waiting(back);
        load.push();
        load.promote_reading();
    }
    println!("{load}");
    assert!(load.passed > 10 && load.promoted > 5, "{load}");
    let registered = load.backend.obtained().registered_pieces > 0;
    assert!(!registered || load.pinned_bytes > 0, "what is registered is counted as pinned");
    drop(load.backend);
    assert_eq!(load.slab.pages_free(), load.slab.pages());
}
