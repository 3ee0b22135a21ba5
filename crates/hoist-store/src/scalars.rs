//! What a trainer says of a step.

use crate::Error;
use std::collections::BTreeMap;

/// The most that names and values of a step's scalars may have together: the states of a few hundred random number
/// generators (2.5 KiB each, as numpy's Mersenne twister has) fit, and a snapshot costs no more than that.
pub const SCALARS_BYTES_MAX: usize = 1 << 20;

/// What a trainer keeps with an epoch, so that it can go on from there: the number of the step that made it, and small
/// values by name, which mean nothing to hoist: learning rate, loss scale, states of random number generators.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scalars {
    /// The trainer's number of the step.
    pub step: u64,
    /// At most [`SCALARS_BYTES_MAX`] bytes of names and values.
    pub values: BTreeMap<String, Vec<u8>>,
}

impl Scalars {
    /// A step without values.
    #[must_use]
    pub fn step(step: u64) -> Scalars {
        Scalars { step, values: BTreeMap::new() }
    }

    /// With one more value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Vec<u8>>) -> Scalars {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    /// # Errors
    /// [`Error::LargeScalars`]: no epoch can be committed with them.
    pub fn check(&self) -> Result<(), Error> {
        let bytes = self.values.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > SCALARS_BYTES_MAX { Err(Error::LargeScalars { bytes }) } else { Ok(()) }
    }
}
