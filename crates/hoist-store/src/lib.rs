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

mod bundle;
mod config;
mod free_space;
mod location;
mod spec;

pub use config::{Config, Durability, Problem, SEGMENT_BYTES_DEFAULT, SEGMENT_GRAIN_BYTES};
pub use hoist_format::{CHECKSUM_BYTES, Class, Dtype, LifeKind, blocks, checksum};
pub use spec::{Life, RunId, RunInfo, Span, TensorId, TensorInfo, TensorSpec};
