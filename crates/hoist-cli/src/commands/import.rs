//! `hoist import MODEL --store DIR`

use std::path::PathBuf;

use hoist_store::import_safetensors;

use super::opened;
use crate::config::units::format_bytes;
use crate::failure::Failure;
use crate::output;

/// Makes a store of the tensors of a model in safetensors files.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: its file, the index of its shards (*.safetensors.index.json), or a directory with
    /// model.safetensors.index.json or model.safetensors.
    model: PathBuf,
    /// The store's directory, which must hold none yet; more than once for more drives.
    #[arg(long, value_name = "DIR", required = true)]
    store: Vec<PathBuf>,
}

/// Does it.
///
/// # Errors
/// When the model is not whole or not in safetensors files, or the store cannot be made.
pub fn run(args: &Args) -> Result<(), Failure> {
    let io = hoist_io::Config::default();
    let store = import_safetensors(&args.model, &opened::config(&args.store), &io, &opened::slab()?)
        .map_err(|error| Failure::Work(format!("importing {}: {error}", args.model.display())))?;
    let tensors = store.store().tensors();
    let (count, bytes) = (tensors.len(), tensors.iter().map(|tensor| tensor.bytes).sum());
    opened::close(store, Ok(()))?;
    output::print(format_args!("imported {count} tensors, {}\n", format_bytes(bytes)))
}
