//! `hoist gc DIR`

use super::opened::{self, Directories};
use crate::config::units::format_bytes;
use crate::failure::Failure;
use crate::output;

/// Says what holds the space of a store and why, and what would free it. Space that nothing holds is free by itself.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    directories: Directories,
}

/// Does it.
///
/// # Errors
/// When the store cannot be opened.
pub fn run(args: &Args) -> Result<(), Failure> {
    let store = opened::open_shared(&args.directories.all(), None)?;
    let space = store.store().space();
    let room = store.store().room_for_steps();
    let missing = store.store().missing().join(", ");
    opened::close(store, Ok(()))?;
    let row = |bytes: u64, what: &str| format!("{:>12}  {what}\n", format_bytes(bytes));
    let mut text = row(space.total_bytes, "in all segments");
    if !missing.is_empty() {
        text = format!("of the directories that are there; missing: {missing}\n{text}");
    }
    text += &row(space.newest_bytes, "the newest epoch");
    text += &row(space.snapshot_bytes, "snapshots alone: what they have and the newest epoch has not");
    for (name, alone) in &space.by_snapshot {
        text += &row(*alone, &format!("  are free without snapshot {name:?} (hoist snapshot delete)"));
    }
    text +=
        &row(space.free_bytes, "free: for the epoch under construction, and for scratch and derived tensors");
    let (free_bytes, need_bytes) = room;
    if free_bytes < need_bytes {
        let missing = format_bytes(need_bytes - free_bytes);
        text += &format!(
            "steps that write all durable tensors while the newest epoch is kept as a snapshot need {missing} more\n"
        );
    }
    output::print(text)
}
