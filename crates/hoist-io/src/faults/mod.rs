//! Faults on purpose: what goes wrong, how often and where, the same for the same seed and the same order of blocks.

mod block;
mod faulty;
mod kind;

pub(crate) use block::{BlockFaults, Meeting};
pub use faulty::Faulty;
pub use kind::{FaultKind, Short};

use crate::Operation;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which operation; None is each.
    pub operation: Option<Operation>,
    /// A part of the file's path; empty is each file.
    pub path_part: String,
    /// Bytes of the file: a block that has one of them is hit. A sync has no bytes, and is hit whatever these are.
    pub bytes: Range<u64>,
}

impl Default for Place {
    /// Everywhere.
    fn default() -> Place {
        Place { operation: None, path_part: String::new(), bytes: 0..u64::MAX }
    }
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// The share of the tries that it hits, from 0 to 1.
    pub rate: f64,
    /// How many tries it hits at most.
    pub times: u64,
    /// Where.
    pub place: Place,
}

impl Fault {
    /// A fault that hits every try everywhere, for ever.
    #[must_use]
    pub fn new(kind: FaultKind) -> Fault {
        Fault { kind, rate: 1.0, times: u64::MAX, place: Place::default() }
    }
}

/// The faults that a [`Faulty`] backend meets; a clone is the same faults. Used from any thread, while it runs.
#[derive(Clone)]
pub struct Faults {
    /// A lock between threads, which is no matter where things go wrong on purpose.
    state: Arc<Mutex<State>>,
}

struct State {
    seed: u64,
    random: u64,
    faults: Vec<Fault>,
    /// Bytes that may still be written; None is no limit.
    space_bytes: Option<u64>,
    hits: u64,
}

impl Faults {
    /// None yet.
    #[must_use]
    pub fn new(seed: u64) -> Faults {
        let state = State { seed, random: seed, faults: Vec::new(), space_bytes: None, hits: 0 };
        Faults { state: Arc::new(Mutex::new(state)) }
    }

    /// From now on this goes wrong, too. Of several that hit a try the first is done.
    pub fn add(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// From now on nothing goes wrong, and there is space. What is held back already still comes late.
    pub fn clear(&self) {
        let mut state = self.lock();
        (state.faults, state.space_bytes) = (Vec::new(), None);
    }

    /// After so many more bytes, rewritten ones too, writes end as on a full drive: the last one short, then ENOSPC. So does
    /// an allocation of more than is left; one of less takes nothing, as the writes that fill it do. To say it again is to
    /// free space.
    pub fn fill_after(&self, bytes: u64) {
        self.lock().space_bytes = Some(bytes);
    }

    /// Whether so many bytes may be allocated; if not, it is a hit.
    pub(crate) fn has_space(&self, bytes: u64) -> bool {
        let mut state = self.lock();
        let has_space = state.space_bytes.is_none_or(|space_bytes| bytes <= space_bytes);
        state.hits += u64::from(!has_space);
        has_space
    }

    /// How many tries were hit.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.lock().hits
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole when the lock is let go, whoever panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Faults {
    /// The seed, to run the same again, and what goes wrong.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        write!(out, "faults of seed {}, {} hits: {:?}", state.seed, state.hits, state.faults)
    }
}

impl State {
    /// The fault that hits this try, of those that `wanted` names.
    fn strike(
        &mut self,
        wanted: impl Fn(&FaultKind) -> bool,
        operation: Operation,
        path: &Path,
        bytes: &Range<u64>,
    ) -> Option<FaultKind> {
        for index in 0..self.faults.len() {
            let fault = &self.faults[index];
            let rate = fault.rate;
            if fault.times > 0
                && wanted(&fault.kind)
                && fault.place.holds(operation, path, bytes)
                && self.draw_share() < rate
            {
                self.hits += 1;
                self.faults[index].times -= 1;
                return Some(self.faults[index].kind);
            }
        }
        None
    }

    /// The next number in 0..1.
    fn draw_share(&mut self) -> f64 {
        // An f64 holds 53 bits.
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The next random number: splitmix64 (Steele, Lea and Flood, 2014), whose constants these are.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

impl Place {
    fn holds(&self, operation: Operation, path: &Path, bytes: &Range<u64>) -> bool {
        self.operation.is_none_or(|wanted| wanted == operation)
            && path.to_string_lossy().contains(&self.path_part)
            && (operation == Operation::Sync || self.bytes.start < bytes.end && bytes.start < self.bytes.end)
    }
}
