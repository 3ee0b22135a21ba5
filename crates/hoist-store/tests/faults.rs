//! What failing drives come to.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;
#[path = "common/fault.rs"]
mod fault;

use common::*;
use fault::{BYTES, What, fail, is_eio, store};
use hoist_io::Faults;
use hoist_store::*;
use tempfile::tempdir;

#[test]
fn a_failed_write_leaves_what_was_there_and_its_space() {
    let faults = Faults::new(1);
    let (_directory, _, mut store) = store(&faults);
    let (durable, scratch) = (store.whole(0), store.whole(1));
    store.write(scratch, 1).unwrap();
    fail(&faults, What::Writes);
    for _ in 0..10 {
        assert!(is_eio(&store.write(durable, 2).unwrap_err()));
    }
    assert!(is_eio(&store.write(scratch, 2).unwrap_err()));
    faults.clear();
    store.assert_holds(durable, 1);
    assert!(!store.store.has_bytes(&scratch), "written in place, it may hold anything");
    let error = store.store.commit(&Scalars::default()).unwrap_err();
    assert!(
        matches!(error, Error::NotYet { .. }),
        "an epoch without a failed write's bytes is none: {error}"
    );
    store.write(durable, 3).unwrap();
    store.write(scratch, 3).unwrap();
    assert_eq!(store.commit(), 2);
    store.assert_holds(durable, 3);
    store.assert_holds(scratch, 3);
}

#[test]
fn a_failed_read_gives_its_slot_back() {
    let faults = Faults::new(1);
    let (_directory, _, mut store) = store(&faults);
    let whole = store.whole(0);
    let free = store.slab.pages_free();
    fail(&faults, What::Reads);
    assert!(is_eio(&store.read(whole).unwrap_err()));
    assert_eq!(store.slab.pages_free(), free);
    faults.clear();
    store.assert_holds(whole, 1);
}

#[test]
fn after_a_failed_commit_nothing_is_written_until_the_store_is_opened_again() {
    for what in [What::Syncs, What::JournalWrites] {
        let faults = Faults::new(1);
        let (_directory, config, mut store) = store(&faults);
        let (whole, slab) = (store.whole(0), store.slab.clone());
        store.write(whole, 2).unwrap();
        fail(&faults, what);
        assert_eq!(store.store.commit(&Scalars::default()).unwrap(), 2);
        match store.any_event() {
            StoreEvent::Committed { epoch: 2, result: Err(error) } if is_eio(&error) => {}
            other => panic!("{what:?}: {other:?}"),
        }
        faults.clear();
        assert_eq!(store.store.epoch(), 1);
        assert!(matches!(store.start_write(whole, 3), Err(Error::Poisoned { .. })));
        assert!(matches!(store.store.commit(&Scalars::default()), Err(Error::Poisoned { .. })));
        store.assert_holds(whole, 2);
        let scratch = store.whole(1);
        store.write(scratch, 3).unwrap();
        store.store.close().unwrap();
        let mut store = Driver::open(&config, &slab).unwrap();
        assert_eq!(store.store.epoch(), 1);
        store.assert_holds(whole, 1);
    }
}

/// The record was written, and nobody knows how far it got: the next epoch and the one before are both right then.
///
/// Kills: an epoch taken for durable before its journal is synced.
#[test]
fn after_a_failed_sync_of_the_journal_one_epoch_or_the_other_is_there_whole() {
    let faults = Faults::new(1);
    let (_directory, config, mut store) = store(&faults);
    let (whole, slab) = (store.whole(0), store.slab.clone());
    store.write(whole, 2).unwrap();
    fail(&faults, What::JournalSyncs);
    store.store.commit(&Scalars::default()).unwrap();
    match store.any_event() {
        StoreEvent::Committed { epoch: 2, result: Err(error) } if is_eio(&error) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(store.store.epoch(), 1);
    assert!(matches!(store.start_write(whole, 3), Err(Error::Poisoned { .. })));
    faults.clear();
    store.store.close().unwrap();
    let mut store = Driver::open(&config, &slab).unwrap();
    let epoch = store.store.epoch();
    assert!((1..=2).contains(&epoch), "epoch {epoch}");
    store.assert_holds(whole, epoch);
    store.write(whole, 3).unwrap();
    assert_eq!(store.commit(), epoch + 1);
}

#[test]
fn unreadable_bytes_are_in_the_report_and_the_rest_is_looked_at() {
    let faults = Faults::new(1);
    let (directory, config, store) = store(&faults);
    drop(store);
    // A segment that ends early cannot be read behind its end.
    let mut store = BlockingStore::open(&config, &hoist_io::Config::default(), &slab()).unwrap();
    let places = store.store().extents(&store.store().covering(TensorId(0)));
    let (path, extent) = places.last().unwrap().clone();
    // The last block of it: the whole of a short extent, or the sector that ends a long one.
    let cut =
        (extent.offset + extent.bytes).saturating_sub(hoist_memory::SECTOR_BYTES as u64).max(extent.offset);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
    let report = verify(&mut store).unwrap();
    assert!(!report.bad.is_empty() && report.bad.len() < 5, "{report:?}");
    let bad = report.bad.last().unwrap();
    assert_eq!(bad.tensors, ["a"]);
    assert!(bad.unreadable.as_ref().unwrap().contains(".seg"), "{bad:?}");
    assert_eq!(report.bytes, BYTES - report.bad.iter().map(|bad| bad.span.bytes).sum::<u64>());
    drop(directory);
}

#[test]
fn a_store_that_cannot_be_made_leaves_no_files() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = config(&[directory.path()]);
    let huge = [spec("a", 1 << 60, Life::Scratch)];
    match Driver::create(&config, &slab, &huge).err().unwrap() {
        Error::NoRoom { need_bytes, .. } => assert_eq!(need_bytes, 1 << 60),
        other => panic!("{other}"),
    }
    let faults = Faults::new(1);
    fail(&faults, What::Syncs);
    let start: &dyn Fn(usize, Deliver) -> _ = &|_, deliver| fault::start(&faults, &slab, deliver);
    let small = [spec("a", 5, Life::Durable)];
    assert!(is_eio(&Store::create_on(&config, start, &small, |_| {}).err().unwrap()));
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["hoist.lock"]);
    Driver::create(&config, &slab, &small).unwrap();
}

/// At `none` a store that closes keeps what it can, and says what it cannot: what was written in place, and failed, is
/// gone, whatever the records from before say. (Kills: a close without a commit, as nothing was written.)
#[test]
fn closing_says_what_could_not_be_written_and_keeps_the_rest() {
    for others in [false, true] {
        let (directory, slab) = (tempdir().unwrap(), slab());
        let config = Config { durability: Durability::None, ..config(&[directory.path()]) };
        let tensors = [spec("a", BYTES, Life::Durable), spec("b", BYTES, Life::Durable)];
        let mut store = Driver::create(&config, &slab, &tensors).unwrap();
        let (a, b) = (store.whole(0), store.whole(1));
        store.write(a, 1).unwrap();
        store.write(b, 1).unwrap();
        store.store.close().unwrap();
        let faults = Faults::new(1);
        let start = |_, deliver| fault::start(&faults, &slab, deliver);
        let mut store = Driver::open_on(&config, &slab, &start).unwrap();
        if others {
            store.write(b, 2).unwrap();
        }
        fail(&faults, What::Writes);
        assert!(is_eio(&store.write(a, 2).unwrap_err()));
        faults.clear();
        let error = store.store.close().unwrap_err();
        assert!(
            matches!(error, Error::Lost { spans: 1, .. }) && error.to_string().contains("(a)"),
            "{error}"
        );
        let mut store = Driver::open(&config, &slab).unwrap();
        assert!(!store.store.has_bytes(&a), "it may hold anything");
        store.assert_holds(b, if others { 2 } else { 1 });
    }
}

/// Kills: a close that takes the bytes of a run for written because they have a place.
#[test]
fn at_none_a_first_write_that_failed_is_none_at_close() {
    let (directory, slab, faults) = (tempdir().unwrap(), slab(), Faults::new(1));
    let config = Config { durability: Durability::None, ..config(&[directory.path()]) };
    let start: &dyn Fn(usize, Deliver) -> _ = &|_, deliver| fault::start(&faults, &slab, deliver);
    let mut store = Driver::create_on(&config, &slab, start, &[spec("a", BYTES, Life::Durable)]).unwrap();
    fail(&faults, What::Writes);
    assert!(is_eio(&store.write(store.whole(0), 1).unwrap_err()));
    faults.clear();
    let error = store.store.close().unwrap_err();
    assert!(matches!(error, Error::Lost { spans: 1, .. }), "{error}");
    let store = Driver::open(&config, &slab).unwrap();
    assert!(!store.store.has_bytes(&store.whole(0)));
}

#[test]
fn a_store_at_none_is_not_closed_over_a_write_in_flight() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = Config { durability: Durability::None, ..config(&[directory.path()]) };
    let mut store = Driver::create(&config, &slab, &[spec("a", BYTES, Life::Durable)]).unwrap();
    store.start_write(store.whole(0), 1).unwrap();
    let error = store.store.close().unwrap_err();
    assert!(matches!(error, Error::NotYet { .. }), "{error}");
    assert!(!Driver::open(&config, &slab).unwrap().store.has_bytes(&span(0, 0, BYTES)));
}
