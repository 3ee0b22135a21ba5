//! Bringing units to where an access wants them: on demand, and ahead of it.

use crate::arena::Arena;
use crate::contract::{Action, Cause, Mode, Priority, Refusal, RequestId, SumPurpose, Tier, UnitId};
use crate::plan::{Plan, Work};
use crate::unit::{Device, Fill, Host, Kind, Unit};

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
        match tier {
            Tier::Host => self.bring_host(id, mode.reads(), seq, priority, actions),
            Tier::Device => self.bring_device(id, mode.reads(), seq, priority, actions),
        }
    }

    fn bring_host(
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
        if let Some(request) = unit.failed {
            return Brought::Cannot(Refusal::Failed { unit: id, request });
        }
        if !unit.on_device() && !unit.stored {
            let Kind::Derived { sources } = &unit.spec.kind else {
                return Brought::Cannot(Refusal::NoContents { unit: id });
            };
            let sources = sources.clone();
            return match self.take_pages(pages, seq, priority, actions) {
                Ok(()) => {
                    self.unit(id).host = Host::Filling(Fill::Gathering);
                    self.count_kept(id);
                    sources.iter().for_each(|&source| self.unit(source).wanted += 1);
                    self.gathering.push(id);
                    self.gather(actions);
                    Brought::Waits(Cause::NvmeRead)
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

    fn bring_device(
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
        match self.take_device(bytes, seq, priority, actions) {
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
        let (directory, bytes) = (usize::from(unit.spec.directory), unit.spec.bytes);
        self.count_kept(id);
        self.read_bytes_in_flight[directory] += bytes;
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

    /// Starts the derivations of which all sources have come, and brings the others' sources.
    pub(crate) fn gather(&mut self, actions: &mut Vec<Action>) {
        let mut index = 0;
        while index < self.gathering.len() {
            let id = self.gathering[index];
            let Kind::Derived { sources } = self.unit(id).spec.kind.clone() else {
                panic!("unit {} gathers sources but is not derived", id.0);
            };
            let seq = self.unit(id).next.seq;
            let demanded = self.demands.iter().any(|demand| demand.seq == seq);
            let priority = if demanded { Priority::Demand } else { Priority::Prefetch };
            let mut all = true;
            let mut cannot = None;
            for &source in &sources {
                match self.bring_host(source, true, seq, priority, actions) {
                    Brought::Ready => all &= !self.unit(source).host_holds.writer,
                    Brought::Waits(_) => all = false,
                    Brought::Cannot(refusal) => cannot = Some(refusal),
                }
            }
            if let Some(refusal) = cannot {
                self.gathering.remove(index);
                self.give_up(id, refusal, &sources, actions);
            } else if all {
                self.gathering.remove(index);
                let request = self.request(id, Work::Derive);
                self.unit(id).host = Host::Filling(Fill::Deriving(request));
                for &source in &sources {
                    self.unit(source).host_holds.readers += 1;
                }
                actions.push(Action::Derive { request, unit: id });
            } else {
                index += 1;
            }
        }
    }

    fn give_up(&mut self, id: UnitId, refusal: Refusal, sources: &[UnitId], actions: &mut Vec<Action>) {
        self.host_used_pages -= self.unit(id).pages;
        self.unit(id).host = Host::Absent;
        self.count_kept(id);
        if let Refusal::Failed { request, .. } = refusal {
            self.unit(id).failed = Some(request);
        }
        for &source in sources {
            self.unit(source).wanted -= 1;
            self.settle(source, actions);
        }
    }

    /// A read has ended: what came must be verified before anybody sees it.
    pub(crate) fn read_done(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        self.read_ended(id);
        let request = self.request(id, Work::Verify);
        self.unit(id).host = Host::Filling(Fill::Verifying(request));
        actions.push(Action::Checksum { request, unit: id, purpose: SumPurpose::Verify });
    }

    fn read_ended(&mut self, id: UnitId) {
        let unit = self.unit(id);
        let (directory, bytes) = (usize::from(unit.spec.directory), unit.spec.bytes);
        self.read_bytes_in_flight[directory] -= bytes;
    }

    /// The host slot now holds the newest version.
    pub(crate) fn host_filled(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        self.unit(id).host = Host::Present { blank: false };
        self.settle(id, actions);
    }

    pub(crate) fn derived(&mut self, id: UnitId, actions: &mut Vec<Action>) {
        let Kind::Derived { sources } = self.unit(id).spec.kind.clone() else {
            panic!("unit {} was derived but is not a derived one", id.0);
        };
        self.host_filled(id, actions);
        for source in sources {
            let unit = self.unit(source);
            unit.host_holds.readers -= 1;
            unit.wanted -= 1;
            self.settle(source, actions);
        }
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
        unit.failed = Some(request);
        let pages = unit.pages;
        self.host_used_pages -= pages;
        self.count_kept(id);
    }

    /// Reads ahead, in the order of accesses, into host memory that neither the placement nor
    /// anything nearer needs meanwhile.
    pub(crate) fn fill_host(&mut self, actions: &mut Vec<Action>) {
        let Some(declared) = self.declared() else { return };
        let end = self.cursor + declared.order.len() as u64;
        while self.host_window.next < end {
            let seq = self.host_window.next;
            let uses = self.uses(seq);
            let tier = self.orders[self.current].order.tier(self.position(seq));
            for i in uses.start + self.host_window.offset..uses.end {
                let one = self.orders[self.current].order.uses[i];
                if !self.fill_host_use(i, one.unit, one.mode, tier, seq, actions) {
                    self.host_window.offset = i - uses.start;
                    return;
                }
            }
            (self.host_window.next, self.host_window.offset) = (seq + 1, 0);
        }
    }

    /// `false`: no room or no credit now.
    fn fill_host_use(
        &mut self,
        use_index: usize,
        id: UnitId,
        mode: Mode,
        tier: Tier,
        seq: u64,
        actions: &mut Vec<Action>,
    ) -> bool {
        let unit = &self.units[id.0 as usize];
        let on_its_way = unit.device != Device::Absent && tier == Tier::Device;
        let passes_by = tier == Tier::Device && !mode.reads();
        let reads = mode.reads() && unit.stored;
        if unit.next.seq < seq {
            // An earlier access uses it first. Unless it stays from then on by itself, it is not
            // known yet what must be fetched: look no further ahead than that.
            return !mode.reads() || self.orders[self.current].placement.kept_until[use_index];
        }
        if unit.next.seq != seq || unit.host != Host::Absent || on_its_way || passes_by {
            return true;
        }
        if unit.failed.is_some() || unit.write_failed || self.sources_change_before(unit, seq) {
            return true;
        }
        let (pages, directory) = (unit.pages, usize::from(unit.spec.directory));
        let in_flight = self.read_bytes_in_flight[directory];
        if reads && in_flight > 0 && in_flight + unit.spec.bytes > self.config.credit_bytes {
            return false;
        }
        if self.requests.len() >= REQUESTS_AHEAD_MAX {
            return false;
        }
        let declared = &self.orders[self.current];
        let (reserve, profile) = (declared.reserve_pages, &declared.placement.host_pages);
        let most = self.host_window.kept_most.over(self.cursor - 1, seq.max(1) - 1, self.base, profile);
        let transit = self.host_used_pages - self.kept_pages;
        // What the placement keeps until then has its room set aside already.
        let own = if unit.next.keep_host { 0 } else { pages };
        if transit + own + reserve + most > self.config.host_pages {
            return false;
        }
        !matches!(
            self.bring_host(id, mode.reads(), seq, Priority::Prefetch, actions),
            Brought::Waits(Cause::HostFull | Cause::NvmeWrite)
        )
    }

    /// Whether a derived unit would have to be made now, although an earlier access than its own
    /// may still change what it is made from. What it holds must not depend on when it is made.
    fn sources_change_before(&self, unit: &Unit, seq: u64) -> bool {
        let Kind::Derived { sources } = &unit.spec.kind else { return false };
        let earlier = |source: &UnitId| {
            let source = &self.units[source.0 as usize];
            source.next.seq < seq || source.host_holds.writer || source.device_holds.writer
        };
        !unit.stored && unit.next.reads && !unit.on_device() && sources.iter().any(earlier)
    }

    /// Copies ahead to the device, in the order of accesses, what has come to the host.
    pub(crate) fn fill_device(&mut self, actions: &mut Vec<Action>) {
        let Some(declared) = self.declared() else { return };
        let end = self.cursor + declared.order.len() as u64;
        while self.device_window.next < end {
            let seq = self.device_window.next;
            let uses = self.uses(seq);
            let tier = self.orders[self.current].order.tier(self.position(seq));
            for i in uses.start + self.device_window.offset..uses.end {
                let one = self.orders[self.current].order.uses[i];
                if tier == Tier::Device && !self.fill_device_use(i, one.unit, one.mode, seq, actions) {
                    self.device_window.offset = i - uses.start;
                    return;
                }
            }
            (self.device_window.next, self.device_window.offset) = (seq + 1, 0);
        }
    }

    fn fill_device_use(
        &mut self,
        use_index: usize,
        id: UnitId,
        mode: Mode,
        seq: u64,
        actions: &mut Vec<Action>,
    ) -> bool {
        let unit = &self.units[id.0 as usize];
        if unit.next.seq < seq {
            return !mode.reads() || self.orders[self.current].placement.kept_on_device_until[use_index];
        }
        if unit.next.seq != seq || unit.device != Device::Absent || unit.failed.is_some() {
            return true;
        }
        let bytes = Arena::rounded(unit.spec.bytes);
        let credit = (self.config.bandwidths.h2d * COPY_AHEAD_SECONDS) as u64;
        let in_flight = self.copy_bytes_in_flight;
        if mode.reads() && (!unit.on_host() || (in_flight > 0 && in_flight + bytes > credit)) {
            return false;
        }
        if unit.host_holds.writer || unit.device_holds.writer {
            return false;
        }
        let profile = &self.orders[self.current].placement.device_bytes;
        let most = self.device_window.kept_most.over(self.cursor - 1, seq.max(1) - 1, self.base, profile);
        let transit = self.arena.used_bytes() - self.kept_device_bytes;
        let own = if unit.next.keep_device { 0 } else { bytes };
        if transit + own + most > self.config.device_bytes {
            return false;
        }
        let brought = self.bring_device(id, mode.reads(), seq, Priority::Prefetch, actions);
        !matches!(brought, Brought::Waits(Cause::DeviceFull | Cause::HostFull | Cause::NvmeWrite))
    }
}

/// Requests in flight beyond which nothing is read ahead: what the driver's channels have room for
/// several times over, and far more than a drive's queue takes even of single pages.
pub(crate) const REQUESTS_AHEAD_MAX: usize = 4096;

/// Copies ahead keep the link busy for at most this long before a demanded copy gets its turn
/// (DESIGN.md: a demand waits at most a few milliseconds behind them).
const COPY_AHEAD_SECONDS: f64 = 0.004;
