//! Bringing units to where an access wants them, stage by stage.

use crate::contract::{Action, Cause, Mode, Priority, Refusal, RequestId, SumPurpose, Tier, UnitId};
use crate::plan::{Plan, Work};
use crate::unit::{Device, Fill, Host, Kind};

/// How far a unit has come on its way to an access.
pub(crate) enum Brought {
    /// It is there.
    Ready,
    /// It is on its way, or waits for this.
    Waits(Cause),
    /// It cannot come.
    Cannot(Refusal),
}

impl Plan {
    /// Moves a unit one stage further towards the tier where it is wanted.
    pub(crate) fn bring(
        &mut self,
        id: UnitId,
        mode: Mode,
        tier: Tier,
        seq: u64,
        priority: Priority,
        actions: &mut Vec<Action>,
    ) -> Brought {
        let unit = &self.units[id.0 as usize];
        let older = unit.demanded_by.is_some_and(|lease| Some(lease) < self.serving);
        let blank = matches!(unit.host, Host::Present { blank: true })
            || matches!(unit.device, Device::Present { blank: true, .. });
        if older && (blank || !mode.reads()) {
            // One of the two wants the bytes from before and the other a blank slot: in turn.
            return Brought::Waits(if tier == Tier::Host { Cause::HostFull } else { Cause::DeviceFull });
        }
        match tier {
            Tier::Host => self.bring_host(id, mode.reads(), seq, priority, actions),
            Tier::Device => self.bring_device(id, mode.reads(), seq, priority, actions),
        }
    }

    pub(crate) fn bring_host(
        &mut self,
        id: UnitId,
        reads: bool,
        seq: u64,
        priority: Priority,
        actions: &mut Vec<Action>,
    ) -> Brought {
        let saves_first = !reads && self.must_save_from_device(id);
        let unit = self.unit(id);
        match unit.host {
            Host::Present { blank: false } => return Brought::Ready,
            // The slot is needed for the copy that saves the version from before.
            Host::Present { blank: true } if saves_first && !unit.host_holds.writer => {
                self.drop_host(id, actions);
            }
            // Somebody else is overwriting it.
            Host::Present { blank: true } if unit.host_holds.writer => {
                return Brought::Waits(Cause::HostFull);
            }
            // Taken for an overwrite that did not come.
            Host::Present { blank: true } if reads => self.drop_host(id, actions),
            Host::Present { blank: true } => return Brought::Ready,
            Host::Filling(fill) => return self.wait_for(id, fill, priority, actions),
            Host::Absent => {}
        }
        let unit = self.unit(id);
        if unit.device_holds.writer {
            return Brought::Waits(Cause::DeviceFull);
        }
        let pages = unit.pages;
        if saves_first {
            self.settle(id, actions);
            return Brought::Waits(Cause::NvmeWrite);
        }
        if !reads {
            return match self.take_pages(pages, seq, priority, actions) {
                Ok(()) => {
                    self.unit(id).host = Host::Present { blank: true };
                    self.count_kept(id);
                    actions.push(Action::BlankHost { unit: id });
                    Brought::Ready
                }
                Err(cause) => Brought::Waits(cause),
            };
        }
        if let Some(refusal) = unit.refused {
            return Brought::Cannot(refusal);
        }
        if !unit.on_device() && !unit.stored {
            let Kind::Derived { sources } = &unit.spec.kind else {
                return Brought::Cannot(Refusal::NoContents { unit: id });
            };
            let sources = sources.clone();
            // One after the other: two of an access that each have some of their sources could wait
            // for each other's room.
            let same = |other: &UnitId| self.units[other.0 as usize].demanded_by == self.serving;
            if priority == Priority::Demand && self.gathering.iter().any(same) {
                return Brought::Waits(Cause::NvmeRead);
            }
            if self.are_about_to_change(&sources) {
                return Brought::Waits(Cause::NvmeRead);
            }
            return match self.take_pages(pages, seq, priority, actions) {
                Ok(()) => {
                    self.unit(id).host = Host::Filling(Fill::Gathering);
                    self.count_kept(id);
                    sources.iter().for_each(|&source| self.unit(source).wanted += 1);
                    self.gathering.push(id);
                    self.gather(actions);
                    // It was given up at once when one of its sources cannot come.
                    let refused = self.unit(id).refused;
                    refused.map_or(Brought::Waits(Cause::NvmeRead), Brought::Cannot)
                }
                Err(cause) => Brought::Waits(cause),
            };
        }
        match self.take_pages(pages, seq, priority, actions) {
            Ok(()) if self.unit(id).on_device() => {
                self.copy_out(id, actions);
                Brought::Waits(Cause::D2h)
            }
            Ok(()) => {
                self.read(id, priority, actions);
                Brought::Waits(Cause::NvmeRead)
            }
            Err(cause) => Brought::Waits(cause),
        }
    }

    /// Whether the only copy of a version that an epoch needs is on the device.
    fn must_save_from_device(&self, id: UnitId) -> bool {
        let unit = &self.units[id.0 as usize];
        unit.on_device() && !unit.on_host() && self.must_save(unit)
    }

    fn wait_for(&mut self, id: UnitId, fill: Fill, priority: Priority, actions: &mut Vec<Action>) -> Brought {
        let unit = self.unit(id);
        match fill {
            Fill::Reading(request) if priority == Priority::Demand && !unit.promoted => {
                unit.promoted = true;
                actions.push(Action::Promote { request });
                Brought::Waits(Cause::NvmeRead)
            }
            Fill::CopyingOut(_) => Brought::Waits(Cause::D2h),
            _ => Brought::Waits(Cause::NvmeRead),
        }
    }

    pub(crate) fn bring_device(
        &mut self,
        id: UnitId,
        reads: bool,
        seq: u64,
        priority: Priority,
        actions: &mut Vec<Action>,
    ) -> Brought {
        let unit = self.unit(id);
        match unit.device {
            Device::Present { blank: false, .. } => return Brought::Ready,
            Device::Present { blank: true, .. } if unit.device_holds.writer => {
                return Brought::Waits(Cause::DeviceFull);
            }
            Device::Present { blank: true, .. } if reads => self.drop_device(id, actions),
            Device::Present { .. } => return Brought::Ready,
            Device::Filling { .. } => return Brought::Waits(Cause::H2d),
            Device::Absent => {}
        }
        let unit = self.unit(id);
        if unit.host_holds.writer {
            return Brought::Waits(Cause::HostFull);
        }
        let bytes = unit.spec.bytes;
        if reads && !unit.on_host() {
            let brought = self.bring_host(id, true, seq, priority, actions);
            if !matches!(brought, Brought::Ready) {
                return brought;
            }
        }
        match self.take_device(bytes, priority, actions) {
            Ok(offset) if reads => {
                self.copy_in(id, offset, actions);
                Brought::Waits(Cause::H2d)
            }
            Ok(offset) => {
                self.unit(id).device = Device::Present { offset, blank: true };
                self.count_kept(id);
                actions.push(Action::BlankDevice { unit: id, offset });
                Brought::Ready
            }
            Err(cause) => Brought::Waits(cause),
        }
    }

    fn read(&mut self, id: UnitId, priority: Priority, actions: &mut Vec<Action>) {
        let request = self.request(id, Work::Read);
        let unit = self.unit(id);
        unit.promoted = priority == Priority::Demand;
        unit.host = Host::Filling(Fill::Reading(request));
        let bytes = unit.spec.bytes;
        self.count_kept(id);
        self.read_bytes_in_flight += bytes;
        self.stats.read_bytes += bytes;
        actions.push(Action::Read { request, unit: id, priority });
    }

    fn copy_in(&mut self, id: UnitId, offset: u64, actions: &mut Vec<Action>) {
        let request = self.request(id, Work::CopyIn);
        let unit = self.unit(id);
        unit.device = Device::Filling { offset };
        unit.host_holds.readers += 1;
        let bytes = unit.spec.bytes;
        self.count_kept(id);
        self.copy_bytes_in_flight += bytes;
        self.stats.h2d_bytes += bytes;
        actions.push(Action::CopyIn { request, unit: id, offset });
    }

    /// The pages for the copy have been taken.
    pub(crate) fn copy_out(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        let request = self.request(id, Work::CopyOut);
        let unit = self.unit(id);
        unit.host = Host::Filling(Fill::CopyingOut(request));
        unit.device_holds.readers += 1;
        (unit.draining, unit.drain_queued) = (true, false);
        let bytes = unit.spec.bytes;
        self.count_kept(id);
        self.stats.d2h_bytes += bytes;
        actions.push(Action::CopyOut { request, unit: id });
    }

    /// A read has ended: what came must be verified before anybody sees it.
    pub(crate) fn read_done(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        self.read_ended(id);
        let request = self.request(id, Work::Verify);
        self.unit(id).host = Host::Filling(Fill::Verifying(request));
        actions.push(Action::Checksum { request, unit: id, purpose: SumPurpose::Verify });
    }

    fn read_ended(&mut self, id: UnitId) {
        let bytes = self.unit(id).spec.bytes;
        self.read_bytes_in_flight -= bytes;
    }

    /// The host slot now holds the newest version.
    pub(crate) fn host_filled(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        self.unit(id).host = Host::Present { blank: false };
        self.settle(id, actions);
    }

    pub(crate) fn copied_in(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        let unit = self.unit(id);
        let Device::Filling { offset } = unit.device else {
            panic!("unit {} was copied in but was not on its way: {:?}", id.0, unit.device);
        };
        unit.device = Device::Present { offset, blank: false };
        unit.host_holds.readers -= 1;
        let bytes = unit.spec.bytes;
        self.copy_bytes_in_flight -= bytes;
        self.settle(id, actions);
    }

    /// A read, its verification or a derivation failed: there is no host slot, and whoever waits
    /// for the unit gets the error. A later demand tries again.
    pub(crate) fn fill_failed(
        &mut self,
        id: UnitId,
        work: Work,
        request: RequestId,
        actions: &mut Vec<Action>,
    ) {
        if work == Work::Read {
            self.read_ended(id);
        }
        if let (Work::Derive, Kind::Derived { sources }) = (work, self.unit(id).spec.kind.clone()) {
            for source in sources {
                let unit = self.unit(source);
                unit.host_holds.readers -= 1;
                unit.wanted -= 1;
                self.settle(source, actions);
            }
        }
        let unit = self.unit(id);
        unit.host = Host::Absent;
        unit.refused = Some(Refusal::Failed { unit: id, request });
        let pages = unit.pages;
        self.host_used_pages -= pages;
        self.count_kept(id);
    }
}
