//! Stores of several ranks that die at different moments, and go on at the newest epoch that all of them have.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;

use common::*;
use hoist_memory::Slab;
use hoist_store::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use tempfile::{TempDir, tempdir};

const RANKS: usize = 3;
/// A run of several blocks and a bundle.
const RUNS: [u64; 2] = [(1 << 20) + 77, 4000];

fn config_of(rank: usize, folder: &TempDir) -> Config {
    Config { rank: rank as u32, world_size: RANKS as u32, ..config(&[folder.path()]) }
}

fn recorded(store: &mut Driver) {
    match store.any_event() {
        StoreEvent::Recorded { result } => result.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// What a rank writes for an epoch in a run: other bytes than the others, and than for any other attempt at it.
fn seed(rank: usize, epoch: u64, life: u64) -> u64 {
    epoch << 16 | life << 8 | rank as u64
}

struct World {
    folders: Vec<TempDir>,
    slab: Arc<Slab>,
    /// The attempt in which each epoch was made.
    lives: Vec<u64>,
    life: u64,
}

impl World {
    fn new() -> World {
        let (folders, slab): (Vec<_>, _) = ((0..RANKS).map(|_| tempdir().unwrap()).collect(), slab());
        let specs: Vec<_> =
            RUNS.iter().enumerate().map(|(n, bytes)| spec(&n.to_string(), *bytes, Life::Durable)).collect();
        for (rank, folder) in folders.iter().enumerate() {
            Driver::create(&config_of(rank, folder), &slab, &specs).unwrap().store.close().unwrap();
        }
        World { folders, slab, lives: vec![0], life: 0 }
    }

    fn open(&self, rank: usize, epoch: Option<u64>) -> Result<Driver, Error> {
        Driver::open(&Config { epoch, ..config_of(rank, &self.folders[rank]) }, &self.slab)
    }

    fn check(&self, rank: usize, store: &mut Driver) {
        let epoch = store.store.epoch();
        for run in 0..RUNS.len() as u32 {
            let whole = store.whole(run);
            if epoch > 0 {
                store.assert_holds(whole, seed(rank, epoch, self.lives[epoch as usize]));
            } else {
                assert!(!store.store.has_bytes(&whole));
            }
        }
        assert_eq!(store.store.newest().scalars.step, epoch * 10);
    }

    /// Trains until the ranks die: in an epoch of which `committed` of them have made the commit, and `finalized` of them
    /// have heard that all did.
    fn train(&mut self, epochs: u64, committed: usize, finalized: usize) {
        let common = (0..RANKS).map(|rank| self.open(rank, None).unwrap().store.epochs());
        let common = common.map(|epochs| epochs.into_iter().collect::<BTreeSet<_>>());
        let common =
            *common.reduce(|all, one| all.intersection(&one).copied().collect()).unwrap().last().unwrap();
        let mut stores: Vec<_> = (0..RANKS).map(|rank| self.open(rank, Some(common)).unwrap()).collect();
        self.life += 1;
        for (rank, store) in stores.iter_mut().enumerate() {
            assert_eq!(store.store.epoch(), common);
            self.check(rank, store);
            if store.store.finalize(common).unwrap() {
                recorded(store);
            }
        }
        for epoch in common + 1..=common + epochs {
            let last = epoch == common + epochs;
            self.lives.truncate(epoch as usize);
            self.lives.push(self.life);
            for (rank, store) in stores.iter_mut().enumerate() {
                for run in 0..RUNS.len() as u32 {
                    store.write(store.whole(run), seed(rank, epoch, self.life)).unwrap();
                }
                if last && rank >= committed {
                    continue;
                }
                store.store.commit(&Scalars::step(epoch * 10)).unwrap();
                assert_eq!(store.wait_for_commit(), epoch);
                assert_eq!(store.store.epochs(), [epoch - 1, epoch]);
                // The next one waits until all have this one.
                assert!(matches!(store.store.commit(&Scalars::default()), Err(Error::NotYet { .. })));
            }
            let all = !last || committed == RANKS;
            for store in stores.iter_mut().take(if all { if last { finalized } else { RANKS } } else { 0 }) {
                assert!(store.store.finalize(epoch).unwrap());
                recorded(store);
                assert_eq!(store.store.epochs(), [epoch]);
                assert!(!store.store.finalize(epoch).unwrap(), "it is final");
            }
        }
        for store in stores {
            drop(store);
        }
    }
}

proptest! {
    // Each case makes three stores: files, zeros, syncs.
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn all_ranks_go_on_at_one_epoch(lives in prop::collection::vec((1..4u64, 0..=RANKS, 0..=RANKS), 1..7)) {
        let mut world = World::new();
        for (epochs, committed, finalized) in lives {
            world.train(epochs, committed, finalized);
        }
        // Whatever was kept for a while is free again: an epoch and its successor fit.
        world.train(3, RANKS, RANKS);
        for (rank, folder) in world.folders.iter().enumerate() {
            let mut store = world.open(rank, None).unwrap();
            world.check(rank, &mut store);
            let space = store.store.space();
            prop_assert_eq!(space.snapshot_bytes + space.passing_bytes, 0, "{}", folder.path().display());
        }
    }
}

#[test]
fn another_ranks_store_and_an_epoch_that_is_none_are_refused() {
    let mut world = World::new();
    world.train(2, RANKS, RANKS);
    let wrong = Config { rank: 1, ..config_of(0, &world.folders[0]) };
    let error = Driver::open(&wrong, &world.slab).err().unwrap();
    assert!(matches!(error, Error::Rank { found: (0, 3), asked: (1, 3) }), "{error}");
    let error = world.open(0, Some(1)).err().unwrap().to_string();
    assert!(error.contains("no epoch 1 any more") && error.contains("opened at 2"), "{error}");
    let tool = Config { world_size: 0, ..config(&[world.folders[2].path()]) };
    world.check(2, &mut Driver::open(&tool, &world.slab).unwrap());
    let none = Config { rank: 3, ..config_of(0, &world.folders[0]) };
    assert!(Driver::open(&none, &world.slab).err().unwrap().to_string().contains("rank 3 of 3"));
}
