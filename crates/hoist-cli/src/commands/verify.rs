//! `hoist verify --store DIR`

use hoist_store::{BadBlock, VerifyReport};

use super::opened::{self, Directories};
use crate::config::units::format_bytes;
use crate::failure::Failure;
use crate::output;

/// Reads every durable byte of a store, of its newest epoch and of all snapshots, and compares it with its checksum.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    directories: Directories,
}

/// Does it.
///
/// # Errors
/// When the store cannot be opened or read, or when bytes are wrong.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut store = opened::open(&args.directories.all())?;
    let verified =
        hoist_store::verify(&mut store).map_err(|error| Failure::Work(format!("verifying: {error}")));
    let VerifyReport { blocks, bytes, bad } = opened::close(store, verified)?;
    let found: String = bad.iter().flat_map(lines).map(|line| line + "\n").collect();
    let count = bad.len();
    let printed = output::print(format_args!(
        "{found}verified {blocks} blocks, {}: {count} bad\n",
        format_bytes(bytes)
    ));
    if bad.is_empty() {
        return printed;
    }
    let why = format!("{count} of {blocks} blocks are not as they were written");
    Err(Failure::work("verifying", why, "restore the tensors named above; all others are readable"))
}

/// A line for each place of a bad block: tensors, segment, offset, length.
fn lines(bad: &BadBlock) -> impl Iterator<Item = String> + '_ {
    let tensors = if bad.tensors.is_empty() { "no tensor".to_owned() } else { bad.tensors.join(", ") };
    let of = if bad.snapshots.is_empty() {
        String::new()
    } else {
        format!(" (snapshot {})", bad.snapshots.join(", "))
    };
    let why = bad.unreadable.as_deref().unwrap_or("its checksum does not match");
    bad.places.iter().map(move |(segment, offset, bytes)| {
        format!("bad: {tensors}{of}: segment {}, offset {offset}, length {bytes}: {why}", segment.display())
    })
}
