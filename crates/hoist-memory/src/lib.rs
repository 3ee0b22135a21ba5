//! The host slab: one locked address range of pages, cut into owned slots.
//!
//! A [`Slab`] maps its whole budget once, with the largest pages that the machine gives, populates and locks it.
//! Afterwards nothing is mapped or allocated any more: [`Slab::allocate`] hands out a [`Slot`], a chain of pages that
//! its holder owns by value. A slot has one writer, or becomes any number of counted [`SlotReader`]s, never both; what is
//! read from several drives has as many counted [`SlotFiller`]s, and is a slot again when all are done.
//! What a slot holds is not known here.

mod buffer;
mod config;
mod error;
mod free_pages;
mod mapping;
mod obtained;
mod owner;
mod reservation;
mod slab;
mod slot;
mod spans;

pub use buffer::AlignedBuffer;
pub use config::{Config, PAGE_BYTES_DEFAULT, PIECE_BYTES_DEFAULT, Problem, SECTOR_BYTES};
pub use error::Error;
pub use obtained::Obtained;
pub use slab::{Piece, Slab};
pub use slot::{Slot, SlotFiller, SlotReader};
pub use spans::MemorySpan;
