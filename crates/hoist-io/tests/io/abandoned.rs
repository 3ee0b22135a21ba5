//! Many requests abandoned at any instant: the drive never writes memory that has been given back.

use crate::common::{BACKENDS, backend, byte, open_file, request, slab};
use hoist_io::memory::{Slab, Slot};
use hoist_io::{
    Backend, BackendChoice, Completion, Error, Fault, FaultKind, Faults, Faulty, FileId, FileRange, Priority,
    Short, Transfer, Wait,
};
use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Requests that are abandoned while they are under way: as many as are promised on the backend that machines are to
/// have, and fewer on each of the others, for the sake of the time.
const ABANDONED: usize = 10_000;
const ABANDONED_ELSEWHERE: usize = 2_500;
const FILE_BYTES: u64 = 4 << 20;

/// Slots that came back and are watched before they are used again.
const WATCHED_MAX: usize = 24;

/// Requests under way: two to three times the depth of 8, with one to four blocks each.
const UNDER_WAY_MAX: usize = 20;

/// An old generator (xorshift64; Marsaglia, 2003): its numbers need only be all over the place.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Says the seed when the test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("HOIST_TEST_SEED={}", self.0);
        }
    }
}

fn seed() -> Seed {
    let given = std::env::var("HOIST_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    Seed(given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64) | 1)
}

/// Fills every 61st byte, and so some of each sector: all of them would be most of what the test does.
fn mark(slot: &mut Slot, step: u64) {
    for part in slot.parts_mut() {
        part.iter_mut().enumerate().step_by(61).for_each(|(at, place)| *place = byte(step, at as u64));
    }
}

fn assert_marked(slot: &Slot, step: u64) {
    for part in slot.parts() {
        let right = part.iter().enumerate().step_by(61).all(|(at, found)| *found == byte(step, at as u64));
        assert!(right, "a slot was written after it came back (as number {step})");
    }
}

/// Slots that have come back, marked, in turn.
#[derive(Default)]
struct Watched {
    slots: VecDeque<(Slot, u64)>,
    steps: u64,
}

impl Watched {
    fn add(&mut self, mut slot: Slot) {
        self.steps += 1;
        mark(&mut slot, self.steps);
        self.slots.push_back((slot, self.steps));
        while self.slots.len() > WATCHED_MAX {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((slot, step)) = self.slots.pop_front() {
            assert_marked(&slot, step);
        }
    }
}

/// What came back holds what the file does, if it came back whole.
fn check(completion: Completion, watched: &mut Watched) -> bool {
    let Completion { id, transfer, ranges, result, .. } = completion;
    let Transfer::Read(slot) = transfer else { panic!("another transfer") };
    match result {
        Ok(()) => {
            let mut at = ranges[0].offset;
            for part in slot.parts() {
                let right = part.iter().zip(at..).step_by(61).all(|(found, at)| *found == byte(9, at));
                assert!(right, "request {id} has wrong bytes");
                at += part.len() as u64;
            }
            watched.add(slot);
            false
        }
        Err(Error::Abandoned { id: named }) => {
            assert_eq!(named, id);
            watched.add(slot);
            true
        }
        Err(error) => panic!("request {id}: {error}"),
    }
}

fn read(random: &mut Random, slab: &Arc<Slab>, file: FileId, id: u64) -> hoist_io::Request {
    let bytes = (1 + random.below(31)) * 4096;
    let offset = random.below((FILE_BYTES - bytes) / 4096) * 4096;
    let ranges = vec![FileRange { file, offset, bytes, buffer_offset: 0 }];
    let priority = [Priority::Demand, Priority::Prefetch, Priority::WriteBack][random.below(3) as usize];
    request(id, priority, ranges, Transfer::Read(slab.allocate(bytes).unwrap()))
}

/// Pushes, abandons, promotes, submits and reaps at random, and closes with requests under way.
fn storm(mut backend: Box<dyn Backend>, slab: &Arc<Slab>, path: &Path, random: &mut Random, count: usize) {
    let file = open_file(&mut *backend, path);
    let (mut watched, mut done, mut pushed, mut in_time) = (Watched::default(), Vec::new(), 0, 0);
    let (mut under_way, mut abandoned) = (HashSet::new(), HashSet::new());
    while abandoned.len() < count {
        if under_way.len() < UNDER_WAY_MAX {
            backend.push(read(random, slab, file, pushed));
            under_way.insert(pushed);
            pushed += 1;
        }
        let recent = |random: &mut Random| pushed.saturating_sub(1 + random.below(UNDER_WAY_MAX as u64));
        match random.below(8) {
            0..5 => {
                // Perhaps one that has come back, or was abandoned before.
                let id = recent(random);
                backend.abandon(id);
                if under_way.contains(&id) {
                    abandoned.insert(id);
                }
            }
            5 => backend.promote(recent(random), Priority::Demand),
            6 => backend.submit().unwrap(),
            _ => {}
        }
        let full = under_way.len() == UNDER_WAY_MAX;
        backend.reap(if full { Wait::UntilSomething } else { Wait::No }, &mut done).unwrap();
        for completion in done.drain(..) {
            let id = completion.id;
            assert!(under_way.remove(&id), "request {id} came back twice");
            let was_in_time = check(completion, &mut watched);
            assert!(!was_in_time || abandoned.contains(&id), "request {id} was not abandoned");
            in_time += usize::from(was_in_time);
        }
    }
    eprintln!("{pushed} pushed {in_time} in time {:?}", std::time::Instant::now());
    // Neither all of them before they had begun nor all of them after their last block had: both are tested.
    assert!((count / 20..count / 20 * 19).contains(&in_time), "{in_time} of {count} in time");
    backend.submit().unwrap();
    drop(backend);
    while !watched.slots.is_empty() {
        watched.drop_first();
    }
    assert_eq!(slab.pages_free(), slab.pages(), "every slot came home");
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    std::fs::write(&path, (0..FILE_BYTES).map(|at| byte(9, at)).collect::<Vec<_>>()).unwrap();
    std::fs::File::open(&path).unwrap().sync_all().unwrap();
    (folder, path)
}

/// Kills: a request that is abandoned and given back while a block of it is in flight, or whose blocks are started after
/// it was given back.
#[test]
fn abandoned_at_any_instant_no_slot_is_written_after_it_came_back() {
    let seed = seed();
    let (_folder, path) = file();
    for choice in BACKENDS {
        let slab = slab(8 << 20);
        let count = if choice == BackendChoice::Uring { ABANDONED } else { ABANDONED_ELSEWHERE };
        storm(backend(choice, &slab), &slab, &path, &mut Random(seed.0), count);
    }
    // And with tries that are begun again.
    let (slab, faults) = (slab(8 << 20), Faults::new(seed.0));
    for kind in [FaultKind::Eintr, FaultKind::Short(Short::Odd)] {
        faults.add(Fault { rate: 0.1, ..Fault::new(kind) });
    }
    let faulty = Faulty::open(&crate::common::config(BACKENDS[0]), &slab, &faults).unwrap();
    storm(Box::new(faulty), &slab, &path, &mut Random(seed.0), ABANDONED_ELSEWHERE);
    assert!(faults.hits() > 100, "{faults}");
}

/// Kills: closing that gives memory back while the kernel has it.
#[test]
fn closing_waits_for_what_is_in_flight() {
    let (_folder, path) = file();
    for choice in BACKENDS {
        let slab = slab(8 << 20);
        for round in 0..20 {
            let mut backend = backend(choice, &slab);
            let file = open_file(&mut *backend, &path);
            for id in 0..UNDER_WAY_MAX as u64 {
                backend.push(read(&mut Random(1 + id + round * 100), &slab, file, id));
            }
            backend.submit().unwrap();
            drop(backend);
            // One byte a sector, so that they are all there before a read is that nobody waited for.
            let mut all = slab.allocate(slab.pages() as u64 * slab.page_bytes() as u64).unwrap();
            let sectors = |bytes: usize| (0..bytes).step_by(4096);
            for part in all.parts_mut() {
                sectors(part.len()).for_each(|at| part[at] = byte(round, at as u64));
            }
            std::thread::sleep(Duration::from_millis(5));
            for part in all.parts() {
                let right = sectors(part.len()).all(|at| part[at] == byte(round, at as u64));
                assert!(right, "{choice:?}: memory was written after the backend was closed (round {round})");
            }
        }
    }
}
