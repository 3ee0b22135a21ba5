//! `hoist export --store DIR OUT`

use std::path::PathBuf;

use hoist_store::{SHARD_BYTES_DEFAULT, export_safetensors};

use super::opened;
use crate::config::Problem;
use crate::config::units::parse_bytes;
use crate::failure::Failure;
use crate::output;

/// Writes the durable tensors of a store to a safetensors file, or to several and their index, verified.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The store's directory; more than once for more drives.
    #[arg(long, value_name = "DIR", required = true)]
    store: Vec<PathBuf>,
    /// Bytes of tensors in one file; a longer tensor gets a file of its own. Where there are more, OUT names
    /// OUT-00001-of-00002.safetensors and so on, and OUT.safetensors.index.json. [default: 5 GB]
    #[arg(long, value_name = "SIZE")]
    max_shard_size: Option<String>,
    /// What this snapshot has, instead of the newest epoch.
    #[arg(long, value_name = "NAME")]
    snapshot: Option<String>,
    /// The file to write.
    out: PathBuf,
}

/// Does it.
///
/// # Errors
/// When the call is wrong, the store cannot be opened, bytes are wrong, or the files cannot be written.
pub fn run(args: &Args) -> Result<(), Failure> {
    let shard_bytes_max = args.shard_bytes_max().map_err(|problem| Failure::Config(vec![problem]))?;
    let mut store = opened::open_shared(&args.store, args.snapshot.as_deref())?;
    let exported = export_safetensors(&mut store, &args.out, shard_bytes_max)
        .map_err(|error| Failure::Work(format!("exporting to {}: {error}", args.out.display())));
    let files = opened::close(store, exported)?;
    output::print(match files.as_slice() {
        [shards @ .., index] if !shards.is_empty() => {
            format!("exported to {} files and {}\n", shards.len(), index.display())
        }
        _ => format!("exported to {}\n", args.out.display()),
    })
}

impl Args {
    fn shard_bytes_max(&self) -> Result<u64, Problem> {
        let Some(text) = &self.max_shard_size else { return Ok(SHARD_BYTES_DEFAULT) };
        parse_bytes(text).ok_or_else(|| {
            let right = "would be right: a size with its unit, such as \"5 GB\"";
            Problem::new("--max-shard-size", format!("\"{text}\" is not right"), right)
        })
    }
}
