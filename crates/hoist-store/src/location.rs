//! Where the bytes of one run are: pieces in order, each in one extent.

use crate::few::Few;
use crate::free_space::occupied;
use hoist_format::Extent;

/// Born in the batch that is still to be committed.
pub(crate) const UNCOMMITTED: u64 = u64::MAX;

/// A part of a run in one extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it starts in the run; its length is the extent's.
    pub offset: u64,
    pub extent: Extent,
    /// Whether the extent holds these bytes: not before the first write into it is done.
    pub valid: bool,
    /// The batch that told of it first, or [`UNCOMMITTED`].
    pub born: u64,
}

impl Piece {
    pub fn end(&self) -> u64 {
        self.offset + self.extent.bytes
    }

    /// Takes in the piece behind it, if that goes on in the same extent.
    fn join(&mut self, next: &Piece) -> bool {
        let joins = self.end() == next.offset
            && self.extent.segment == next.extent.segment
            && self.extent.offset + occupied(self.extent.bytes) == next.extent.offset
            && self.extent.bytes == occupied(self.extent.bytes)
            && (self.valid, self.born) == (next.valid, next.born);
        if joins {
            self.extent.bytes += next.extent.bytes;
        }
        joins
    }

    /// The part of it in `from..to`.
    fn cut(&self, from: u64, to: u64) -> Piece {
        let (start, end) = (self.offset.max(from), self.end().min(to));
        let offset = self.extent.offset + (start - self.offset);
        Piece { offset: start, extent: Extent { offset, bytes: end - start, ..self.extent }, ..*self }
    }
}

/// The pieces of a run, by offset, without overlap; what no piece covers was never written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Locations {
    pieces: Few<Piece>,
}

impl Locations {
    /// Of these pieces, in any order, none of which overlap.
    pub fn new(mut pieces: Vec<Piece>) -> Locations {
        pieces.sort_unstable_by_key(|piece| piece.offset);
        pieces.dedup_by(|next, piece| piece.join(next));
        Locations { pieces: pieces.into() }
    }

    fn first_behind(&self, offset: u64) -> usize {
        self.pieces.partition_point(|piece| piece.end() <= offset)
    }

    /// What there is of `from..to`, in order.
    pub fn between(&self, from: u64, to: u64) -> impl Iterator<Item = Piece> {
        let pieces = self.pieces[self.first_behind(from)..].iter();
        pieces.take_while(move |piece| piece.offset < to).map(move |piece| piece.cut(from, to))
    }

    /// The extents of `from..to` in order, as far as there are any.
    pub fn extents(&self, from: u64, to: u64) -> impl Iterator<Item = Extent> {
        self.between(from, to).map(|piece| piece.extent)
    }

    /// All pieces, in order.
    pub fn all(&self) -> &[Piece] {
        &self.pieces
    }

    /// The parts of `from..to` that hold bytes, in order, cut where others were told of first by another batch; with that.
    pub fn stretches(&self, from: u64, to: u64) -> Vec<(u64, u64, u64)> {
        let mut stretches: Vec<(u64, u64, u64)> = Vec::new();
        for piece in self.between(from, to).filter(|piece| piece.valid) {
            match stretches.last_mut().filter(|(_, end, born)| (*end, *born) == (piece.offset, piece.born)) {
                Some((_, end, _)) => *end = piece.end(),
                None => stretches.push((piece.offset, piece.end(), piece.born)),
            }
        }
        stretches
    }

    /// Whether all of `from..to` was written.
    pub fn is_valid(&self, from: u64, to: u64) -> bool {
        let valid: u64 =
            self.between(from, to).filter(|piece| piece.valid).map(|piece| piece.extent.bytes).sum();
        valid == to - from
    }

    /// The parts of `from..to` that have no extent.
    pub fn gaps(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut at = from;
        for piece in self.between(from, to) {
            if at < piece.offset {
                gaps.push((at, piece.offset));
            }
            at = piece.end();
        }
        if at < to {
            gaps.push((at, to));
        }
        gaps
    }

    /// Puts `extents`, in order, where the bytes from `from` on are; what was there goes to `dropped`.
    /// Cuts are at multiples of 4096, or at the run's end.
    pub fn replace(
        &mut self,
        from: u64,
        extents: &[Extent],
        (valid, born): (bool, u64),
        dropped: &mut Vec<Extent>,
    ) {
        let to = from + extents.iter().map(|extent| extent.bytes).sum::<u64>();
        dropped.extend(self.extents(from, to));
        let mut at = from;
        let new = extents.iter().map(|extent| {
            let piece = Piece { offset: at, extent: *extent, valid, born };
            at += extent.bytes;
            piece
        });
        self.splice(from, to, new.collect());
    }

    /// Leaves `from..to` without extents; what it had goes to `dropped`.
    pub fn remove(&mut self, from: u64, to: u64, dropped: &mut Vec<Extent>) {
        dropped.extend(self.extents(from, to));
        self.splice(from, to, Vec::new());
    }

    /// Says of `from..to` whether its extents hold its bytes.
    pub fn set_valid(&mut self, from: u64, to: u64, valid: bool) {
        let new = self.between(from, to).map(|piece| Piece { valid, ..piece }).collect();
        self.splice(from, to, new);
    }

    /// Says by which batch the bytes of `from..to` were told of first.
    pub fn set_born(&mut self, from: u64, to: u64, born: u64) {
        let new = self.between(from, to).map(|piece| Piece { born, ..piece }).collect();
        self.splice(from, to, new);
    }

    /// Replaces all pieces in `from..to`, keeps the ends of those that stick out, and joins neighbours.
    fn splice(&mut self, from: u64, to: u64, mut new: Vec<Piece>) {
        let first = self.first_behind(from);
        let count = self.pieces[first..].iter().take_while(|piece| piece.offset < to).count();
        let old = &self.pieces[first..first + count];
        if let Some(head) = old.first().filter(|piece| piece.offset < from) {
            new.insert(0, head.cut(0, from));
        }
        if let Some(tail) = old.last().filter(|piece| piece.end() > to) {
            new.push(tail.cut(to, u64::MAX));
        }
        let (mut low, mut high) = (first, first + count);
        // The neighbours outside take part in joining, so that a run written in pieces is one piece again.
        if low > 0 {
            low -= 1;
            new.insert(0, self.pieces[low]);
        }
        if high < self.pieces.len() {
            new.push(self.pieces[high]);
            high += 1;
        }
        new.dedup_by(|next, piece| piece.join(next));
        let are_all = high - low == self.pieces.len();
        if self.pieces.is_empty() || (are_all && new.len() == 1) {
            // No larger than it must be: most runs of a large store have one piece for ever.
            self.pieces = new.into();
        } else {
            self.pieces.vec().splice(low..high, new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u64 = 4096;
    const PAGES: u64 = 24;
    /// The run's last page is cut.
    const END: u64 = PAGES * PAGE - 100;

    fn range((a, b): (u64, u64)) -> (u64, u64) {
        let (a, b) = (a.min(b), a.max(b) + 1);
        (a * PAGE, (b * PAGE).min(END))
    }

    proptest! {
        /// Against a model that keeps a (segment, offset, valid) for every page of the run.
        #[test]
        fn is_a_map_of_pages(ops in prop::collection::vec((0..5u8, (0..PAGES, 0..PAGES), 0..4u32, 1..5u64), 1..60)) {
            let mut locations = Locations::default();
            let mut model: Vec<Option<(u32, u64, bool)>> = vec![None; PAGES as usize];
            let mut born = [0; PAGES as usize];
            for (step, (op, pages, segment, chunk)) in ops.into_iter().enumerate() {
                let (from, to) = range(pages);
                if op == 3 {
                    let before: Vec<_> = locations.extents(from, to).collect();
                    let mut dropped = Vec::new();
                    locations.remove(from, to, &mut dropped);
                    prop_assert_eq!(before, dropped);
                    model[(from / PAGE) as usize..to.div_ceil(PAGE) as usize].fill(None);
                } else if op == 0 {
                    let valid = segment % 2 == 0;
                    locations.set_valid(from, to, valid);
                    for page in model[(from / PAGE) as usize..to.div_ceil(PAGE) as usize].iter_mut().flatten() {
                        page.2 = valid;
                    }
                } else if op == 4 {
                    locations.set_born(from, to, step as u64);
                    born[(from / PAGE) as usize..to.div_ceil(PAGE) as usize].fill(step as u64);
                } else {
                    let mut extents = Vec::new();
                    let mut at = from;
                    while at < to {
                        let bytes = (chunk * PAGE).min(to - at);
                        // Every other write is contiguous in its segment, so that pieces join.
                        let gap = if op == 1 { 0 } else { at * 2 };
                        extents.push(Extent { segment, offset: (step as u64) << 32 | (gap + at), bytes });
                        for page in 0..bytes.div_ceil(PAGE) {
                            let offset = ((step as u64) << 32 | (gap + at)) + page * PAGE;
                            model[(at / PAGE + page) as usize] = Some((segment, offset, false));
                        }
                        at += bytes;
                    }
                    let before: Vec<_> = locations.extents(from, to).collect();
                    let mut dropped = Vec::new();
                    locations.replace(from, &extents, (false, step as u64), &mut dropped);
                    born[(from / PAGE) as usize..to.div_ceil(PAGE) as usize].fill(step as u64);
                    prop_assert_eq!(before, dropped);
                }
                for page in 0..PAGES {
                    let (from, to) = (page * PAGE, ((page + 1) * PAGE).min(END));
                    let found = locations.extents(from, to).next();
                    let valid = locations.is_valid(from, to);
                    let expected = model[page as usize];
                    prop_assert_eq!(found, expected.map(|(segment, offset, _)| Extent { segment, offset, bytes: to - from }));
                    prop_assert_eq!(valid, expected.is_some_and(|page| page.2));
                    prop_assert!(locations.between(from, to).all(|piece| piece.born == born[page as usize]));
                    prop_assert_eq!(locations.gaps(from, to).is_empty(), expected.is_some());
                }
                let covered: u64 = locations.all().iter().map(|piece| piece.extent.bytes).sum();
                let gaps: u64 = locations.gaps(0, END).iter().map(|(from, to)| to - from).sum();
                prop_assert_eq!(covered + gaps, END);
            }
        }
    }

    #[test]
    fn a_run_written_in_order_is_one_piece() {
        let mut locations = Locations::default();
        for page in [0, 2, 1] {
            let extent = Extent { segment: 0, offset: page * PAGE, bytes: PAGE };
            locations.replace(page * PAGE, &[extent], (true, 0), &mut Vec::new());
        }
        let extent = Extent { segment: 0, offset: 0, bytes: 3 * PAGE };
        assert_eq!(locations.all(), [Piece { offset: 0, extent, valid: true, born: 0 }]);
    }
}
