use std::path::PathBuf;

use hoist_plan::Bandwidths;
use hoist_store::Durability;

/// What an engine needs to open.
#[derive(Clone, Debug)]
pub struct Config {
    /// The host slab: its budget, its pages.
    pub host: hoist_memory::Config,
    /// The device: its budget and links.
    pub device: hoist_device::Config,
    /// The store: its directories and its durability.
    pub store: hoist_store::Config,
    /// The path to NVMe: backend, block size, queue depth.
    pub io: hoist_store::IoConfig,
    /// Fetch ahead and write behind. `false`: serial reads and writes that are waited for.
    pub prefetch: bool,
    /// Bandwidths of the tiers, measured if possible: the split of the host between what stays
    /// and what is in transit follows from them.
    pub bandwidths: Bandwidths,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, as in the config file.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub would_be_right: String,
}

/// Until they are measured: a PCIe 4 drive (data sheets of 2023: 7 GB/s read, 5 GB/s written, about
/// half of each at once) and a x16 link of the same generation.
const BANDWIDTHS_ASSUMED: Bandwidths =
    Bandwidths { read: 7e9, write: 5e9, mixed_read: 3e9, mixed_write: 3e9, h2d: 24e9, d2h: 24e9 };

impl Config {
    /// A store in one directory, with these budgets in bytes and defaults for the rest.
    pub fn new(nvme_path: impl Into<PathBuf>, host_budget_bytes: u64, device_budget_bytes: u64) -> Config {
        Config {
            host: hoist_memory::Config { budget_bytes: host_budget_bytes, ..Default::default() },
            device: hoist_device::Config {
                budget_bytes: device_budget_bytes,
                h2d_bytes_per_second: BANDWIDTHS_ASSUMED.h2d as u64,
                d2h_bytes_per_second: BANDWIDTHS_ASSUMED.d2h as u64,
            },
            store: hoist_store::Config { nvme_path: vec![nvme_path.into()], ..Default::default() },
            io: hoist_store::IoConfig::default(),
            prefetch: true,
            bandwidths: BANDWIDTHS_ASSUMED,
        }
    }

    /// All problems at once; empty when the config can be used.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |key, what, would_be_right| problems.push(Problem { key, what, would_be_right });
        self.host.problems().into_iter().for_each(|one| add(one.key, one.what, one.would_be_right));
        self.device.problems().into_iter().for_each(|one| add(one.key, one.what, one.would_be_right));
        self.store.problems().into_iter().for_each(|one| add(one.key, one.what, one.would_be_right));
        self.io.problems().into_iter().for_each(|one| add(one.key, one.what, one.would_be_right));
        // What the plan makes of them can be asked only when they are right one by one.
        if problems.is_empty() {
            let pages = self.host.budget_bytes / self.host.page_bytes as u64;
            problems = self.problems_of(&self.plan(pages, self.device.budget_bytes));
        }
        problems
    }

    /// What is wrong with what the plan must keep within.
    pub(crate) fn problems_of(&self, plan: &hoist_plan::Config) -> Vec<Problem> {
        let same = |one: hoist_plan::Problem| Problem {
            key: one.key,
            what: one.what,
            would_be_right: one.would_be_right,
        };
        plan.problems().into_iter().map(same).collect()
    }

    /// What the plan must keep within, with the host pages and device bytes that were obtained.
    pub(crate) fn plan(&self, host_pages: u64, device_bytes: u64) -> hoist_plan::Config {
        hoist_plan::Config {
            host_pages,
            page_bytes: self.host.page_bytes as u64,
            device_bytes,
            // Twice what the drives hold at once: their queues never run dry between two completions.
            credit_bytes: 2
                * u64::from(self.io.queue_depth)
                * self.io.block_size
                * self.store.nvme_path.len() as u64,
            prefetch: self.prefetch,
            write_each_step: self.store.durability == Durability::Step,
            bandwidths: self.bandwidths,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_all_at_once() {
        let config = Config::new("/nowhere", 1 << 30, 1 << 20);
        assert_eq!(config.problems(), []);
        let bandwidths = Bandwidths { read: 0.0, h2d: f64::NAN, ..config.bandwidths };
        let one_page = hoist_memory::Config { budget_bytes: 1 << 20, ..config.host.clone() };
        let wrong = Config { bandwidths, host: one_page, ..config };
        let keys: Vec<_> = wrong.problems().into_iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["host.budget", "bandwidths.read", "bandwidths.h2d"]);
    }
}
