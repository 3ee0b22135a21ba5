//! Rollback: what the running step and the epoch being committed have written is dropped.

use crate::contract::{Action, Refusal, UnitId};
use crate::plan::Plan;
use crate::unit::{Device, Host, Kind, WriteBack};

impl Plan {
    /// Nothing is brought, granted or drained from now on. Who waits is refused; what is in flight goes on to its end, and
    /// that and what is leased comes back first.
    pub(crate) fn roll_back(&mut self, actions: &mut Vec<Action>) {
        self.rolling_back = true;
        self.flushing = None;
        self.refuse_all(Refusal::RolledBack, actions);
    }

    /// Nobody waits any more, and nothing is brought for anybody.
    pub(crate) fn refuse_all(&mut self, refusal: Refusal, actions: &mut Vec<Action>) {
        for demand in std::mem::take(&mut self.demands) {
            for i in self.uses(demand.seq) {
                let id = self.orders[self.current].order.uses[i].unit;
                self.unit(id).demanded_by = None;
            }
            actions.push(Action::Refuse { lease: demand.lease, refusal });
        }
        for id in std::mem::take(&mut self.gathering) {
            self.leave_gathering(id, actions);
        }
    }

    /// When all has come back, what is in memory of durable units goes, and of units made from them: the next access
    /// reads, or makes, what the durable epoch has. Scratch stays.
    pub(crate) fn finish_rollback(&mut self, actions: &mut Vec<Action>) {
        if !self.requests.is_empty() || !self.leases.is_empty() {
            return;
        }
        for index in 0..self.units.len() {
            if self.units[index].spec.kind != Kind::Scratch {
                self.forget(UnitId(index as u32), actions);
            }
        }
        if let Some((sealed, _)) = self.sealed.take() {
            self.epoch = sealed;
        }
        // The next epoch has the number of the one that is lost, and a try of its own.
        self.tried_again_for = 0;
        self.unsaved.clear();
        self.unsaved_sealed.clear();
        self.rolling_back = false;
        actions.push(Action::RolledBack);
        self.end_cycle(actions);
    }

    /// NVMe has other versions of durable and derived units than were written there: for each unit, whether it has one. The
    /// next step becomes `epoch`. After a rollback that has left none of them in memory, before the next event.
    ///
    /// # Panics
    /// When one of them is in memory, or something is in flight or being committed.
    pub fn replace_stored(&mut self, stored: impl Iterator<Item = bool>, epoch: u64) {
        assert!(self.requests.is_empty() && self.leases.is_empty(), "replaced below what is under way");
        assert_eq!(self.sealed, None, "replaced below what is being committed");
        for (unit, stored) in
            self.units.iter_mut().zip(stored).filter(|(unit, _)| unit.spec.kind != Kind::Scratch)
        {
            assert_eq!(
                (unit.host, unit.device),
                (Host::Absent, Device::Absent),
                "replaced below what is in memory"
            );
            (unit.stored, unit.in_epoch) = (stored, stored);
        }
        self.epoch = epoch;
    }

    fn forget(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        self.drop_host(id, actions);
        self.drop_device(id, actions);
        let unit = self.unit(id);
        assert_eq!(unit.wanted, 0, "unit {} is wanted by a derivation that was given up", id.0);
        unit.stored = unit.durable() && unit.in_epoch;
        unit.unsaved = None;
        unit.write_back = WriteBack::Idle;
        unit.made_ahead = false;
        unit.refused = None;
    }
}
