//! Every flipped byte of a manifest is found: the store opens at its newest epoch or the one before, with the bytes of
//! that, or says what is wrong.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;

use common::*;
use hoist_format::{BatchId, Lifetime, NoteRecord, Record, encode_record};
use hoist_io::{Backend, BackendChoice, IoThread};
use hoist_memory::Slab;
use hoist_store::*;
use hoist_testkit::{Power, Powered};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::{TempDir, tempdir};

/// Blocks of the journal's format.
const JOURNAL_BLOCK: usize = 4096;

/// Bytes of a preamble that are not zero by rule: docs/format.md. A retired one has zeros there, too.
const PREAMBLE_BYTES: usize = 24;

/// Every so many bytes of zeros one is flipped; a prime, so that all places in a word and a block come up. All of them
/// where `HOIST_FLIPS` is set.
const ZEROS_STEP: usize = 251;

/// What is left of each journal's room, which is all zeros: a block more than the longest journal here has.
const JOURNAL_BYTES: u64 = 7 * JOURNAL_BLOCK as u64;

/// The newest epoch.
const EPOCH: u64 = 5;

/// A store with one small tensor, a journal in use and a retired one, which both have records.
struct Small {
    directory: TempDir,
    config: Config,
    slab: Arc<Slab>,
    journals: [(PathBuf, Vec<u8>); 2],
}

impl Small {
    fn new() -> Small {
        let directory = tempdir().unwrap();
        let config = config(&[directory.path()]);
        let memory =
            hoist_memory::Config { budget_bytes: 256 << 10, page_bytes: 64 << 10, ..Default::default() };
        let slab = Slab::map(&memory).unwrap();
        let mut small = Small { directory, config, slab, journals: Default::default() };
        let mut store = Driver::create(&small.config, &small.slab, &[spec("a", 100, Life::Durable)]).unwrap();
        for epoch in 1..=3 {
            commit(&mut store, epoch);
        }
        drop(store);
        // After a record that was torn the store writes a new journal: the other has old records then.
        let path = journal(small.directory.path());
        let mut bytes = std::fs::read(&path).unwrap();
        let end = (1 + bytes.chunks(JOURNAL_BLOCK).rposition(|block| block[0] != 0).unwrap()) * JOURNAL_BLOCK;
        let note = NoteRecord {
            key: "torn".to_owned(),
            bytes: Some(vec![4]),
            life: Lifetime { born: 4, died: None },
        };
        let mut torn = Vec::new();
        encode_record(BatchId { number: 4, attempt: 4 }, 0, &Record::Note(note), &mut torn).unwrap();
        bytes[end..end + torn.len()].copy_from_slice(&torn);
        std::fs::write(&path, bytes).unwrap();
        let mut store = small.open().unwrap();
        for epoch in 4..=EPOCH {
            commit(&mut store, epoch);
        }
        drop(store);
        assert_ne!(journal(small.directory.path()), path);
        small.journals = ["0000.journal", "0001.journal"].map(|name| {
            let path = small.directory.path().join("manifest").join(name);
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(JOURNAL_BYTES).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            (path, bytes)
        });
        small
    }

    /// Without waiting for a drive.
    fn open(&self) -> Result<Driver, Error> {
        let power = Power::new();
        let start = |_, deliver: Deliver| {
            let (slab, power) = (Arc::clone(&self.slab), power.clone());
            let io = hoist_io::Config { backend: BackendChoice::Pread, queue_depth: 1, ..Default::default() };
            let open =
                move || Ok(Box::new(Powered::new(hoist_io::open(&io, &slab)?, &power)) as Box<dyn Backend>);
            IoThread::spawn_with("powered", open, deliver)
        };
        Driver::open_on(&self.config, &self.slab, &start)
    }
}

fn commit(store: &mut Driver, epoch: u64) {
    store.write(store.whole(0), epoch).unwrap();
    store.store.set_note("epoch", vec![epoch as u8; 9]).unwrap();
    assert_eq!(store.commit(), epoch);
}

/// The bytes that are flipped: all that are a part of a record or a preamble, and some or all of the zeros around them.
fn places(bytes: &[u8]) -> Vec<usize> {
    let all = std::env::var_os("HOIST_FLIPS").is_some();
    let mut places = Vec::new();
    for (number, block) in bytes.chunks(JOURNAL_BLOCK).enumerate() {
        let preamble_bytes = if number == 0 { PREAMBLE_BYTES } else { 0 };
        let used = block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1).max(preamble_bytes);
        let taken = |place: &usize| all || *place < used || (number + place).is_multiple_of(ZEROS_STEP);
        places.extend((0..block.len()).filter(taken).map(|place| number * JOURNAL_BLOCK + place));
    }
    places
}

/// Flips one byte after the other by a pattern.
fn flip(pattern: impl Fn(usize) -> u8) {
    let small = Small::new();
    let (mut opened, mut refused) = ([0, 0], 0);
    for (path, bytes) in &small.journals {
        for place in places(bytes) {
            for (path, bytes) in &small.journals {
                std::fs::write(path, bytes).unwrap();
            }
            let mut flipped = bytes.clone();
            flipped[place] ^= pattern(place);
            std::fs::write(path, flipped).unwrap();
            match small.open() {
                Ok(mut store) => {
                    let epoch = store.store.epoch();
                    let what = || format!("byte {place} of {}, opened at {epoch}", path.display());
                    assert!((EPOCH - 1..=EPOCH).contains(&epoch), "{}", what());
                    assert_eq!(store.store.note("epoch"), Some(&[epoch as u8; 9][..]), "{}", what());
                    assert_eq!(store.store.tensors()[0].spec, spec("a", 100, Life::Durable), "{}", what());
                    store.assert_holds(store.whole(0), epoch);
                    opened[(EPOCH - epoch) as usize] += 1;
                }
                Err(error) => {
                    assert!(names_the_directory(&error, small.directory.path()), "byte {place}: {error}");
                    refused += 1;
                }
            }
        }
    }
    println!("opened at the newest epoch and the one before: {opened:?}; refused: {refused}");
    // Flips of each kind were made: what is retired or behind the journal, the last record, all else.
    assert!(opened[0] > 0 && opened[1] > 0 && refused > 0, "{opened:?} {refused}");
}

fn names_the_directory(error: &Error, directory: &Path) -> bool {
    matches!(error, Error::Damaged { .. } | Error::NoStore { .. } | Error::OtherVersion { .. })
        && error.to_string().contains(&*directory.to_string_lossy())
}

#[test]
fn a_flipped_bit_is_found() {
    flip(|place| 1 << (place % 8));
}

#[test]
fn an_inverted_byte_is_found() {
    flip(|_| 0xff);
}
