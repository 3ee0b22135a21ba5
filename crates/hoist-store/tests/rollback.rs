//! Back to the newest durable epoch: what comes back, what stays, and when it cannot be. (Bytes, space and failed
//! commits are in `model.rs`.)
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;

use common::*;
use hoist_store::*;
use tempfile::tempdir;

const BYTES: u64 = (1 << 20) + 5;

fn tensors() -> [TensorSpec; 2] {
    [spec("a", BYTES, Life::Durable), spec("s", BYTES, Life::Scratch)]
}

/// Kills: a note of a dropped epoch that the next one writes; scratch that goes with it.
#[test]
fn notes_come_back_and_scratch_stays() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let mut store = Driver::create(&config(&[directory.path()]), &slab, &tensors()).unwrap();
    let (whole, scratch) = (store.whole(0), store.whole(1));
    store.write(whole, 1).unwrap();
    store.store.set_note("step", vec![1]).unwrap();
    store.commit();
    for seed in 2..4 {
        store.write(whole, seed).unwrap();
        store.write(scratch, seed).unwrap();
        store.store.set_note("step", vec![seed as u8]).unwrap();
        store.store.set_note("other", vec![seed as u8]).unwrap();
    }
    store.store.rollback().unwrap();
    assert_eq!((store.store.note("step"), store.store.note("other")), (Some(&[1][..]), None));
    store.assert_holds(whole, 1);
    store.assert_holds(scratch, 3);
    assert_eq!(store.commit(), 2);
    store.assert_holds(whole, 1);
}

/// Kills: a rollback under a write, which would free the extents that it goes to.
#[test]
fn it_waits_until_nothing_is_in_flight() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let mut store = Driver::create(&config(&[directory.path()]), &slab, &tensors()).unwrap();
    let whole = store.whole(0);
    store.start_write(whole, 1).unwrap();
    assert!(matches!(store.store.rollback(), Err(Error::NotYet { epoch: 1, .. })));
    assert!(matches!(store.any_event(), StoreEvent::Written { result: Ok(()), .. }));
    store.store.commit(&Scalars::default()).unwrap();
    assert!(matches!(store.store.rollback(), Err(Error::NotYet { .. })));
    assert_eq!(store.wait_for_commit(), 1);
    store.store.rollback().unwrap();
    store.assert_holds(whole, 1);
}

#[test]
fn what_was_written_in_place_cannot_be_taken_back() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = Config { durability: Durability::None, ..config(&[directory.path()]) };
    let mut store = Driver::create(&config, &slab, &tensors()).unwrap();
    store.write(store.whole(1), 1).unwrap();
    // A note is not in place.
    store.store.set_note("step", vec![1]).unwrap();
    store.store.rollback().unwrap();
    assert_eq!(store.store.note("step"), None);
    store.store.set_note("step", vec![2]).unwrap();
    store.store.close().unwrap();
    let mut store = Driver::open(&config, &slab).unwrap();
    assert_eq!((store.store.epoch(), store.store.note("step")), (1, Some(&[2][..])));
    store.write(store.whole(0), 1).unwrap();
    assert!(matches!(store.store.rollback(), Err(Error::InPlace)));
    store.assert_holds(store.whole(0), 1);
}
