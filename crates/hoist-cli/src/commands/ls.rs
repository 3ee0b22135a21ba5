//! `hoist ls DIR`

use comfy_table::{CellAlignment, Table, presets};
use hoist_store::{Epoch, Life, Listed, Store, TensorInfo};

use super::opened::{self, Directories};
use crate::config::units::format_bytes;
use crate::failure::Failure;
use crate::output;

/// Lists the tensors of a store, its newest epoch and its snapshots.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    directories: Directories,
    /// What this snapshot has, instead of the newest epoch.
    #[arg(long, value_name = "NAME")]
    snapshot: Option<String>,
}

/// Does it.
///
/// # Errors
/// When the store cannot be opened.
pub fn run(args: &Args) -> Result<(), Failure> {
    let store = opened::open_shared(&args.directories.all(), args.snapshot.as_deref())?;
    let table = table(store.store());
    let tensors = store.store().tensors();
    let (count, bytes) = (tensors.len(), tensors.iter().map(|tensor| tensor.bytes).sum());
    let newest = epoch_text(&store.store().newest());
    let missing: String = store
        .store()
        .missing()
        .iter()
        .map(|name| format!("missing: the directory created as {name}\n"))
        .collect();
    let snapshots: String = store
        .store()
        .snapshots()
        .map(|(name, epoch)| format!("snapshot {name:?}: {}\n", epoch_text(&epoch)))
        .collect();
    opened::close(store, Ok(()))?;
    let lines: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    output::print(format_args!(
        "{lines}{count} tensors, {}, {newest}\n{snapshots}{missing}",
        format_bytes(bytes)
    ))
}

/// An epoch and what its trainer has said of it, in a few words.
pub fn epoch_text(epoch: &Epoch) -> String {
    let Epoch { number, time_s, scalars } = epoch;
    let values = match scalars.values.len() {
        0 => String::new(),
        _ => format!(", with {}", scalars.values.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
    };
    let when = if *time_s == 0 { String::new() } else { format!(", committed {}", utc(*time_s)) };
    format!("epoch {number} (step {}{values}){when}", scalars.step)
}

/// A time of day as ISO 8601 has it.
fn utc(time_s: u64) -> String {
    let (days, second) = (time_s / 86_400, time_s % 86_400);
    // Civil from days: 400 years have 146,097 days, and years begin in March, so that a leap day is a year's last.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (date, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn table(store: &Store) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["tensor", "dtype", "shape", "bytes", "class", "life", "tier", "extents", "group"]);
    for Listed { id, tensor, has_bytes, .. } in store.ls() {
        let TensorInfo { spec, bytes, .. } = tensor;
        let span = store.covering(id);
        // Nothing is in memory while a store is only looked at.
        let (tier, extents) = match (has_bytes, store.is_in_place(&span)) {
            (false, _) => ("none", 0.to_string()),
            (true, false) => ("nvme", store.extents(&span).len().to_string()),
            (true, true) => ("nvme", format!("{} and in place", store.extents(&span).len())),
        };
        let lengths: Vec<String> = spec.shape.iter().map(u64::to_string).collect();
        let life = match &spec.life {
            Life::Durable => "durable".to_owned(),
            Life::Scratch => "scratch".to_owned(),
            Life::Derived { from } => format!("derived from {from}"),
        };
        let shape = format!("[{}]", lengths.join(", "));
        let (dtype, class) = (spec.dtype.name().to_owned(), spec.class.name().to_owned());
        table.add_row([
            spec.name.clone(),
            dtype,
            shape,
            bytes.to_string(),
            class,
            life,
            tier.to_owned(),
            extents,
            spec.group.clone(),
        ]);
    }
    if let Some(column) = table.column_mut(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_those_of_date() {
        // date -u -d @N +%FT%TZ
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_612_800, "2026-11-25T13:20:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (time_s, text) in known {
            assert_eq!(super::utc(time_s), text);
        }
    }
}
