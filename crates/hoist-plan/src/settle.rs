//! What becomes of a unit when nobody is about to move it: the one place where slots are given
//! back and write-backs and copies from the device are asked for.

use crate::contract::{Action, Tier, UnitId};
use crate::plan::Plan;
use crate::unit::{Device, Host, Unit, WriteBack};

impl Plan {
    /// Looks at a unit after anything about it has changed, and does what follows. Calling it
    /// once more changes nothing.
    pub(crate) fn settle(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        self.count_kept(id);
        let unit = &self.units[id.0 as usize];
        if unit.host_holds.writer || unit.device_holds.writer || unit.wanted > 0 {
            return;
        }
        // Somebody waits for it: it stays there until the grant.
        let demanded = unit.demanded_by.is_some();
        let near = demanded || self.near(unit.next.seq);
        self.settle_blank(id, near, actions);
        let unit = &self.units[id.0 as usize];
        if unit.dead() && !demanded {
            self.bury(id, near, actions);
            return;
        }
        let save = self.must_save(unit);
        let leaving_all = self.flushing == Some(true);
        let soon = |next: u64, window: &crate::plan::Window| {
            next <= self.cursor || (self.config.prefetch && next <= window.next)
        };
        let device_next = unit.next.tier == Tier::Device
            && (unit.next.keep_device || soon(unit.next.seq, &self.device_window));
        let stays_on_device = unit.on_device()
            && !unit.evict_device
            && !leaving_all
            && (device_next || (demanded && self.demanded_on(id, Tier::Device)));
        if unit.on_device() && (!stays_on_device || save) {
            self.settle_device(id, stays_on_device, actions);
        }
        let unit = &self.units[id.0 as usize];
        if unit.on_host() {
            let wanted_here = unit.next.tier == Tier::Host
                || !stays_on_device
                || (demanded && self.demanded_on(id, Tier::Host));
            let stays_on_host =
                wanted_here && !unit.evict_host && !leaving_all && (unit.next.keep_host || near);
            self.settle_host(id, save, stays_on_host, stays_on_device, actions);
        }
        self.count_kept(id);
    }

    /// Whether a demand waits for the unit on this tier.
    fn demanded_on(&self, id: UnitId, tier: Tier) -> bool {
        let order = &self.orders[self.current].order;
        let waits = |seq: u64| {
            order.tier(self.position(seq)) == tier && self.uses(seq).any(|i| order.uses[i].unit == id)
        };
        self.demands.iter().any(|demand| waits(demand.seq))
    }

    /// Whether an access is so close that what it uses has been, or is being, brought.
    fn near(&self, seq: u64) -> bool {
        seq <= self.cursor || (self.config.prefetch && seq <= self.host_window.next)
    }

    /// Whether the newest version must go to NVMe now, wherever the unit stays.
    pub(crate) fn must_save(&self, unit: &Unit) -> bool {
        if unit.write_failed || unit.stored {
            return false;
        }
        match (self.flushing, unit.unsaved) {
            (Some(all), _) if all || unit.durable() => true,
            (_, Some(epoch)) => !unit.next.written_again || epoch < self.epoch,
            (_, None) => false,
        }
    }

    /// A blank slot whose overwrite is not near any more holds nothing.
    fn settle_blank(&mut self, id: UnitId, near: bool, actions: &mut Vec<Action>) {
        let unit = &self.units[id.0 as usize];
        let leaving = !near || self.flushing == Some(true);
        // The copy that saves the version on the device needs the place.
        let in_the_way = unit.on_device() && self.must_save(unit);
        if matches!(unit.host, Host::Present { blank: true }) && (leaving || unit.evict_host || in_the_way) {
            self.drop_host(id, actions);
        }
        let unit = &self.units[id.0 as usize];
        if matches!(unit.device, Device::Present { blank: true, .. }) && (leaving || unit.evict_device) {
            self.drop_device(id, actions);
        }
    }

    /// Nobody will read it again: gives back what it takes, as soon as nobody holds it, except
    /// the very slot that is overwritten soon.
    fn bury(&mut self, id: UnitId, near: bool, actions: &mut Vec<Action>) {
        let stays = near && self.flushing != Some(true);
        let unit = self.unit(id);
        unit.drain_queued = false;
        let leaves = !stays || unit.next.tier == Tier::Host || unit.evict_device;
        if leaves && unit.on_device() && unit.device_holds.none() {
            self.drop_device(id, actions);
        }
        let unit = self.unit(id);
        let leaves = !stays || unit.next.tier == Tier::Device || unit.evict_host;
        if unit.write_back == WriteBack::Queued {
            unit.write_back = WriteBack::Idle;
        }
        if leaves && unit.on_host() && unit.host_holds.none() && unit.write_back == WriteBack::Idle {
            self.drop_host(id, actions);
        }
    }

    fn settle_device(&mut self, id: UnitId, stays: bool, actions: &mut Vec<Action>) {
        let unit = self.unit(id);
        let safe_elsewhere = unit.stored || unit.on_host();
        if !safe_elsewhere {
            if !unit.drain_queued && !unit.draining {
                unit.drain_queued = true;
                self.drains.push_back(id);
            }
        } else if !stays && unit.device_holds.none() {
            self.drop_device(id, actions);
        }
    }

    fn settle_host(
        &mut self,
        id: UnitId,
        save: bool,
        stays: bool,
        stays_on_device: bool,
        actions: &mut Vec<Action>,
    ) {
        let unit = self.unit(id);
        let safe_elsewhere = unit.stored || stays_on_device;
        let durable = unit.durable();
        if (save || (!stays && !safe_elsewhere)) && !unit.write_failed {
            if unit.write_back == WriteBack::Idle {
                unit.write_back = WriteBack::Queued;
                if durable { self.durable_writes.push_back(id) } else { self.scratch_writes.push_back(id) }
            }
            return;
        }
        if unit.write_back == WriteBack::Queued {
            // It stays after all.
            unit.write_back = WriteBack::Idle;
        }
        let idle = unit.host_holds.none() && unit.write_back == WriteBack::Idle && !unit.draining;
        if !stays && safe_elsewhere && idle {
            self.drop_host(id, actions);
        }
    }
}
