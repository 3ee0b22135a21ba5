//! Each step down gives the right bytes and says why. A refusal is made in a child: this program, run again for one
//! test, with what the kernel refuses set before it starts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bytes;
mod child;
mod directory;
mod filter;
mod lock;
mod pages;
mod ring;
