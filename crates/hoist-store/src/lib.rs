//! Named tensors on one or more NVMe directories.
//!
//! A [`Store`] lays tensors out in runs (one large shard, or a bundle of small ones), moves spans of them between slots
//! and extents, and commits epochs. It owns the location of every byte and the journal that records it; it knows
//! nothing of eviction or of GPUs, and every byte passes through `hoist-io`.
//!
//! Reads and writes are requests: the slot moves in and comes back with a [`StoreEvent`]. Every completion that the
//! `deliver` closure gets is handed to [`Store::handle`] on the owner's thread. Nothing here blocks but `create`, `open`
//! and `close`. [`BlockingStore`] wraps a store for tools, which wait.

#![forbid(unsafe_code)]

mod batch;
mod blocking;
mod blocking_io;
mod blocking_verified;
mod bundle;
mod changes;
mod close;
mod commit;
mod config;
mod contents;
mod create;
mod directory;
mod drive_errors;
mod error;
mod few;
mod free_space;
mod growth;
mod history;
mod ids;
mod in_place;
mod journal;
mod loader;
mod location;
mod lock;
mod ls;
mod missing;
mod open;
mod places;
mod placing;
mod ranges;
mod rank_stores;
mod ranks;
mod rollback;
mod safetensors;
mod scalars;
mod segments;
mod shared;
mod shares;
mod snapshot;
mod sources;
mod space;
mod spec;
mod spread;
mod stages;
mod store;
mod touched;
mod transfer;
mod verify;
mod verify_in_place;

pub use blocking::BlockingStore;
pub use bundle::{
    BUNDLE_ALIGN_BYTES, BUNDLED_BYTES_MAX, DIMENSIONS_MAX, NAME_BYTES_MAX, TENSORS_MAX, Tensors,
};
pub use config::{Config, Durability, Problem, SEGMENT_BYTES_DEFAULT, SEGMENT_GRAIN_BYTES};
pub use error::Error;
pub use few::Few;
pub use history::SNAPSHOT_NAME_BYTES_MAX;
pub use hoist_format::{CHECKSUM_BYTES, Class, Dtype, Extent, LifeKind, StoreId, blocks, checksum};
pub use hoist_io::{
    BackendChoice, Completion, Config as IoConfig, Error as IoError, IoThread, Obtained, Priority, RequestId,
};
pub use ls::Listed;
pub use open::Deliver;
pub use rank_stores::{RankStores, RanksError};
pub use safetensors::{ModelFiles, SHARD_BYTES_DEFAULT, export_safetensors, group_of, import_safetensors};
pub use scalars::{SCALARS_BYTES_MAX, Scalars};
pub use snapshot::Epoch;
pub use space::Space;
pub use spec::{Life, RunId, RunInfo, Shard, Span, TensorId, TensorInfo, TensorSpec};
pub use store::{DirectoryInfo, NOTE_BYTES_MAX, Store, StoreEvent};
pub use verify::{BadBlock, VerifyReport, verify, verify_parts, verify_touched};

/// A store is made on one thread and may be driven by another.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Store>();
    is_send::<BlockingStore>();
};
