//! A drive whose thread stops.

use crate::drive::Will;
use hoist_io::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Fails as a whole once it is told to.
pub struct Dying {
    pub dead: Arc<AtomicBool>,
}

impl Will for Dying {
    fn check(&mut self) -> Result<(), Error> {
        match self.dead.load(Ordering::Acquire) {
            true => Err(Error::Stopped { cause: "it was told to".to_owned() }),
            false => Ok(()),
        }
    }
}
