//! A new rank's store, filled from those of other ranks.

use super::read::Written;
use super::wholes::same;
use super::{RankStores, RanksError};
use crate::{BlockingStore, Config, Error, Life, RunId, RunInfo, Span, TensorId, TensorSpec};
use hoist_format::LifeKind;
use hoist_memory::{Slab, Slot};
use std::sync::Arc;

/// Bytes of a run that are read from the old stores.
struct Filled<'a> {
    name: &'a str,
    /// Where they start and end in the run.
    offset: u64,
    end: u64,
    /// Where they start in the whole tensor.
    start: u64,
}

impl RankStores {
    /// Makes the store of rank `config.rank` of `config.world_size` from these ones, however many: `tensors` are the new
    /// rank's, with its shards of them. A durable tensor whose name is in the old stores, durable there too, gets its bytes,
    /// of which no more is read than the blocks of 256 KiB that they lie in. One that is new, or was never written, stays
    /// without bytes, or is zeros where it travels with others that have some; scratch and derived ones are only declared.
    ///
    /// All is committed as the store's first epoch, number 1, with the step of the old ones, and with the scalars and notes of
    /// the old rank of the same number, or of rank 0 where there was none. With several ranks it is final when the trainer
    /// says so, as any epoch ([`crate::Store::finalize`]): when all ranks have their stores. At durability `none` and
    /// `snapshot` it is made when the store is closed.
    ///
    /// `slab` may be the one that these stores use: each side takes half of it.
    ///
    /// # Errors
    /// [`Error::Ranks`] when a tensor has another dtype, whole shape or class than in the old stores, or was written in
    /// parts, before anything is made. Those of [`crate::Store::create`] and [`RankStores::read`]; what was made is removed.
    pub fn reshard(
        &mut self,
        config: &Config,
        io: &hoist_io::Config,
        slab: &Arc<Slab>,
        tensors: &[TensorSpec],
    ) -> Result<BlockingStore, Error> {
        let filled = tensors.iter().map(|spec| self.is_filled(spec)).collect::<Result<Vec<_>, _>>()?;
        let mut store = BlockingStore::create(config, io, slab, tensors)?;
        store.share_slab();
        match self.fill(&mut store, config.rank, (tensors, &filled)) {
            Ok(()) => Ok(store),
            Err(error) => {
                store.discard();
                Err(error)
            }
        }
    }

    /// Whether the old stores have bytes for a tensor of the new one.
    fn is_filled(&self, spec: &TensorSpec) -> Result<bool, RanksError> {
        let durable = |spec: &TensorSpec| spec.life == Life::Durable;
        let Some(whole) = self.wholes.get(&spec.name).filter(|whole| durable(&whole.spec) && durable(spec))
        else {
            return Ok(false);
        };
        same(&whole.spec, spec, ("the old stores", "the new one"))?;
        // What cannot be created is told of when it is.
        let (Some(bytes), Some(bits)) = (spec.bytes(), spec.start().checked_mul(spec.dtype.bits())) else {
            return Ok(false);
        };
        let from = bits / 8;
        let element = |byte: u64| byte.saturating_mul(8) / spec.dtype.bits();
        let to = from.saturating_add(bytes);
        match self.written(whole, from, to) {
            Written::All => Ok(true),
            Written::None => Ok(false),
            Written::Some => {
                let (tensor, from, to) = (spec.name.clone(), element(from), element(to));
                Err(RanksError::Partial { tensor, from, to })
            }
        }
    }

    fn fill(
        &mut self,
        store: &mut BlockingStore,
        rank: u32,
        (specs, filled): (&[TensorSpec], &[bool]),
    ) -> Result<(), Error> {
        for run in 0..store.store().runs().len() {
            let info = &store.store().runs()[run];
            let ranges = ranges(store, info, (specs, filled));
            if info.life != LifeKind::Durable || ranges.is_empty() {
                continue;
            }
            let (bytes, is_covered) = (info.bytes, info.tensors.len() == 1);
            let span = Span { run: RunId(run as u32), offset: 0, bytes };
            store.write(span, |offset, slot| {
                if !is_covered {
                    slot.parts_mut().for_each(|part| part.fill(0));
                }
                self.fill_slot(slot, offset, &ranges)
            })?;
        }
        let old = self.rank(rank).or(self.rank(0));
        let Some(old) = old else { unreachable!("there is no world without a rank 0") };
        for (key, bytes) in old.notes() {
            store.set_note(key, bytes.to_vec())?;
        }
        store.commit_with(&old.newest().scalars).map(drop)
    }

    /// Reads what of the ranges lies in the slot, which starts at `offset` of the run.
    fn fill_slot(&mut self, slot: &mut Slot, offset: u64, ranges: &[Filled<'_>]) -> Result<(), Error> {
        let slot_end = offset + slot.bytes();
        let first = ranges.partition_point(|range| range.end <= offset);
        for range in ranges[first..].iter().take_while(|range| range.offset < slot_end) {
            let (from, to) = (range.offset.max(offset), range.end.min(slot_end));
            let skipped = range.start + from - range.offset;
            let mut at = from - offset;
            self.read_bytes_of(range.name, skipped, skipped + to - from, &mut |part| {
                slot.put(at, part);
                at += part.len() as u64;
            })?;
        }
        Ok(())
    }
}

/// What of a run is filled, in order.
fn ranges<'a>(
    store: &BlockingStore,
    run: &RunInfo,
    (specs, filled): (&'a [TensorSpec], &[bool]),
) -> Vec<Filled<'a>> {
    let range = |id: &TensorId| {
        // The new store has its tensors in the order in which they were given.
        let (info, spec) = (&store.store().tensors()[id.0 as usize], &specs[id.0 as usize]);
        let (offset, end) = (info.offset, info.offset + info.bytes);
        Filled { name: &spec.name, offset, end, start: spec.start() * spec.dtype.bits() / 8 }
    };
    run.tensors
        .iter()
        .filter(|id| filled[id.0 as usize])
        .map(range)
        .filter(|range| range.offset < range.end)
        .collect()
}
