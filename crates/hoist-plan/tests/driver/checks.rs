//! What must hold when a lease is granted and when an epoch is published.

use hoist_plan::{Kind, LeaseId, Mode, Tier, UnitId};

use super::{What, World};

impl World {
    /// The newest bytes are there, nobody else changes them.
    pub(super) fn grant(&mut self, lease: LeaseId) {
        self.granted += 1;
        self.held.insert(lease);
        let (tier, uses) = self.uses(self.leases[&lease]);
        for (unit, mode) in uses {
            let newest = self.newest[unit.0 as usize];
            self.check_made_from(unit, mode);
            let slot = match tier {
                Tier::Host => self.host[unit.0 as usize].as_mut().expect("granted without host slot"),
                Tier::Device => &mut self.device[unit.0 as usize].as_mut().expect("granted without range").1,
            };
            if mode.reads() {
                assert_eq!(slot.version, newest, "{unit:?} granted with other than the newest bytes");
                assert!(newest.is_some());
            }
            if mode.writes() {
                assert_eq!(slot.busy, 0, "{unit:?} granted for writing while held");
            }
            slot.busy += 1;
            if mode.writes() {
                let other_tier = match tier {
                    Tier::Host => self.device[unit.0 as usize].is_some(),
                    Tier::Device => self.host[unit.0 as usize].is_some(),
                };
                assert!(!other_tier, "{unit:?} is changed in one tier with a copy in the other");
            }
        }
    }

    fn check_made_from(&mut self, unit: UnitId, mode: Mode) {
        let Kind::Derived { sources } = &self.specs[unit.0 as usize].kind else { return };
        let Some(made_from) = self.made_from.remove(&unit) else { return };
        if self.one_at_a_time && mode.reads() {
            let now: Vec<_> = sources.iter().map(|source| self.newest[source.0 as usize]).collect();
            assert_eq!(made_from, now, "{unit:?} was made before its sources changed, and is read after");
        }
    }

    /// NVMe holds exactly the sealed versions of all durable units: nothing less, nothing newer.
    pub(super) fn publish(&mut self, epoch: u64) {
        let sealed = &self.sealed[&epoch];
        for (unit, spec) in self.specs.iter().enumerate() {
            if self.config.write_each_step && spec.kind == Kind::Durable {
                assert_eq!(self.nvme[unit], sealed[unit], "unit {unit} in epoch {epoch}");
            }
        }
        self.published.push(epoch);
        let at = self.now_ns + 1 + self.random.below(5000);
        self.pending.insert((at, u64::MAX), (None, What::Commit(epoch)));
    }

    /// Nothing is left of what was dropped, and nobody works on anything.
    pub(super) fn rolled_back(&mut self) {
        assert!(self.pending.is_empty() && self.held.is_empty(), "{:?} {:?}", self.pending, self.held);
        for unit in (0..self.specs.len()).filter(|&unit| self.specs[unit].kind != Kind::Scratch) {
            assert!(self.host[unit].is_none() && self.device[unit].is_none(), "unit {unit} is in memory");
            let durable = self.specs[unit].kind == Kind::Durable;
            let version = if durable { self.durable[unit] } else { None };
            (self.nvme[unit], self.newest[unit]) = (version, version);
            self.made_from.remove(&UnitId(unit as u32));
        }
        self.sealed.clear();
        self.epoch = self.done_epoch + 1;
        self.rolling_back = false;
        self.rollbacks += 1;
    }
}
