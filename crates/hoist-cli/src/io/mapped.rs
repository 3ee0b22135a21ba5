//! Memory for what is under way, which may outlive a drive.

use std::sync::Arc;

use hoist_io::memory::{self, Slab, Slot};

use super::drive::Error;
use crate::contents::{Contents, Kind};

/// Memory that drives use one after the other: mapping and filling it takes longer than many a measurement.
pub struct Mapped {
    slab: Arc<Slab>,
    /// What requests move, when none is under way.
    pub slots: Vec<Slot>,
}

impl Mapped {
    /// So many slots, of pages of this size.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(slots: u64, slot_bytes: u64, page_bytes: u64) -> Result<Self, Error> {
        let config = memory::Config {
            budget_bytes: slots.saturating_mul(slot_bytes.next_multiple_of(page_bytes)),
            page_bytes: usize::try_from(page_bytes)?,
            ..memory::Config::default()
        };
        let slab = Slab::map(&config)?;
        let slots = (0..slots).map_while(|_| slab.allocate(slot_bytes)).collect();
        Ok(Self { slab, slots })
    }

    /// What backends register.
    pub fn slab(&self) -> &Arc<Slab> {
        &self.slab
    }

    /// What the machine gave.
    pub fn obtained(&self) -> &memory::Obtained {
        self.slab.obtained()
    }

    /// Some of the slots, or all where there are fewer.
    pub fn take(&mut self, slots: usize) -> Self {
        let rest = self.slots.split_off(slots.min(self.slots.len()));
        Self { slab: Arc::clone(&self.slab), slots: std::mem::replace(&mut self.slots, rest) }
    }

    /// Takes slots back.
    pub fn put_back(&mut self, mapped: Self) {
        self.slots.extend(mapped.slots);
    }

    /// Fills all slots with what is not zeros: drives and hypervisors may treat those as nothing to do.
    pub fn fill(&mut self) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let contents = Contents::new(Kind::Bits, 1, number as u64);
            let mut offset = 0;
            for part in slot.parts_mut() {
                contents.fill(part, offset);
                offset += part.len() as u64;
            }
        }
    }
}
