//! Sets of bytes of one run.

/// Disjoint ranges in order, none touching the next.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Ranges {
    ranges: Vec<(u64, u64)>,
}

impl Ranges {
    /// Adds `from..to`.
    pub fn insert(&mut self, mut from: u64, mut to: u64) {
        let first = self.ranges.partition_point(|range| range.1 < from);
        let behind = self.ranges.partition_point(|range| range.0 <= to);
        if first < behind {
            from = from.min(self.ranges[first].0);
            to = to.max(self.ranges[behind - 1].1);
        }
        self.ranges.splice(first..behind.max(first), [(from, to)]);
    }

    /// All ranges.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().copied()
    }

    /// The parts of `from..to` in order, each with whether it is in the set.
    pub fn split(&self, from: u64, to: u64) -> Vec<(u64, u64, bool)> {
        let mut parts = Vec::new();
        let mut at = from;
        for (start, end) in self.iter().filter(|(start, end)| *start < to && from < *end) {
            if at < start {
                parts.push((at, start, false));
            }
            parts.push((start.max(from), end.min(to), true));
            at = end;
        }
        if at < to {
            parts.push((at, to, false));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_a_set(ops in prop::collection::vec((0..40u64, 1..9u64), 0..30), (from, bytes) in (0..40u64, 1..20u64)) {
            let mut ranges = Ranges::default();
            let mut model = [false; 64];
            for (from, bytes) in ops {
                ranges.insert(from, from + bytes);
                model[from as usize..(from + bytes) as usize].fill(true);
            }
            let all: Vec<_> = ranges.iter().collect();
            prop_assert!(all.windows(2).all(|pair| pair[0].1 < pair[1].0));
            let mut at = from;
            for (start, end, inside) in ranges.split(from, from + bytes) {
                prop_assert_eq!(start, at);
                prop_assert!(start < end);
                prop_assert!(model[start as usize..end as usize].iter().all(|byte| *byte == inside));
                at = end;
            }
            prop_assert_eq!(at, from + bytes);
        }
    }
}
