//! What a drive is asked for while it is measured, and what comes of it.

use std::time::{Duration, Instant};

use super::probe::Rates;
use crate::io::{Slice, Sum};

/// Of all that is measured of a drive. A shared virtual disk was seen to differ by a tenth from one half second to the
/// next, and by a third at times.
const DURATION: Duration = Duration::from_millis(2250);
/// Of one measurement before the next begins: what drifts is to drift under all three alike. Many times the latency of
/// a full queue, which each begins and ends with.
const SLICE: Duration = Duration::from_millis(150);

/// Reading, writing and both at once, by turns.
pub struct Turns {
    begin: Instant,
    depth: usize,
    block_bytes: u64,
    slices: usize,
    /// What is known of each of the three.
    sums: [Sum; 3],
}

impl Turns {
    /// With this many blocks in the queue.
    pub fn begin(depth: usize, block_bytes: u64) -> Self {
        Self { begin: Instant::now(), depth, block_bytes, slices: 0, sums: Default::default() }
    }

    /// The next slice, from an empty queue to an empty queue; None when all is known.
    pub fn next(&self) -> Option<Slice> {
        let whole = self.slices > 0 && self.slices.is_multiple_of(3);
        let over = whole && self.begin.elapsed() >= DURATION;
        (!over).then(|| Slice::begin(self.slices % 3, self.depth, self.block_bytes, SLICE))
    }

    /// Takes what a slice found.
    pub fn add(&mut self, slice: &Slice) {
        self.sums[slice.kind()].add(slice.sum());
        self.slices += 1;
    }

    /// Of all slices so far.
    pub fn rates(&self) -> Rates {
        let [read, write, mixed] = self.sums;
        Rates {
            read: read.read_bytes as f64 / read.seconds,
            write: write.write_bytes as f64 / write.seconds,
            mixed_read: mixed.read_bytes as f64 / mixed.seconds,
            mixed_write: mixed.write_bytes as f64 / mixed.seconds,
            ..Rates::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue of 4 blocks of which each takes 2 ms: the rates are the drive's, with neither a queue that fills nor one
    /// that runs empty in them.
    #[test]
    fn slices_count_a_full_queue() {
        let mut turns = Turns::begin(4, 1 << 20);
        while let Some(mut slice) = turns.next() {
            let mut queue: std::collections::VecDeque<_> =
                (0..4).map(|_| slice.next(None).unwrap()).collect();
            while let Some(done) = queue.pop_front() {
                std::thread::sleep(Duration::from_millis(2));
                queue.extend(slice.next(Some(done)));
            }
            turns.add(&slice);
        }
        let [read, write, mixed] = turns.sums;
        assert_eq!((read.write_bytes, write.read_bytes), (0, 0), "neither counts the other's");
        assert!(mixed.read_bytes.abs_diff(mixed.write_bytes) <= (turns.slices as u64) << 20, "by halves");
        assert!(turns.slices.is_multiple_of(3));
        let rates = turns.rates();
        for rate in [rates.read, rates.write, rates.mixed_read + rates.mixed_write] {
            let most = (1 << 20) as f64 / 0.002;
            assert!(rate > 0.0 && rate <= most, "{rate} of at most {most}");
        }
    }
}
