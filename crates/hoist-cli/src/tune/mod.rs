//! `hoist tune`: the settings of `io.*` with which directories give most, as a config.
//!
//! [`call`] reads the command line, [`trial`] holds the files that are read and written, [`candidate`] says what is
//! tried, [`race`] when, [`course`] measures it and [`pace`] makes rates of that, [`standings`] makes shares of it, and
//! [`run`] goes through all of it.

mod call;
mod candidate;
mod course;
mod pace;
mod race;
mod report;
mod residency;
mod run;
mod settings;
mod standings;
mod table;
mod trial;

pub use call::Call;
pub use report::Report;
pub use run::run;
pub use settings::{check_output, text, write};
pub use table::print;
