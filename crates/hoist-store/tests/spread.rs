//! Several directories: what one of them fails at the others do.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;
#[path = "common/drive.rs"]
mod drive;
#[path = "common/dying.rs"]
mod dying;

use common::*;
use drive::Drive;
use dying::Dying;
use hoist_io::{Fault, FaultKind, Faults, Faulty, IoThread, Operation, Place};
use hoist_store::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::{TempDir, tempdir};

/// Stripes for every directory, and a rest.
const RUN: u64 = (6 << 20) + 5000;

/// A store of three directories at epoch 1, a durable and a scratch run with the pattern of seed 1, on backends that can
/// fail: each has its own faults.
struct Three {
    folders: Vec<TempDir>,
    faults: Vec<Faults>,
    dead: Arc<AtomicBool>,
    config: Config,
    store: Driver,
}

impl Three {
    fn new(durability: Durability) -> Three {
        let folders: Vec<_> = (0..3).map(|_| tempdir().unwrap()).collect();
        let paths: Vec<_> = folders.iter().map(TempDir::path).collect();
        let config = Config { durability, ..config(&paths) };
        let slab = slab();
        // Room for what goes elsewhere: three are as large as two need to be.
        let specs = [
            spec("a", RUN, Life::Durable),
            spec("s", RUN, Life::Scratch),
            spec("room", 3 * RUN, Life::Scratch),
        ];
        Driver::create(&config, &slab, &specs).unwrap().store.close().unwrap();
        let faults: Vec<_> = (0..3).map(Faults::new).collect();
        let dead = Arc::default();
        let mut store = open(&config, &faults, &dead);
        for run in [0, 1] {
            store.write(store.whole(run), 1).unwrap();
        }
        if durability == Durability::Step {
            store.commit();
        }
        Three { folders, faults, dead, config, store }
    }

    fn fail(&self, directory: usize, operation: Operation, path_part: &str) {
        let place = Place { operation: Some(operation), path_part: path_part.into(), ..Place::default() };
        self.faults[directory].add(Fault { place, ..Fault::new(FaultKind::Eio) });
    }

    fn quarantined(&self) -> Vec<bool> {
        self.store.store.directories().map(|one| one.quarantined.is_some()).collect()
    }

    fn lies_in(&self, run: u32, directory: usize) -> bool {
        let extents = self.store.store.extents(&self.store.whole(run));
        extents.iter().any(|(path, _)| path.starts_with(self.folders[directory].path()))
    }
}

/// The thread of the directory in the middle stops when `dead` is set.
fn open(config: &Config, faults: &[Faults], dead: &Arc<AtomicBool>) -> Driver {
    let slab = slab();
    let start = |place: usize, deliver| {
        let (slab, faults) = (slab.clone(), faults[place].clone());
        let dead = if place == 1 { Arc::clone(dead) } else { Arc::default() };
        let backend = move || {
            let inner = Box::new(Faulty::open(&hoist_io::Config::default(), &slab, &faults)?);
            Ok(Box::new(Drive { inner, will: Dying { dead } }) as _)
        };
        IoThread::spawn_with("hoist-io-test", backend, deliver)
    };
    Driver::open_on(config, &slab, &start).unwrap()
}

#[test]
fn a_directory_that_fails_writes_is_quarantined_and_the_others_go_on() {
    for durability in [Durability::Step, Durability::None] {
        let mut three = Three::new(durability);
        assert!((0..3).all(|place| three.lies_in(0, place) && three.lies_in(1, place)));
        three.fail(1, Operation::Write, ".seg");
        let mut hits = None;
        for (run, seed) in [(0, 2), (1, 2), (0, 3), (1, 3)] {
            let whole = three.store.whole(run);
            three.store.write(whole, seed).unwrap();
            three.store.assert_holds(whole, seed);
            assert!(!three.lies_in(run, 1), "run {run}");
            assert_eq!(
                three.faults[1].hits(),
                *hits.get_or_insert(three.faults[1].hits()),
                "it is not tried again"
            );
        }
        assert!(hits > Some(0));
        assert_eq!(three.quarantined(), [false, true, false]);
        if durability == Durability::Step {
            assert_eq!(three.store.commit(), 2);
        }
        // The drive is well again, and the store is opened again: it is used again.
        three.store.store.close().unwrap();
        three.faults[1].clear();
        three.store = open(&three.config, &three.faults, &three.dead);
        three.store.assert_holds(three.store.whole(0), 3);
        assert_eq!(three.quarantined(), [false; 3]);
        // Nothing of the scratch run has a place yet: it is spread anew.
        three.store.write(three.store.whole(1), 4).unwrap();
        assert!(three.lies_in(1, 1));
    }
}

#[test]
fn a_full_directory_is_passed_over_and_used_again() {
    let mut three = Three::new(Durability::Step);
    let whole = three.store.whole(0);
    three.faults[2].fill_after(0);
    three.store.write(whole, 2).unwrap();
    assert!(!three.lies_in(0, 2));
    assert_eq!(three.quarantined(), [false; 3]);
    three.faults[2].clear();
    three.store.commit();
    three.store.write(whole, 3).unwrap();
    assert!(three.lies_in(0, 2));
    three.store.commit();
    three.store.assert_holds(whole, 3);
}

#[test]
fn the_last_directory_that_takes_writes_is_never_quarantined() {
    let mut three = Three::new(Durability::Step);
    let whole = three.store.whole(0);
    let before: Vec<u64> = three.store.store.directories().map(|one| one.free_bytes).collect();
    (0..3).for_each(|place| three.fail(place, Operation::Write, ".seg"));
    assert!(matches!(three.store.write(whole, 2), Err(Error::Io(_))));
    assert_eq!(three.quarantined().iter().filter(|one| **one).count(), 2);
    three.store.assert_holds(whole, 1);
    let after: Vec<u64> = three.store.store.directories().map(|one| one.free_bytes).collect();
    assert_eq!(after, before, "what was taken for it is free again");
    three.faults.iter().for_each(Faults::clear);
    three.store.write(whole, 3).unwrap();
    assert_eq!(three.store.commit(), 2);
}

#[test]
fn a_journal_that_cannot_be_written_is_left_behind() {
    for (operation, path_part) in [(Operation::Write, "manifest"), (Operation::Sync, "manifest")] {
        let mut three = Three::new(Durability::Step);
        let whole = three.store.whole(0);
        three.fail(0, operation, path_part);
        for seed in 2..5 {
            three.store.write(whole, seed).unwrap();
            assert_eq!(three.store.commit(), seed);
        }
        assert_eq!(three.quarantined(), [true, false, false]);
        // Opened while the drive still fails, and when it is well.
        for clear in [false, true] {
            if clear {
                three.faults[0].clear();
            }
            drop(three.store);
            three.store = open(&three.config, &three.faults, &three.dead);
            assert_eq!(three.store.store.epoch(), 4);
            assert_eq!(three.quarantined(), [!clear, false, false]);
            three.store.assert_holds(whole, 4);
        }
        let others: Vec<_> =
            [1, 2].into_iter().map(|other: usize| journal(three.folders[other].path())).collect();
        let before: Vec<_> = others.iter().map(|path| std::fs::read(path).unwrap()).collect();
        three.store.write(whole, 5).unwrap();
        assert_eq!(three.store.commit(), 5);
        // Its journal has caught up: the new epoch is there when the others have lost it.
        drop(three.store);
        others.iter().zip(before).for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
        let mut store = open(&three.config, &three.faults, &three.dead);
        assert_eq!(store.store.epoch(), 5);
        store.assert_holds(whole, 5);
    }
}

#[test]
fn bytes_of_this_epoch_that_a_drive_may_have_lost_end_the_commit() {
    let mut three = Three::new(Durability::Step);
    let whole = three.store.whole(0);
    three.store.write(whole, 2).unwrap();
    three.fail(1, Operation::Sync, ".seg");
    three.store.store.commit(&Scalars::default()).unwrap();
    let event = three.store.any_event();
    assert!(matches!(event, StoreEvent::Committed { epoch: 2, result: Err(Error::Io(_)) }), "{event:?}");
    three.faults[1].clear();
    drop(three.store);
    three.store = open(&three.config, &three.faults, &three.dead);
    three.store.assert_holds(whole, 1);
}

#[test]
fn a_read_that_fails_in_one_directory_gives_the_slot_back_when_all_are_done() {
    let mut three = Three::new(Durability::Step);
    let (whole, free) = (three.store.whole(0), three.store.slab.pages_free());
    let place = Place { operation: Some(Operation::Read), ..Place::default() };
    three.faults[2].add(Fault { place, times: 1, ..Fault::new(FaultKind::Eio) });
    let error = three.store.read(whole).unwrap_err().to_string();
    assert!(error.contains(three.folders[2].path().to_str().unwrap()), "{error}");
    assert_eq!(three.store.slab.pages_free(), free);
    three.store.assert_holds(whole, 1);
}

/// What is written in place moves, too, when the drives change; but not while it is read. (Kills: in-place writes that
/// stay for ever where they were first.)
#[test]
fn bytes_written_in_place_follow_the_drives() {
    let mut three = Three::new(Durability::None);
    let whole = three.store.whole(0);
    // The third drive answers late, so that it is seen to be slow: a window of 200 ms is a few requests. The others,
    // however fast, are to be busy for a window within forty.
    for (faults, millis) in three.faults.iter().zip([5, 5, 60]) {
        faults.add(Fault::new(FaultKind::Latency(std::time::Duration::from_millis(millis))));
    }
    let share = |three: &Three| three.store.store.directories().last().unwrap().write_share;
    let mut seed = 1;
    while share(&three) > 0.1 {
        seed += 1;
        three.store.write(whole, seed).unwrap();
        assert!(seed < 100, "it is never seen to be slow: {}", share(&three));
    }
    three.store.write(whole, 200).unwrap();
    three.store.assert_holds(whole, 200);
    let extents = three.store.store.extents(&whole);
    let here = extents.iter().filter(|(path, _)| path.starts_with(three.folders[2].path()));
    let bytes: u64 = here.map(|(_, extent)| extent.bytes).sum();
    assert!(bytes <= 1 << 20, "{bytes} bytes of {RUN} still lie there");
}

/// A drive that does nothing any more, by its errors or by its thread's end: what it had of this epoch is written
/// elsewhere, so its segments need no sync, and the others' journals make the epoch. (Kills: a commit that syncs
/// segments which hold nothing of the epoch.)
#[test]
fn a_drive_that_does_nothing_any_more_costs_no_epoch() {
    for durability in [Durability::Step, Durability::None] {
        for stops in [false, true] {
            let mut three = Three::new(durability);
            if stops {
                three.dead.store(true, Ordering::Release);
            } else {
                [Operation::Read, Operation::Write, Operation::Sync]
                    .into_iter()
                    .for_each(|one| three.fail(1, one, ""));
            }
            let (whole, scratch) = (three.store.whole(0), three.store.whole(1));
            let free = three.store.slab.pages_free();
            assert!(matches!(three.store.read(scratch), Err(Error::Io(_))), "a third of it lies there");
            for seed in 2..4 {
                three.store.write(whole, seed).unwrap();
                three.store.write(scratch, seed).unwrap();
                if durability == Durability::Step {
                    assert_eq!(three.store.commit(), seed);
                }
                three.store.assert_holds(whole, seed);
                three.store.assert_holds(scratch, seed);
            }
            assert_eq!(three.quarantined(), [false, true, false]);
            if !stops {
                assert_eq!(three.store.slab.pages_free(), free);
            }
            // The thread that has stopped is an error of closing, and everything is kept all the same.
            let closed = three.store.store.close();
            assert_eq!(closed.is_err(), stops, "{closed:?}");
            three.faults[1].clear();
            three.dead.store(false, Ordering::Release);
            if stops {
                // What the kernel still has of a thread that has stopped, nobody knows: not as long as this process lives.
                let again = Driver::open(&three.config, &slab());
                assert!(matches!(again, Err(Error::Locked { .. })));
                std::fs::remove_file(three.folders[1].path().join("hoist.lock")).unwrap();
            }
            three.store = open(&three.config, &three.faults, &three.dead);
            three.store.assert_holds(three.store.whole(0), 3);
        }
    }
}

/// A full file system may refuse a journal, too: it is left behind, and its directory takes writes when there is space.
#[test]
fn a_journal_that_finds_no_space_does_not_cost_its_drive() {
    let mut three = Three::new(Durability::Step);
    let whole = three.store.whole(0);
    three.store.write(whole, 2).unwrap();
    three.faults[2].fill_after(0);
    assert_eq!(three.store.commit(), 2);
    assert_eq!(three.quarantined(), [false; 3]);
    three.faults[2].clear();
    three.store.write(whole, 3).unwrap();
    assert!(three.lies_in(0, 2));
    assert_eq!(three.store.commit(), 3);
    drop(three.store);
    three.store = open(&three.config, &three.faults, &three.dead);
    assert_eq!(three.store.store.epoch(), 3);
    three.store.assert_holds(whole, 3);
}
