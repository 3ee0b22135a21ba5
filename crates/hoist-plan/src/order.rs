use crate::arena::{Arena, DEVICE_ALIGN_BYTES};
use crate::config::Config;
use crate::contract::{Mode, Tier, UnitId};
use crate::unit::{Kind, Unit, UnitSpec};

/// What one access does with one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitUse {
    /// Which unit; at most once in an access.
    pub unit: UnitId,
    /// Read, update or overwrite.
    pub mode: Mode,
}

/// One entry of the execution order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessSpec {
    /// Where the bytes are wanted.
    pub tier: Tier,
    /// The units, each once.
    pub uses: Vec<UnitUse>,
    /// How long the trainer computes on them, as far as it is known.
    pub compute_ns: u64,
}

/// Why an order is refused when it is declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// An order without accesses.
    #[error("the execution order has no access: declare at least one")]
    Empty,
    /// An access names a unit that is not in the table, or one twice.
    #[error("access {access} names unit {unit} {how}")]
    BadUnit {
        /// Index of the access.
        access: usize,
        /// The unit's index.
        unit: u32,
        /// "twice" or "which does not exist".
        how: &'static str,
    },
    /// The tensors of one access do not fit their tier.
    #[error(
        "access {access} needs {need_bytes} bytes of the {tier} at once, its budget is {budget_bytes} bytes: \
         split the access into pieces or raise {tier}.budget"
    )]
    TooLarge {
        /// Index of the access.
        access: usize,
        /// "device" or "host".
        tier: &'static str,
        /// What it needs.
        need_bytes: u64,
        /// What there is.
        budget_bytes: u64,
    },
    /// A unit on its way to the device, or the source of a derived one, does not fit beside another.
    #[error(
        "access {access} moves a unit of which {need_bytes} bytes of host memory are needed in transit, the \
         host's budget is {budget_bytes} bytes: use smaller pieces or raise host.budget"
    )]
    NoTransit {
        /// Index of the access.
        access: usize,
        /// What it needs.
        need_bytes: u64,
        /// What there is.
        budget_bytes: u64,
    },
}

/// One use, with what follows it for the same unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) unit: UnitId,
    pub(crate) mode: Mode,
    /// Positions until the unit's next use: 1 to the length of the order.
    pub(crate) gap: u32,
    pub(crate) next_tier: Tier,
    /// Whether the bytes are needed after this use. Overwritten next, they are not, unless the
    /// next use lies in another step and another order may read them first.
    pub(crate) next_reads: bool,
    /// A later access of the same step writes the unit.
    pub(crate) written_again: bool,
}

/// A compiled execution order: a cycle of accesses, with each unit's next use known.
#[derive(Clone, Debug)]
pub struct Order {
    tiers: Vec<Tier>,
    compute_ns: Vec<u64>,
    starts: Vec<u32>,
    pub(crate) uses: Vec<Use>,
    /// For each unit, the indices into `uses`, ascending: a list of lists in two flat arrays.
    unit_starts: Vec<u32>,
    unit_uses: Vec<u32>,
    /// Position of each use.
    positions: Vec<u32>,
}

impl Order {
    /// Checks the accesses against the units and the budgets, and links each use to the next.
    pub fn compile(
        accesses: &[AccessSpec],
        units: &[UnitSpec],
        config: &Config,
    ) -> Result<Order, OrderError> {
        if accesses.is_empty() {
            return Err(OrderError::Empty);
        }
        check(accesses, units, config)?;
        let mut order = Order {
            tiers: accesses.iter().map(|a| a.tier).collect(),
            compute_ns: accesses.iter().map(|a| a.compute_ns).collect(),
            starts: vec![0],
            uses: Vec::new(),
            unit_starts: Vec::new(),
            unit_uses: Vec::new(),
            positions: Vec::new(),
        };
        for (position, access) in accesses.iter().enumerate() {
            for one in &access.uses {
                order.uses.push(Use {
                    unit: one.unit,
                    mode: one.mode,
                    gap: 0,
                    next_tier: access.tier,
                    next_reads: true,
                    written_again: false,
                });
                order.positions.push(position as u32);
            }
            order.starts.push(order.uses.len() as u32);
        }
        order.link(units.len(), &|_| false);
        Ok(order)
    }

    /// Links each use to the unit's next one. `read_elsewhere` tells of a unit that another order
    /// reads first: such a unit outlives the step whatever this order does with it.
    pub(crate) fn link(&mut self, units: usize, read_elsewhere: &dyn Fn(UnitId) -> bool) {
        self.unit_starts.clear();
        self.unit_uses.clear();
        let mut lists: Vec<Vec<u32>> = vec![Vec::new(); units];
        for (index, one) in self.uses.iter().enumerate() {
            lists[one.unit.0 as usize].push(index as u32);
        }
        let length = self.len() as u32;
        for list in &lists {
            self.unit_starts.push(self.unit_uses.len() as u32);
            self.unit_uses.extend(list);
            for (i, &this) in list.iter().enumerate() {
                let next = list[(i + 1) % list.len()] as usize;
                let (from, to) = (self.positions[this as usize], self.positions[next]);
                let written_again =
                    list[i + 1..].iter().any(|&later| self.uses[later as usize].mode.writes());
                let wraps = to <= from;
                let next_reads =
                    self.uses[next].mode.reads() || (wraps && read_elsewhere(self.uses[this as usize].unit));
                let next_tier = self.tiers[to as usize];
                let one = &mut self.uses[this as usize];
                one.gap = if wraps { length - from + to } else { to - from };
                one.next_reads = next_reads;
                one.next_tier = next_tier;
                one.written_again = written_again;
            }
        }
        self.unit_starts.push(self.unit_uses.len() as u32);
    }

    /// Number of accesses.
    pub fn len(&self) -> usize {
        self.tiers.len()
    }

    /// Never: an order has at least one access.
    pub fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    /// Replaces the compute times.
    pub(crate) fn set_compute(&mut self, compute_ns: &[u64]) {
        assert_eq!(compute_ns.len(), self.len(), "one compute time for each access");
        self.compute_ns.copy_from_slice(compute_ns);
    }

    pub(crate) fn tier(&self, position: usize) -> Tier {
        self.tiers[position]
    }

    pub(crate) fn compute_ns(&self, position: usize) -> u64 {
        self.compute_ns[position]
    }

    /// Indices of the uses of one access.
    pub(crate) fn uses_at(&self, position: usize) -> std::ops::Range<usize> {
        self.starts[position] as usize..self.starts[position + 1] as usize
    }

    pub(crate) fn position_of(&self, use_index: usize) -> usize {
        self.positions[use_index] as usize
    }

    /// Whether the order's first use of the unit needs what was there before.
    pub(crate) fn reads_first(&self, unit: UnitId) -> bool {
        self.uses_of(unit).first().is_some_and(|&i| self.uses[i as usize].mode.reads())
    }

    /// Indices of all uses of a unit, in order.
    pub(crate) fn uses_of(&self, unit: UnitId) -> &[u32] {
        let (from, to) = (self.unit_starts[unit.0 as usize], self.unit_starts[unit.0 as usize + 1]);
        &self.unit_uses[from as usize..to as usize]
    }
}

fn check(accesses: &[AccessSpec], units: &[UnitSpec], config: &Config) -> Result<(), OrderError> {
    let pages = |unit: UnitId| Unit::new(units[unit.0 as usize].clone(), config.page_bytes).pages;
    for (access, spec) in accesses.iter().enumerate() {
        let mut seen = std::collections::HashSet::new();
        let (mut host_pages, mut device_bytes, mut transit_pages, mut source_pages) = (0, 0, 0, 0);
        for one in &spec.uses {
            let index = one.unit.0;
            if index as usize >= units.len() {
                return Err(OrderError::BadUnit { access, unit: index, how: "which does not exist" });
            }
            if !seen.insert(index) {
                return Err(OrderError::BadUnit { access, unit: index, how: "twice" });
            }
            let unit = &units[index as usize];
            let own_pages = pages(one.unit);
            host_pages += own_pages;
            device_bytes += Arena::rounded(unit.bytes);
            // One unit comes in while another goes out: with less, each could wait for the other.
            let mut need = if spec.tier == Tier::Device { 2 * own_pages } else { own_pages };
            if let Kind::Derived { sources } = &unit.kind {
                let all: u64 = sources.iter().map(|&source| pages(source)).sum();
                need = need.max(own_pages + all);
                source_pages = source_pages.max(all);
            }
            transit_pages = transit_pages.max(need);
        }
        let budget = config.host_pages * config.page_bytes;
        let device_budget = config.device_bytes - config.device_bytes % DEVICE_ALIGN_BYTES;
        let too_large = |tier, need_bytes, budget_bytes| {
            Err(OrderError::TooLarge { access, tier, need_bytes, budget_bytes })
        };
        match spec.tier {
            Tier::Device if device_bytes > device_budget => {
                return too_large("device", device_bytes, device_budget);
            }
            // The sources of a derived unit come beside what the access has already.
            Tier::Host if host_pages + source_pages > config.host_pages => {
                return too_large("host", (host_pages + source_pages) * config.page_bytes, budget);
            }
            _ if transit_pages > config.host_pages => {
                let need_bytes = transit_pages * config.page_bytes;
                return Err(OrderError::NoTransit { access, need_bytes, budget_bytes: budget });
            }
            _ => {}
        }
    }
    Ok(())
}
