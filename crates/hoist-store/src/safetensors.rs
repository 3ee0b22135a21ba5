//! safetensors files into stores and back.

mod export;
mod header;
mod import;
mod index;
mod model;
mod names;
mod new_files;
mod split;

pub use export::export_safetensors;
pub use header::group_of;
pub use import::import_safetensors;
pub use model::ModelFiles;
pub use split::SHARD_BYTES_DEFAULT;

/// The note that keeps a model's `__metadata__`, as JSON.
pub(crate) const METADATA_NOTE: &str = "safetensors.metadata";
