//! The report as a table on the terminal.

use super::report::{Entry, Report, Setting};
use crate::config::units::{format_bytes, format_exact_bytes, format_rate};
use crate::report::Rows;

/// The report, for people; directories by these names.
pub fn print(report: &Report, names: &[String]) -> String {
    let mut rows = Rows::new();
    let mut row = |name: &str, value: String| rows.row(name, value);
    match &report.chosen {
        Some(chosen) => row(
            "best settings",
            format!("{}, {} under way", shown(chosen.setting), format_exact_bytes(chosen.in_flight_bytes)),
        ),
        None => row("best settings", "none: nothing was measured".to_owned()),
    }
    for (directory, name) in report.directories.iter().zip(names) {
        for (direction, found) in directory.directions.into_iter().flat_map(|found| found.each()) {
            row(
                &format!("{name}: {direction}"),
                format!(
                    "{}, {} of the best found ({} with {})",
                    format_rate(found.bytes_per_second),
                    percent(found.share),
                    format_rate(found.best_bytes_per_second),
                    shown(found.best)
                ),
            );
        }
    }
    if let Some(chosen) = &report.chosen {
        let within = percent(chosen.tolerance);
        row("worst share", format!("{} (less than {within} is no difference)", percent(chosen.worst_share)));
        let best = |filter: &dyn Fn(&&Entry) -> bool| {
            let measured = report.candidates.iter().filter(|entry| entry.worst_share.is_some());
            let share = |entry: &&Entry| entry.worst_share.unwrap_or_default();
            measured.filter(filter).max_by(|a, b| share(a).total_cmp(&share(b)))
        };
        let mut compare = |name: &str, entry: Option<&Entry>| {
            if let Some((entry, share)) = entry.and_then(|entry| Some((entry, entry.worst_share?))) {
                let unsure = percent(unsure(entry));
                row(name, format!("worst share {} ± {unsure} with {}", percent(share), shown(entry.setting)));
            }
        };
        compare("reference", best(&|entry| entry.reference));
        for other in ["tokio-uring", "pread"].into_iter().filter(|name| *name != chosen.setting.backend) {
            compare(other, best(&|entry| entry.setting.backend == other));
        }
        let turns = |entry: &Entry| -> usize {
            entry.directories.iter().flat_map(|found| found.each()).map(|(_, measured)| measured.turns).sum()
        };
        let all: usize = report.candidates.iter().map(turns).sum();
        let tried = report.candidates.iter().filter(|entry| entry.worst_share.is_some()).count();
        let (known, seconds) = (report.candidates.len(), report.seconds);
        row("measured", format!("{tried} of {known} settings, {all} turns, in {seconds:.1} s"));
    }
    for (directory, name) in report.directories.iter().zip(names) {
        let (bytes, wanted) = (directory.file_bytes, directory.file_bytes_wanted);
        if bytes < wanted {
            let (bytes, wanted) = (format_bytes(bytes), format_bytes(wanted));
            row(&format!("{name}: file"), format!("{bytes} instead of {wanted}"));
        }
    }
    rows.obtained(&report.machine.obtained);
    rows.text(report.partial.then(|| "interrupted before its end".to_owned()))
}

/// The standard error of a candidate's share, in the direction where it is the largest.
fn unsure(entry: &Entry) -> f64 {
    let measured = entry.directories.iter().flat_map(|found| found.each());
    measured.map(|(_, measured)| measured.error).fold(0.0, f64::max)
}

fn shown(setting: Setting) -> String {
    format!("{} {} x {}", setting.backend, format_exact_bytes(setting.block_size), setting.queue_depth)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
