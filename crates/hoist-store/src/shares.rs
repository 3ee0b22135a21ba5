//! Extents that several epochs have although they are told of as different bytes: going back to a snapshot gives what it
//! has to the newest epoch, too.

use crate::free_space::occupied;
use hoist_format::Extent;
use std::collections::BTreeMap;

/// How often pages are held beyond once. Empty unless the store went back to a snapshot.
#[derive(Default)]
pub(crate) struct Shares {
    /// By segment and offset: bytes, and holders beyond the first. Disjoint.
    by_place: BTreeMap<(u32, u64), (u64, u32)>,
}

impl Shares {
    /// Cuts the interval that `offset` lies inside of.
    fn cut(&mut self, segment: u32, offset: u64) {
        let before = self.by_place.range(..(segment, offset)).next_back().map(|(place, one)| (*place, *one));
        if let Some(((other, start), (bytes, more))) = before.filter(|((other, _), _)| *other == segment)
            && start + bytes > offset
        {
            self.by_place.insert((other, start), (offset - start, more));
            self.by_place.insert((segment, offset), (start + bytes - offset, more));
        }
    }

    /// The parts of an extent that are held once, in order; the others are cut at its ends and counted anew by `change`.
    fn change(&mut self, extent: Extent, mut change: impl FnMut(&mut u32)) -> Vec<Extent> {
        let Extent { segment, offset, bytes } = extent;
        let end = offset + occupied(bytes);
        let mut once = Vec::new();
        self.cut(segment, offset);
        self.cut(segment, end);
        let mut at = offset;
        for ((_, start), (bytes, more)) in self.by_place.range_mut((segment, offset)..(segment, end)) {
            if at < *start {
                once.push(Extent { segment, offset: at, bytes: start - at });
            }
            at = start + *bytes;
            change(more);
        }
        if at < end {
            once.push(Extent { segment, offset: at, bytes: end - at });
        }
        once
    }

    /// One holder more.
    pub fn add(&mut self, extent: Extent) {
        for Extent { segment, offset, bytes } in self.change(extent, |more| *more += 1) {
            self.by_place.insert((segment, offset), (occupied(bytes), 1));
        }
    }

    /// One holder less; `free` gets what nobody holds any more.
    pub fn release(&mut self, extent: Extent, mut free: impl FnMut(Extent)) {
        if self.by_place.is_empty() {
            // As nearly always: a running store allocates nothing for it.
            return free(extent);
        }
        self.change(extent, |more| *more -= 1).into_iter().for_each(free);
        let end = extent.offset + occupied(extent.bytes);
        let range = (extent.segment, extent.offset)..(extent.segment, end);
        let single = self.by_place.range(range).filter(|(_, (_, more))| *more == 0);
        for place in single.map(|(place, _)| *place).collect::<Vec<_>>() {
            self.by_place.remove(&place);
        }
    }

    /// Whether any of it is held more than once.
    pub fn overlaps(&self, extent: &Extent) -> bool {
        let end = extent.offset + occupied(extent.bytes);
        let last = self.by_place.range(..(extent.segment, end)).next_back();
        last.is_some_and(|((segment, start), (bytes, _))| {
            *segment == extent.segment && start + bytes > extent.offset
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u64 = 4096;

    proptest! {
        #[test]
        fn counts_every_page(ops in prop::collection::vec((any::<bool>(), 0..2u32, 0..20u64, 1..9u64), 1..60)) {
            let mut shares = Shares::default();
            let mut model = [[1u32; 32]; 2];
            for (add, segment, from, pages) in ops {
                let extent = Extent { segment, offset: from * PAGE, bytes: pages * PAGE - 7 };
                let model = &mut model[segment as usize];
                let here = from as usize..(from + pages) as usize;
                let shared = model[here.clone()].iter().any(|count| *count > 1);
                prop_assert_eq!(shares.overlaps(&extent), shared);
                if add {
                    shares.add(extent);
                    model[here].iter_mut().for_each(|count| *count += 1);
                } else {
                    let mut freed = [false; 32];
                    let mut parts = Vec::new();
                    shares.release(extent, |part| parts.push(part));
                    for part in parts {
                        prop_assert!(part.offset >= extent.offset);
                        let pages = (part.offset / PAGE) as usize..(part.offset + occupied(part.bytes)).div_ceil(PAGE) as usize;
                        freed[pages].fill(true);
                    }
                    for page in 0..32 {
                        let single = here.contains(&page) && model[page] == 1;
                        prop_assert_eq!(freed[page], single, "page {}", page);
                        // What is free is held again by somebody, once, for the next round.
                        if here.contains(&page) && !single {
                            model[page] -= 1;
                        }
                    }
                }
            }
        }
    }
}
