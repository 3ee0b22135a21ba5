//! What failing drives come to.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;
#[path = "common/fault.rs"]
mod fault;

use common::*;
use fault::{Fault, What};
use hoist_store::*;
use tempfile::{TempDir, tempdir};

const BYTES: u64 = (1 << 20) + 5;

/// A store at epoch 1 with the pattern of seed 1, on a backend that can fail.
fn store(fault: &std::sync::Arc<Fault>) -> (TempDir, Config, Driver) {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = config(&[directory.path()]);
    let tensors = [spec("a", BYTES, Life::Durable), spec("s", BYTES, Life::Scratch)];
    let mut store = Driver::create(&config, &slab, &tensors).unwrap();
    store.write(store.whole(0), 1).unwrap();
    store.commit();
    store.store.close().unwrap();
    let store = Driver::open_on(&config, &slab, &|_, deliver| fault.start(&slab, deliver)).unwrap();
    (directory, config, store)
}

#[test]
fn a_failed_write_leaves_what_was_there_and_its_space() {
    let fault = Fault::new();
    let (_directory, _, mut store) = store(&fault);
    let (durable, scratch) = (store.whole(0), store.whole(1));
    store.write(scratch, 1).unwrap();
    fault.set(What::Writes);
    for _ in 0..10 {
        assert!(matches!(store.write(durable, 2), Err(Error::Io(_))));
    }
    assert!(matches!(store.write(scratch, 2), Err(Error::Io(_))));
    fault.set(What::Nothing);
    store.assert_holds(durable, 1);
    assert!(!store.store.has_bytes(&scratch), "written in place, it may hold anything");
    let error = store.store.commit().unwrap_err();
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
    let fault = Fault::new();
    let (_directory, _, mut store) = store(&fault);
    let whole = store.whole(0);
    let free = store.slab.pages_free();
    fault.set(What::Reads);
    assert!(matches!(store.read(whole), Err(Error::Io(_))));
    assert_eq!(store.slab.pages_free(), free);
    fault.set(What::Nothing);
    store.assert_holds(whole, 1);
}

#[test]
fn after_a_failed_commit_nothing_is_written_until_the_store_is_opened_again() {
    for what in [What::Syncs, What::JournalWrites] {
        let fault = Fault::new();
        let (_directory, config, mut store) = store(&fault);
        let (whole, slab) = (store.whole(0), store.slab.clone());
        store.write(whole, 2).unwrap();
        fault.set(what);
        assert_eq!(store.store.commit().unwrap(), 2);
        match store.any_event() {
            StoreEvent::Committed { epoch: 2, result: Err(Error::Io(_)) } => {}
            other => panic!("{what:?}: {other:?}"),
        }
        fault.set(What::Nothing);
        assert_eq!(store.store.epoch(), 1);
        assert!(matches!(store.start_write(whole, 3), Err(Error::Poisoned { .. })));
        assert!(matches!(store.store.commit(), Err(Error::Poisoned { .. })));
        store.assert_holds(whole, 2);
        let scratch = store.whole(1);
        store.write(scratch, 3).unwrap();
        store.store.close().unwrap();
        let mut store = Driver::open(&config, &slab).unwrap();
        assert_eq!(store.store.epoch(), 1);
        store.assert_holds(whole, 1);
    }
}

#[test]
fn unreadable_bytes_are_in_the_report_and_the_rest_is_looked_at() {
    let fault = Fault::new();
    let (directory, config, store) = store(&fault);
    drop(store);
    // A segment that ends early cannot be read behind its end.
    let mut store = BlockingStore::open(&config, &hoist_io::Config::default(), &slab()).unwrap();
    let places = store.store().extents(&store.store().covering(TensorId(0)));
    let (path, extent) = places.last().unwrap().clone();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(extent.offset).unwrap();
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
    let fault = Fault::new();
    fault.set(What::Syncs);
    let start: &dyn Fn(usize, Deliver) -> _ = &|_, deliver| fault.start(&slab, deliver);
    let small = [spec("a", 5, Life::Durable)];
    assert!(matches!(Store::create_on(&config, start, &small, |_| {}), Err(Error::Io(_))));
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["hoist.lock"]);
    Driver::create(&config, &slab, &small).unwrap();
}
