//! Ranks: going on at another number of them, and what waits until an epoch is final on all: the commit after it, and writes
//! for which the epoch before it has the space.

use std::path::PathBuf;

use hoist_memory::Slab;
use hoist_plan::{RequestId, UnitId};
use hoist_store::{Error as StoreError, RankStores, TensorSpec};

use crate::config::Config;
use crate::engine::Engine;
use crate::error::Error;
use crate::pipeline::Pipeline;

/// What waits for an epoch to be final.
#[derive(Default)]
pub(crate) struct UntilFinal {
    /// The epoch that is to be made durable.
    unpublished: Option<u64>,
    /// Writes that found no space, and what the store said.
    writes: Vec<(RequestId, UnitId, StoreError)>,
}

impl Engine {
    /// Goes on at another number of ranks: makes the store of rank `config.store.rank` of `config.store.world_size` from
    /// those of all ranks there were, and an engine on it. `from` are the directories of each old rank, in any order;
    /// their stores are only read, beside the other new ranks that read them, at the newest epoch that all have.
    /// `tensors` are this rank's, with its shards of them ([`crate::Shard`]), of which alone the bytes are read. The
    /// engine is at epoch 1, with the step of the old ranks and the scalars and notes of the old rank of this number, or
    /// of rank 0; with several ranks that epoch is final when all have it ([`Engine::finalize`]).
    ///
    /// ```no_run
    /// # fn main() -> Result<(), hoist::Error> {
    /// use hoist::{Class, Config, Dtype, Engine, Life, Shard, TensorSpec};
    ///
    /// // Two ranks have trained; this is the last of three, with the last third of the rows.
    /// let old = [vec!["/nvme/old/rank0".into()], vec!["/nvme/old/rank1".into()]];
    /// let mut config = Config::new("/nvme/new/rank2", 512 << 20, 128 << 20);
    /// (config.store.rank, config.store.world_size) = (2, 3);
    /// let rows = TensorSpec {
    ///     name: "layer.0.weight".into(),
    ///     dtype: Dtype::F32,
    ///     shape: vec![1366, 1024],
    ///     class: Class::Parameter,
    ///     life: Life::Durable,
    ///     group: "layer.0".into(),
    ///     shard: Some(Box::new(Shard { shape: vec![4096, 1024], start: 2730 * 1024 })),
    /// };
    /// let engine = Engine::reshard(config, &old, &[rows])?;
    /// let step = engine.opened_at().scalars.step;
    /// // When all new ranks are here, by a barrier of the trainer's:
    /// engine.finalize(1)?;
    /// # let _ = step;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`Engine::create`], [`RankStores::open`] and [`RankStores::reshard`]: [`Error::Store`] says which ranks are
    /// missing, or what does not fit. A new store that could not be filled is removed.
    pub fn reshard(config: Config, from: &[Vec<PathBuf>], tensors: &[TensorSpec]) -> Result<Engine, Error> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(Error::Config(problems));
        }
        crate::cast::check(tensors.iter())?;
        {
            // Gone before the engine takes its own.
            let slab = Slab::map(&config.host)?;
            let mut old = RankStores::open(from, &config.io, &slab)?;
            old.reshard(&config.store, &config.io, &slab, tensors)?.close()?;
            old.close()?;
        }
        Engine::open(config)
    }
}

impl Pipeline {
    /// All ranks have this epoch: the one before it is kept no more, and what waited for that goes on.
    pub(crate) fn finalize(&mut self, epoch: u64) -> Result<(), Error> {
        self.usable()?;
        let mut recorded = false;
        self.keep_record(|store| {
            recorded = store.finalize(epoch)?;
            Ok(recorded)
        })?;
        let UntilFinal { unpublished, writes } = std::mem::take(&mut self.until_final);
        for (request, unit, _) in writes {
            self.write(request, unit);
        }
        if let Some(epoch) = unpublished {
            self.publish(epoch);
        }
        self.decide();
        Ok(())
    }

    /// Whether the epoch must wait; it is published when the one before it is final.
    pub(crate) fn publish_later(&mut self, epoch: u64) -> bool {
        let later = self.store.commits() && self.store.awaits_final();
        if later {
            self.until_final.unpublished = Some(epoch);
        }
        later
    }

    /// A write that found no space is made again when the epoch is final that has it; any other is over.
    pub(crate) fn refused(&mut self, request: RequestId, unit: UnitId, sums: Vec<u64>, error: StoreError) {
        if matches!(error, StoreError::NoSpace { .. }) && self.store.awaits_final() {
            self.sums.insert(unit, sums);
            self.until_final.writes.push((request, unit, error));
        } else {
            self.not_written(request, error);
        }
    }

    /// Whether what is under way can only end when the newest epoch is said to be final.
    pub(crate) fn waits_for_final(&self) -> bool {
        self.until_final.unpublished.is_some() || !self.until_final.writes.is_empty()
    }

    /// Nobody can say so while this call waits.
    pub(crate) fn not_until_final(&self, call: &'static str) -> Result<(), Error> {
        let rule = "waits for a commit that waits until the epoch before it is final: finalize that first";
        if self.waits_for_final() { Err(Error::Step { call, rule }) } else { Ok(()) }
    }

    /// What waited is given up: its epoch is lost.
    pub(crate) fn give_up_final(&mut self) {
        for (request, unit, error) in std::mem::take(&mut self.until_final).writes {
            self.sums.remove(&unit);
            self.not_written(request, error);
        }
    }
}
