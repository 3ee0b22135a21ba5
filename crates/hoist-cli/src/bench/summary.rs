//! From what the steps of a run left to its report.

use std::time::Duration;

use hoist::{Bandwidths, Bound, Order, Resource, Stats};

use super::engine;
use super::probe::Rates;
use crate::config::Config;
use crate::failure::Failure;
use crate::model::Workload;
use crate::report::{self, Endurance, Links, Machine, Nvme, Report, Spread, Stalls, Summary, Tier, Tiers};

/// What the steps of a run left to report.
pub struct Steps {
    /// Seconds of each measured step that ended.
    pub seconds: Vec<f64>,
    /// Compute time of each access, over those steps together.
    pub compute: Vec<Duration>,
    /// The engine's figures when the measured steps began.
    pub before: Stats,
    /// And when the last one ended.
    pub after: Stats,
    /// Bytes compared, in all steps.
    pub verified_bytes: u64,
    /// Bytes of those that were wrong.
    pub mismatches: u64,
}

impl Steps {
    /// None yet, of steps over this order.
    pub fn none(order: &Order) -> Self {
        Self {
            seconds: Vec::new(),
            compute: vec![Duration::ZERO; order.accesses.len()],
            before: Stats::default(),
            after: Stats::default(),
            verified_bytes: 0,
            mismatches: 0,
        }
    }

    /// Compute time of each access in a measured step, mean; `None` where no step ended.
    pub fn compute_mean(&self) -> Option<Vec<Duration>> {
        let count = self.seconds.len() as u32;
        (count > 0).then(|| self.compute.iter().map(|sum| *sum / count).collect())
    }
}

/// The report of a run that was interrupted before anything was known.
///
/// # Errors
/// Those of [`report`].
pub fn blank(config: &Config, workload: &Workload) -> Result<Report, Failure> {
    let bound = Bound {
        roofline_seconds: 0.0,
        bound_seconds: 0.0,
        resource: Resource::Compute,
        min_read_bytes: 0,
        min_write_bytes: 0,
        transit_pages: 0,
    };
    let steps = Steps::none(&workload.order);
    report(config, workload, Rates::default(), bound, &Stats::default(), &steps)
}

/// The report of a run, with the engine's figures at its end.
///
/// # Errors
/// When the most memory that there was cannot be read off.
pub fn report(
    config: &Config,
    workload: &Workload,
    rates: Rates,
    bound: Bound,
    now: &Stats,
    steps: &Steps,
) -> Result<Report, Failure> {
    let bandwidths = engine::bandwidths(config, rates);
    let count = steps.seconds.len() as u32;
    let (before, after) = (&steps.before, &steps.after);
    let per_step = |before: u64, after: u64| (after - before) / u64::from(count.max(1));
    let step_seconds = Spread::of(&steps.seconds);
    let summary = Summary {
        steps: u64::from(count),
        step_seconds,
        compute_seconds: steps.compute.iter().sum::<Duration>().as_secs_f64() / f64::from(count.max(1)),
        roofline_seconds: bound.roofline_seconds,
        bound_seconds: bound.bound_seconds,
        bound_resource: bound.resource.name().to_owned(),
        efficiency: step_seconds.map(|seconds| bound.bound_seconds / seconds.median),
        stall_seconds: stalls(before, after),
        tiers: Tiers {
            device: Tier { budget_bytes: config.device.budget_bytes, peak_bytes: now.device_peak_bytes },
            host: Tier { budget_bytes: config.host.budget_bytes, peak_bytes: now.host_peak_bytes },
        },
        nvme: Nvme {
            read_bytes_per_step: per_step(before.nvme_read_bytes, after.nvme_read_bytes),
            write_bytes_per_step: per_step(before.nvme_write_bytes, after.nvme_write_bytes),
            min_read_bytes_per_step: bound.min_read_bytes,
            min_write_bytes_per_step: bound.min_write_bytes,
        },
        links: Links {
            h2d_bytes_per_step: per_step(before.h2d_bytes, after.h2d_bytes),
            d2h_bytes_per_step: per_step(before.d2h_bytes, after.d2h_bytes),
        },
        verified_bytes: steps.verified_bytes,
        mismatches: steps.mismatches,
        peak_rss_bytes: report::peak_rss_bytes()
            .map_err(|error| Failure::work("reading peak memory", error, "mount /proc"))?,
    };
    let mut machine = Machine::here(&config.store.nvme_path[0]);
    machine.obtained.clone_from(&now.obtained);
    let model = report::Model { tensors: workload.tensors.len() as u64, bytes: workload.bytes() };
    let engine = report::Engine {
        emergency_evictions: after.emergency_evictions - before.emergency_evictions,
        departures: after.departures - before.departures,
    };
    let written_bytes = after.drive_write_bytes - before.drive_write_bytes;
    let endurance = Endurance::of(written_bytes, &steps.seconds, config.endurance.tbw_bytes);
    Ok(Report::new(machine, config.clone(), model, reported(&bandwidths), summary, engine, endurance))
}

fn reported(bandwidths: &Bandwidths) -> report::Bandwidths {
    report::Bandwidths {
        nvme_read: bandwidths.read,
        nvme_write: bandwidths.write,
        nvme_mixed_read: bandwidths.mixed_read,
        nvme_mixed_write: bandwidths.mixed_write,
        h2d: bandwidths.h2d,
        d2h: bandwidths.d2h,
    }
}

fn stalls(before: &Stats, after: &Stats) -> Stalls {
    let (before, after) = (&before.stalls, &after.stalls);
    let seconds = |before: u64, after: u64| (after - before) as f64 / 1e9;
    Stalls {
        nvme_read: seconds(before.nvme_read_ns, after.nvme_read_ns),
        nvme_write: seconds(before.nvme_write_ns, after.nvme_write_ns),
        h2d: seconds(before.h2d_ns, after.h2d_ns),
        d2h: seconds(before.d2h_ns, after.d2h_ns),
        host_full: seconds(before.host_full_ns, after.host_full_ns),
        device_full: seconds(before.device_full_ns, after.device_full_ns),
    }
}
