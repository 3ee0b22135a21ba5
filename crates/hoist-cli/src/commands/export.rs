//! `hoist export --store DIR OUT`

use std::path::PathBuf;

use hoist_store::export_safetensors;

use super::opened;
use crate::failure::Failure;
use crate::output;

/// Writes the durable tensors of a store to a safetensors file, verified.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The store's directory; more than once for more drives.
    #[arg(long, value_name = "DIR", required = true)]
    store: Vec<PathBuf>,
    /// The file to write.
    out: PathBuf,
}

/// Does it.
///
/// # Errors
/// When the store cannot be opened, bytes are wrong, or the file cannot be written.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut store = opened::open(&args.store)?;
    let exported = export_safetensors(&mut store, &args.out)
        .map_err(|error| Failure::Work(format!("exporting to {}: {error}", args.out.display())));
    opened::close(store, exported)?;
    output::print(format_args!("exported to {}\n", args.out.display()))
}
