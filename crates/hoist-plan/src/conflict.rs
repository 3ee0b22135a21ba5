//! What keeps a unit that is in place from being leased, and demands that can never be met.

use crate::contract::{Action, Cause, Refusal, Tier, UnitId};
use crate::demand::{Demand, Lease};
use crate::order::Use;
use crate::plan::{Declared, Plan};
use crate::unit::{Device, Host, WriteBack};

impl Lease {
    pub(crate) fn holds(&self, orders: &[Declared], unit: UnitId) -> bool {
        let order = &orders[self.order].order;
        order.uses_at(self.position).any(|i| order.uses[i].unit == unit)
    }
}

impl Plan {
    /// Whether a demand waits for nothing but the end of leases.
    pub(crate) fn waits_for_leases(&self, index: usize) -> bool {
        let seq = self.demands[index].seq;
        let tier = self.orders[self.current].order.tier(self.position(seq));
        let mut held = false;
        for i in self.uses(seq) {
            let id = self.orders[self.current].order.uses[i].unit;
            let unit = &self.units[id.0 as usize];
            let leased = self.leases.values().any(|lease| lease.holds(&self.orders, id));
            held |= leased;
            let idle = unit.write_back == WriteBack::Idle && !unit.draining;
            let in_place = self.is_in(id, tier) && idle;
            if !leased && !in_place {
                return self.requests.is_empty() && self.leases.values().any(|lease| !lease.releasing);
            }
        }
        held
    }

    /// Whether leases alone keep a demand, when nothing moves: they are on what it asks for, or fill the device, where
    /// nothing stays because it could not be written.
    fn is_kept_by_leases(&self, index: usize) -> bool {
        let Demand { seq, cause, .. } = self.demands[index];
        let order = &self.orders[self.current].order;
        let tier = order.tier(self.position(seq));
        let mut units = self.uses(seq).map(|i| order.uses[i].unit);
        let leased = |id: UnitId| self.leases.values().any(|lease| lease.holds(&self.orders, id));
        match cause {
            Cause::DeviceFull => true,
            // A copy from the device that finds no room on the host.
            Cause::D2h => false,
            _ => units.clone().any(leased) && units.all(|id| leased(id) || self.is_in(id, tier)),
        }
    }

    pub(crate) fn is_in(&self, unit: UnitId, tier: Tier) -> bool {
        let unit = &self.units[unit.0 as usize];
        match tier {
            Tier::Host => matches!(unit.host, Host::Present { .. }),
            Tier::Device => matches!(unit.device, Device::Present { .. }),
        }
    }

    /// What keeps a unit that is there from being leased.
    pub(crate) fn conflict(&mut self, one: Use, tier: Tier, actions: &mut Vec<Action>) -> Option<Cause> {
        let epoch = self.epoch;
        if (tier == Tier::Host || (one.mode.writes() && self.unit(one.unit).durable()))
            && self.saves_from_device()
        {
            return Some(Cause::D2h);
        }
        let unit = self.unit(one.unit);
        if unit.host_holds.writer || unit.device_holds.writer {
            return Some(if tier == Tier::Host { Cause::HostFull } else { Cause::DeviceFull });
        }
        if !one.mode.writes() {
            return None;
        }
        // A version of an epoch that is being committed must reach NVMe before it is changed.
        if unit.unsaved.is_some_and(|unsaved| unsaved < epoch) {
            self.settle(one.unit, actions);
            return Some(Cause::NvmeWrite);
        }
        match unit.write_back {
            WriteBack::Summing(request) | WriteBack::Writing(request) => {
                if !unit.promoted {
                    unit.promoted = true;
                    actions.push(Action::Promote { request });
                }
                return Some(Cause::NvmeWrite);
            }
            // It would be written again: not now.
            WriteBack::Queued => unit.write_back = WriteBack::Idle,
            WriteBack::Idle => {}
        }
        if unit.draining {
            return Some(Cause::D2h);
        }
        if matches!(unit.device, Device::Filling { .. }) {
            return Some(Cause::H2d);
        }
        if unit.wanted > 0 {
            // What would be made from it would be out of date at once, and may itself wait for room;
            // when an older demand waits for it, it comes first.
            self.cancel_gathering(actions);
        }
        let unit = &self.units[one.unit.0 as usize];
        if matches!(unit.host, Host::Filling(_)) || unit.wanted > 0 {
            return Some(Cause::NvmeRead);
        }
        if !unit.host_holds.none() {
            return Some(Cause::HostFull);
        }
        if !unit.device_holds.none() {
            return Some(Cause::DeviceFull);
        }
        self.forget_made_ahead(one.unit, actions)
    }

    /// Whether the sealed epoch has versions only on the device, which leave it through the host. Until then nobody gets a
    /// lease of host memory, which may be kept until the epoch is durable: the copies would find no room. Nor is a durable
    /// unit changed: its version is of the next epoch, and cannot leave memory before this one is durable.
    fn saves_from_device(&self) -> bool {
        let Some((epoch, false)) = self.sealed else { return false };
        let only_there = |id: &UnitId| {
            let unit = &self.units[id.0 as usize];
            unit.unsaved == Some(epoch) && !unit.on_host()
        };
        self.unsaved_sealed_count > 0 && self.unsaved_sealed.iter().any(only_there)
    }

    /// Before a unit is changed, what was made from it ahead of an access that has not come is
    /// forgotten: that access gets what the order in which accesses really come says. In the declared
    /// order nothing is made ahead of such a change.
    fn forget_made_ahead(&mut self, source: UnitId, actions: &mut Vec<Action>) -> Option<Cause> {
        for index in 0..self.unit(source).derivatives.len() {
            let id = self.unit(source).derivatives[index];
            let serving = self.serving;
            let unit = self.unit(id);
            // Whoever asked before, or with the same access, gets what there was.
            let asked_before = unit.demanded_by.is_some_and(|lease| Some(lease) <= serving);
            if !unit.made_ahead || asked_before {
                continue;
            }
            if !unit.host_holds.none() || !unit.device_holds.none() || matches!(unit.host, Host::Filling(_)) {
                return Some(Cause::NvmeRead);
            }
            (unit.made_ahead, unit.stored) = (false, false);
            unit.write_back = WriteBack::Idle;
            self.drop_host(id, actions);
            self.drop_device(id, actions);
        }
        None
    }

    /// When every client that could go on is blocked and nothing in flight frees memory, the
    /// youngest demand ends with an error instead of waiting for ever: what could not be written is in its way, or nothing
    /// but leases. `true`: one did.
    pub(crate) fn refuse_deadlock(&mut self, actions: &mut Vec<Action>) -> bool {
        let published = self.sealed.is_some_and(|(_, published)| published);
        if self.demands.is_empty() || !self.requests.is_empty() || published {
            return false;
        }
        let blocked = |client| self.demands.iter().any(|demand| demand.client == client);
        if self.leases.values().any(|lease| lease.releasing || !blocked(lease.client)) {
            return false;
        }
        let leases_only = self.is_kept_by_leases(self.demands.len() - 1);
        let Some(youngest) = self.demands.pop_back() else { return false };
        self.forget_demand(&youngest, actions);
        let in_the_way = self.units.iter().position(|unit| unit.write_failed && unit.unsaved.is_none());
        let refusal = match in_the_way {
            Some(unit) if !leases_only => Refusal::NotWritten { unit: UnitId(unit as u32) },
            _ => Refusal::WouldDeadlock { waiting_for: youngest.cause },
        };
        actions.push(Action::Refuse { lease: youngest.lease, refusal });
        // Who asks again finds room if the drive takes it now.
        self.write_again(actions);
        true
    }
}
