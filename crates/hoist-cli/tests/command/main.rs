//! What the command says of calls that it cannot carry out. What it does when it can is in `tests/tests/e2e`.

// Helpers of tests are tests too, but for clippy only functions marked as such are.
#![allow(clippy::unwrap_used)]

mod call;
mod common;
mod doctor;
mod refused;
mod seccomp;
