//! Steps, epochs and flushes.

use crate::contract::{Action, OrderId, Refusal, UnitId};
use crate::plan::Plan;
use crate::unit::{Device, Host};

impl Plan {
    pub(crate) fn begin_step(&mut self, order: OrderId, actions: &mut Vec<Action>) {
        let index = order.0 as usize;
        assert!(index < self.orders.len(), "order {} was never declared", order.0);
        assert!(!self.rolling_back, "a step begins in the middle of a rollback");
        self.write_again(actions);
        if index != self.current || self.cursor == self.base {
            self.current = index;
            self.base = self.cursor;
            self.look_ahead(actions);
        } else if !self.at_cycles_end() {
            self.stats.departures += 1;
            self.end_cycle(actions);
        }
    }

    fn at_cycles_end(&self) -> bool {
        let length = self.orders[self.current].order.len() as u64;
        (self.cursor - self.base).is_multiple_of(length)
    }

    /// Goes on with the first access of the order, and looks for what is needed from there on as if nothing had come.
    pub(crate) fn end_cycle(&mut self, actions: &mut Vec<Action>) {
        let length = self.orders[self.current].order.len() as u64;
        self.cursor = self.base + (self.cursor - self.base).next_multiple_of(length);
        self.look_ahead(actions);
    }

    /// What could not be written, and is of no epoch that failed with it, is tried once more: the drive may be well again,
    /// or have space. Until then it keeps its memory.
    pub(crate) fn write_again(&mut self, actions: &mut Vec<Action>) {
        for index in 0..self.units.len() {
            let unit = &mut self.units[index];
            if unit.write_failed && unit.unsaved.is_none() {
                unit.write_failed = false;
                self.settle(UnitId(index as u32), actions);
            }
        }
    }

    /// Seals what the step wrote. The driver lets the commit before it become durable first: at
    /// most one is under way.
    pub(crate) fn seal(&mut self, epoch: u64, actions: &mut Vec<Action>) {
        assert_eq!((epoch, self.sealed), (self.epoch, None), "epochs are committed one after the other");
        self.sealed = Some((epoch, false));
        self.epoch = epoch + 1;
        let mut unsaved = std::mem::take(&mut self.unsaved);
        // A unit that was changed, saved and changed again in one step is listed each time.
        unsaved.sort_unstable();
        unsaved.dedup();
        let waiting = |id: &UnitId| self.units[id.0 as usize].unsaved == Some(epoch);
        self.unsaved_sealed_count = unsaved.iter().filter(|id| waiting(id)).count() as u64;
        for &id in &unsaved {
            self.settle(id, actions);
        }
        self.unsaved_sealed = unsaved;
    }

    /// A durable version has reached NVMe.
    pub(crate) fn saved(&mut self, epoch: u64) {
        if epoch < self.epoch {
            self.unsaved_sealed_count -= 1;
        }
    }

    pub(crate) fn publish(&mut self, actions: &mut Vec<Action>) {
        if let Some((epoch, false)) = self.sealed
            && self.unsaved_sealed_count == 0
        {
            self.sealed = Some((epoch, true));
            actions.push(Action::Publish { epoch });
        }
    }

    /// When nothing is in flight and the sealed epoch is not on NVMe, what could not be written is in its way: it keeps the
    /// memory that copies from the device need. It is tried once more; then the epoch fails, as nobody may wait for ever.
    pub(crate) fn fail_blocked_epoch(&mut self, actions: &mut Vec<Action>) {
        let Some((epoch, false)) = self.sealed else { return };
        let in_the_way = self.units.iter().any(|unit| unit.write_failed && unit.unsaved.is_none());
        if self.unsaved_sealed_count == 0 || !self.requests.is_empty() || !in_the_way {
            return;
        }
        if self.tried_again_for < epoch {
            self.tried_again_for = epoch;
            self.write_again(actions);
            self.drain(actions);
            self.write_back(actions);
        } else {
            actions.push(Action::FailEpoch { epoch });
            self.roll_back(actions);
        }
    }

    pub(crate) fn commit_done(&mut self, epoch: u64) {
        assert_eq!(self.sealed, Some((epoch, true)), "only what was published can become durable");
        self.sealed = None;
        for id in std::mem::take(&mut self.unsaved_sealed) {
            self.unit(id).in_epoch = true;
        }
    }

    pub(crate) fn flush(&mut self, all: bool, actions: &mut Vec<Action>) {
        assert!(self.leases.is_empty(), "flushed with {} leases held", self.leases.len());
        self.flushing = Some(all);
        // A lease that is granted now could change what has been written already, or give back an overwritten slot that
        // nobody has filled.
        self.refuse_all(Refusal::Flushed, actions);
        for index in 0..self.units.len() {
            // Whatever it failed for may be over, and nobody comes after this who would try again.
            self.units[index].write_failed = false;
            self.settle(UnitId(index as u32), actions);
        }
    }

    pub(crate) fn finish_flush(&mut self, actions: &mut Vec<Action>) {
        let Some(all) = self.flushing else { return };
        if !self.requests.is_empty() || self.writes_pending() || self.sealed.is_some() {
            return;
        }
        let left = self.units.iter().any(|unit| {
            let unwritten = unit.only_in_memory() && unit.durable() && !unit.write_failed;
            let resident = unit.host != Host::Absent || unit.device != Device::Absent;
            unwritten || (all && resident && !unit.write_failed)
        });
        if !left {
            self.flushing = None;
            self.host_window.restart(self.cursor);
            self.device_window.restart(self.cursor);
            actions.push(Action::Flushed);
        }
    }
}
