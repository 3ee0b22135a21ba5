//! What an engine has moved, and what it obtained from the machine.

use crate::pipeline::Pipeline;
use crate::stats::Stats;

impl Pipeline {
    /// Before the plan is made anew: what the old one has moved still counts.
    pub(crate) fn carry_stats(&mut self) {
        self.carried = self.total();
    }

    fn total(&self) -> hoist_plan::Stats {
        let (a, b) = (self.carried, self.plan.stats());
        hoist_plan::Stats {
            read_bytes: a.read_bytes + b.read_bytes,
            write_bytes: a.write_bytes + b.write_bytes,
            h2d_bytes: a.h2d_bytes + b.h2d_bytes,
            d2h_bytes: a.d2h_bytes + b.d2h_bytes,
            host_peak_bytes: a.host_peak_bytes.max(b.host_peak_bytes),
            device_peak_bytes: a.device_peak_bytes.max(b.device_peak_bytes),
            emergency_evictions: a.emergency_evictions + b.emergency_evictions,
            departures: a.departures + b.departures,
            stalls: a.stalls.plus(b.stalls),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let total = self.total();
        Stats {
            nvme_read_bytes: total.read_bytes,
            nvme_write_bytes: total.write_bytes,
            drive_write_bytes: self.store.written_bytes(),
            h2d_bytes: total.h2d_bytes,
            d2h_bytes: total.d2h_bytes,
            host_budget_bytes: self.plan_config.host_pages * self.plan_config.page_bytes,
            host_peak_bytes: total.host_peak_bytes,
            device_budget_bytes: self.device.budget_bytes(),
            device_peak_bytes: total.device_peak_bytes,
            summed_bytes: self.summed_bytes,
            emergency_evictions: total.emergency_evictions,
            departures: total.departures,
            stalls: total.stalls,
            obtained: self.obtained(),
        }
    }

    /// What each of several drives takes of what is written, a line each.
    fn directories(&self) -> impl Iterator<Item = String> {
        let several = self.store.directories().count() > 1;
        self.store.directories().filter(move |_| several).map(|one| {
            let path = one.path.display();
            match one.quarantined {
                Some(cause) => format!("{path}: nothing more is written there since a write failed: {cause}"),
                None => format!("{path}: {:.0} % of what is written", 100.0 * one.write_share),
            }
        })
    }

    fn obtained(&self) -> Vec<String> {
        let slab = self.slab.obtained();
        let mut lines = vec![format!(
            "host slab: {} bytes on hugetlb pages, {} on transparent huge pages, {} on small pages, {} locked",
            slab.hugetlb_bytes, slab.transparent_bytes, slab.small_bytes, slab.locked_bytes
        )];
        lines.extend(slab.stepped_down.iter().cloned());
        for io in self.store.obtained() {
            lines.push(format!(
                "I/O: {} at depth {}, {} registered pieces, {} files direct, {} buffered, {} registered{}{}",
                io.backend,
                io.queue_depth,
                io.registered_pieces,
                io.files_direct,
                io.files_buffered,
                io.files_registered,
                if io.ring_flags.is_empty() { "" } else { ", flags " },
                io.ring_flags.join("|")
            ));
            lines.extend(io.stepped_down);
        }
        lines.extend(self.directories());
        lines.push(format!("device: {}", self.device.name()));
        lines.extend(self.device.stepped_down().iter().cloned());
        lines
    }
}
