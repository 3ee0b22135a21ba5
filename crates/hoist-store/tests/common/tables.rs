//! What a store holds, as a table of seeds, and whether it does.
#![allow(dead_code, reason = "each test file uses a part of it")]

use super::common::*;
use hoist_store::*;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of the durable runs: a bundle, one that several directories share, and one whose last block is cut.
pub const RUNS: [u64; 3] = [5000, (2 << 20) + 1, 5 * BLOCK - 4095];

/// The seed of every block of every run, none when it was never written; of the note; and of the step.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub blocks: Vec<Vec<Option<u64>>>,
    pub note: Option<u64>,
    pub step: u64,
}

impl Table {
    pub fn empty() -> Table {
        Table { blocks: RUNS.iter().map(|bytes| vec![None; blocks(*bytes)]).collect(), note: None, step: 0 }
    }

    /// Says that a span has the bytes of a seed, or none.
    pub fn set(&mut self, span: &Span, seed: Option<u64>) {
        for block in span.offset / BLOCK..span.end().div_ceil(BLOCK) {
            self.blocks[span.run.0 as usize][block as usize] = seed;
        }
    }

    /// The blocks that were written.
    pub fn written(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        let runs = self.blocks.iter().enumerate();
        runs.flat_map(|(run, seeds)| {
            let written = seeds.iter().enumerate().filter_map(|(block, seed)| Some((block, (*seed)?)));
            written.map(move |(block, seed)| (run, block, seed))
        })
    }
}

/// The specs of the runs.
pub fn specs() -> Vec<TensorSpec> {
    RUNS.iter().enumerate().map(|(n, bytes)| spec(&n.to_string(), *bytes, Life::Durable)).collect()
}

/// As many blocks of a run from one on as it has.
pub fn blocks_from(run: usize, first: u64, blocks: u64) -> Span {
    let offset = (first * BLOCK).min((RUNS[run] - 1) / BLOCK * BLOCK);
    span(run as u32, offset, (blocks * BLOCK).min(RUNS[run] - offset))
}

/// So long that a few of them fill a journal, which is written anew then.
pub fn note(seed: u64) -> Vec<u8> {
    seed.to_le_bytes().repeat(40_000)
}

pub fn check(store: &mut Driver, table: &Table) {
    for (run, seeds) in table.blocks.iter().enumerate() {
        for (block, seed) in seeds.iter().enumerate() {
            let span = blocks_from(run, block as u64, 1);
            match seed {
                Some(seed) => store.assert_holds(span, *seed),
                None => assert!(!store.store.has_bytes(&span), "{span} was never written"),
            }
        }
    }
    assert!(store.store.note("seed") == table.note.map(note).as_deref(), "the note of {:?}", table.note);
}

/// What a block takes.
pub fn occupied((run, block): (usize, usize)) -> u64 {
    blocks_from(run, block as u64, 1).bytes.next_multiple_of(4096)
}

/// All space that no epoch uses is free, and no block is kept twice.
pub fn check_space(store: &Driver, snapshots: &BTreeMap<String, Table>, others: &[&Table]) {
    let tables = snapshots.values().chain(others.iter().copied());
    let used: BTreeSet<_> = tables.flat_map(Table::written).collect();
    let used: u64 = used.into_iter().map(|(run, block, _)| occupied((run, block))).sum();
    let free: u64 = store.store.directories().map(|one| one.free_bytes).sum();
    let files = store.store.directories().flat_map(|one| std::fs::read_dir(one.path.join("data")).unwrap());
    let total: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(total - free, used);
    let space = store.store.space();
    assert_eq!((space.total_bytes, space.free_bytes), (total, free));
    assert_eq!(
        space.total_bytes,
        space.free_bytes + space.newest_bytes + space.snapshot_bytes + space.passing_bytes
    );
}

/// Whether the record that was asked for came to be.
pub fn wait(store: &mut Driver) -> bool {
    match store.any_event() {
        StoreEvent::Committed { result, .. } | StoreEvent::Recorded { result } => result.is_ok(),
        other => panic!("{other:?}"),
    }
}
