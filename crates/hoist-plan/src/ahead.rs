//! Fetching ahead of demand: two windows that move along the order of accesses, one filling the
//! host from NVMe and one the device from the host, each as far as memory that nothing nearer
//! needs allows.

use crate::arena::Arena;
use crate::contract::{Action, Cause, Mode, Priority, Tier, UnitId};
use crate::fetch::Brought;
use crate::plan::Plan;
use crate::unit::{Device, Host, Kind, Unit};

/// Requests in flight beyond which nothing is read ahead: what the driver's channels have room for
/// several times over, and far more than a drive's queue takes even of single pages.
pub(crate) const REQUESTS_AHEAD_MAX: usize = 4096;

/// Copies ahead keep the link busy for at most this long before a demanded copy gets its turn
/// (DESIGN.md: a demand waits at most a few milliseconds behind them).
const COPY_AHEAD_SECONDS: f64 = 0.004;

impl Plan {
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
        if unit.demanded_by.is_some() {
            // Who waits for it brings it.
            return true;
        }
        if unit.next.seq < seq {
            // An earlier access uses it first. Unless it stays from then on by itself, it is not
            // known yet what must be fetched: look no further ahead than that.
            return !mode.reads() || self.orders[self.current].placement.kept_until[use_index];
        }
        if unit.next.seq != seq || unit.host != Host::Absent || on_its_way || passes_by {
            return true;
        }
        if unit.refused.is_some() || unit.write_failed || self.sources_change_before(unit, seq) {
            return true;
        }
        // What a derived unit is made from comes to the host with it.
        let sources = match &unit.spec.kind {
            Kind::Derived { sources } if !unit.stored => {
                let absent = |one: &&UnitId| self.units[one.0 as usize].host == Host::Absent;
                sources.iter().filter(absent).map(|one| self.units[one.0 as usize].pages).sum()
            }
            _ => 0,
        };
        let pages = unit.pages + sources;
        let in_flight = self.read_bytes_in_flight;
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
        let elsewhere: u64 = self.kept_elsewhere.range((seq, UnitId(0))..).map(|(_, pages)| pages).sum();
        if transit + own + reserve + most > self.config.host_pages + elsewhere.min(most) {
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
        if unit.demanded_by.is_some() {
            return true;
        }
        if unit.next.seq < seq {
            return !mode.reads() || self.orders[self.current].placement.kept_on_device_until[use_index];
        }
        if unit.next.seq != seq || unit.device != Device::Absent || unit.refused.is_some() {
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
