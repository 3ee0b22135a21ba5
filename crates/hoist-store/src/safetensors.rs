//! safetensors files into stores and back.

mod export;
mod header;
mod import;

pub use export::export_safetensors;
pub use header::{group_of, read_specs};
pub use import::import_safetensors;

/// The note that keeps a file's `__metadata__`, as JSON.
pub(crate) const METADATA_NOTE: &str = "safetensors.metadata";
