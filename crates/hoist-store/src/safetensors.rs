//! safetensors files into stores and back.

mod export;
mod header;
mod import;
mod index;
mod model;

pub use export::export_safetensors;
pub use header::group_of;
pub use import::import_safetensors;
pub use model::ModelFiles;

/// The note that keeps a model's `__metadata__`, as JSON.
pub(crate) const METADATA_NOTE: &str = "safetensors.metadata";
