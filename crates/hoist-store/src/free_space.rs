//! The free extents of one directory: intervals in its segments, whole pages of 4096.

use hoist_format::{CHECKSUM_BYTES, Extent};
use std::collections::{BTreeMap, BTreeSet};

/// Extents start at multiples of this and occupy whole ones: what direct I/O needs on any drive in use.
pub const EXTENT_ALIGN_BYTES: u64 = 4096;

/// Bytes that an extent of `bytes` occupies.
pub(crate) fn occupied(bytes: u64) -> u64 {
    bytes.next_multiple_of(EXTENT_ALIGN_BYTES)
}

/// Free intervals, by place to join neighbours and by size to find the best fit.
#[derive(Default)]
pub(crate) struct FreeSpace {
    by_place: BTreeMap<(u32, u64), u64>,
    by_bytes: BTreeSet<(u64, u32, u64)>,
    bytes: u64,
    /// The number of the first segment, and the sizes of all.
    first: u32,
    segments: Vec<u64>,
}

impl FreeSpace {
    /// All of the segments with these sizes; `first` is the number of the first of them.
    pub fn new(first: u32, segments: &[u64]) -> FreeSpace {
        let mut free = FreeSpace { first, segments: segments.to_vec(), ..FreeSpace::default() };
        for (segment, bytes) in segments.iter().enumerate().filter(|(_, bytes)| **bytes > 0) {
            free.insert(first + segment as u32, 0, *bytes);
        }
        free
    }

    /// Free bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of the first segment.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The sizes of all segments.
    pub fn segments(&self) -> &[u64] {
        &self.segments
    }

    fn insert(&mut self, segment: u32, offset: u64, bytes: u64) {
        self.by_place.insert((segment, offset), bytes);
        self.by_bytes.insert((bytes, segment, offset));
        self.bytes += bytes;
    }

    fn remove(&mut self, segment: u32, offset: u64, bytes: u64) {
        self.by_place.remove(&(segment, offset));
        self.by_bytes.remove(&(bytes, segment, offset));
        self.bytes -= bytes;
    }

    /// Puts extents for `bytes` behind those in `out`: one when an interval is large enough (the smallest such), else
    /// the largest ones, cut at multiples of 256 KiB where that is possible. False, and nothing taken, when too little is free.
    pub fn allocate(&mut self, bytes: u64, out: &mut Vec<Extent>) -> bool {
        if occupied(bytes) > self.bytes {
            return false;
        }
        let mut left = bytes;
        while left > 0 {
            let fit = self.by_bytes.range((occupied(left), 0, 0)..).next();
            let Some(&(free, segment, offset)) = fit.or_else(|| self.by_bytes.last()) else {
                unreachable!("{left} bytes of {bytes} left with {} free", self.bytes)
            };
            let mut take = left.min(free);
            if take < left && take > CHECKSUM_BYTES {
                take -= take % CHECKSUM_BYTES;
            }
            self.remove(segment, offset, free);
            if occupied(take) < free {
                self.insert(segment, offset + occupied(take), free - occupied(take));
            }
            out.push(Extent { segment, offset, bytes: take });
            left -= take;
        }
        true
    }

    /// Gives an extent back.
    ///
    /// # Panics
    /// When part of it is free already.
    pub fn free(&mut self, extent: Extent) {
        let Extent { segment, mut offset, bytes } = extent;
        let mut bytes = occupied(bytes);
        let before =
            self.by_place.range(..(segment, offset)).next_back().map(|(place, bytes)| (*place, *bytes));
        let after = self.by_place.range((segment, offset)..).next().map(|(place, bytes)| (*place, *bytes));
        if let Some(((other, start), free)) = before.filter(|((other, _), _)| *other == segment) {
            assert!(
                start + free <= offset,
                "{extent:?} is free already from {start} of {other} on, {free} bytes"
            );
            if start + free == offset {
                self.remove(segment, start, free);
                (offset, bytes) = (start, bytes + free);
            }
        }
        if let Some(((other, start), free)) = after.filter(|((other, _), _)| *other == segment) {
            assert!(
                offset + bytes <= start,
                "{extent:?} is free already from {start} of {other} on, {free} bytes"
            );
            if offset + bytes == start {
                self.remove(segment, start, free);
                bytes += free;
            }
        }
        self.insert(segment, offset, bytes);
    }

    /// The parts of an extent that are free, and those that are not, in order; `None` when it lies in no segment, or is none.
    pub fn split(&self, extent: Extent) -> Option<(Vec<Extent>, Vec<Extent>)> {
        let Extent { segment, offset, bytes } = extent;
        let end = offset.checked_add(bytes.checked_next_multiple_of(EXTENT_ALIGN_BYTES)?)?;
        let inside = segment.checked_sub(self.first).and_then(|place| self.segments.get(place as usize));
        if !offset.is_multiple_of(EXTENT_ALIGN_BYTES)
            || end == offset
            || inside.is_none_or(|bytes| *bytes < end)
        {
            return None;
        }
        let (mut free, mut taken) = (Vec::new(), Vec::new());
        let part = |from: u64, to: u64| Extent { segment, offset: from, bytes: to - from };
        let mut at = offset;
        // The interval that begins before it may reach into it.
        let before = self.by_place.range((segment, 0)..=(segment, offset)).next_back();
        let first = before.map_or(offset, |((_, start), _)| *start);
        for ((_, start), bytes) in self.by_place.range((segment, first)..(segment, end)) {
            let (from, to) = ((*start).max(offset), (start + bytes).min(end));
            if from < to {
                taken.extend((at < from).then(|| part(at, from)));
                free.push(part(from, to));
                at = to;
            }
        }
        taken.extend((at < end).then(|| part(at, end)));
        Some((free, taken))
    }

    /// Takes a live extent out of the free space. False when it is not free, wholly: two records claim it, or it lies
    /// outside the segments.
    #[must_use]
    pub fn take(&mut self, extent: Extent) -> bool {
        let Extent { segment, offset, bytes } = extent;
        let Some(end) =
            bytes.checked_next_multiple_of(EXTENT_ALIGN_BYTES).and_then(|b| offset.checked_add(b))
        else {
            return false;
        };
        let found =
            self.by_place.range(..=(segment, offset)).next_back().map(|(place, bytes)| (*place, *bytes));
        let Some(((_, start), free)) =
            found.filter(|((other, start), free)| *other == segment && end <= start + free)
        else {
            return false;
        };
        if !offset.is_multiple_of(EXTENT_ALIGN_BYTES) || end == offset {
            return false;
        }
        self.remove(segment, start, free);
        if start < offset {
            self.insert(segment, start, offset - start);
        }
        if end < start + free {
            self.insert(segment, end, start + free - end);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEGMENTS: [u64; 3] = [40 * 4096, 64 * 4096 * 3, 4096];

    fn total() -> u64 {
        SEGMENTS.iter().sum()
    }

    #[test]
    fn the_smallest_interval_that_fits_is_taken() {
        let mut free = FreeSpace::new(0, &[1 << 20, 1 << 18, 1 << 19]);
        let mut out = Vec::new();
        assert!(free.allocate((1 << 18) - 5, &mut out));
        assert!(free.allocate(1 << 19, &mut out));
        assert_eq!((out[0].segment, out[1].segment), (1, 2));
        out.clear();
        assert!(!free.allocate((1 << 20) + 1, &mut out) && out.is_empty());
        free.free(Extent { segment: 1, offset: 0, bytes: (1 << 18) - 5 });
        assert!(free.allocate((1 << 20) + 1, &mut out));
        assert_eq!(out.iter().map(|extent| extent.bytes).collect::<Vec<_>>(), [1 << 20, 1]);
    }

    #[test]
    fn extents_outside_or_claimed_twice_are_refused() {
        let mut free = FreeSpace::new(0, &SEGMENTS);
        let extent = Extent { segment: 1, offset: 8192, bytes: 5000 };
        assert!(free.take(extent) && !free.take(extent));
        assert!(!free.take(Extent { segment: 1, offset: 4096, bytes: 4097 }));
        assert!(!free.take(Extent { segment: 3, offset: 0, bytes: 1 }));
        assert!(!free.take(Extent { segment: 0, offset: 40 * 4096, bytes: 1 }));
        assert!(!free.take(Extent { segment: 0, offset: 1, bytes: 1 }));
        assert!(!free.take(Extent { segment: 0, offset: 0, bytes: u64::MAX }));
        assert!(!free.take(Extent { segment: 0, offset: 0, bytes: 0 }));
    }

    proptest! {
        #[test]
        fn live_extents_never_overlap_and_all_space_can_be_used(
            ops in prop::collection::vec((any::<bool>(), 1..40 * 4096u64, any::<prop::sample::Index>()), 1..80)
        ) {
            let mut free = FreeSpace::new(0, &SEGMENTS);
            let mut live: Vec<Vec<Extent>> = Vec::new();
            for (allocate, bytes, which) in ops {
                if allocate {
                    let mut extents = Vec::new();
                    let fits = occupied(bytes) <= free.bytes();
                    prop_assert_eq!(free.allocate(bytes, &mut extents), fits, "whatever is free can be used");
                    if fits {
                        prop_assert_eq!(extents.iter().map(|extent| extent.bytes).sum::<u64>(), bytes);
                        live.push(extents);
                    }
                } else if !live.is_empty() {
                    for extent in live.swap_remove(which.index(live.len())) {
                        free.free(extent);
                    }
                }
                let used: u64 = live.iter().flatten().map(|extent| occupied(extent.bytes)).sum();
                prop_assert_eq!(used + free.bytes(), total());
                // Rebuilt from the live extents: `take` refuses overlaps.
                let mut rebuilt = FreeSpace::new(0, &SEGMENTS);
                for extent in live.iter().flatten() {
                    let whole = Extent { bytes: occupied(extent.bytes), ..*extent };
                    prop_assert_eq!(rebuilt.split(*extent), Some((vec![whole], vec![])));
                    prop_assert_eq!(free.split(*extent), Some((vec![], vec![whole])));
                    prop_assert!(rebuilt.take(*extent), "{:?} overlaps", extent);
                }
                prop_assert_eq!(&rebuilt.by_place, &free.by_place);
                prop_assert_eq!(&rebuilt.by_bytes, &free.by_bytes);
            }
        }
    }
}
