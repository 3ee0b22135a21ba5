//! `hoist ls DIR`

use comfy_table::{CellAlignment, Table, presets};
use hoist_store::{Life, TensorInfo};

use super::opened::{self, Directories};
use crate::config::units::format_bytes;
use crate::failure::Failure;
use crate::output;

/// Lists the tensors of a store.
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
    let store = opened::open(&args.directories.all())?;
    let tensors = store.store().tensors();
    let table = table(tensors);
    let bytes = tensors.iter().map(|tensor| tensor.bytes).sum();
    let (count, epoch) = (tensors.len(), store.store().epoch());
    opened::close(store, Ok(()))?;
    let lines: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    output::print(format_args!("{lines}{count} tensors, {}, epoch {epoch}\n", format_bytes(bytes)))
}

fn table(tensors: &[TensorInfo]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["tensor", "dtype", "shape", "bytes", "class", "life", "group"]);
    for TensorInfo { spec, bytes, .. } in tensors {
        let lengths: Vec<String> = spec.shape.iter().map(u64::to_string).collect();
        let life = match &spec.life {
            Life::Durable => "durable".to_owned(),
            Life::Scratch => "scratch".to_owned(),
            Life::Derived { from } => format!("derived from {from}"),
        };
        let shape = format!("[{}]", lengths.join(", "));
        let (dtype, class) = (spec.dtype.name().to_owned(), spec.class.name().to_owned());
        table.add_row([spec.name.clone(), dtype, shape, bytes.to_string(), class, life, spec.group.clone()]);
    }
    if let Some(column) = table.column_mut(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
