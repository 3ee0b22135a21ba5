//! `hoist io`: what directories give through the I/O that stores use.
//!
//! [`flags`] reads the words of the command line, of which [`call`] makes a [`Call`], [`order`] says what is asked of a file next, [`drive`]
//! keeps a file busy, [`fill`] makes one, [`counts`] adds up, and [`run`] goes through all of it.

mod call;
mod checksums;
mod counts;
mod drive;
mod files;
mod fill;
mod flags;
mod order;
mod report;
mod run;
mod table;

pub use call::Call;
pub use flags::Given;
pub use report::Report;
pub use run::run;
pub use table::print;
