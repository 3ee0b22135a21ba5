//! What a store must hold.

use crate::common::*;
use hoist_store::*;
use std::collections::{BTreeMap, BTreeSet};

/// The seed of every block of every durable run, none where it was never written; the notes; and the trainer's step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    pub seeds: Vec<Vec<Option<u64>>>,
    pub notes: BTreeMap<String, Vec<u8>>,
    pub step: u64,
}

/// An epoch and its number.
pub type Epoch = (u64, Table);

/// What a store holds: its newest epoch, and those that it keeps under names.
#[derive(Clone)]
pub struct Held {
    pub newest: Epoch,
    pub snapshots: BTreeMap<String, Epoch>,
}

/// What may be found.
pub struct Model {
    /// What was told to be durable.
    pub durable: Held,
    /// What the commit makes of it that has begun, and was not told to be over, or failed and is not rolled back.
    pub under_way: Option<Held>,
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
        let newest = Table { seeds: DURABLE.iter().map(none).collect(), ..Table::default() };
        let durable = Held { newest: (0, newest.clone()), snapshots: BTreeMap::new() };
        Model { durable, under_way: None, newest }
    }

    pub fn write(&mut self, span: Span, seed: u64) {
        let blocks = (span.offset / BLOCK) as usize..blocks(span.end());
        self.newest.seeds[span.run.0 as usize][blocks].fill(Some(seed));
    }

    /// The commit of what is newest begins.
    pub fn begin_commit(&mut self, epoch: u64) {
        assert_eq!(epoch, self.durable.newest.0 + 1);
        self.under_way = Some(Held { newest: (epoch, self.newest.clone()), ..self.durable.clone() });
    }

    /// It was told that the commit under way is durable.
    pub fn committed(&mut self) {
        self.durable = self.under_way.take().unwrap();
    }

    /// Back to the durable epoch, by a rollback.
    pub fn roll_back(&mut self) {
        self.under_way = None;
        self.newest = self.durable.newest.1.clone();
    }

    /// The store was opened: it is one of the two that it may be.
    pub fn opened(&mut self, store: &Store) {
        if let Some(under_way) = self.under_way.take().filter(|under_way| under_way.is_at(store)) {
            self.durable = under_way;
        }
        let found = store.snapshots().map(|(name, epoch)| (name, epoch.number)).collect::<Vec<_>>();
        assert!(
            self.durable.is_at(store),
            "opened at epoch {} with {found:?}, and neither it nor that under way is durable: {}",
            store.epoch(),
            self.durable.newest.0
        );
        self.newest = self.durable.newest.1.clone();
    }
}

impl Held {
    /// Whether it is this that the store says it has.
    fn is_at(&self, store: &Store) -> bool {
        let kept = self.snapshots.iter().map(|(name, (epoch, _))| (name.as_str(), *epoch));
        store.epoch() == self.newest.0 && store.snapshots().map(|(name, epoch)| (name, epoch.number)).eq(kept)
    }
}

/// Every byte, every checksum, every note.
pub fn assert_is(store: &mut Driver, (epoch, table): &Epoch) {
    assert_eq!((store.store.epoch(), store.store.newest().scalars), (*epoch, Scalars::step(table.step)));
    let notes = store.store.notes().map(|(key, bytes)| (key.to_owned(), bytes.to_vec()));
    assert!(notes.collect::<BTreeMap<_, _>>() == table.notes, "the notes are of another epoch");
    for (run, seeds) in DURABLE.into_iter().zip(&table.seeds) {
        let whole = store.whole(run);
        for (block, seed) in seeds.iter().enumerate() {
            let block = store.store.block(&whole, block);
            match seed {
                Some(seed) => store.assert_holds(block, *seed),
                None => assert!(!store.store.has_bytes(&block), "{block} was never written"),
            }
        }
    }
}

/// All space that no epoch uses is free, and no other: each block that was written lies in one place.
pub fn assert_space(store: &Driver, held: &Held) {
    let mut used = BTreeSet::new();
    for (_, table) in held.snapshots.values().chain([&held.newest]) {
        for (run, seeds) in DURABLE.into_iter().zip(&table.seeds) {
            used.extend(seeds.iter().enumerate().filter_map(|(block, seed)| Some((run, block, (*seed)?))));
        }
    }
    let block_of = |(run, block, _)| store.store.block(&store.whole(run), block);
    let used: u64 = used.into_iter().map(|one| block_of(one).bytes.next_multiple_of(4096)).sum();
    let free: u64 = store.store.directories().map(|one| one.free_bytes).sum();
    let files = store.store.directories().flat_map(|one| std::fs::read_dir(one.path.join("data")).unwrap());
    let total: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(free + used, total, "space that nothing uses is free, and no other");
}
