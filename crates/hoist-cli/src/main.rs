//! The command.
#![forbid(unsafe_code)]
mod config;
fn main() {}
