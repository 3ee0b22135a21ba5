//! Faults on purpose, on real backends: what goes wrong below a request either does not show, or is its error alone.

use crate::common::{
    BACKENDS, byte, config, contents, filled, open_file, read_slot, request, slab, whole, write_slot,
};
use hoist_io::memory::Slab;
use hoist_io::{
    Backend, BackendChoice, Completion, Config, Error, Fault, FaultKind, Faults, Faulty, FileId, FileOp,
    FileRange, Operation, Place, Priority, Short, Transfer, Wait,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// 32 blocks of 32 KiB, and one that is shorter.
const BYTES: u64 = (1 << 20) + 12288;

/// A backend with faults, a file, and memory. What went wrong, with its seed, is said when the test fails.
struct Bench {
    backend: Faulty,
    faults: Faults,
    file: FileId,
    path: PathBuf,
    slab: Arc<Slab>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(choice: BackendChoice) -> Bench {
        Bench::with_blocks(choice, config(choice).block_size)
    }

    /// Another seed each time, unless HOIST_TEST_SEED is one.
    fn with_blocks(choice: BackendChoice, block_size: u64) -> Bench {
        let seed = std::env::var("HOIST_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let faults = Faults::new(seed.unwrap_or_else(now));
        let (folder, slab) = (tempfile::tempdir().unwrap(), slab(8 << 20));
        let mut backend = Faulty::open(&Config { block_size, ..config(choice) }, &slab, &faults).unwrap();
        let path = folder.path().join("data");
        let file = open_file(&mut backend, &path);
        Bench { backend, faults, file, path, slab, _folder: folder }
    }

    fn write(&mut self, step: u64) -> Result<(), Error> {
        write_slot(&mut self.backend, whole(self.file, BYTES), filled(&self.slab, BYTES, step))
    }

    /// Reads all of it over other bytes, and compares.
    fn read(&mut self, step: u64) -> Result<(), Error> {
        let other = filled(&self.slab, BYTES, step + 1000);
        let slot = read_slot(&mut self.backend, whole(self.file, BYTES), other)?;
        assert!(are_of(contents(slot.parts()), step, 0), "wrong bytes were read");
        Ok(())
    }

    fn assert_file_holds(&self, step: u64) {
        let found = std::fs::read(&self.path).unwrap();
        assert!(found.len() as u64 == BYTES && are_of(found, step, 0), "wrong bytes were written");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.faults);
        } else {
            assert_eq!(self.slab.pages_free(), self.slab.pages(), "every slot came home");
        }
    }
}

fn are_of(found: Vec<u8>, step: u64, first: u64) -> bool {
    found.into_iter().zip(first..).all(|(found, index)| found == byte(step, index))
}

/// Kills: going on behind what was said instead of from the sector it ends in; from the start with less to move; not
/// going on at all; attempts that are not counted anew after progress (a block of 32 sectors takes 32, and
/// some more by EINTR).
#[test]
fn short_transfers_of_every_kind_move_every_byte() {
    for choice in BACKENDS {
        let mut bench = Bench::with_blocks(choice, 128 << 10);
        for (short, step) in [Short::First, Short::Middle, Short::Last, Short::Odd].into_iter().zip(1..) {
            bench.faults.clear();
            bench.faults.add(Fault { rate: 0.2, ..Fault::new(FaultKind::Eintr) });
            bench.faults.add(Fault::new(FaultKind::Short(short)));
            let before = bench.faults.hits();
            bench.write(step).unwrap();
            bench.assert_file_holds(step);
            bench.read(step).unwrap();
            assert!(bench.faults.hits() - before >= 18, "{short:?}: each block, both ways");
        }
    }
}

/// Kills: taking 0 written bytes for done, or for an error at once; taking 0 read bytes for anything but the end.
#[test]
fn a_transfer_of_nothing_is_tried_again_when_writing_and_the_end_when_reading() {
    for choice in BACKENDS {
        let mut bench = Bench::new(choice);
        let nothing = Fault::new(FaultKind::Short(Short::None));
        // Fewer than the attempts that one block has, whichever block they hit.
        bench.faults.add(Fault { times: 15, ..nothing.clone() });
        bench.write(1).unwrap();
        bench.assert_file_holds(1);
        bench.faults.add(Fault { times: 1, ..nothing.clone() });
        let error = bench.read(1).unwrap_err();
        assert!(
            matches!(error, Error::EndOfFile { missing_bytes, bytes, .. } if missing_bytes == bytes),
            "{error}"
        );
        bench.faults.add(nothing);
        let error = bench.write(2).unwrap_err();
        assert!(matches!(error, Error::Stuck { done_bytes: 0, attempts: 16, .. }), "{error}");
        bench.faults.clear();
        bench.write(3).unwrap();
        bench.read(3).unwrap();
    }
}

/// Kills: no retry, one attempt fewer or more, retries without end.
#[test]
fn storms_of_eintr_and_eagain_pass_and_have_a_limit() {
    for choice in BACKENDS {
        for (kind, errno) in [(FaultKind::Eintr, libc::EINTR), (FaultKind::Eagain, libc::EAGAIN)] {
            let mut bench = Bench::new(choice);
            let storm = Fault::new(kind);
            bench.write(1).unwrap();
            // A third of the tries: 16 in a row come once in 40 million blocks.
            bench.faults.add(Fault { rate: 0.33, ..storm.clone() });
            bench.faults.add(Fault { rate: 0.2, ..Fault::new(FaultKind::Short(Short::Odd)) });
            bench.write(2).unwrap();
            bench.read(2).unwrap();
            bench.assert_file_holds(2);
            assert!(bench.faults.hits() > 4, "66 blocks, each hit with 0.46");
            bench.faults.clear();
            let first = || Place { bytes: 0..1, ..Place::default() };
            bench.faults.add(Fault { times: 15, place: first(), ..storm.clone() });
            bench.read(2).unwrap();
            bench.faults.add(Fault { times: 16, place: first(), ..storm });
            let error = bench.read(2).unwrap_err();
            let Error::Transfer { source, attempts: 16, offset: 0, .. } = &error else { panic!("{error}") };
            assert_eq!(source.raw_os_error(), Some(errno));
            bench.read(2).unwrap();
        }
    }
}

/// Kills: an error that ends the backend or another request, or names another block.
#[test]
fn one_bad_block_is_the_error_of_its_requests_alone() {
    for choice in BACKENDS {
        let mut bench = Bench::new(choice);
        bench.write(1).unwrap();
        let bad = 5 * 65536 + 32768 + 4096;
        let place = Place { bytes: bad..bad + 1, operation: Some(Operation::Read), path_part: "data".into() };
        bench.faults.add(Fault { place, ..Fault::new(FaultKind::Eio) });
        let elsewhere = Place { path_part: "another".into(), ..Place::default() };
        bench.faults.add(Fault { place: elsewhere, ..Fault::new(FaultKind::Eio) });
        for id in 0..16 {
            let range = FileRange { file: bench.file, offset: id * 65536, bytes: 65536, buffer_offset: 0 };
            let slot = bench.slab.allocate(65536).unwrap();
            bench.backend.push(request(id, Priority::Prefetch, vec![range], Transfer::Read(slot)));
        }
        let mut done = Vec::new();
        bench.backend.drain(Duration::from_secs(60), &mut done).unwrap();
        assert_eq!(done.len(), 16);
        for Completion { id, transfer, result, .. } in done {
            match (id, result) {
                (5, Err(Error::Transfer { operation: Operation::Read, offset, bytes, source, .. })) => {
                    let found = (offset, bytes, source.raw_os_error());
                    assert_eq!(found, (5 * 65536 + 32768, 32768, Some(libc::EIO)));
                }
                (id, Ok(())) if id != 5 => {
                    let Transfer::Read(slot) = transfer else { panic!("another transfer") };
                    assert!(are_of(contents(slot.parts()), 1, id * 65536), "request {id} has wrong bytes");
                }
                (id, result) => panic!("request {id}: {result:?}"),
            }
        }
        bench.write(2).unwrap();
        bench.faults.clear();
        bench.read(2).unwrap();
    }
}

/// Kills: an ENOSPC that is tried again, that ends the backend, or that hits reads.
#[test]
fn a_full_drive_fails_writes_until_there_is_space() {
    for choice in BACKENDS {
        let mut bench = Bench::new(choice);
        bench.write(1).unwrap();
        // In the middle of a block.
        bench.faults.fill_after(BYTES / 2 / 4096 * 4096 + 100);
        let error = bench.write(2).unwrap_err();
        let Error::Transfer { operation: Operation::Write, source, attempts: 1, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(source.raw_os_error(), Some(libc::ENOSPC));
        bench.write(2).unwrap_err();
        let (file, hits) = (bench.file, bench.faults.hits());
        let error = bench.backend.file(FileOp::Allocate { file, offset: 0, bytes: BYTES }).unwrap_err();
        let Error::File { operation: "allocate", source, .. } = &error else { panic!("{error}") };
        assert_eq!((source.raw_os_error(), bench.faults.hits()), (Some(libc::ENOSPC), hits + 1));
        assert!(error.to_string().contains("free space"), "{error}");
        let slot = bench.slab.allocate(BYTES).unwrap();
        read_slot(&mut bench.backend, whole(bench.file, BYTES), slot).unwrap();
        bench.faults.fill_after(2 * BYTES);
        bench.backend.file(FileOp::Allocate { file, offset: 0, bytes: BYTES }).unwrap();
        bench.write(3).unwrap();
        bench.read(3).unwrap();
        bench.assert_file_holds(3);
        bench.write(4).unwrap();
        bench.write(5).unwrap_err();
    }
}

/// Kills: a delay that is not waited for or not told, a wait that does not end when something is due.
#[test]
fn what_is_late_comes_late_and_says_so() {
    for choice in BACKENDS {
        let mut bench = Bench::new(choice);
        bench.write(1).unwrap();
        let delay = Duration::from_millis(20);
        let place = Place { operation: Some(Operation::Read), ..Place::default() };
        bench.faults.add(Fault { place, times: 2, ..Fault::new(FaultKind::Latency(delay)) });
        let start = Instant::now();
        bench.read(1).unwrap();
        assert!(start.elapsed() >= delay);
        // A read, late, and a sync, which is not.
        let slot = bench.slab.allocate(BYTES).unwrap();
        let read = request(1, Priority::Demand, whole(bench.file, BYTES), Transfer::Read(slot));
        bench.backend.push(read);
        let mut done = Vec::new();
        while bench.backend.in_flight() == 0 || bench.faults.hits() < 2 {
            bench.backend.reap(Wait::No, &mut done).unwrap();
        }
        let sync = request(2, Priority::WriteBack, Vec::new(), Transfer::Sync(bench.file));
        bench.backend.push(sync);
        while done.len() < 2 {
            bench.backend.reap(Wait::UntilSomething, &mut done).unwrap();
        }
        assert!(done.iter().all(|completion| completion.result.is_ok()), "{done:?}");
        let read = done.iter().find(|completion| completion.id == 1).unwrap();
        assert!(read.seconds_ns >= delay.as_nanos() as u64, "the time is told with the delay");
    }
}
