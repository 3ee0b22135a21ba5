//! What tests of several crates share: [`Power`], which is cut in the middle of anything, for the drives behind
//! [`Powered`] backends; and seeds, each of which says how it is repeated when its test fails ([`each_seed`]).

#![forbid(unsafe_code)]

mod power;
mod random;
mod seeds;

pub use power::{Power, Powered};
pub use random::Random;
pub use seeds::each_seed;
