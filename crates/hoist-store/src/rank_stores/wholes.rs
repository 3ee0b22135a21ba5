//! Which rank has what of which tensor. Pure: specs in, places out.

use super::RanksError;
use crate::{Life, Span, TensorId, TensorInfo, TensorSpec};
use hoist_format::CHECKSUM_BYTES;
use std::collections::BTreeMap;

/// Bytes of a whole tensor that one rank has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub rank: u32,
    pub tensor: TensorId,
    /// Where they start and end in the whole, in bytes.
    pub from: u64,
    pub to: u64,
}

/// A tensor as all ranks together have it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    /// With the whole's shape, and no shard.
    pub spec: TensorSpec,
    /// In order, without a gap, if it is durable. Of replicas one: see [`Whole::choose`].
    pub parts: Vec<Part>,
    /// What other ranks have where each has all of it.
    replicas: Vec<Part>,
    /// Whether its ranks have shards of it, or all of it each.
    is_sharded: bool,
}

impl Whole {
    fn new(rank: u32, tensor: TensorId, info: &TensorInfo) -> Whole {
        let TensorInfo { spec, .. } = info;
        let shape = spec.whole_shape().to_vec();
        let parts = vec![part(rank, tensor, info)];
        Whole {
            spec: TensorSpec { shape, shard: None, ..spec.clone() },
            parts,
            is_sharded: spec.shard.is_some(),
            replicas: Vec::new(),
        }
    }

    /// Of replicas, one that was written: the first that `has_bytes`.
    pub fn choose(&mut self, has_bytes: impl Fn(u32, TensorId) -> bool) {
        let mut all = self.parts.iter().chain(&self.replicas);
        if !self.is_sharded
            && let Some(written) = all.find(|part| has_bytes(part.rank, part.tensor)).copied()
        {
            self.parts = vec![written];
        }
    }

    /// What one more rank has of it.
    fn add(&mut self, rank: u32, tensor: TensorId, info: &TensorInfo) -> Result<(), RanksError> {
        let TensorInfo { spec, .. } = info;
        if self.spec.life != Life::Durable && spec.life != Life::Durable {
            // Nobody reads it, and each rank may have its own: activations are as long as its batch.
            return Ok(());
        }
        let first = self.parts[0].rank;
        same(&self.spec, spec, (&format!("rank {first}"), &format!("rank {rank}")))?;
        match (self.is_sharded, spec.shard.is_some()) {
            (false, false) => self.replicas.push(part(rank, tensor, info)),
            (true, true) => self.parts.push(part(rank, tensor, info)),
            (is_sharded, _) => {
                let (shard, all) = if is_sharded { (first, rank) } else { (rank, first) };
                let what = format!("rank {shard} has a shard of it, and rank {all} all of it");
                return Err(RanksError::Differs { tensor: spec.name.clone(), what });
            }
        }
        Ok(())
    }

    /// Puts the parts in order; they must be all of it.
    fn close(&mut self) -> Result<(), RanksError> {
        if self.spec.life != Life::Durable {
            return Ok(());
        }
        let element = |byte: u64| byte * 8 / self.spec.dtype.bits();
        let tensor = || self.spec.name.clone();
        let bytes = self.spec.bytes().unwrap_or(0);
        self.parts.sort_unstable_by_key(|part| (part.from, part.to));
        self.parts.retain(|part| part.from < part.to);
        let (mut at, mut before) = (0, 0);
        for part in &self.parts {
            if part.from > at {
                return Err(RanksError::Gap { tensor: tensor(), from: element(at), to: element(part.from) });
            }
            if part.from < at {
                let (element, ranks) = (element(part.from), (before, part.rank));
                return Err(RanksError::Overlap { tensor: tensor(), element, ranks });
            }
            (at, before) = (part.to, part.rank);
        }
        if at < bytes {
            return Err(RanksError::Gap { tensor: tensor(), from: element(at), to: element(bytes) });
        }
        Ok(())
    }

    /// The parts with bytes in `from..to` of the whole, each with its range of them.
    pub fn parts_in(&self, from: u64, to: u64) -> impl Iterator<Item = (Part, u64, u64)> {
        let first = self.parts.partition_point(|part| part.to <= from);
        let parts = self.parts[first..].iter().take_while(move |part| part.from < to);
        parts.map(move |part| (*part, part.from.max(from), part.to.min(to))).filter(|(_, from, to)| from < to)
    }
}

fn part(rank: u32, tensor: TensorId, info: &TensorInfo) -> Part {
    // Shards have been checked when they were created or loaded: they begin with a byte, and end within the whole.
    let from = info.spec.start() * info.spec.dtype.bits() / 8;
    Part { rank, tensor, from, to: from + info.bytes }
}

/// Whether two specs, whose stores have these names, are of the same whole tensor.
pub(crate) fn same(a: &TensorSpec, b: &TensorSpec, (in_a, in_b): (&str, &str)) -> Result<(), RanksError> {
    let what = if a.dtype != b.dtype {
        format!("its elements are {} in {in_a}, and {} in {in_b}", a.dtype, b.dtype)
    } else if a.whole_shape() != b.whole_shape() {
        format!("its whole shape is {:?} in {in_a}, and {:?} in {in_b}", a.whole_shape(), b.whole_shape())
    } else if a.class != b.class {
        format!("its class is {} in {in_a}, and {} in {in_b}", a.class.name(), b.class.name())
    } else if a.life != b.life {
        format!("it is {} in {in_a}, and {} in {in_b}", a.life.kind().name(), b.life.kind().name())
    } else {
        return Ok(());
    };
    Err(RanksError::Differs { tensor: b.name.clone(), what })
}

/// All tensors of all ranks, by name; `ranks` are in order.
pub(crate) fn wholes<'a>(
    ranks: impl Iterator<Item = &'a [TensorInfo]>,
) -> Result<BTreeMap<String, Whole>, RanksError> {
    let mut wholes: BTreeMap<String, Whole> = BTreeMap::new();
    for (rank, infos) in (0..).zip(ranks) {
        for (tensor, info) in (0..).map(TensorId).zip(infos) {
            match wholes.get_mut(&info.spec.name) {
                Some(whole) => whole.add(rank, tensor, info)?,
                None => drop(wholes.insert(info.spec.name.clone(), Whole::new(rank, tensor, info))),
            }
        }
    }
    wholes.values_mut().try_for_each(Whole::close)?;
    Ok(wholes)
}

/// The blocks that hold `from..to` of a tensor, in a run of `run_bytes`.
pub(crate) fn blocks_with(info: &TensorInfo, run_bytes: u64, from: u64, to: u64) -> Span {
    let (from, to) = (info.offset + from, info.offset + to);
    let offset = from - from % CHECKSUM_BYTES;
    Span { run: info.run, offset, bytes: to.next_multiple_of(CHECKSUM_BYTES).min(run_bytes) - offset }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RunId, Shard};
    use hoist_format::{Class, Dtype};

    /// A tensor of 12 elements of two bytes each, or of them those in a range.
    fn info(shard: Option<(u64, u64)>) -> TensorInfo {
        let (shape, shard) = match shard {
            None => (vec![3, 4], None),
            Some((from, to)) => (vec![to - from], Some(Box::new(Shard { shape: vec![3, 4], start: from }))),
        };
        let bytes = 2 * shape.iter().product::<u64>();
        let (class, life) = (Class::Parameter, Life::Durable);
        let (name, group) = ("t".to_owned(), String::new());
        let spec = TensorSpec { name, dtype: Dtype::BF16, shape, class, life, group, shard };
        TensorInfo { spec, run: RunId(0), offset: 0, bytes }
    }

    fn whole(ranks: &[TensorInfo]) -> Result<Whole, RanksError> {
        let mut all = wholes(ranks.iter().map(std::slice::from_ref))?;
        Ok(all.remove("t").unwrap())
    }

    fn shards(ranges: &[(u64, u64)]) -> Result<Whole, RanksError> {
        whole(&ranges.iter().map(|range| info(Some(*range))).collect::<Vec<_>>())
    }

    #[test]
    fn shards_in_any_order_are_a_whole() {
        let found = shards(&[(5, 12), (5, 5), (0, 5)]).unwrap();
        assert_eq!(found.spec, info(None).spec);
        let parts: Vec<_> = found.parts_in(8, 24).map(|(part, from, to)| (part.rank, from, to)).collect();
        assert_eq!(parts, [(2, 8, 10), (0, 10, 24)]);
        assert_eq!(found.parts_in(0, 10).count(), 1);
        assert_eq!(found.parts_in(10, 10).count(), 0);
        // Of replicas the first is read.
        let parts: Vec<_> = whole(&[info(None), info(None)]).unwrap().parts;
        assert_eq!(parts, [Part { rank: 0, tensor: TensorId(0), from: 0, to: 24 }]);
    }

    #[test]
    fn what_is_missing_or_there_twice_is_named() {
        let gap = |from, to| Err(RanksError::Gap { tensor: "t".into(), from, to });
        assert_eq!(shards(&[(0, 5), (6, 12)]), gap(5, 6));
        assert_eq!(shards(&[(1, 12)]), gap(0, 1));
        assert_eq!(shards(&[(0, 5), (5, 11)]), gap(11, 12));
        assert_eq!(shards(&[(5, 5)]), gap(0, 12));
        let overlap = Err(RanksError::Overlap { tensor: "t".into(), element: 5, ranks: (1, 0) });
        assert_eq!(shards(&[(5, 12), (0, 6)]), overlap);
    }

    #[test]
    fn ranks_that_differ_are_named() {
        let differs = |change: &dyn Fn(&mut TensorSpec), what: &str| {
            let mut other = info(None);
            change(&mut other.spec);
            let error = whole(&[info(None), other]).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("rank 1"), "{error}");
        };
        differs(&|spec| spec.dtype = Dtype::F16, "BF16 in rank 0, and F16 in rank 1");
        differs(&|spec| spec.shape = vec![4, 3], "[4, 3]");
        differs(&|spec| spec.class = Class::Gradient, "gradient");
        differs(&|spec| spec.life = Life::Scratch, "scratch");
        differs(&|spec| *spec = info(Some((0, 3))).spec, "rank 1 has a shard of it, and rank 0 all of it");
        let mut scratch = [info(None), info(None)];
        scratch.iter_mut().for_each(|info| info.spec.life = Life::Scratch);
        scratch[1].spec.shape = vec![77];
        assert_eq!(whole(&scratch).unwrap().spec.shape, [3, 4]);
    }
}
