//! Memory that blocks of sources go through: the kernel moves whole sectors, and what was asked for begins and ends inside.

use crate::Error;
use hoist_memory::{Slab, Slot};
use std::sync::Arc;

/// The part of the slab that is taken for it at most, one in so many: the rest is for what is read.
const SLAB_PART: u64 = 8;

/// Blocks under way at least: with one alone the drive would wait while its bytes are copied.
const PLACES_MIN: u64 = 2;

/// Blocks under way at most: with 1 MiB each more than a drive of 14 GB/s has in flight in 1 ms.
const PLACES_MAX: u64 = 16;

/// One slot for each block that is under way, by its place; none before the first source is open.
pub(crate) struct Bounces {
    slab: Arc<Slab>,
    slots: Vec<Slot>,
    each_bytes: u64,
}

impl Bounces {
    pub(crate) fn new(slab: &Arc<Slab>) -> Bounces {
        Bounces { slab: Arc::clone(slab), slots: Vec::new(), each_bytes: 0 }
    }

    /// Takes memory for at most so many blocks of so many bytes, unless that was done before. Returns for how many there is.
    ///
    /// # Errors
    /// [`Error::NoBounce`] when the slab has none.
    pub(crate) fn prepare(&mut self, places: usize, block_bytes: u64) -> Result<usize, Error> {
        if self.slots.is_empty() {
            // A slot takes whole pages.
            let page_bytes = self.slab.page_bytes() as u64;
            let part_bytes = self.slab.pages() as u64 * page_bytes / SLAB_PART;
            let most = part_bytes / block_bytes.next_multiple_of(page_bytes);
            let places = (places as u64).min(most.clamp(PLACES_MIN, PLACES_MAX));
            self.slots = (0..places).map_while(|_| self.slab.allocate(block_bytes)).collect();
            // A slot of several pages may lie in pieces: a block is as long as the first at most.
            let first = |slot: &Slot| slot.parts().next().map_or(0, |part| part.len() as u64);
            self.each_bytes = self.slots.iter().map(first).min().unwrap_or(0);
        }
        match self.slots.len() {
            0 => Err(Error::NoBounce { bytes: block_bytes }),
            places => Ok(places),
        }
    }

    /// Bytes of one of them.
    pub(crate) fn each_bytes(&self) -> u64 {
        self.each_bytes
    }

    /// Bytes of all of them, as the slab counts.
    pub(crate) fn all_bytes(&self) -> u64 {
        let page_bytes = self.slab.page_bytes() as u64;
        self.slots.iter().map(|slot| slot.bytes().next_multiple_of(page_bytes)).sum()
    }

    /// The memory of the block at `place`, and the piece of the slab that it lies in.
    pub(crate) fn memory(&self, place: usize) -> (usize, Option<u32>) {
        let span = self.slots[place].spans(0, self.each_bytes).next();
        span.map_or_else(|| unreachable!("a slot without memory"), |span| (span.address, span.piece))
    }

    /// What was read into it.
    pub(crate) fn bytes(&self, place: usize) -> &[u8] {
        self.slots[place].parts().next().unwrap_or_default()
    }
}
