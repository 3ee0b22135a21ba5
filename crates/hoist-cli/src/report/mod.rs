//! What a run reports: the keys of `--json`, described in `docs/report.md`, and a table for people.

mod endurance;
mod machine;
mod memory;
mod rows;
mod table;

use serde::Serialize;

use crate::config::Config;

pub use endurance::Endurance;
pub use machine::{Machine, file_system};
pub use memory::{bytes as meminfo_bytes, peak_rss_bytes};
pub use rows::Rows;
pub use table::print;

/// The version of the keys: a key that changes its meaning changes this.
const SCHEMA: &str = "hoist-bench/1";

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The version of the keys.
    pub schema: &'static str,
    /// The run was interrupted: what is here is of the steps that had ended.
    pub partial: bool,
    /// Where it ran.
    pub machine: Machine,
    /// What it ran with, defaults filled in.
    pub config: Config,
    /// What it ran over.
    pub model: Model,
    /// What the probes measured.
    pub bandwidths: Bandwidths,
    /// The results.
    pub summary: Summary,
    /// What the engine had not planned.
    pub engine: Engine,
    /// How long the drives last.
    pub endurance: Endurance,
}

impl Report {
    /// A report of this run.
    pub fn new(
        machine: Machine,
        config: Config,
        model: Model,
        bandwidths: Bandwidths,
        summary: Summary,
        engine: Engine,
        endurance: Endurance,
    ) -> Self {
        let partial = summary.steps < config.run.steps;
        Self { schema: SCHEMA, partial, machine, config, model, bandwidths, summary, engine, endurance }
    }
}

/// Adds steps down to those that are known: directories have most in common.
pub fn add_steps(known: &mut Vec<String>, steps: &[String]) {
    for step in steps {
        if !known.contains(step) {
            known.push(step.clone());
        }
    }
}

/// `model`
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    /// How many tensors.
    pub tensors: u64,
    /// Their bytes together.
    pub bytes: u64,
}

/// `bandwidths`, in bytes per second: means of a probe before the run and one after it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bandwidths {
    /// Reading alone.
    pub nvme_read: f64,
    /// Writing alone.
    pub nvme_write: f64,
    /// What reading gets while as much is written as the drive takes.
    pub nvme_mixed_read: f64,
    /// What writing gets at the same time.
    pub nvme_mixed_write: f64,
    /// Host to device: as configured, or as fast as memory was copied where that is less.
    pub h2d: f64,
    /// Device to host, likewise.
    pub d2h: f64,
}

/// `summary`
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Measured steps that ended.
    pub steps: u64,
    /// How long they took; `None` where none ended.
    pub step_seconds: Option<Spread>,
    /// Compute time of a step, mean: emulated, and never less than checking took.
    pub compute_seconds: f64,
    /// The most of bytes / bandwidth over all resources, and of compute time.
    pub roofline_seconds: f64,
    /// The least time a step could take for this order and these budgets.
    pub bound_seconds: f64,
    /// What the bound is made of most.
    pub bound_resource: String,
    /// Bound / median step time.
    pub efficiency: Option<f64>,
    /// Waiting in `acquire`, in all measured steps together.
    pub stall_seconds: Stalls,
    /// Memory.
    pub tiers: Tiers,
    /// Bytes from and to NVMe.
    pub nvme: Nvme,
    /// Bytes over the links, in a step.
    pub links: Links,
    /// Bytes that were compared with what they had to be, in all steps.
    pub verified_bytes: u64,
    /// Bytes of those that were wrong.
    pub mismatches: u64,
    /// Most memory that the process ever had: VmHWM + HugetlbPages.
    pub peak_rss_bytes: u64,
}

/// The least, the middle and the most of several measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of these values; `None` where there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.get(sorted.len() / 2)?;
        let median =
            if sorted.len() % 2 == 1 { *middle } else { (sorted[sorted.len() / 2 - 1] + middle) / 2.0 };
        Some(Self { min: sorted[0], median, max: sorted[sorted.len() - 1] })
    }
}

/// `summary.stall_seconds`, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Stalls {
    /// Bytes were on their way from NVMe.
    pub nvme_read: f64,
    /// A write to NVMe held the bytes or the memory.
    pub nvme_write: f64,
    /// A copy to the device was under way.
    pub h2d: f64,
    /// A copy from the device was under way.
    pub d2h: f64,
    /// No host memory was free.
    pub host_full: f64,
    /// No device memory was free.
    pub device_full: f64,
}

/// `summary.tiers`
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Tiers {
    /// The device tier.
    pub device: Tier,
    /// The host tier.
    pub host: Tier,
}

/// Memory of one tier.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Tier {
    /// What it may use.
    pub budget_bytes: u64,
    /// The most that it used.
    pub peak_bytes: u64,
}

/// `summary.nvme`
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Nvme {
    /// Bytes read in a step.
    pub read_bytes_per_step: u64,
    /// Bytes written in a step.
    pub write_bytes_per_step: u64,
    /// The least that could be read in a step with these budgets.
    pub min_read_bytes_per_step: u64,
    /// The least that could be written in a step with these budgets and this durability.
    pub min_write_bytes_per_step: u64,
}

/// `summary.links`
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Links {
    /// Bytes copied from host to device in a step.
    pub h2d_bytes_per_step: u64,
    /// Bytes copied from device to host in a step.
    pub d2h_bytes_per_step: u64,
}

/// `engine`, over the measured steps together.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Engine {
    /// Units that left memory before their planned time.
    pub emergency_evictions: u64,
    /// Accesses that were not the next of the order.
    pub departures: u64,
}

#[cfg(test)]
mod tests;
