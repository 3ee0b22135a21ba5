//! The table of claims: which ranges of the arena are live.

use std::sync::Arc;

use crate::DeviceSlot;
use crate::arena::Arena;
use crate::slot::Hold;

/// Room made ahead for claims, so that a running device allocates nothing. A device holds the units
/// of the few accesses that are near, tens to hundreds; with more the table grows.
const CLAIMS_EXPECTED: usize = 1024;

/// A claimed range. It may be free by now: whoever drops the last holder only counts it down, and
/// the table finds out when the range is wanted again.
struct Claim {
    offset: u64,
    bytes: u64,
    hold: Arc<Hold>,
}

/// The claims of one arena, sorted by offset, no two overlapping. It is owned by the device, so it needs no
/// lock: slots that are dropped on other threads are seen through their count alone.
pub(crate) struct Ranges {
    arena: Arc<Arena>,
    claims: Vec<Claim>,
    /// Counts of ranges that are gone, for the next claims.
    spare: Vec<Arc<Hold>>,
}

impl Ranges {
    /// No range of `arena` is claimed yet.
    pub fn new(arena: Arc<Arena>) -> Self {
        let spare = (0..CLAIMS_EXPECTED).map(|_| Arc::new(Hold::new(Arc::clone(&arena)))).collect();
        Self { arena, claims: Vec::with_capacity(CLAIMS_EXPECTED), spare }
    }

    /// The slot of `bytes` bytes at `offset`.
    ///
    /// # Panics
    /// When the range is outside the arena or overlaps one that is still held. The plan's allocator
    /// gives out offsets, so both are its mistakes and never a shortage of memory.
    pub fn claim(&mut self, offset: u64, bytes: u64) -> DeviceSlot {
        let end = offset.checked_add(bytes);
        let Some(end) = end.filter(|end| *end <= self.arena.bytes()) else {
            panic!("claim of {offset}+{bytes} is outside the device arena of {} bytes", self.arena.bytes());
        };
        let first = self.claims.partition_point(|claim| claim.offset + claim.bytes <= offset);
        let after = first + self.claims[first..].partition_point(|claim| claim.offset < end);
        for claim in &self.claims[first..after] {
            assert!(
                bytes == 0 || claim.hold.is_free(),
                "claim of {offset}+{bytes} overlaps the live range {}+{}",
                claim.offset,
                claim.bytes
            );
        }
        if bytes == 0 {
            // A tensor may have no bytes: its slot covers nothing, so there is nothing to keep.
            return DeviceSlot::new(Arc::new(Hold::new(Arc::clone(&self.arena))), offset, 0);
        }
        self.spare.extend(self.claims.drain(first..after).map(|claim| claim.hold));
        let hold = self.spare.pop().unwrap_or_else(|| Arc::new(Hold::new(Arc::clone(&self.arena))));
        self.claims.insert(first, Claim { offset, bytes, hold: Arc::clone(&hold) });
        DeviceSlot::new(hold, offset, bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::DeviceReader;

    const ARENA_BYTES: u64 = 64 * 1024;

    fn ranges() -> Ranges {
        Ranges::new(Arc::new(Arena::map(ARENA_BYTES, &mut Vec::new()).unwrap()))
    }

    #[test]
    #[should_panic(expected = "claim of 150+100 overlaps the live range 100+100")]
    fn a_claim_of_a_live_range_asserts() {
        let mut ranges = ranges();
        let _slot = ranges.claim(100, 100);
        ranges.claim(150, 100);
    }

    #[test]
    #[should_panic(expected = "claim of 0+300 overlaps the live range 100+100")]
    fn a_claim_around_a_shared_range_asserts() {
        let mut ranges = ranges();
        let reader = ranges.claim(100, 100).share();
        let _last = reader.clone();
        drop(reader);
        ranges.claim(0, 300);
    }

    #[test]
    #[should_panic(expected = "claim of 65535+2 is outside the device arena of 65536 bytes")]
    fn a_claim_past_the_end_asserts() {
        ranges().claim(ARENA_BYTES - 1, 2);
    }

    #[test]
    fn a_dropped_range_can_be_claimed_by_any_other_shape() {
        let mut ranges = ranges();
        let (left, right) = (ranges.claim(0, 100), ranges.claim(100, 100));
        drop((left, right));
        let whole = ranges.claim(50, 100);
        let _neighbours = (ranges.claim(0, 50), ranges.claim(150, 50));
        assert_eq!((whole.offset(), whole.bytes()), (50, 100));
        assert_eq!(ranges.claims.len(), 3);
    }

    #[test]
    fn a_slot_of_no_bytes_overlaps_nothing() {
        let mut ranges = ranges();
        let _all = ranges.claim(0, ARENA_BYTES);
        assert_eq!(ranges.claim(17, 0).as_slice(), &[]);
        assert_eq!(ranges.claim(ARENA_BYTES, 0).bytes(), 0);
    }

    #[test]
    fn slots_outlive_the_table() {
        let mut ranges = ranges();
        let mut slot = ranges.claim(4096, 16);
        drop(ranges);
        slot.as_mut_slice().copy_from_slice(b"still its memory");
        assert_eq!(slot.share().as_slice(), b"still its memory");
    }

    /// What holds a range in the model below.
    enum Holder {
        Slot(DeviceSlot),
        Readers(Vec<DeviceReader>),
    }

    impl Holder {
        fn bytes(&self) -> &[u8] {
            match self {
                Self::Slot(slot) => slot.as_slice(),
                Self::Readers(readers) => readers[0].as_slice(),
            }
        }
    }

    /// A byte that depends on where it lies and on who wrote it.
    fn pattern(offset: u64, writer: usize) -> u8 {
        (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8 ^ writer as u8
    }

    fn fill(slot: &mut DeviceSlot, writer: usize) {
        let offset = slot.offset();
        for (byte, place) in slot.as_mut_slice().iter_mut().zip(offset..) {
            *byte = pattern(place, writer);
        }
    }

    /// Changes who holds the range: shares, clones, takes back, or drops one holder or all.
    fn change(holder: Holder, choice: u8) -> Option<Holder> {
        match (holder, choice % 4) {
            (Holder::Slot(slot), 0) => Some(Holder::Readers(vec![slot.share()])),
            (Holder::Slot(slot), 1) => Some(Holder::Slot(slot)),
            (Holder::Slot(_), _) => None,
            (Holder::Readers(mut readers), 0) => {
                readers.push(readers[0].clone());
                Some(Holder::Readers(readers))
            }
            (Holder::Readers(mut readers), 1) => {
                let alone = readers.len() == 1;
                match readers.pop().unwrap().try_into_slot() {
                    Ok(slot) => {
                        assert!(alone, "a slot came of {} readers", readers.len() + 1);
                        Some(Holder::Slot(slot))
                    }
                    Err(reader) => {
                        assert!(!alone, "the last reader gave no slot");
                        readers.push(reader);
                        Some(Holder::Readers(readers))
                    }
                }
            }
            (Holder::Readers(mut readers), 2) => {
                readers.pop();
                (!readers.is_empty()).then_some(Holder::Readers(readers))
            }
            (Holder::Readers(_), _) => None,
        }
    }

    proptest! {
        /// Any history of claims, shares and drops: a free range can always be claimed, whatever was
        /// there before, and what a holder wrote stays until its last holder is gone.
        #[test]
        fn holders_keep_their_bytes(steps in proptest::collection::vec((0..64_u64, 1..12_u64, any::<u8>()), 1..200)) {
            const GRAIN_BYTES: u64 = 1024;
            let mut ranges = ranges();
            let mut model: Vec<(u64, u64, usize, Holder)> = Vec::new();
            for (writer, (start, length, choice)) in steps.into_iter().enumerate() {
                let (offset, bytes) = (start * GRAIN_BYTES, length.min(64 - start) * GRAIN_BYTES);
                match model.iter().position(|(at, long, ..)| *at < offset + bytes && offset < at + long) {
                    None => {
                        let mut slot = ranges.claim(offset, bytes);
                        fill(&mut slot, writer);
                        model.push((offset, bytes, writer, Holder::Slot(slot)));
                    }
                    Some(index) => {
                        let (at, long, mut by, holder) = model.swap_remove(index);
                        let holder = change(holder, choice).map(|holder| match holder {
                            Holder::Slot(mut slot) => {
                                by = writer;
                                fill(&mut slot, writer);
                                Holder::Slot(slot)
                            }
                            readers => readers,
                        });
                        model.extend(holder.map(|holder| (at, long, by, holder)));
                    }
                }
                for (at, long, by, holder) in &model {
                    prop_assert_eq!(holder.bytes().len() as u64, *long);
                    for (byte, place) in holder.bytes().iter().zip(*at..).step_by(61) {
                        prop_assert_eq!(*byte, pattern(place, *by), "byte {} of writer {}", place, by);
                    }
                }
            }
        }
    }
}
