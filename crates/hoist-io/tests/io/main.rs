//! Transfers through real files in temporary folders, on both backends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod abandoned;
mod bandwidth;
mod common;
mod failing;
mod faults;
mod flow;
mod sources;
mod table;
mod thread;
mod throttled;
mod transfers;
