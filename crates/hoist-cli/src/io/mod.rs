//! `hoist io`: what directories give through the I/O that stores use.
//!
//! [`flags`] reads the words of the command line, of which [`call`] makes a [`Call`], [`order`] says what is asked of a
//! file next, [`drive`] keeps a file busy, [`fill`] makes one, [`counts`] adds up, and [`run`] goes through all of it. What
//! `hoist tune` and the probe of `hoist bench` use, too, is public.

mod call;
mod checksums;
mod counts;
mod drive;
mod files;
mod fill;
mod flags;
mod mapped;
mod order;
mod report;
mod run;
mod slice;
mod table;
mod together;

pub use call::Call;
pub use drive::{Done, Drive, Error, Obtained};
pub use fill::write;
pub use flags::{Given, directory_problems};
pub use mapped::Mapped;
pub use order::{Direction, Random, Turn};
pub use report::Report;
pub use run::run;
pub use slice::{Slice, Sum};
pub use table::print;
pub use together::{Start, in_all};
