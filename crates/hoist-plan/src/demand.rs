//! Demands and leases: who waits, who holds, and when a lease is handed out.

use std::ops::Range;

use crate::contract::{Action, Cause, ClientId, LeaseId, Priority, Refusal, Tier, UnitId};
use crate::fetch::Brought;
use crate::plan::Plan;
use crate::unit::{Device, Host, Kind, Next};

/// A client waits for an access.
pub(crate) struct Demand {
    pub(crate) lease: LeaseId,
    pub(crate) client: ClientId,
    pub(crate) seq: u64,
    /// What it waits for, as of the last event.
    pub(crate) cause: Cause,
}

/// A lease that was granted and is not released.
pub(crate) struct Lease {
    pub(crate) client: ClientId,
    pub(crate) order: usize,
    pub(crate) position: usize,
    pub(crate) releasing: bool,
}

impl Plan {
    pub(crate) fn demand(
        &mut self,
        lease: LeaseId,
        client: ClientId,
        access: u32,
        actions: &mut Vec<Action>,
    ) {
        let order = &self.orders[self.current].order;
        assert!((access as usize) < order.len(), "access {access} of an order of {}", order.len());
        let length = order.len() as u64;
        let round = (self.cursor - self.base) / length;
        let mut seq = self.base + round * length + u64::from(access);
        if seq < self.cursor && !self.demands.iter().any(|demand| demand.seq == seq) {
            seq += length;
        }
        if seq != self.cursor {
            self.depart(seq, actions);
        }
        for i in self.uses(seq) {
            let one = self.orders[self.current].order.uses[i];
            let sources = match &self.unit(one.unit).spec.kind {
                Kind::Derived { sources } => sources.clone(),
                Kind::Durable | Kind::Scratch => Vec::new(),
            };
            sources.iter().for_each(|&source| self.unit(source).refused = None);
            let unit = self.unit(one.unit);
            unit.refused = None;
            unit.demanded_by = unit.demanded_by.or(Some(lease));
        }
        self.demands.push_back(Demand { lease, client, seq, cause: Cause::NvmeRead });
        self.expect_demands();
    }

    /// What a client waits for is each unit's next use, whatever the order says. Its bytes are
    /// needed until then: only a grant can say that they are not.
    fn expect_demands(&mut self) {
        for index in (0..self.demands.len()).rev() {
            let seq = self.demands[index].seq;
            let tier = self.orders[self.current].order.tier(self.position(seq));
            for i in self.uses(seq) {
                let id = self.orders[self.current].order.uses[i].unit;
                let unit = self.unit(id);
                if unit.next.seq != seq {
                    unit.next = Next { seq, tier, ..Next::NEVER };
                }
            }
        }
    }

    /// A demand is over: its units belong to the next oldest that waits for them, or to none.
    pub(crate) fn forget_demand(&mut self, demand: &Demand, actions: &mut Vec<Action>) {
        for i in self.uses(demand.seq) {
            let id = self.orders[self.current].order.uses[i].unit;
            let waits = |other: &&Demand| {
                let order = &self.orders[self.current].order;
                self.uses(other.seq).any(|i| order.uses[i].unit == id)
            };
            let next = self.demands.iter().find(waits).map(|other| other.lease);
            self.unit(id).demanded_by = next;
            self.settle(id, actions);
        }
    }

    /// The trainer left the order: go on from where it is now.
    fn depart(&mut self, seq: u64, actions: &mut Vec<Action>) {
        self.stats.departures += 1;
        self.cursor = seq;
        self.look_ahead(actions);
    }

    /// Finds each unit's next use from the cursor on, and lets go of what is no longer near.
    pub(crate) fn look_ahead(&mut self, actions: &mut Vec<Action>) {
        self.host_window.restart(self.cursor);
        self.device_window.restart(self.cursor);
        for index in 0..self.units.len() {
            let unit = UnitId(index as u32);
            let next = self.next_from_cursor(unit);
            // Only a grant may say that a unit's bytes are not needed any more: what it will be
            // used for from here on is a guess.
            let reads = next.reads || self.unit(unit).next.reads;
            self.unit(unit).next = Next { reads, ..next };
        }
        self.expect_demands();
        for index in 0..self.units.len() {
            self.settle(UnitId(index as u32), actions);
        }
    }

    fn next_from_cursor(&self, unit: UnitId) -> Next {
        let declared = &self.orders[self.current];
        let (order, from) = (&declared.order, self.position(self.cursor));
        let uses = order.uses_of(unit);
        let Some(&last) = uses.last() else { return Next::NEVER };
        let at = uses.partition_point(|&i| order.position_of(i as usize) < from);
        let (use_index, wraps) = if at < uses.len() { (uses[at], false) } else { (uses[0], true) };
        let before = if at == 0 { last } else { uses[at - 1] } as usize;
        let position = order.position_of(use_index as usize);
        let ahead = if wraps { order.len() - from + position } else { position - from };
        Next {
            seq: self.cursor + ahead as u64,
            tier: order.tier(position),
            reads: order.uses[before].next_reads,
            keep_host: declared.placement.keep_host[before],
            keep_device: declared.placement.keep_device[before],
            written_again: false,
        }
    }

    /// Indices of the uses of an access in the current order.
    pub(crate) fn uses(&self, seq: u64) -> Range<usize> {
        self.orders[self.current].order.uses_at(self.position(seq))
    }

    /// Grants what can be granted, and starts what the oldest waits for. Memory is given to one
    /// demand at a time, in the order in which they came: two that each have half of what they
    /// need would wait for each other. Only when all that the older ones still wait for is held by
    /// leases does the next get its turn.
    pub(crate) fn serve_demands(&mut self, actions: &mut Vec<Action>) {
        let mut index = 0;
        while index < self.demands.len() {
            let (lease, seq) = (self.demands[index].lease, self.demands[index].seq);
            self.serving = Some(lease);
            match self.try_grant(index, seq, actions) {
                Ok(None) => {
                    if let Some(demand) = self.demands.remove(index) {
                        self.forget_demand(&demand, actions);
                    }
                    actions.push(Action::Grant { lease });
                }
                Ok(Some(cause)) => {
                    self.demands[index].cause = cause;
                    if !self.waits_for_leases(index) {
                        return;
                    }
                    index += 1;
                }
                Err(refusal) => {
                    if let Some(demand) = self.demands.remove(index) {
                        self.forget_demand(&demand, actions);
                    }
                    actions.push(Action::Refuse { lease, refusal });
                }
            }
        }
    }

    /// `Ok(None)`: granted. `Ok(Some(cause))`: must wait.
    fn try_grant(
        &mut self,
        index: usize,
        seq: u64,
        actions: &mut Vec<Action>,
    ) -> Result<Option<Cause>, Refusal> {
        if !self.config.prefetch && self.writes_pending() {
            return Ok(Some(Cause::NvmeWrite));
        }
        let tier = self.orders[self.current].order.tier(self.position(seq));
        let mut waits = None;
        for i in self.uses(seq) {
            let one = self.orders[self.current].order.uses[i];
            match self.bring(one.unit, one.mode, tier, seq, Priority::Demand, actions) {
                Brought::Ready => {}
                Brought::Waits(cause) => waits = waits.or(Some(cause)),
                Brought::Cannot(refusal) => return Err(refusal),
            }
        }
        for i in self.uses(seq) {
            if waits.is_some() {
                return Ok(waits);
            }
            let unit = self.orders[self.current].order.uses[i].unit;
            if !self.is_in(unit, tier) {
                // It had to make room for another unit of the same access.
                return Ok(Some(if tier == Tier::Host { Cause::HostFull } else { Cause::DeviceFull }));
            }
            waits = self.conflict(self.orders[self.current].order.uses[i], tier, actions);
        }
        if waits.is_none() {
            self.grant(index, seq, tier, actions);
        }
        Ok(waits)
    }

    fn grant(&mut self, index: usize, seq: u64, tier: Tier, actions: &mut Vec<Action>) {
        let (lease, client) = (self.demands[index].lease, self.demands[index].client);
        let position = self.position(seq);
        self.leases.insert(lease, Lease { client, order: self.current, position, releasing: false });
        self.cursor = self.cursor.max(seq + 1);
        for window in [&mut self.host_window, &mut self.device_window] {
            if window.next < self.cursor {
                (window.next, window.offset) = (self.cursor, 0);
            }
        }
        for i in self.uses(seq) {
            let declared = &self.orders[self.current];
            let one = declared.order.uses[i];
            let next = Next {
                seq: seq + u64::from(one.gap),
                tier: one.next_tier,
                reads: one.next_reads,
                keep_host: declared.placement.keep_host[i],
                keep_device: declared.placement.keep_device[i],
                written_again: one.written_again,
            };
            if one.mode.writes() {
                self.forget_copy(one.unit, tier, actions);
            }
            let unit = self.unit(one.unit);
            unit.next = next;
            unit.made_ahead = false;
            (unit.evict_host, unit.evict_device) = (false, false);
            let holds = if tier == Tier::Host { &mut unit.host_holds } else { &mut unit.device_holds };
            if one.mode.writes() {
                holds.writer = true;
                match (tier, &mut unit.host, &mut unit.device) {
                    (Tier::Host, Host::Present { blank }, _) => *blank = true,
                    (Tier::Device, _, Device::Present { blank, .. }) => *blank = true,
                    (_, host, device) => panic!("granted what is not there: {host:?} {device:?}"),
                }
            } else {
                holds.readers += 1;
            }
            self.settle(one.unit, actions);
        }
    }

    /// Before a unit is changed in one tier, its copy in the other goes.
    fn forget_copy(&mut self, unit: UnitId, tier: Tier, actions: &mut Vec<Action>) {
        match tier {
            Tier::Host => self.drop_device(unit, actions),
            Tier::Device => self.drop_host(unit, actions),
        }
    }

    pub(crate) fn releasing(&mut self, lease: LeaseId) {
        let held = self.leases.get_mut(&lease);
        held.unwrap_or_else(|| panic!("lease {} is released but not held", lease.0)).releasing = true;
    }

    pub(crate) fn release(&mut self, lease: LeaseId, actions: &mut Vec<Action>) {
        let held = self.leases.remove(&lease);
        let held = held.unwrap_or_else(|| panic!("lease {} is released but not held", lease.0));
        let order = &self.orders[held.order].order;
        let tier = order.tier(held.position);
        for i in order.uses_at(held.position) {
            let one = self.orders[held.order].order.uses[i];
            let unit = self.unit(one.unit);
            let holds = if tier == Tier::Host { &mut unit.host_holds } else { &mut unit.device_holds };
            if one.mode.writes() {
                holds.writer = false;
                match (tier, &mut unit.host, &mut unit.device) {
                    (Tier::Host, Host::Present { blank }, _) => *blank = false,
                    (Tier::Device, _, Device::Present { blank, .. }) => *blank = false,
                    (_, host, device) => panic!("released what is not there: {host:?} {device:?}"),
                }
                self.changed(one.unit);
            } else {
                holds.readers -= 1;
            }
            self.settle(one.unit, actions);
        }
    }

    /// A mutable lease has ended: there is a new version.
    fn changed(&mut self, id: UnitId) {
        let (epoch, each_step) = (self.epoch, self.config.write_each_step);
        let unit = self.unit(id);
        unit.stored = false;
        unit.write_failed = false;
        if unit.durable() && each_step && unit.unsaved.is_none() {
            unit.unsaved = Some(epoch);
            self.unsaved.push(id);
        }
    }
}
