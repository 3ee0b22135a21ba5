//! What a store must hold.

use crate::common::*;
use hoist_store::*;
use std::collections::BTreeMap;

/// The seed of every block of every durable run, none where it was never written; and the notes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    pub seeds: Vec<Vec<Option<u64>>>,
    pub notes: BTreeMap<String, Vec<u8>>,
}

/// What may be found.
pub struct Model {
    /// The last epoch that was told to be durable.
    pub durable: (u64, Table),
    /// The one whose commit has begun, and was not told to be over, or failed and is not rolled back.
    pub under_way: Option<(u64, Table)>,
    /// With what belongs to the next epoch.
    pub newest: Table,
}

/// A small bundle, and shards of which several segments, directories and blocks have parts.
pub fn tensors() -> Vec<TensorSpec> {
    vec![
        spec("small.0", 4700, Life::Durable),
        spec("large.0", (5 << 19) + 1, Life::Durable),
        spec("small.1", 300, Life::Durable),
        spec("large.1", 5 * BLOCK - 4095, Life::Durable),
        spec("scratch", (1 << 20) + 1, Life::Scratch),
    ]
}

/// The durable runs that these make, and the other one.
pub const DURABLE: [u32; 3] = [0, 1, 2];
pub const SCRATCH: u32 = 3;

impl Model {
    /// A new store.
    pub fn new(store: &Store) -> Model {
        let none = |run: &u32| vec![None; blocks(store.runs()[*run as usize].bytes)];
        let table = Table { seeds: DURABLE.iter().map(none).collect(), notes: BTreeMap::new() };
        Model { durable: (0, table.clone()), under_way: None, newest: table }
    }

    pub fn write(&mut self, span: Span, seed: u64) {
        let blocks = (span.offset / BLOCK) as usize..blocks(span.end());
        self.newest.seeds[span.run.0 as usize][blocks].fill(Some(seed));
    }

    /// The commit of what is newest begins.
    pub fn begin_commit(&mut self, epoch: u64) {
        assert_eq!(epoch, self.durable.0 + 1);
        self.under_way = Some((epoch, self.newest.clone()));
    }

    /// It was told that the commit under way is durable.
    pub fn committed(&mut self, epoch: u64) {
        let durable = self.under_way.take().unwrap();
        assert_eq!(epoch, durable.0);
        self.durable = durable;
    }

    /// Back to the durable epoch, by a rollback.
    pub fn roll_back(&mut self) {
        self.under_way = None;
        self.newest = self.durable.1.clone();
    }

    /// The store was opened at an epoch: one of the two that it may be.
    pub fn opened(&mut self, epoch: u64) {
        if let Some(under_way) = self.under_way.take().filter(|(under_way, _)| *under_way == epoch) {
            self.durable = under_way;
        }
        assert_eq!(epoch, self.durable.0, "opened at another epoch than the durable one or that under way");
        self.newest = self.durable.1.clone();
    }
}

/// Every byte, every checksum, every note, and all space that nothing uses.
pub fn assert_is(store: &mut Driver, table: &Table) {
    let notes = store.store.notes().map(|(key, bytes)| (key.to_owned(), bytes.to_vec()));
    assert!(notes.collect::<BTreeMap<_, _>>() == table.notes, "the notes are of another epoch");
    let mut used = 0;
    for (run, seeds) in DURABLE.into_iter().zip(&table.seeds) {
        let whole = store.whole(run);
        for (block, seed) in seeds.iter().enumerate() {
            let block = store.store.block(&whole, block);
            match seed {
                Some(seed) => store.assert_holds(block, *seed),
                None => assert!(!store.store.has_bytes(&block), "{block} was never written"),
            }
            used += seed.map_or(0, |_| block.bytes.next_multiple_of(4096));
        }
    }
    let free: u64 = store.store.directories().map(|one| one.free_bytes).sum();
    let files = store.store.directories().flat_map(|one| std::fs::read_dir(one.path.join("data")).unwrap());
    let total: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(free + used, total, "space that nothing uses is free, and no other");
}
