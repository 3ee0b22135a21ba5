//! Units: where runs are cut for the orders that are declared, and what an access is in units.

use std::collections::BTreeSet;

use hoist_plan::{AccessSpec, Kind, Mode, Tier, UnitId, UnitSpec, UnitUse};
use hoist_store::{CHECKSUM_BYTES, Life, LifeKind, RunId, Span, Store, TensorId, TensorInfo};

use crate::error::Error;
use crate::order::{Access, Order, TensorUse};

/// All units of the store's runs. Large shards are cut where an order cuts them; a bundle is one.
pub(crate) struct Units {
    pub(crate) spans: Vec<Span>,
    /// First unit of each run, and one past the last run's.
    firsts: Vec<u32>,
}

/// Where the bytes of one use are, in the holds of its lease.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) hold: usize,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// An access in units: what its lease will hold, and where each use's bytes are in that.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) tier: Tier,
    /// In order of unit; mutable or not.
    pub(crate) holds: Vec<(UnitId, bool)>,
    /// Parts of each use, in order of its bytes; they lie in neighbouring holds.
    pub(crate) uses: Vec<Vec<Part>>,
    /// Whether each use may be written.
    pub(crate) writes: Vec<bool>,
    pub(crate) writes_durable: bool,
    pub(crate) spec: AccessSpec,
}

impl Units {
    /// Cuts the runs at every edge of every use.
    pub(crate) fn cut(store: &Store, orders: &[Order]) -> Units {
        let mut edges: Vec<BTreeSet<u64>> = vec![BTreeSet::new(); store.runs().len()];
        for one in orders.iter().flat_map(|order| &order.accesses).flat_map(|access| &access.uses) {
            let tensor = &store.tensors()[one.tensor.0 as usize];
            let run = &store.runs()[tensor.run.0 as usize];
            // A bundle is tiled whole.
            if run.tensors.len() == 1 {
                edges[tensor.run.0 as usize].extend([one.bytes.start, one.bytes.end]);
            }
        }
        let mut units = Units { spans: Vec::new(), firsts: Vec::new() };
        for (index, run) in store.runs().iter().enumerate() {
            units.firsts.push(units.spans.len() as u32);
            edges[index].extend([0, run.bytes]);
            let edges: Vec<u64> = edges[index].iter().copied().collect();
            for edge in edges.windows(2) {
                let bytes = edge[1] - edge[0];
                units.spans.push(Span { run: RunId(index as u32), offset: edge[0], bytes });
            }
        }
        units.firsts.push(units.spans.len() as u32);
        units
    }

    pub(crate) fn count(&self) -> usize {
        self.spans.len()
    }

    /// The units that hold these bytes of a run.
    fn covering(&self, run: RunId, from: u64, to: u64) -> impl Iterator<Item = UnitId> + '_ {
        let (first, last) = (self.firsts[run.0 as usize], self.firsts[run.0 as usize + 1]);
        (first..last).map(UnitId).filter(move |unit| {
            let span = &self.spans[unit.0 as usize];
            from < to && span.offset < to && span.end() > from
        })
    }

    /// What the plan must know of each unit.
    pub(crate) fn specs(&self, store: &Store) -> Vec<UnitSpec> {
        self.spans.iter().map(|span| self.spec(store, span)).collect()
    }

    fn spec(&self, store: &Store, span: &Span) -> UnitSpec {
        let run = &store.runs()[span.run.0 as usize];
        let kind = match run.life {
            LifeKind::Durable => Kind::Durable,
            LifeKind::Scratch => Kind::Scratch,
            LifeKind::Derived => {
                let sources = self.sources(store, span).map(|(unit, _)| unit).collect::<BTreeSet<_>>();
                Kind::Derived { sources: sources.into_iter().collect() }
            }
        };
        // Members of a bundle are written one by one, so a new bundle counts as there, all zero.
        let blank_bundle = run.tensors.len() > 1 && run.life != LifeKind::Derived;
        UnitSpec { bytes: span.bytes, kind, stored: blank_bundle || store.has_bytes(span) }
    }

    /// The source units of a derived span, with the casts that make it: in order.
    pub(crate) fn sources<'a>(
        &'a self,
        store: &'a Store,
        span: &'a Span,
    ) -> impl Iterator<Item = (UnitId, crate::cast::Cast)> + 'a {
        store.tensors_in(span).flat_map(move |id| self.sources_of(store, span, id))
    }

    fn sources_of<'a>(
        &'a self,
        store: &'a Store,
        span: &'a Span,
        id: TensorId,
    ) -> impl Iterator<Item = (UnitId, crate::cast::Cast)> + 'a {
        let tensor = &store.tensors()[id.0 as usize];
        let from = source_of(store, tensor);
        let size = tensor.spec.dtype.bits() / 8;
        let source_size = from.spec.dtype.bits() / 8;
        // Elements of the tensor that lie in the span.
        let first = span.offset.saturating_sub(tensor.offset) / size;
        let last = (span.end().min(tensor.offset + tensor.bytes).saturating_sub(tensor.offset)) / size;
        let (run, base) = (from.run, from.offset);
        let (low, high) = (base + first * source_size, base + last * source_size);
        self.covering(run, low, high).map(move |unit| {
            let source = &self.spans[unit.0 as usize];
            let begin = low.max(source.offset);
            let end = high.min(source.end());
            let element = (begin - base) / source_size;
            let cast = crate::cast::Cast {
                from: from.spec.dtype,
                to: tensor.spec.dtype,
                source_offset: begin - source.offset,
                target_offset: tensor.offset + element * size - span.offset,
                elements: (end - begin) / source_size,
            };
            (unit, cast)
        })
    }

    /// An access in units.
    pub(crate) fn access(&self, store: &Store, index: usize, access: &Access) -> Result<Cut, Error> {
        check(store, index, access)?;
        let mut units: BTreeSet<UnitId> = BTreeSet::new();
        let place = |one: &TensorUse| {
            let tensor = &store.tensors()[one.tensor.0 as usize];
            (tensor.run, tensor.offset + one.bytes.start, tensor.offset + one.bytes.end)
        };
        for one in &access.uses {
            let (run, from, to) = place(one);
            units.extend(self.covering(run, from, to));
        }
        let units: Vec<UnitId> = units.into_iter().collect();
        let mut parts = Vec::new();
        // Bytes of each hold that are written, and those of them that are overwritten.
        let mut written = vec![(0u64, 0u64); units.len()];
        for one in &access.uses {
            let (run, from, to) = place(one);
            let mut here = Vec::new();
            for unit in self.covering(run, from, to) {
                let span = &self.spans[unit.0 as usize];
                let hold = units.partition_point(|&other| other < unit);
                let (begin, end) = (from.max(span.offset), to.min(span.end()));
                here.push(Part { hold, offset: begin - span.offset, bytes: end - begin });
                if one.mode.writes() {
                    written[hold].0 += end - begin;
                }
                if one.mode == Mode::Overwrite {
                    written[hold].1 += end - begin;
                }
            }
            parts.push(here);
        }
        let mode = |hold: usize| {
            let members = members_bytes(store, &self.spans[units[hold].0 as usize]);
            match written[hold] {
                (0, _) => Mode::Read,
                (_, overwritten) if overwritten == members => Mode::Overwrite,
                _ => Mode::Update,
            }
        };
        let uses: Vec<UnitUse> =
            units.iter().enumerate().map(|(hold, &unit)| UnitUse { unit, mode: mode(hold) }).collect();
        let durable = |unit: UnitId| {
            let run = self.spans[unit.0 as usize].run;
            store.runs()[run.0 as usize].life == LifeKind::Durable
        };
        Ok(Cut {
            tier: access.tier,
            holds: uses.iter().map(|one| (one.unit, one.mode.writes())).collect(),
            uses: parts,
            writes: access.uses.iter().map(|one| one.mode.writes()).collect(),
            writes_durable: uses.iter().any(|one| one.mode.writes() && durable(one.unit)),
            spec: AccessSpec {
                tier: access.tier,
                uses,
                compute_ns: u64::try_from(access.compute.as_nanos()).unwrap_or(u64::MAX),
            },
        })
    }
}

/// Bytes of a span that belong to tensors: all but the gaps between the members of a bundle.
fn members_bytes(store: &Store, span: &Span) -> u64 {
    if store.runs()[span.run.0 as usize].tensors.len() == 1 {
        return span.bytes;
    }
    store.tensors_in(span).map(|id| store.tensors()[id.0 as usize].bytes).sum()
}

/// The tensor that a derived one is made from.
fn source_of<'a>(store: &'a Store, tensor: &TensorInfo) -> &'a TensorInfo {
    let Life::Derived { from } = &tensor.spec.life else {
        panic!("tensor {} is not derived", tensor.spec.name);
    };
    let source = store.tensor(from).map(|id| &store.tensors()[id.0 as usize]);
    source.unwrap_or_else(|| panic!("the store made {} without its source {from}", tensor.spec.name))
}

fn check(store: &Store, index: usize, access: &Access) -> Result<(), Error> {
    let bad = |what: String| Err(Error::BadAccess { access: index, layer: access.layer.clone(), what });
    let mut seen: Vec<&TensorUse> = Vec::new();
    for one in &access.uses {
        let count = store.tensors().len();
        let Some(tensor) = store.tensors().get(one.tensor.0 as usize) else {
            return bad(format!("tensor {} does not exist: there are {count}", one.tensor.0));
        };
        let (name, range) = (&tensor.spec.name, &one.bytes);
        if range.start > range.end || range.end > tensor.bytes {
            return bad(format!("bytes {range:?} of {name}, which has {} bytes", tensor.bytes));
        }
        let on_edge = |at: u64| at == tensor.bytes || at.is_multiple_of(CHECKSUM_BYTES);
        if !on_edge(range.start) || !on_edge(range.end) {
            return bad(format!(
                "bytes {range:?} of {name} do not begin and end at multiples of {CHECKSUM_BYTES}, which is what one \
                 checksum covers: take the ranges that Engine::pieces gives"
            ));
        }
        let overlaps = |other: &&&TensorUse| {
            other.tensor == one.tensor && other.bytes.start < range.end && range.start < other.bytes.end
        };
        if let Some(other) = seen.iter().find(overlaps) {
            return bad(format!("uses bytes {:?} and {range:?} of {name}: they overlap", other.bytes));
        }
        seen.push(one);
    }
    Ok(())
}
