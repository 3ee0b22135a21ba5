//! Making a slab leaves alone what other threads map meanwhile.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use hoist_memory::{Config, Slab};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes of a neighbour, small enough for any gap.
const BYTES: usize = 64 << 10;

/// Neighbours mapped in a row. Many: the holes elsewhere are filled, so that the next one goes where a gap opens.
const ROW: usize = 200;

/// How long neighbours are mapped. A slab that left gaps while it was made was caught within 1 s in 20 of 20 runs.
const DURATION: Duration = Duration::from_secs(2);

/// Maps a row of neighbours, each with a mark of its own at its start.
fn map_row(round: u64) -> Vec<(*mut u8, u64)> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let row = (0..ROW as u64).map(|place| {
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let address =
            unsafe { mmap_anonymous(std::ptr::null_mut(), BYTES, access, MapFlags::PRIVATE) }.unwrap().cast();
        (address, (round * ROW as u64 + place) * 2 + 1)
    });
    row.collect()
}

#[test]
fn mappings_of_other_threads_keep_their_contents() {
    // Read and written through the kernel: a neighbour that was unmapped is an error then, not a SIGSEGV.
    let memory = File::options().read(true).write(true).open("/proc/self/mem").unwrap();
    let stop = AtomicBool::new(false);
    let config = Config { budget_bytes: 2 << 20, page_bytes: 4096, ..Config::default() };
    let (slabs, lost) = std::thread::scope(|scope| {
        let slabs = scope.spawn(|| {
            let mut slabs = 0u64;
            while !stop.load(Ordering::Relaxed) {
                drop(Slab::map(&config).unwrap());
                slabs += 1;
            }
            slabs
        });
        let (begin, mut round, mut lost) = (Instant::now(), 0, 0);
        while begin.elapsed() < DURATION && lost == 0 {
            let row = map_row(round);
            for (address, mark) in &row {
                let written = memory.write_all_at(&mark.to_ne_bytes(), address.addr() as u64);
                lost += u64::from(written.is_err());
            }
            // Long enough for a slab to be given back.
            std::thread::sleep(Duration::from_micros(100));
            for (address, mark) in row {
                let mut read = [0; 8];
                let same = memory.read_exact_at(&mut read, address.addr() as u64).is_ok()
                    && read == mark.to_ne_bytes();
                lost += u64::from(!same);
                // SAFETY: mapped by `map_row` with this size; no reference to it exists.
                unsafe { munmap(address.cast(), BYTES) }.unwrap();
            }
            round += 1;
        }
        stop.store(true, Ordering::Relaxed);
        (slabs.join().unwrap(), lost)
    });
    assert!(slabs > 0);
    assert_eq!(lost, 0, "mappings were wiped or unmapped while {slabs} slabs were made");
}
