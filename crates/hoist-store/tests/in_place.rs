//! Snapshots in stores that write in place: what they have is left alone, and an epoch is whole or none.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;
#[path = "common/fault.rs"]
mod fault;

use common::*;
use fault::{What, fail};
use hoist_io::Faults;
use hoist_memory::Slab;
use hoist_store::*;
use std::sync::Arc;
use tempfile::{TempDir, tempdir};

/// A store with runs a and b at version 1 in a snapshot, opened on drives that may fail.
fn open_at(durability: Durability, faults: &Faults) -> (TempDir, Config, Driver) {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = config(&[directory.path()]);
    let tensors = ["a", "b", "spare"].map(|name| spec(name, 1 << 20, Life::Durable));
    let mut store = Driver::create(&config, &slab, &tensors).unwrap();
    for run in 0..2 {
        store.write(store.whole(run), 1).unwrap();
    }
    store.commit();
    store.store.snapshot("one").unwrap();
    assert!(recorded(&mut store));
    store.store.close().unwrap();
    let other = Config { durability, ..config.clone() };
    let store = Driver::open_on(&other, &slab, &|_, deliver| fault::start(faults, &slab, deliver)).unwrap();
    (directory, config, store)
}

fn recorded(store: &mut Driver) -> bool {
    match store.any_event() {
        StoreEvent::Committed { result, .. } | StoreEvent::Recorded { result } => result.is_ok(),
        other => panic!("{other:?}"),
    }
}

fn assert_snapshot(config: &Config, slab: &Arc<Slab>) {
    let at = Config { snapshot: Some("one".into()), ..config.clone() };
    let mut view = Driver::open(&at, slab).unwrap();
    for run in 0..2 {
        view.assert_holds(view.whole(run), 1);
    }
}

/// Kills: an epoch made at close of what was written and of what was there before, where it could not be.
#[test]
fn what_could_not_be_written_is_of_no_epoch() {
    for durability in [Durability::Snapshot, Durability::None] {
        let faults = Faults::new(1);
        let (_directory, config, mut store) = open_at(durability, &faults);
        let (a, b) = (store.whole(0), store.whole(1));
        store.write(a, 2).unwrap();
        fail(&faults, What::Writes);
        store.write(b, 2).unwrap_err();
        faults.clear();
        let slab = store.slab.clone();
        let closed = store.store.close();
        let mut store = Driver::open(&config, &slab).unwrap();
        if durability == Durability::Snapshot {
            assert!(matches!(closed, Err(Error::Unsaved { spans: 1, .. })), "{closed:?}");
            assert_eq!(store.store.epoch(), 1);
            store.assert_holds(a, 1);
            store.assert_holds(b, 1);
        } else {
            assert!(matches!(closed, Err(Error::Lost { spans: 1, .. })), "{closed:?}");
            store.assert_holds(a, 2);
            assert!(!store.store.has_bytes(&b), "it is of the epoch before");
        }
        drop(store.store);
        assert_snapshot(&config, &slab);
    }
}

/// Kills: bytes that are written over those of a snapshot whose deletion is not durable, and never is.
#[test]
fn a_snapshot_that_is_being_deleted_keeps_its_bytes() {
    let faults = Faults::new(1);
    let (_directory, config, mut store) = open_at(Durability::None, &faults);
    fail(&faults, What::JournalWrites);
    store.store.delete_snapshot("one").unwrap();
    store.start_write(store.whole(0), 2).unwrap();
    for _ in 0..2 {
        store.any_event();
    }
    faults.clear();
    assert_eq!(store.store.snapshots().count(), 1);
    let slab = store.slab.clone();
    store.store.close().unwrap();
    assert_snapshot(&config, &slab);
}

/// Kills: one refused record that costs all that was written in place.
#[test]
fn a_deletion_that_fails_costs_nothing_else() {
    for taken_back in [true, false] {
        let faults = Faults::new(1);
        let (_directory, config, mut store) = open_at(Durability::None, &faults);
        let b = store.whole(1);
        store.write(b, 2).unwrap();
        fail(&faults, What::JournalWrites);
        store.store.delete_snapshot("one").unwrap();
        assert!(!recorded(&mut store));
        assert!(matches!(store.write(b, 3), Err(Error::Poisoned { .. })));
        assert!(matches!(store.store.rollback(), Err(Error::Poisoned { .. })));
        faults.clear();
        if taken_back {
            store.store.retract_record().unwrap();
            store.write(b, 3).unwrap();
        }
        let slab = store.slab.clone();
        store.store.close().unwrap();
        let mut store = Driver::open(&config, &slab).unwrap();
        store.assert_holds(b, if taken_back { 3 } else { 2 });
        drop(store.store);
        assert_snapshot(&config, &slab);
    }
}
