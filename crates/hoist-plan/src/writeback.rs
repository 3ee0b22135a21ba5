//! Copies from the device and writes to NVMe, and what their ends mean.

use crate::ahead::REQUESTS_AHEAD_MAX;
use crate::contract::{Action, Priority, RequestId, SumPurpose, UnitId};
use crate::evict::ANYTHING;
use crate::plan::{Plan, Work};
use crate::unit::{Device, Host, WriteBack};

impl Plan {
    /// Whether a write is under way or could begin now.
    pub(crate) fn writes_pending(&self) -> bool {
        let queued = |id: &&UnitId| self.units[id.0 as usize].write_back == WriteBack::Queued;
        self.write_bytes_in_flight > 0
            || self.scratch_writes.iter().any(|id| queued(&id))
            || self.durable_writes.iter().filter(queued).any(|&id| self.write_allowed(id))
    }

    /// Whether a copy from the device is in flight.
    pub(crate) fn copies_out_pending(&self) -> bool {
        self.units.iter().any(|unit| unit.draining)
    }

    /// Starts the copies from the device for which there is room on the host.
    pub(crate) fn drain(&mut self, actions: &mut Vec<Action>) {
        while let Some(&id) = self.drains.front() {
            let unit = self.unit(id);
            let still = unit.drain_queued && unit.on_device() && unit.host == Host::Absent;
            if still && !unit.device_holds.writer {
                let pages = unit.pages;
                // Somebody waits: a trainer, a commit or a flush. That gives a copy out the right
                // to push others aside, the trainer's own units too: they come back.
                let committing = matches!(self.sealed, Some((_, false)));
                let waited_for = !self.demands.is_empty() || committing || self.flushing.is_some();
                let priority = if waited_for { Priority::Demand } else { Priority::WriteBack };
                if self.take_pages(pages, ANYTHING, priority, actions).is_err() {
                    return;
                }
                self.copy_out(id, actions);
            }
            self.unit(id).drain_queued = false;
            self.drains.pop_front();
        }
    }

    pub(crate) fn copied_out(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        let unit = self.unit(id);
        assert!(
            matches!(unit.device, Device::Present { .. }),
            "unit {} was copied out but has no device range",
            id.0
        );
        unit.draining = false;
        unit.device_holds.readers -= 1;
        self.host_filled(id, actions);
    }

    /// Starts the queued writes for which there is credit.
    pub(crate) fn write_back(&mut self, actions: &mut Vec<Action>) {
        while let Some(&id) = self.scratch_writes.front() {
            if !self.start_write(id, actions) {
                break;
            }
            self.scratch_writes.pop_front();
        }
        for _ in 0..self.durable_writes.len() {
            let Some(id) = self.durable_writes.pop_front() else { break };
            let queued = self.unit(id).write_back == WriteBack::Queued;
            if queued && (!self.write_allowed(id) || !self.start_write(id, actions)) {
                self.durable_writes.push_back(id);
            }
        }
    }

    /// Until the sealed epoch is durable, all durable bytes that are written belong to it: the
    /// extents of the epoch before it are free only then, and the store tells epochs apart by time.
    fn write_allowed(&self, id: UnitId) -> bool {
        match self.sealed {
            None => true,
            Some((_, true)) => false,
            Some((sealed, false)) => self.units[id.0 as usize].unsaved == Some(sealed),
        }
    }

    /// `false`: no credit. What needs no write any more counts as started.
    fn start_write(&mut self, id: UnitId, actions: &mut Vec<Action>) -> bool {
        let unit = self.unit(id);
        if unit.write_back != WriteBack::Queued {
            return true;
        }
        if !unit.on_host() {
            unit.write_back = WriteBack::Idle;
            return true;
        }
        let bytes = unit.spec.bytes;
        let many = self.requests.len() >= REQUESTS_AHEAD_MAX;
        let in_flight = self.write_bytes_in_flight;
        if in_flight > 0 && (many || in_flight + bytes > self.config.credit_bytes) {
            return false;
        }
        self.write_bytes_in_flight += bytes;
        let request = self.request(id, Work::Sum);
        let unit = self.unit(id);
        unit.host_holds.readers += 1;
        unit.promoted = false;
        unit.write_back = WriteBack::Summing(request);
        actions.push(Action::Checksum { request, unit: id, purpose: SumPurpose::Record });
        true
    }

    pub(crate) fn summed(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        let request = self.request(id, Work::Write);
        let unit = self.unit(id);
        unit.write_back = WriteBack::Writing(request);
        unit.promoted = false;
        let bytes = unit.spec.bytes;
        self.stats.write_bytes += bytes;
        actions.push(Action::Write { request, unit: id });
    }

    fn write_ended(&mut self, id: UnitId) {
        let unit = self.unit(id);
        unit.host_holds.readers -= 1;
        unit.write_back = WriteBack::Idle;
        let bytes = unit.spec.bytes;
        self.write_bytes_in_flight -= bytes;
    }

    pub(crate) fn written(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        self.write_ended(id);
        let unit = self.unit(id);
        unit.stored = true;
        if let Some(epoch) = unit.unsaved.take() {
            self.saved(epoch);
        }
        self.settle(id, actions);
    }

    /// A write, or the checksum before it, failed: the unit stays in memory, and nothing else is touched, unless it belongs
    /// to an epoch, which can never be published then and is rolled back.
    pub(crate) fn write_failed(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        self.write_ended(id);
        self.unit(id).write_failed = true;
        let unit = &self.units[id.0 as usize];
        if let Some(epoch) = unit.unsaved.filter(|_| !self.rolling_back) {
            actions.push(Action::FailEpoch { epoch });
            self.roll_back(actions);
        }
        self.settle(id, actions);
    }

    pub(crate) fn done(&mut self, request: RequestId, actions: &mut Vec<Action>) {
        let (id, work) = self.take_request(request);
        match work {
            Work::Read => self.read_done(id, actions),
            Work::Verify => self.host_filled(id, actions),
            Work::Derive => self.derived(id, actions),
            Work::CopyIn => self.copied_in(id, actions),
            Work::CopyOut => self.copied_out(id, actions),
            Work::Sum => self.summed(id, actions),
            Work::Write => self.written(id, actions),
        }
    }

    pub(crate) fn failed(&mut self, request: RequestId, actions: &mut Vec<Action>) {
        let (id, work) = self.take_request(request);
        match work {
            Work::Read | Work::Verify | Work::Derive => self.fill_failed(id, work, request, actions),
            Work::Sum | Work::Write => self.write_failed(id, actions),
            // The device's copies cannot fail one by one; a lost device ends the engine.
            Work::CopyIn | Work::CopyOut => panic!("copy {} of unit {} failed", request.0, id.0),
        }
    }

    fn take_request(&mut self, request: RequestId) -> (UnitId, Work) {
        let known = self.requests.remove(&request);
        known.unwrap_or_else(|| panic!("request {} has ended before or was never made", request.0))
    }
}
