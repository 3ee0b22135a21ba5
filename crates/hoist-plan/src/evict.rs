//! Room: pages of the host and ranges of the device, and what is given up when a demand finds none.

use crate::arena::Arena;
use crate::contract::{Action, Cause, Priority, Tier, UnitId};
use crate::demand::Demand;
use crate::plan::Plan;
use crate::unit::{Device, Host, Unit};

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
            // Pushing some aside helps nobody when all together are not enough: they would come
            // back at once.
            let room = self.config.host_pages - self.host_used_pages + self.evictable_pages(seq);
            // A copy from the device may take the place of anything: else a device full of
            // changed units and a host full of units for the device would wait for each other.
            let victim = if room >= pages { self.host_victim(seq) } else { None };
            let Some(victim) = victim else {
                if self.cancel_gathering(actions) {
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
        let all = self.units.iter().enumerate().filter(|(_, unit)| self.evictable(unit, seq));
        all.max_by_key(|(_, unit)| unit.next.seq).map(|(index, _)| UnitId(index as u32))
    }

    fn evictable_pages(&self, seq: u64) -> u64 {
        self.units.iter().filter(|unit| self.evictable(unit, seq)).map(|unit| unit.pages).sum()
    }

    fn evictable(&self, unit: &Unit, seq: u64) -> bool {
        matches!(unit.host, Host::Present { .. })
            && unit.host_holds.none()
            && unit.wanted == 0
            && !unit.evict_host
            && !unit.write_failed
            && (seq == ANYTHING || self.may_evict(unit) || self.is_where_it_is_wanted(unit))
    }

    /// Whether the demand being served wants the unit on the device, and it has its place there: what
    /// is on the host is then of no more use to it.
    fn is_where_it_is_wanted(&self, unit: &Unit) -> bool {
        let serving = self.demands.iter().find(|demand| Some(demand.lease) == self.serving);
        let on_device =
            |demand: &Demand| self.orders[self.current].order.tier(self.position(demand.seq)) == Tier::Device;
        unit.demanded_by == self.serving
            && matches!(unit.device, Device::Present { .. })
            && serving.is_some_and(on_device)
    }

    /// Whether a demand may push a unit aside: not what an older demand, or it itself, waits with.
    pub(crate) fn may_evict(&self, unit: &Unit) -> bool {
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
            let victims = self.device_victims(bytes);
            if victims.is_empty() {
                if self.cancel_gathering(actions) {
                    continue;
                }
                return Err(Cause::DeviceFull);
            }
            for victim in victims {
                self.stats.emergency_evictions += 1;
                self.unit(victim).evict_device = true;
                self.settle(victim, actions);
            }
        }
    }

    /// Who leaves the device for `bytes`: the unheld unit that is needed farthest in the future. When
    /// all that may leave are not enough, but nothing is held either, all units of the access itself
    /// leave with them: laid out anew from an empty arena they fit, because an access's units together
    /// are within the budget. None when leaving would help nobody: they would come back at once.
    fn device_victims(&self, bytes: u64) -> Vec<UnitId> {
        let leaves = |unit: &Unit| {
            matches!(unit.device, Device::Present { .. })
                && unit.device_holds.none()
                && unit.wanted == 0
                && !unit.evict_device
        };
        let others = |unit: &Unit| leaves(unit) && self.may_evict(unit);
        let all = self.units.iter().enumerate();
        if self.device_gap_without(others) >= Arena::rounded(bytes) {
            let farthest = all.filter(|(_, unit)| others(unit)).max_by_key(|(_, unit)| unit.next.seq);
            return farthest.map(|(index, _)| UnitId(index as u32)).into_iter().collect();
        }
        // Only then is the arena empty afterwards: what somebody holds stays where it is.
        let stays = |unit: &Unit| {
            let older = unit.demanded_by.is_some_and(|lease| Some(lease) < self.serving);
            unit.device != Device::Absent && (older || unit.drain_queued || !leaves(unit))
        };
        if self.units.iter().any(stays) {
            return Vec::new();
        }
        all.filter(|(_, unit)| leaves(unit)).map(|(index, _)| UnitId(index as u32)).collect()
    }

    /// The longest free range of the device if these units left.
    fn device_gap_without(&self, leaves: impl Fn(&Unit) -> bool) -> u64 {
        let mut stay: Vec<(u64, u64)> = self
            .units
            .iter()
            .filter(|unit| !leaves(unit))
            .filter_map(|unit| match unit.device {
                Device::Present { offset, .. } | Device::Filling { offset } => {
                    Some((offset, Arena::rounded(unit.spec.bytes)))
                }
                Device::Absent => None,
            })
            .collect();
        stay.sort_unstable();
        let (mut longest, mut free) = (0, 0);
        for (offset, bytes) in stay {
            longest = longest.max(offset - free);
            free = offset + bytes;
        }
        longest.max(self.arena.bytes() - free)
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
