//! `hoist import MODEL --store DIR`

use std::path::PathBuf;

use hoist_store::{BlockingStore, Config, ModelFiles, import_safetensors};

use super::opened;
use crate::config::Problem;
use crate::config::units::{format_bytes, parse_bytes};
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
    /// Copies nothing: tensors are read from the model's files, where they must stay as they are.
    #[arg(long)]
    in_place: bool,
    /// With --in-place: how many bytes of the model's tensors the store has space for when they are written. [default: none]
    #[arg(long, value_name = "SIZE", requires = "in_place")]
    room: Option<String>,
}

/// Does it.
///
/// # Errors
/// When the model is not whole or not in safetensors files, or the store cannot be made.
pub fn run(args: &Args) -> Result<(), Failure> {
    let io = hoist_io::Config::default();
    let room = |text: &String| {
        let right = "would be right: a size with its unit, such as \"5 GB\"";
        let wrong = || Problem::new("--room", format!("\"{text}\" is not right"), right);
        parse_bytes(text).ok_or_else(|| Failure::Config(vec![wrong()]))
    };
    let in_place_room_bytes = args.room.as_ref().map_or(Ok(0), room)?;
    let config = Config { in_place_room_bytes, ..opened::config(&args.store) };
    let slab = opened::slab()?;
    let made = match args.in_place {
        false => import_safetensors(&args.model, &config, &io, &slab),
        true => ModelFiles::open(&args.model)
            .and_then(|model| BlockingStore::create_over(&config, &io, &slab, &model)),
    };
    let store =
        made.map_err(|error| Failure::Work(format!("importing {}: {error}", args.model.display())))?;
    let tensors = store.store().tensors();
    let (count, bytes) = (tensors.len(), tensors.iter().map(|tensor| tensor.bytes).sum());
    opened::close(store, Ok(()))?;
    let how = if args.in_place { " in place" } else { "" };
    output::print(format_args!("imported {count} tensors{how}, {}\n", format_bytes(bytes)))
}
