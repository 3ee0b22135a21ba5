//! Records and journals that power cuts have torn, twice at the same place: no epoch is made of parts of two attempts.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;
#[path = "common/fault.rs"]
mod fault;

use common::*;
use fault::{What, fail, is_eio, store};
use hoist_io::Faults;
use hoist_memory::Slab;
use hoist_store::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A journal is written in such blocks, each whole or not at all.
const SECTOR: usize = 4096;

fn journals(directory: &Path) -> [PathBuf; 2] {
    ["0000.journal", "0001.journal"].map(|name| directory.join("manifest").join(name))
}

fn read_both(directory: &Path) -> [Vec<u8>; 2] {
    journals(directory).map(|path| std::fs::read(path).unwrap())
}

/// The first block that differs.
fn first_changed(before: &[u8], after: &[u8]) -> usize {
    let differs = |block: &usize| before[block * SECTOR..][..SECTOR] != after[block * SECTOR..][..SECTOR];
    (0..before.len() / SECTOR).find(differs).unwrap()
}

/// The next epoch: a record whose first blocks are always equal, but for what makes an attempt its own.
fn write_epoch(store: &mut Driver, seed: u64) {
    store.store.set_note("n", vec![7; 9_000]).unwrap();
    store.write(store.whole(0), seed).unwrap();
}

/// Opens the store: it is at `epoch`, with the bytes of `seed`.
fn open_at(config: &Config, slab: &Arc<Slab>, epoch: u64, seed: u64) -> Driver {
    let mut store = Driver::open(config, slab).unwrap();
    assert_eq!(store.store.epoch(), epoch);
    store.assert_holds(store.whole(0), seed);
    store
}

/// Commits the next epoch, of which only the first changed block of the record reaches the drive.
fn cut_behind_the_first_block(directory: &Path, store: &mut Driver) {
    let before = read_both(directory);
    write_epoch(store, 3);
    store.commit();
    for ((path, mut torn), after) in journals(directory).into_iter().zip(before).zip(read_both(directory)) {
        if torn != after {
            let block = first_changed(&torn, &after);
            torn[block * SECTOR..][..SECTOR].copy_from_slice(&after[block * SECTOR..][..SECTOR]);
            std::fs::write(path, torn).unwrap();
        }
    }
}

#[test]
fn a_record_is_not_completed_by_one_that_was_cut_before() {
    let (directory, config, mut store) = store(&Faults::new(1));
    let slab = store.slab.clone();
    let active = journal(directory.path());
    let before = std::fs::read(&active).unwrap();
    write_epoch(&mut store, 2);
    store.commit();
    store.store.close().unwrap();
    let mut torn = std::fs::read(&active).unwrap();
    let block = first_changed(&before, &torn);
    torn[block * SECTOR..][..SECTOR].copy_from_slice(&before[block * SECTOR..][..SECTOR]);
    std::fs::write(&active, &torn).unwrap();
    store = open_at(&config, &slab, 1, 1);
    cut_behind_the_first_block(directory.path(), &mut store);
    store.store.close().unwrap();
    open_at(&config, &slab, 1, 1);
}

#[test]
fn a_record_is_not_completed_by_one_that_was_taken_back_in_part() {
    let faults = Faults::new(1);
    let (directory, config, mut store) = store(&faults);
    let slab = store.slab.clone();
    let active = journal(directory.path());
    let clean = std::fs::read(&active).unwrap();
    write_epoch(&mut store, 2);
    fail(&faults, What::JournalSyncs);
    store.store.commit(&Scalars::default()).unwrap();
    let event = store.any_event();
    assert!(matches!(&event, StoreEvent::Committed { result: Err(error), .. } if is_eio(error)), "{event:?}");
    faults.clear();
    let mut part = std::fs::read(&active).unwrap();
    store.store.rollback().unwrap();
    store.store.close().unwrap();
    let block = first_changed(&clean, &part);
    part[block * SECTOR..][..SECTOR].fill(0);
    std::fs::write(&active, &part).unwrap();
    store = open_at(&config, &slab, 1, 1);
    cut_behind_the_first_block(directory.path(), &mut store);
    store.store.close().unwrap();
    open_at(&config, &slab, 1, 1);
}

/// The same with a whole new journal, which begins with what is equal in all of them.
#[test]
fn a_journal_is_not_completed_by_one_that_was_cut_before() {
    let (directory, config, mut store) = store(&Faults::new(1));
    let slab = store.slab.clone();
    let active = journal(directory.path());
    // Until there is no room for one more record.
    loop {
        let bytes = std::fs::read(&active).unwrap();
        let used = bytes.chunks(SECTOR).rposition(|block| block.iter().any(|byte| *byte != 0)).unwrap() + 1;
        if (used + 3) * SECTOR > bytes.len() {
            break;
        }
        store.store.set_note("n", vec![7; 9_000]).unwrap();
        store.commit();
    }
    let epoch = store.store.epoch();
    let before = read_both(directory.path());
    let new = journals(directory.path()).into_iter().position(|path| path != active).unwrap();
    // Of the first attempt all but the first two blocks, and of the second only those.
    for (seed, first) in [(2, false), (3, true)] {
        let reached = read_both(directory.path());
        write_epoch(&mut store, seed);
        store.commit();
        store.store.close().unwrap();
        let after = read_both(directory.path());
        assert!(after[new].starts_with(b"hoistjnl"), "no journal was written anew");
        let mut torn = if first { reached[new].clone() } else { after[new].clone() };
        torn.resize(after[new].len(), 0);
        torn[..2 * SECTOR].copy_from_slice(if first { &after[new][..2 * SECTOR] } else { &[0; 2 * SECTOR] });
        std::fs::write(&journals(directory.path())[new], &torn).unwrap();
        std::fs::write(&active, &before[1 - new]).unwrap();
        store = open_at(&config, &slab, epoch, 1);
    }
}

/// Two directories; a failed record is taken back in one, and the process ends before the other.
#[test]
fn a_crash_between_two_retractions_finds_either_epoch_whole() {
    let faults = Faults::new(1);
    let (one, two, slab) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), slab());
    let config = config(&[one.path(), two.path()]);
    let tensors = [spec("a", 1 << 20, Life::Durable), spec("s", 1 << 20, Life::Scratch)];
    let mut store = Driver::create(&config, &slab, &tensors).unwrap();
    let (whole, scratch) = (store.whole(0), store.whole(1));
    store.write(whole, 1).unwrap();
    store.write(scratch, 8).unwrap();
    store.commit();
    store.store.close().unwrap();
    for broken in [one.path(), two.path()] {
        let mut store =
            Driver::open_on(&config, &slab, &|_, deliver| fault::start(&faults, &slab, deliver)).unwrap();
        let epoch = store.store.epoch();
        store.write(scratch, 8).unwrap();
        store.write(whole, epoch + 1).unwrap();
        fail(&faults, What::JournalSyncs);
        store.store.commit(&Scalars::default()).unwrap();
        assert!(matches!(store.any_event(), StoreEvent::Committed { result: Err(_), .. }));
        let path_part = broken.join("manifest").to_str().unwrap().to_owned();
        let operation = Some(hoist_io::Operation::Write);
        faults.clear();
        let place = hoist_io::Place { operation, path_part, ..Default::default() };
        faults.add(hoist_io::Fault { place, ..hoist_io::Fault::new(hoist_io::FaultKind::Eio) });
        assert!(matches!(store.store.rollback(), Err(Error::Poisoned { .. })));
        store.assert_holds(whole, epoch);
        store.write(scratch, 9).unwrap();
        assert!(store.start_write(whole, 9).is_err());
        store.store.close().unwrap();
        faults.clear();
        let mut store = Driver::open(&config, &slab).unwrap();
        let now = store.store.epoch();
        assert!((epoch..=epoch + 1).contains(&now));
        store.assert_holds(whole, now);
        store.store.close().unwrap();
    }
}
