//! One module for each command.

pub mod bench;
pub mod doctor;
pub mod export;
pub mod gc;
pub mod import;
pub mod io;
pub mod ls;
mod opened;
pub mod snapshot;
pub mod tune;
pub mod verify;
