//! `hoist bench`: a workload through the tiers, with every byte checked.

mod bound;
mod copy_rate;
mod engine;
mod place;
mod probe;
mod progress;
mod run;
mod source;
mod summary;
mod trainer;
mod turns;

pub use progress::Progress;
pub use run::run;
