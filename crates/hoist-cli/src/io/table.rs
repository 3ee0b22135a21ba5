//! The report as a table on the terminal.

use std::time::Duration;

use super::report::{Rates, Report};
use crate::config::units::{format_bytes, format_rate};
use crate::report::Rows;

/// The report, for people.
pub fn print(report: &Report) -> String {
    let mut rows = Rows::new();
    let mut row = |name: &str, value: String| rows.row(name, value);
    for (name, rates) in [("read", report.read), ("write", report.write)] {
        let Some(rates) = rates else { continue };
        row(name, moved(&rates));
        row(&format!("{name} latency"), latency(&rates));
    }
    if let Some(seconds) = report.cpu_seconds_per_gib {
        let sums = report.checksum_seconds_per_gib.map(|sums| format!("; checksums would add {sums:.3} s"));
        row("processor", format!("{seconds:.3} s a GiB{}", sums.unwrap_or_default()));
    }
    row("memory", format!("{} for requests under way", format_bytes(report.memory_bytes)));
    rows.obtained(report.obtained());
    rows.text(report.partial.then(|| "interrupted before its end".to_owned()))
}

fn moved(rates: &Rates) -> String {
    format!(
        "{}, {} requests/s, {} in {:.3} s",
        format_rate(rates.bytes_per_second),
        rates.operations_per_second.round(),
        format_bytes(rates.bytes),
        rates.seconds
    )
}

fn latency(rates: &Rates) -> String {
    let latency = rates.latency_seconds;
    let [p50, p99, p999, max] =
        [latency.p50, latency.p99, latency.p999, latency.max].map(Duration::from_secs_f64);
    format!("p50 {p50:.1?}, p99 {p99:.1?}, p99.9 {p999:.1?}, max {max:.1?}")
}
