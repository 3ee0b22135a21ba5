//! The command and the embedding API from end to end, on real files.

// Helpers of tests are tests too, but for clippy only functions marked as such are.
#![allow(clippy::unwrap_used)]

mod bench;
mod command;
mod direct;
mod import;
mod interrupt;
mod io;
mod model;
mod real;
mod shards;
mod snapshots;
mod tune;
