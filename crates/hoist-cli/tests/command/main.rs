//! The command as its users call it.

// Helpers of tests are tests too, but for clippy only functions marked as such are.
#![allow(clippy::unwrap_used)]

mod bench;
mod call;
mod common;
mod store;
