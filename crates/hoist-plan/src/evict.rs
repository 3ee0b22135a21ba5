//! Room: pages of the host and ranges of the device, and what is given up when a demand finds none.

use crate::arena::Arena;
use crate::contract::{Action, Cause, Priority, UnitId};
use crate::plan::Plan;
use crate::unit::{Device, Host};

/// In place of a sequence number: on behalf of a copy from the device, which may take the place of
/// anything that is not held.
pub(crate) const ANYTHING: u64 = 0;

impl Plan {
    /// Takes host pages. A demand that finds none makes room, at the latest when nothing in
    /// flight will; a fetch ahead waits.
    pub(crate) fn take_pages(
        &mut self,
        pages: u64,
        seq: u64,
        priority: Priority,
        actions: &mut Vec<Action>,
    ) -> Result<(), Cause> {
        while self.host_used_pages + pages > self.config.host_pages {
            if self.writes_pending() {
                return Err(Cause::NvmeWrite);
            }
            if priority != Priority::Demand || self.copies_out_pending() {
                return Err(Cause::HostFull);
            }
            // A copy from the device may take the place of anything: else a device full of
            // changed units and a host full of units for the device would wait for each other.
            let Some(victim) = self.host_victim(seq) else {
                if self.gathering.iter().any(|id| self.units[id.0 as usize].demanded_by.is_none()) {
                    self.cancel_gathering(actions);
                    continue;
                }
                return Err(Cause::HostFull);
            };
            self.stats.emergency_evictions += 1;
            self.unit(victim).evict_host = true;
            self.settle(victim, actions);
            if self.unit(victim).host != Host::Absent {
                return Err(if self.writes_pending() { Cause::NvmeWrite } else { Cause::HostFull });
            }
        }
        self.host_used_pages += pages;
        Ok(())
    }

    /// The unheld host unit that is needed farthest in the future, and that no demand waits with
    /// which is older than the one being served.
    fn host_victim(&self, seq: u64) -> Option<UnitId> {
        let evictable = |&(_, unit): &(usize, &crate::unit::Unit)| {
            matches!(unit.host, Host::Present { .. })
                && unit.host_holds.none()
                && unit.wanted == 0
                && !unit.evict_host
                && !unit.write_failed
                && (seq == ANYTHING || self.may_evict(unit))
        };
        let farthest = self.units.iter().enumerate().filter(evictable).max_by_key(|(_, unit)| unit.next.seq);
        farthest.map(|(index, _)| UnitId(index as u32))
    }

    /// Whether a demand may push a unit aside: not what an older demand, or it itself, waits with.
    fn may_evict(&self, unit: &crate::unit::Unit) -> bool {
        unit.demanded_by.is_none_or(|other| self.serving.is_some_and(|lease| lease < other))
    }

    /// Takes a range of the device.
    pub(crate) fn take_device(
        &mut self,
        bytes: u64,
        priority: Priority,
        actions: &mut Vec<Action>,
    ) -> Result<u64, Cause> {
        loop {
            if let Some(offset) = self.arena.allocate(bytes) {
                return Ok(offset);
            }
            if self.copies_out_pending() || !self.drains.is_empty() {
                return Err(Cause::D2h);
            }
            if priority != Priority::Demand {
                return Err(Cause::DeviceFull);
            }
            let victims = self.device_victims();
            if victims.is_empty() {
                return Err(Cause::DeviceFull);
            }
            for victim in victims {
                self.stats.emergency_evictions += 1;
                self.unit(victim).evict_device = true;
                self.settle(victim, actions);
            }
        }
    }

    /// The unheld device unit that is needed farthest in the future; when only the units of the
    /// access itself are left, all of them at once: laid out anew from an empty arena they fit,
    /// because an access's units together are within the budget.
    fn device_victims(&self) -> Vec<UnitId> {
        let evictable = |&(_, unit): &(usize, &crate::unit::Unit)| {
            matches!(unit.device, Device::Present { .. }) && unit.device_holds.none() && !unit.evict_device
        };
        let mut all = self.units.iter().enumerate().filter(evictable);
        let farthest =
            all.clone().filter(|(_, unit)| self.may_evict(unit)).max_by_key(|(_, unit)| unit.next.seq);
        if let Some((index, _)) = farthest {
            return vec![UnitId(index as u32)];
        }
        // Only then is the arena empty afterwards: what somebody holds stays where it is.
        let held = |unit: &crate::unit::Unit| {
            let older = unit.demanded_by.is_some_and(|lease| Some(lease) < self.serving);
            matches!(unit.device, Device::Filling { .. })
                || (unit.device != Device::Absent
                    && (older || unit.evict_device || unit.drain_queued || !unit.device_holds.none()))
        };
        if self.units.iter().any(held) {
            return Vec::new();
        }
        all.by_ref()
            .filter(|(_, unit)| unit.demanded_by >= self.serving)
            .map(|(index, _)| UnitId(index as u32))
            .collect()
    }

    pub(crate) fn drop_host(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        let unit = self.unit(id);
        if unit.host == Host::Absent {
            return;
        }
        let wanted = unit.wanted > 0 && unit.on_host();
        assert!(
            matches!(unit.host, Host::Present { .. }) && unit.host_holds.none() && !wanted,
            "host slot of unit {} dropped while in use: {:?} {:?}",
            id.0,
            unit.host,
            unit.host_holds
        );
        unit.host = Host::Absent;
        unit.evict_host = false;
        let pages = unit.pages;
        self.host_used_pages -= pages;
        self.count_kept(id);
        actions.push(Action::DropHost { unit: id });
    }

    pub(crate) fn drop_device(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        let unit = self.unit(id);
        let Device::Present { offset, .. } = unit.device else { return };
        assert!(
            unit.device_holds.none(),
            "device range of unit {} dropped while in use: {:?}",
            id.0,
            unit.device_holds
        );
        unit.device = Device::Absent;
        unit.evict_device = false;
        unit.drain_queued = false;
        let bytes = unit.spec.bytes;
        self.arena.free(offset, bytes);
        self.count_kept(id);
        actions.push(Action::DropDevice { unit: id });
    }

    /// Keeps the sums of what the placement keeps right now.
    pub(crate) fn count_kept(&mut self, id: UnitId) {
        let unit = &mut self.units[id.0 as usize];
        let host = unit.next.keep_host && unit.host != Host::Absent;
        let device = unit.next.keep_device && unit.device != Device::Absent;
        let elsewhere = unit.next.keep_host && !host && unit.on_device() && unit.next.seq != u64::MAX;
        let until = elsewhere.then_some(unit.next.seq);
        if until != unit.elsewhere_until {
            if let Some(seq) = std::mem::replace(&mut unit.elsewhere_until, until) {
                self.kept_elsewhere.remove(&(seq, id));
            }
            if let Some(seq) = until {
                self.kept_elsewhere.insert((seq, id), unit.pages);
            }
        }
        if host != unit.kept_host {
            unit.kept_host = host;
            self.kept_pages = if host { self.kept_pages + unit.pages } else { self.kept_pages - unit.pages };
        }
        if device != unit.kept_device {
            unit.kept_device = device;
            let bytes = Arena::rounded(unit.spec.bytes);
            self.kept_device_bytes =
                if device { self.kept_device_bytes + bytes } else { self.kept_device_bytes - bytes };
        }
    }
}
