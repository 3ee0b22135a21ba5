use std::collections::VecDeque;

/// The largest value of a cyclic profile over a window that only moves forward, in constant time
/// a step (a monotonic queue). The window is how far a fetch looks ahead; the value is what the
/// placement will keep meanwhile, which a fetch must not take.
#[derive(Default)]
pub(crate) struct WindowMax {
    /// Sequence numbers with falling values.
    queue: VecDeque<(u64, u64)>,
    /// One past the last sequence number looked at.
    end: u64,
}

impl WindowMax {
    /// Starts again with an empty window at `seq`.
    pub(crate) fn restart(&mut self, seq: u64) {
        self.queue.clear();
        self.end = seq;
    }

    /// The largest of `profile` over `from..=to`, where `base` is the sequence number of its first
    /// entry and `from` at least `base - 1`.
    pub(crate) fn over(&mut self, from: u64, to: u64, base: u64, profile: &[u64]) -> u64 {
        while self.end <= to {
            let length = profile.len() as u64;
            let value = profile[((self.end + length - base) % length) as usize];
            while self.queue.back().is_some_and(|&(_, last)| last <= value) {
                self.queue.pop_back();
            }
            self.queue.push_back((self.end, value));
            self.end += 1;
        }
        while self.queue.front().is_some_and(|&(seq, _)| seq < from) {
            self.queue.pop_front();
        }
        self.queue.front().map_or(0, |&(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_a_plain_scan(profile in prop::collection::vec(0u64..50, 1..20),
                               steps in prop::collection::vec((0u64..4, 0u64..6), 1..60)) {
            let (mut from, mut to) = (0, 0);
            let mut window = WindowMax::default();
            window.restart(0);
            for (a, b) in steps {
                from += a;
                to = (to + b).max(from);
                let plain = (from..=to).map(|s| profile[(s % profile.len() as u64) as usize]).max().unwrap();
                prop_assert_eq!(window.over(from, to, 0, &profile), plain);
            }
        }
    }
}
