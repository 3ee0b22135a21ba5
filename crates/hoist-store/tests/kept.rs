//! What snapshots keep, in journals that are written anew, and until they are deleted.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;
#[path = "common/fault.rs"]
mod fault;

use common::*;
use fault::{What, fail};
use hoist_io::Faults;
use hoist_store::*;
use tempfile::tempdir;

/// Of a note for which no journal of a small store has room: that is 1 MiB.
const LARGE_NOTE_BYTES: usize = 2 << 20;

/// Kills: a new journal without what the epoch that it is written for replaces, and a snapshot has.
#[test]
fn a_new_journal_has_what_its_own_epoch_takes_from_a_snapshot() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = config(&[directory.path()]);
    let specs = [spec("a", 2 << 20, Life::Durable), spec("room", 8 << 20, Life::Durable)];
    let mut store = Driver::create(&config, &slab, &specs).unwrap();
    let whole = store.whole(0);
    store.write(whole, 1).unwrap();
    store.store.set_note("note", vec![1]).unwrap();
    store.commit();
    let before = journal(directory.path());
    store.store.snapshot("kept").unwrap();
    assert!(matches!(store.any_event(), StoreEvent::Recorded { result: Ok(()) }));
    store.write(whole, 2).unwrap();
    store.store.set_note("note", vec![2; LARGE_NOTE_BYTES]).unwrap();
    store.commit();
    assert_ne!(journal(directory.path()), before, "it had no room");
    drop(store);
    Driver::open(&config, &slab).unwrap().assert_holds(whole, 2);
    let mut view = Driver::open(&Config { snapshot: Some("kept".into()), ..config }, &slab).unwrap();
    assert_eq!(view.store.note("note"), Some(&[1][..]));
    view.assert_holds(whole, 1);
}

/// Kills: a write in place, at "none", over what a snapshot has whose deletion is not durable yet, and fails.
#[test]
fn what_a_snapshot_has_stays_until_its_end_is_durable() {
    let (directory, slab, faults) = (tempdir().unwrap(), slab(), Faults::new(1));
    let step = config(&[directory.path()]);
    let specs = [spec("a", 1 << 20, Life::Durable), spec("room", 8 << 20, Life::Durable)];
    let mut store = Driver::create(&step, &slab, &specs).unwrap();
    let whole = store.whole(0);
    store.write(whole, 1).unwrap();
    store.commit();
    store.store.snapshot("kept").unwrap();
    assert!(matches!(store.any_event(), StoreEvent::Recorded { result: Ok(()) }));
    store.store.close().unwrap();
    let none = Config { durability: Durability::None, ..step.clone() };
    let start: &dyn Fn(usize, Deliver) -> _ = &|_, deliver| fault::start(&faults, &slab, deliver);
    let mut store = Driver::open_on(&none, &slab, start).unwrap();
    fail(&faults, What::JournalWrites);
    store.store.delete_snapshot("kept").unwrap();
    store.start_write(whole, 2).unwrap();
    let events = [store.any_event(), store.any_event()];
    let is_failed = |event: &StoreEvent| matches!(event, StoreEvent::Recorded { result: Err(_) });
    assert!(events.iter().any(is_failed), "{events:?}");
    drop(events);
    faults.clear();
    store.store.close().unwrap();
    Driver::open(&step, &slab).unwrap().assert_holds(whole, 2);
    let mut view = Driver::open(&Config { snapshot: Some("kept".into()), ..step }, &slab).unwrap();
    view.assert_holds(whole, 1);
}
