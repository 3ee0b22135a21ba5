//! The report as a table on the terminal.

use std::fmt::Write as _;

use super::{Report, Rows, Stalls, Summary};
use crate::config::units::{format_bytes, format_rate};

/// The report, for people.
pub fn print(report: &Report) -> String {
    let summary = &report.summary;
    let mut rows = Rows::new();
    let mut row = |name: &str, value: String| rows.row(name, value);
    row("model", format!("{} tensors, {}", report.model.tensors, format_bytes(report.model.bytes)));
    row("step time", step_time(summary));
    row("roofline", format!("{:.3} s", summary.roofline_seconds));
    row("bound", format!("{:.3} s, set by {}", summary.bound_seconds, summary.bound_resource));
    row(
        "efficiency",
        summary.efficiency.map_or("unknown".into(), |value| format!("{value:.3} (bound / step time)")),
    );
    row("compute", format!("{:.3} s a step", summary.compute_seconds));
    row("stalls", stalls(&summary.stall_seconds, summary.steps));
    let nvme = &summary.nvme;
    row("NVMe read", moved(nvme.read_bytes_per_step, Some(nvme.min_read_bytes_per_step)));
    row("NVMe write", moved(nvme.write_bytes_per_step, Some(nvme.min_write_bytes_per_step)));
    row("host to device", moved(summary.links.h2d_bytes_per_step, None));
    row("device to host", moved(summary.links.d2h_bytes_per_step, None));
    for (name, tier) in [("device memory", &summary.tiers.device), ("host memory", &summary.tiers.host)] {
        row(
            name,
            format!("{} of {} at most", format_bytes(tier.peak_bytes), format_bytes(tier.budget_bytes)),
        );
    }
    row("process memory", format!("{} at most", format_bytes(summary.peak_rss_bytes)));
    let unplanned = &report.engine;
    if unplanned.emergency_evictions + unplanned.departures > 0 {
        let (evicted, departed) = (unplanned.emergency_evictions, unplanned.departures);
        row("unplanned", format!("{evicted} units given up early, {departed} accesses out of order"));
    }
    let probed = &report.bandwidths;
    let both = [probed.nvme_mixed_read, probed.nvme_mixed_write].map(format_rate).join(" and ");
    let (read, write) = (format_rate(probed.nvme_read), format_rate(probed.nvme_write));
    row("drive, probed", format!("read {read}, write {write}, both at once {both}"));
    row(
        "links",
        format!("host to device {}, device to host {}", format_rate(probed.h2d), format_rate(probed.d2h)),
    );
    row("verified", format!("{}, {} bytes wrong", format_bytes(summary.verified_bytes), summary.mismatches));
    report.endurance.rows(report.config.store.nvme_path.len(), &mut rows);
    rows.obtained(&report.machine.obtained);
    let (done, all) = (summary.steps, report.config.run.steps);
    let mut text = rows.text(report.partial.then(|| format!("interrupted after {done} of {all} steps")));
    if let Some(warning) = &report.endurance.warning {
        let _ = writeln!(text, "WARNING: {warning}");
    }
    text
}

fn step_time(summary: &Summary) -> String {
    match summary.step_seconds {
        Some(s) => format!("{:.3} s (min {:.3}, max {:.3}, {} steps)", s.median, s.min, s.max, summary.steps),
        None => "no step ended".to_owned(),
    }
}

fn moved(bytes: u64, least: Option<u64>) -> String {
    let least = least.map(|least| format!(", {} at least", format_bytes(least)));
    format!("{} a step{}", format_bytes(bytes), least.unwrap_or_default())
}

/// Stalls a step, the largest first; causes that took nothing are left out.
fn stalls(stalls: &Stalls, steps: u64) -> String {
    let mut causes = [
        ("NVMe read", stalls.nvme_read),
        ("NVMe write", stalls.nvme_write),
        ("host to device", stalls.h2d),
        ("device to host", stalls.d2h),
        ("host full", stalls.host_full),
        ("device full", stalls.device_full),
    ]
    .map(|(name, seconds)| (name, seconds / steps.max(1) as f64));
    causes.sort_by(|a, b| b.1.total_cmp(&a.1));
    let shown: Vec<String> = causes
        .iter()
        // Under half a millisecond nothing is shown at three digits.
        .filter(|(_, seconds)| *seconds >= 0.0005)
        .map(|(name, seconds)| format!("{name} {seconds:.3} s"))
        .collect();
    if shown.is_empty() { "none".to_owned() } else { format!("{} a step", shown.join(", ")) }
}
