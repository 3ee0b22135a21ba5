//! Records of epochs that failed: taken back, they never come to light, whatever power leaves of the next attempt, which
//! has the same number and place.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;
#[path = "common/fault.rs"]
mod fault;

use common::*;
use fault::{What, fail, is_eio, store};
use hoist_io::Faults;
use hoist_store::*;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A journal is written in such blocks, each whole or not at all.
const SECTOR: usize = 4096;

fn fail_commit(store: &mut Driver, faults: &Faults) {
    fail(faults, What::JournalSyncs);
    store.store.commit(&Scalars::default()).unwrap();
    match store.any_event() {
        StoreEvent::Committed { result: Err(error), .. } if is_eio(&error) => {}
        other => panic!("{other:?}"),
    }
    faults.clear();
}

fn journals(directory: &Path) -> [PathBuf; 2] {
    ["0000.journal", "0001.journal"].map(|name| directory.join("manifest").join(name))
}

/// An attempt that is taken back, and another of which only the first block reaches the drive, for every journal that it
/// writes to: the epoch before is there, whole.
fn tear_the_next_attempt(
    (directory, config, mut store): (TempDir, Config, Driver),
    faults: &Faults,
    notes: [Vec<u8>; 2],
) {
    let (whole, slab, epoch) = (store.whole(0), store.slab.clone(), store.store.epoch());
    let [first, second] = notes;
    store.store.set_note("n", first).unwrap();
    store.write(whole, 2).unwrap();
    fail_commit(&mut store, faults);
    store.store.rollback().unwrap();
    store.assert_holds(whole, 1);
    let before = journals(directory.path()).map(|path| std::fs::read(path).unwrap());
    store.store.set_note("n", second).unwrap();
    store.write(whole, 3).unwrap();
    store.commit();
    store.store.close().unwrap();
    for (path, mut torn) in journals(directory.path()).into_iter().zip(before) {
        let after = std::fs::read(&path).unwrap();
        let at = |bytes: &[u8], block: usize| bytes[block * SECTOR..][..SECTOR].to_vec();
        let retired = !after.starts_with(b"hoistjnl");
        let first = (0..torn.len() / SECTOR).find(|block| at(&torn, *block) != at(&after, *block));
        if let Some(block) = first.filter(|_| !retired) {
            torn[block * SECTOR..][..SECTOR].copy_from_slice(&after[block * SECTOR..][..SECTOR]);
        }
        std::fs::write(path, torn).unwrap();
    }
    let mut store = Driver::open(&config, &slab).unwrap();
    assert_eq!(store.store.epoch(), epoch);
    store.assert_holds(whole, 1);
}

/// Kills: a record of which only the first block is taken back. Its first frame ends with its block, or is the same.
#[test]
fn a_torn_record_is_not_completed_by_the_one_before() {
    // Head 24, tag 4, length 8, key 1, length 8: docs/format.md.
    let ends_with_its_block = SECTOR - 24 - 4 - 8 - 1 - 8;
    for (bytes, seeds) in [(ends_with_its_block, [2, 3]), (10_000, [7, 7])] {
        let faults = Faults::new(1);
        tear_the_next_attempt(store(&faults), &faults, seeds.map(|seed| vec![seed; bytes]));
    }
}

/// Kills: a new journal of which only the preamble is taken back, which is the same in all.
#[test]
fn a_torn_journal_is_not_completed_by_the_one_before() {
    let faults = Faults::new(1);
    let (directory, config, mut store) = store(&faults);
    let active = journal(directory.path());
    // Until there is no room for another record.
    loop {
        let bytes = std::fs::read(&active).unwrap();
        let used = bytes.chunks(SECTOR).rposition(|block| block.iter().any(|byte| *byte != 0)).unwrap() + 1;
        if (used + 1) * SECTOR > bytes.len() {
            break;
        }
        store.store.set_note("n", vec![1]).unwrap();
        store.commit();
    }
    tear_the_next_attempt((directory, config, store), &faults, [vec![1], vec![1]]);
}

/// Kills: space of an epoch that is used again although its record is still there.
#[test]
fn what_cannot_be_taken_back_keeps_its_bytes() {
    let faults = Faults::new(1);
    let (_directory, config, mut store) = store(&faults);
    let (whole, scratch, slab) = (store.whole(0), store.whole(1), store.slab.clone());
    store.write(whole, 2).unwrap();
    fail_commit(&mut store, &faults);
    fail(&faults, What::JournalWrites);
    assert!(matches!(store.store.rollback(), Err(Error::Poisoned { .. })));
    store.assert_holds(whole, 1);
    store.write(scratch, 9).unwrap();
    store.store.close().unwrap();
    let mut store = Driver::open(&config, &slab).unwrap();
    let epoch = store.store.epoch();
    assert!((1..=2).contains(&epoch), "epoch {epoch}");
    store.assert_holds(whole, epoch);
}
