use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::arena::Arena;
use crate::bound::{Bandwidths, Bound, bound, largest_unit_pages, least_transit};
use crate::config::Config;
use crate::contract::{Action, Event, LeaseId, OrderId, RequestId, UnitId};
use crate::demand::{Demand, Lease};
use crate::order::{AccessSpec, Order, OrderError};
use crate::placement::{Placement, place};
use crate::profile::WindowMax;
use crate::stats::Stats;
use crate::unit::{Kind, Unit, UnitSpec};

/// What a request in flight does to its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Read,
    Verify,
    Derive,
    CopyIn,
    CopyOut,
    Sum,
    Write,
}

/// An order with what was decided for it.
pub(crate) struct Declared {
    pub(crate) order: Order,
    pub(crate) placement: Placement,
    /// Pages that a fetch ahead of demand leaves free, so that a copy from the device finds room.
    pub(crate) reserve_pages: u64,
}

/// How far ahead of demand a tier has been filled.
#[derive(Default)]
pub(crate) struct Window {
    /// The next access to look at, in the endless sequence.
    pub(crate) next: u64,
    /// The next of its uses.
    pub(crate) offset: usize,
    pub(crate) kept_most: WindowMax,
}

impl Window {
    pub(crate) fn restart(&mut self, seq: u64) {
        self.next = seq;
        self.offset = 0;
        self.kept_most.restart(seq.saturating_sub(1));
    }
}

/// The scheduler: decides what moves where and when. See the crate's documentation.
pub struct Plan {
    pub(crate) config: Config,
    pub(crate) units: Vec<Unit>,
    pub(crate) orders: Vec<Declared>,
    pub(crate) current: usize,
    /// Sequence number of the first access of the current order's cycle.
    pub(crate) base: u64,
    /// The access that is expected next.
    pub(crate) cursor: u64,
    pub(crate) requests: HashMap<RequestId, (UnitId, Work)>,
    next_request: u64,
    pub(crate) arena: Arena,
    pub(crate) host_used_pages: u64,
    pub(crate) kept_pages: u64,
    pub(crate) kept_device_bytes: u64,
    /// Pages that the placement keeps on the host until an access, while the unit does without
    /// them there, being on the device: room that the placement set aside and nobody takes.
    pub(crate) kept_elsewhere: BTreeMap<(u64, UnitId), u64>,
    pub(crate) read_bytes_in_flight: u64,
    pub(crate) write_bytes_in_flight: u64,
    pub(crate) copy_bytes_in_flight: u64,
    pub(crate) demands: VecDeque<Demand>,
    /// The demand that is being served.
    pub(crate) serving: Option<LeaseId>,
    pub(crate) leases: HashMap<LeaseId, Lease>,
    pub(crate) durable_writes: VecDeque<UnitId>,
    pub(crate) scratch_writes: VecDeque<UnitId>,
    pub(crate) drains: VecDeque<UnitId>,
    pub(crate) gathering: Vec<UnitId>,
    pub(crate) host_window: Window,
    pub(crate) device_window: Window,
    /// The epoch that the running step will become.
    pub(crate) epoch: u64,
    /// The epoch being committed, and whether it has been handed out to be published.
    pub(crate) sealed: Option<(u64, bool)>,
    /// Units that the running step has changed, and those that the sealed epoch has.
    pub(crate) unsaved: Vec<UnitId>,
    pub(crate) unsaved_sealed: Vec<UnitId>,
    /// How many of the sealed epoch's are not on NVMe yet.
    pub(crate) unsaved_sealed_count: u64,
    pub(crate) rolling_back: bool,
    /// The epoch for which what could not be written has been tried again.
    pub(crate) tried_again_for: u64,
    pub(crate) flushing: Option<bool>,
    pub(crate) stats: Stats,
    last_ns: u64,
}

impl Plan {
    /// A plan over these units, with nothing in memory. `epoch` is the one that the first step
    /// will become.
    pub fn new(config: Config, units: Vec<UnitSpec>, epoch: u64) -> Plan {
        let page_bytes = config.page_bytes;
        let mut units: Vec<Unit> = units.into_iter().map(|spec| Unit::new(spec, page_bytes)).collect();
        for index in 0..units.len() {
            let Kind::Derived { sources } = units[index].spec.kind.clone() else { continue };
            sources.iter().for_each(|source| units[source.0 as usize].derivatives.push(UnitId(index as u32)));
        }
        Plan {
            units,
            orders: Vec::new(),
            current: 0,
            base: 1,
            cursor: 1,
            requests: HashMap::new(),
            next_request: 0,
            arena: Arena::new(config.device_bytes),
            host_used_pages: 0,
            kept_pages: 0,
            kept_device_bytes: 0,
            kept_elsewhere: BTreeMap::new(),
            read_bytes_in_flight: 0,
            write_bytes_in_flight: 0,
            copy_bytes_in_flight: 0,
            demands: VecDeque::new(),
            serving: None,
            leases: HashMap::new(),
            durable_writes: VecDeque::new(),
            scratch_writes: VecDeque::new(),
            drains: VecDeque::new(),
            gathering: Vec::new(),
            host_window: Window::default(),
            device_window: Window::default(),
            epoch,
            sealed: None,
            unsaved: Vec::new(),
            unsaved_sealed: Vec::new(),
            unsaved_sealed_count: 0,
            rolling_back: false,
            tried_again_for: 0,
            flushing: None,
            stats: Stats::default(),
            last_ns: 0,
            config,
        }
    }

    /// Declares an execution order. Nothing moves until a step over it begins.
    pub fn declare(&mut self, accesses: &[AccessSpec]) -> Result<OrderId, OrderError> {
        let specs: Vec<UnitSpec> = self.units.iter().map(|unit| unit.spec.clone()).collect();
        let order = Order::compile(accesses, &specs, &self.config)?;
        let mut orders: Vec<Order> = self.orders.drain(..).map(|declared| declared.order).collect();
        orders.push(order);
        // What a unit holds at a step's end may be read first by any order, so all are linked anew.
        let read_first: Vec<bool> = (0..specs.len() as u32)
            .map(|unit| orders.iter().any(|order| order.reads_first(UnitId(unit))))
            .collect();
        for mut order in orders {
            order.link(specs.len(), &|unit| read_first[unit.0 as usize]);
            self.orders.push(decide(order, &specs, &self.config));
        }
        Ok(OrderId(self.orders.len() as u32 - 1))
    }

    /// The bound of a declared order with these bandwidths, and, where they are given, with these
    /// compute times instead of the declared ones: one for each access, as measured.
    pub fn bound(&self, order: OrderId, bandwidths: Bandwidths, compute_ns: Option<&[u64]>) -> Bound {
        let mut order = self.orders[order.0 as usize].order.clone();
        if let Some(compute_ns) = compute_ns {
            order.set_compute(compute_ns);
        }
        let specs: Vec<UnitSpec> = self.units.iter().map(|unit| unit.spec.clone()).collect();
        bound(&order, &specs, &Config { bandwidths, ..self.config.clone() })
    }

    /// The placement of a declared order.
    pub fn placement(&self, order: OrderId) -> &Placement {
        &self.orders[order.0 as usize].placement
    }

    /// What has been moved and waited for so far.
    pub fn stats(&self) -> Stats {
        Stats { device_peak_bytes: self.arena.peak_bytes(), ..self.stats }
    }

    /// Host pages and device bytes in use now.
    pub fn used(&self) -> (u64, u64) {
        (self.host_used_pages, self.arena.used_bytes())
    }

    /// Takes one event, at a time that never runs backwards, and adds the actions that follow.
    pub fn handle(&mut self, event: Event, now_ns: u64, actions: &mut Vec<Action>) {
        self.account(now_ns);
        match event {
            Event::StepBegun(order) => self.begin_step(order, actions),
            Event::Demanded { lease, client, access } => self.demand(lease, client, access, actions),
            Event::Releasing(lease) => self.releasing(lease),
            Event::Released(lease) => self.release(lease, actions),
            Event::Done(request) => self.done(request, actions),
            Event::Failed(request) => self.failed(request, actions),
            Event::CommitBegun(epoch) => self.seal(epoch, actions),
            Event::CommitDone(epoch) => self.commit_done(epoch),
            Event::Rollback => self.roll_back(actions),
            Event::Flush { all } => self.flush(all, actions),
        }
        if !self.rolling_back {
            self.advance(actions);
        }
        if self.rolling_back {
            self.finish_rollback(actions);
        }
    }

    /// Does all that can be done now, most urgent first.
    fn advance(&mut self, actions: &mut Vec<Action>) {
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "no end of actions: {:?}", &actions[actions.len() - 8..]);
            let before = (actions.len(), self.queued_work());
            self.gather(actions);
            self.serve_demands(actions);
            self.serving = None;
            self.drain(actions);
            self.write_back(actions);
            if self.config.prefetch && self.flushing.is_none() {
                self.fill_host(actions);
                self.fill_device(actions);
            }
            self.publish(actions);
            self.finish_flush(actions);
            // What one stage gave back, an earlier one may be waiting for.
            if self.demands.is_empty() {
                break;
            }
            let moved = (actions.len(), self.queued_work()) != before;
            if !moved && !self.refuse_deadlock(actions) {
                break;
            }
        }
        self.fail_blocked_epoch(actions);
        let used = self.host_used_pages * self.config.page_bytes;
        self.stats.host_peak_bytes = self.stats.host_peak_bytes.max(used);
    }

    fn queued_work(&self) -> usize {
        self.durable_writes.len() + self.scratch_writes.len() + self.drains.len() + self.gathering.len()
    }

    fn account(&mut self, now_ns: u64) {
        let passed = now_ns.saturating_sub(self.last_ns);
        for demand in &self.demands {
            self.stats.stalls.add(demand.cause, passed);
        }
        self.last_ns = self.last_ns.max(now_ns);
    }

    pub(crate) fn request(&mut self, unit: UnitId, work: Work) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.requests.insert(request, (unit, work));
        request
    }

    pub(crate) fn unit(&mut self, unit: UnitId) -> &mut Unit {
        &mut self.units[unit.0 as usize]
    }

    pub(crate) fn declared(&self) -> Option<&Declared> {
        self.orders.get(self.current)
    }

    /// Position in the current order of an access of the endless sequence.
    pub(crate) fn position(&self, seq: u64) -> usize {
        let length = self.orders[self.current].order.len() as u64;
        ((seq - self.base) % length) as usize
    }
}

/// Rounds of one event. Each but the last adds an action or takes from a queue, and what one event
/// can set off is bounded by the units; hundreds were the most in millions of random events.
const ROUNDS_MAX: usize = 100_000;

fn decide(order: Order, specs: &[UnitSpec], config: &Config) -> Declared {
    let bound = bound(&order, specs, config);
    let (_, transit_device_bytes) = least_transit(&order, specs, config);
    let placement = place(&order, specs, config, bound.transit_pages, transit_device_bytes);
    let reserve_pages = largest_unit_pages(&order, specs, config);
    Declared { order, placement, reserve_pages }
}
