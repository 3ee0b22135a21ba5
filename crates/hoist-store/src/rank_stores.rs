//! The stores of all ranks, seen together and only read.

mod error;
mod read;
mod reshard;
mod wholes;

pub use error::RanksError;

use crate::open::check;
use crate::{BlockingStore, Config, Error, Store, TensorSpec};
use hoist_memory::Slab;
use read::Reader;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wholes::Whole;

/// Missing ranks that an error names.
const MISSING_NAMED_MAX: usize = 16;

/// The stores of all ranks of a run at the newest epoch that all of them have, under shared locks: nothing of them
/// changes, any number of processes may read them at a time, and nobody can open one to write meanwhile.
///
/// A tensor is known by its name. It lies in shards on some ranks, which make up the whole without overlap
/// ([`crate::Shard`]), or whole on one rank or more, of which the lowest that has bytes is read.
pub struct RankStores {
    /// By rank.
    ranks: Vec<Reader>,
    epoch: u64,
    wholes: BTreeMap<String, Whole>,
}

impl RankStores {
    /// Opens the stores in the directories of each rank, in any order; blocks. Their journals are read whole; of tensors
    /// nothing is read. Of the slab, which a new store may share, half is used.
    ///
    /// # Errors
    /// Those of [`Store::open_shared`]; [`Error::Ranks`] when ranks are missing or there twice, when they are not of one
    /// run, when no epoch is common to all, or when the shards of a durable tensor do not make up the whole.
    pub fn open(
        ranks: &[Vec<PathBuf>],
        io: &hoist_io::Config,
        slab: &Arc<Slab>,
    ) -> Result<RankStores, Error> {
        if ranks.is_empty() {
            // It says that there are no directories.
            check(&Config::default())?;
        }
        let mut stores = Vec::new();
        for directories in ranks {
            let config = Config { nvme_path: directories.clone(), world_size: 0, ..Config::default() };
            let store = BlockingStore::open_shared(&config, io, slab)?;
            // What lies there would be taken for never written.
            let missing = store.store().missing();
            if !missing.is_empty() {
                let what = format!(
                    "missing are those created as {}: all of each rank are needed",
                    missing.join(", ")
                );
                return Err(Error::Directories { what });
            }
            stores.push(store);
        }
        let mut stores = in_order(stores)?;
        let epoch = newest_common(stores.iter().map(BlockingStore::store))?;
        for store in &mut stores {
            store.store.look_at(epoch)?;
        }
        check_steps(stores.iter().map(BlockingStore::store))?;
        let mut wholes = wholes::wholes(stores.iter().map(|store| store.store().tensors()))?;
        for whole in wholes.values_mut() {
            whole.choose(|rank, tensor| {
                let store = stores[rank as usize].store();
                store.has_bytes(&store.covering(tensor))
            });
        }
        Ok(RankStores { ranks: stores.into_iter().map(Reader::new).collect(), epoch, wholes })
    }

    /// How many ranks there are.
    #[must_use]
    pub fn world_size(&self) -> u32 {
        self.ranks.len() as u32
    }

    /// The newest epoch that all ranks have, which is the one that is read.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The step that has made it, on all ranks.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.ranks[0].store().newest().scalars.step
    }

    /// The store of one rank at that epoch, with its own scalars ([`Store::newest`]) and notes; `None`: there is no such
    /// rank.
    #[must_use]
    pub fn rank(&self, rank: u32) -> Option<&Store> {
        self.ranks.get(rank as usize).map(Reader::store)
    }

    /// All tensors as they are in whole, by name: shapes are those of the whole, and there are no shards. Scratch and
    /// derived ones are as the lowest rank has them.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorSpec> {
        self.wholes.values().map(|whole| &whole.spec)
    }

    /// The tensor called `name`, as it is in whole.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorSpec> {
        self.wholes.get(name).map(|whole| &whole.spec)
    }

    /// Bytes of tensors that were read from the drives so far: whole blocks of 256 KiB, or what a run's last one has.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.ranks.iter().map(|rank| rank.read_bytes).sum()
    }

    /// Closes the stores, and lets go of their locks; blocks.
    ///
    /// # Errors
    /// The first of [`Store::close`]; all are closed.
    pub fn close(self) -> Result<(), Error> {
        self.ranks.into_iter().map(Reader::close).fold(Ok(()), Result::and)
    }
}

/// A directory of a store, to name it by.
fn directory(store: &BlockingStore) -> &Path {
    store.store().directories().next().map_or(Path::new(""), |directory| directory.path)
}

/// The stores by rank; each rank of one world must be there once.
fn in_order(stores: Vec<BlockingStore>) -> Result<Vec<BlockingStore>, RanksError> {
    let (given, mut by_rank) = (stores.len(), BTreeMap::<u32, BlockingStore>::new());
    let mut world_size = None;
    for store in stores {
        let header = &store.store().header;
        let rank = header.rank;
        let (first_path, all) =
            world_size.get_or_insert_with(|| (directory(&store).to_owned(), header.world_size));
        if header.world_size != *all {
            let (first, other) = (first_path.clone(), directory(&store).to_owned());
            return Err(RanksError::WorldSizes { first, other, world_sizes: (*all, header.world_size) });
        }
        if let Some(first) = by_rank.get(&rank) {
            let (first, second) = (directory(first).to_owned(), directory(&store).to_owned());
            return Err(RanksError::Twice { rank, first, second });
        }
        by_rank.insert(rank, store);
    }
    let world_size = world_size.map_or(0, |(_, all)| all);
    let missing = (0..world_size).filter(|rank| !by_rank.contains_key(rank));
    let missing: Vec<_> = missing.take(MISSING_NAMED_MAX).collect();
    if !missing.is_empty() {
        return Err(RanksError::Missing { world_size, given, missing });
    }
    Ok(by_rank.into_values().collect())
}

/// The newest epoch that every one of the stores, which are in order, can be opened at.
fn newest_common<'a>(stores: impl Iterator<Item = &'a Store>) -> Result<u64, RanksError> {
    let epochs: Vec<_> = (0..).zip(stores.map(Store::epochs)).collect();
    let sets = epochs.iter().map(|(_, epochs)| epochs.iter().copied().collect::<BTreeSet<_>>());
    let common = sets.reduce(|all, one| &all & &one).unwrap_or_default();
    common.last().copied().ok_or(RanksError::NoCommonEpoch { epochs })
}

/// Whether the epoch that the stores show is of one step.
fn check_steps<'a>(mut stores: impl Iterator<Item = &'a Store>) -> Result<(), RanksError> {
    let Some(first) = stores.next().map(Store::newest) else { return Ok(()) };
    for (rank, store) in (1..).zip(stores) {
        let steps = (first.scalars.step, store.newest().scalars.step);
        if steps.0 != steps.1 {
            return Err(RanksError::Steps { epoch: first.number, rank, steps });
        }
    }
    Ok(())
}
