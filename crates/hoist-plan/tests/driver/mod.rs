//! A driver in virtual time: it carries out the plan's actions on version numbers instead of
//! bytes, lets requests end late and in any order, and checks each promise as it goes.
#![allow(dead_code, reason = "each test file uses a part of it")]

mod checks;
pub mod models;
mod steps;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hoist_plan::{
    AccessSpec, Action, ClientId, Config, Event, Kind, LeaseId, Mode, OrderId, Plan, Refusal, RequestId,
    SumPurpose, Tier, UnitId, UnitSpec,
};

/// A small generator of its own (SplitMix64), so that a seed means the same for ever.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Read(UnitId),
    Write(UnitId, u64),
    Sum(UnitId, SumPurpose),
    Derive(UnitId, u64),
    CopyIn(UnitId, u64),
    CopyOut(UnitId, u64),
    Commit(u64),
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// `None`: blank.
    version: Option<u64>,
    /// Its bytes are on their way or not verified.
    filling: bool,
    /// Copies, writes, checksums, derivations and leases that hold it.
    busy: u32,
}

pub struct World {
    pub plan: Plan,
    pub config: Config,
    pub specs: Vec<UnitSpec>,
    pub accesses: HashMap<OrderId, Vec<AccessSpec>>,
    pub order: OrderId,
    pub now_ns: u64,
    pub random: Random,
    pub log: Vec<Action>,
    nvme: Vec<Option<u64>>,
    newest: Vec<Option<u64>>,
    host: Vec<Option<Slot>>,
    device: Vec<Option<(u64, Slot)>>,
    pending: BTreeMap<(u64, u64), (Option<RequestId>, What)>,
    pub leases: HashMap<LeaseId, usize>,
    pub held: BTreeSet<LeaseId>,
    versions: u64,
    pub next_lease: u64,
    pub epoch: u64,
    pub granted: u64,
    pub published: Vec<u64>,
    sealed: HashMap<u64, Vec<Option<u64>>>,
    /// What the newest durable epoch holds.
    durable: Vec<Option<u64>>,
    /// A rollback has been asked for, and is not over.
    pub rolling_back: bool,
    pub rollbacks: u64,
    done_epoch: u64,
    pub flushed: bool,
    /// Of a thousand reads, so many fail.
    pub failing: u64,
    /// Of a thousand writes, so many fail.
    pub failing_writes: u64,
    /// Of a thousand commits, so many fail.
    pub failing_commits: u64,
    /// One access at a time: then a derived unit's first access after it was made sees what its sources held then.
    pub one_at_a_time: bool,
    /// The sources' versions that a derived unit was made from, until its first access.
    made_from: HashMap<UnitId, Vec<Option<u64>>>,
    completions: u64,
}

impl World {
    pub fn new(config: Config, specs: Vec<UnitSpec>, seed: u64) -> World {
        let count = specs.len();
        let nvme: Vec<Option<u64>> = specs.iter().map(|spec| spec.stored.then_some(0)).collect();
        World {
            plan: Plan::new(config.clone(), specs.clone(), 1),
            newest: nvme.clone(),
            sealed: HashMap::new(),
            durable: nvme.clone(),
            rolling_back: false,
            rollbacks: 0,
            done_epoch: 0,
            nvme,
            host: vec![None; count],
            device: vec![None; count],
            config,
            specs,
            accesses: HashMap::new(),
            order: OrderId(0),
            now_ns: 0,
            random: Random(seed),
            log: Vec::new(),
            pending: BTreeMap::new(),
            leases: HashMap::new(),
            held: BTreeSet::new(),
            versions: 0,
            next_lease: 0,
            epoch: 1,
            granted: 0,
            published: Vec::new(),
            flushed: true,
            failing: 0,
            failing_writes: 0,
            failing_commits: 0,
            one_at_a_time: false,
            made_from: HashMap::new(),
            completions: 0,
        }
    }

    pub fn declare(&mut self, accesses: Vec<AccessSpec>) -> Option<OrderId> {
        let order = self.plan.declare(&accesses).ok()?;
        self.accesses.insert(order, accesses);
        Some(order)
    }

    pub fn event(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.plan.handle(event, self.now_ns, &mut actions);
        for &action in &actions {
            self.carry_out(action);
        }
        self.check_budgets();
        self.log.extend(&actions);
        actions
    }

    fn later(&mut self, request: RequestId, what: What) {
        let at = self.now_ns + 1 + self.random.below(5000);
        self.pending.insert((at, request.0), (Some(request), what));
    }

    fn slot(&mut self, unit: UnitId) -> &mut Slot {
        self.host[unit.0 as usize].as_mut().unwrap_or_else(|| panic!("unit {} has no host slot", unit.0))
    }

    fn new_host(&mut self, unit: UnitId, filling: bool) {
        let place = &mut self.host[unit.0 as usize];
        assert!(place.is_none(), "unit {} gets a second host slot", unit.0);
        *place = Some(Slot { version: None, filling, busy: 0 });
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Read { request, unit, .. } => {
                self.new_host(unit, true);
                assert!(self.nvme[unit.0 as usize].is_some(), "read of {unit:?}, which was never written");
                assert_eq!(
                    self.nvme[unit.0 as usize], self.newest[unit.0 as usize],
                    "stale read of {unit:?}"
                );
                self.later(request, What::Read(unit));
            }
            Action::Write { request, unit } => {
                let slot = self.slot(unit);
                let version = slot.version.expect("a blank slot is written");
                assert!(!slot.filling);
                slot.busy += 1;
                self.later(request, What::Write(unit, version));
            }
            Action::Checksum { request, unit, purpose } => {
                let slot = self.slot(unit);
                assert_eq!(purpose == SumPurpose::Verify, slot.filling);
                slot.busy += 1;
                self.later(request, What::Sum(unit, purpose));
            }
            Action::Derive { request, unit } => {
                self.new_host(unit, true);
                let Kind::Derived { sources } = self.specs[unit.0 as usize].kind.clone() else {
                    panic!("{unit:?} is not derived")
                };
                let versions = sources.iter().map(|source| self.newest[source.0 as usize]).collect();
                self.made_from.insert(unit, versions);
                for source in sources {
                    let newest = self.newest[source.0 as usize];
                    assert_eq!(self.slot(source).version, newest);
                    self.slot(source).busy += 1;
                }
                self.versions += 1;
                let version = self.versions;
                self.newest[unit.0 as usize] = Some(version);
                self.later(request, What::Derive(unit, version));
            }
            Action::BlankHost { unit } => self.new_host(unit, false),
            Action::BlankDevice { unit, offset } => self.new_device(unit, offset, false),
            Action::CopyIn { request, unit, offset } => {
                let slot = self.slot(unit);
                let version = slot.version.expect("a blank slot is copied in");
                slot.busy += 1;
                self.new_device(unit, offset, true);
                self.later(request, What::CopyIn(unit, version));
            }
            Action::CopyOut { request, unit } => {
                let (_, slot) = self.device[unit.0 as usize].as_mut().expect("nothing to copy out");
                let version = slot.version.expect("a blank range is copied out");
                slot.busy += 1;
                self.new_host(unit, true);
                self.later(request, What::CopyOut(unit, version));
            }
            Action::DropHost { unit } => {
                let slot = self.host[unit.0 as usize].take().expect("dropped a host slot that is not there");
                assert!(
                    slot.busy == 0 && !slot.filling,
                    "host slot of {unit:?} dropped while held: {slot:?}"
                );
            }
            Action::DropDevice { unit } => {
                let (_, slot) = self.device[unit.0 as usize].take().expect("dropped no device range");
                assert!(
                    slot.busy == 0 && !slot.filling,
                    "device range of {unit:?} dropped while held: {slot:?}"
                );
            }
            Action::Grant { lease } => self.grant(lease),
            Action::Refuse { lease, refusal } => {
                let known = match refusal {
                    // An order may give leave to forget what does not belong to epochs.
                    Refusal::NoContents { unit } => {
                        self.specs[unit.0 as usize].kind != Kind::Durable
                            || self.newest[unit.0 as usize].is_none()
                    }
                    Refusal::Failed { .. } => self.failing > 0,
                    Refusal::NotWritten { .. } => self.failing_writes > 0,
                    Refusal::WouldDeadlock { .. } => false,
                    Refusal::RolledBack => self.rolling_back,
                    Refusal::Flushed => !self.flushed,
                };
                assert!(known, "{refusal:?}");
                self.leases.remove(&lease).expect("refused nobody");
            }
            Action::Publish { epoch } => self.publish(epoch),
            Action::Promote { request } => {
                assert!(
                    self.pending.values().any(|(one, _)| *one == Some(request)),
                    "promoted what has ended"
                );
            }
            Action::Flushed => self.flushed = true,
            Action::FailEpoch { .. } => {
                assert!(self.failing_writes > 0 && !self.rolling_back, "nothing failed here");
                self.rolling_back = true;
            }
            Action::RolledBack => self.rolled_back(),
        }
    }

    fn new_device(&mut self, unit: UnitId, offset: u64, filling: bool) {
        let bytes = self.specs[unit.0 as usize].bytes;
        for (other, place) in self.device.iter().enumerate() {
            if let Some((at, _)) = place {
                let end = at + self.specs[other].bytes;
                assert!(offset >= end || offset + bytes <= *at, "{unit:?} overlaps unit {other}");
            }
        }
        assert!(offset + bytes <= self.config.device_bytes);
        self.device[unit.0 as usize] = Some((offset, Slot { version: None, filling, busy: 0 }));
    }

    fn uses(&self, access: usize) -> (Tier, Vec<(UnitId, Mode)>) {
        let spec = &self.accesses[&self.order][access];
        (spec.tier, spec.uses.iter().map(|one| (one.unit, one.mode)).collect())
    }

    /// Lets the earliest request end. `false`: nothing is in flight.
    pub fn complete_one(&mut self) -> bool {
        self.completions += 1;
        assert!(self.completions < 200_000, "requests without end: {:?}", &self.log[self.log.len() - 12..]);
        let Some(((at, _), (request, what))) = self.pending.pop_first() else { return false };
        self.now_ns = self.now_ns.max(at);
        match what {
            What::Read(unit) if self.failing > 0 && self.random.below(1000) < self.failing => {
                self.host[unit.0 as usize] = None;
                self.event(Event::Failed(request.expect("reads are requests")));
                return true;
            }
            What::Read(unit) => {
                let version = self.nvme[unit.0 as usize];
                self.slot(unit).version = version;
            }
            What::Sum(unit, purpose) => {
                let slot = self.slot(unit);
                slot.busy -= 1;
                slot.filling &= purpose != SumPurpose::Verify;
            }
            What::Write(unit, _) if self.random.below(1000) < self.failing_writes => {
                self.slot(unit).busy -= 1;
                self.event(Event::Failed(request.expect("writes are requests")));
                return true;
            }
            What::Write(unit, version) => {
                self.slot(unit).busy -= 1;
                self.nvme[unit.0 as usize] = Some(version);
            }
            What::Derive(unit, version) => {
                *self.slot(unit) = Slot { version: Some(version), filling: false, busy: 0 };
                if let Kind::Derived { sources } = self.specs[unit.0 as usize].kind.clone() {
                    sources.into_iter().for_each(|source| self.slot(source).busy -= 1);
                }
            }
            What::CopyIn(unit, version) => {
                self.slot(unit).busy -= 1;
                let (_, slot) = self.device[unit.0 as usize].as_mut().expect("copied into nothing");
                *slot = Slot { version: Some(version), filling: false, busy: 0 };
            }
            What::CopyOut(unit, version) => {
                *self.slot(unit) = Slot { version: Some(version), filling: false, busy: 0 };
                self.device[unit.0 as usize].as_mut().expect("copied out of nothing").1.busy -= 1;
            }
            What::Commit(_) if self.random.below(1000) < self.failing_commits => {
                self.roll_back();
                return true;
            }
            What::Commit(epoch) => {
                self.done_epoch = epoch;
                self.durable = self.sealed.remove(&epoch).expect("committed what was not sealed");
                self.event(Event::CommitDone(epoch));
                return true;
            }
        }
        self.event(Event::Done(request.expect("all but commits are requests")));
        true
    }

    fn check_budgets(&self) {
        let pages: u64 = (0..self.specs.len())
            .filter(|&unit| self.host[unit].is_some())
            .map(|unit| self.specs[unit].bytes.div_ceil(self.config.page_bytes).max(1))
            .sum();
        assert!(pages <= self.config.host_pages, "{pages} pages in use of {}", self.config.host_pages);
        assert!(pages <= self.plan.used().0, "{pages} pages in use, the plan counts {:?}", self.plan.used());
    }

    /// One client's access: waits for the grant, then releases. `false`: refused.
    pub fn access(&mut self, access: usize) -> bool {
        let lease = LeaseId(self.next_lease);
        self.next_lease += 1;
        self.leases.insert(lease, access);
        let before = self.granted;
        self.event(Event::Demanded { lease, client: ClientId(0), access: access as u32 });
        while self.granted == before && self.leases.contains_key(&lease) {
            assert!(self.complete_one(), "access {access} waits for ever");
        }
        if self.granted == before {
            return false;
        }
        for _ in 0..self.random.below(3) {
            self.complete_one();
        }
        self.release(lease);
        true
    }

    pub fn release(&mut self, lease: LeaseId) {
        self.held.remove(&lease);
        let access = self.leases.remove(&lease).expect("released nothing");
        let (tier, uses) = self.uses(access);
        for (unit, mode) in uses {
            let slot = match tier {
                Tier::Host => self.host[unit.0 as usize].as_mut().expect("lease lost its slot"),
                Tier::Device => &mut self.device[unit.0 as usize].as_mut().expect("lease lost its range").1,
            };
            slot.busy -= 1;
            if mode.writes() {
                self.versions += 1;
                slot.version = Some(self.versions);
                self.newest[unit.0 as usize] = Some(self.versions);
            }
        }
        self.event(Event::Released(lease));
    }
}
