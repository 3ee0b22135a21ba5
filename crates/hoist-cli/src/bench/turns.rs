//! What a drive is asked for while it is measured, and what comes of it.

use std::time::{Duration, Instant};

use super::probe::Rates;

/// Of all that is measured of a drive. A shared virtual disk was seen to differ by a tenth from one half second to the
/// next, and by a third at times.
const DURATION: Duration = Duration::from_millis(2250);
/// Of one measurement before the next begins: what drifts is to drift under all three alike. Many times the latency of
/// a full queue, whose first completions are not counted.
const SLICE: Duration = Duration::from_millis(150);

/// Of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Read,
    Write,
}

/// Reading, writing and both at once, by turns, with the queue full all the time.
pub struct Turns {
    begin: Instant,
    depth: usize,
    block_bytes: u64,
    /// How many slices are over: the one that runs is a slice of reading, writing or both, in that order.
    slices: usize,
    slice: Slice,
    started: usize,
    /// What is known of each of the three.
    sums: [Sum; 3],
}

struct Slice {
    begin: Instant,
    /// Blocks that ended in it.
    ended: usize,
    /// When the last of those ended that were in the queue before it began: they are not counted.
    since: Instant,
    sum: Sum,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    read_bytes: u64,
    write_bytes: u64,
    seconds: f64,
}

impl Slice {
    fn begin() -> Self {
        let now = Instant::now();
        Self { begin: now, ended: 0, since: now, sum: Sum::default() }
    }
}

impl Turns {
    /// With this many blocks in the queue.
    pub fn begin(depth: usize, block_bytes: u64) -> Self {
        let begin = Instant::now();
        let (slices, started) = (0, 0);
        Self { begin, depth, block_bytes, slices, slice: Slice::begin(), started, sums: Default::default() }
    }

    /// Takes the end of a block, and says what its slot does next: nothing when all is known.
    pub fn next(&mut self, done: Option<Direction>) -> Option<Direction> {
        if let Some(direction) = done {
            self.count(direction);
        }
        // A slow drive's slices take as long as twice the queue does.
        if self.slice.ended >= 2 * self.depth && self.slice.begin.elapsed() >= SLICE {
            let (sum, slice) =
                (&mut self.sums[self.slices % 3], std::mem::replace(&mut self.slice, Slice::begin()));
            sum.read_bytes += slice.sum.read_bytes;
            sum.write_bytes += slice.sum.write_bytes;
            sum.seconds += slice.sum.seconds;
            self.slices += 1;
        }
        if self.slices >= 3 && self.slices.is_multiple_of(3) && self.begin.elapsed() >= DURATION {
            return None;
        }
        self.started += 1;
        Some(match self.slices % 3 {
            0 => Direction::Read,
            1 => Direction::Write,
            // As many blocks are read as written.
            _ if self.started.is_multiple_of(2) => Direction::Read,
            _ => Direction::Write,
        })
    }

    fn count(&mut self, direction: Direction) {
        let slice = &mut self.slice;
        slice.ended += 1;
        if slice.ended <= self.depth {
            slice.since = Instant::now();
            return;
        }
        match direction {
            Direction::Read => slice.sum.read_bytes += self.block_bytes,
            Direction::Write => slice.sum.write_bytes += self.block_bytes,
        }
        slice.sum.seconds = slice.since.elapsed().as_secs_f64();
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

    /// A queue of 4 blocks on a drive that takes as long as it likes: what is asked for changes only when the time is
    /// over and the queue has been through twice, and what was asked for before is counted for nobody.
    #[test]
    fn each_slice_counts_what_began_in_it() {
        let mut turns = Turns::begin(4, 1 << 20);
        let mut queue: std::collections::VecDeque<_> = (0..4).map(|_| turns.next(None).unwrap()).collect();
        let mut asked = [0, 0];
        while let Some(done) = queue.pop_front() {
            std::thread::sleep(Duration::from_millis(2));
            let Some(next) = turns.next(Some(done)) else { continue };
            asked[usize::from(next == Direction::Write)] += 1;
            queue.push_back(next);
        }
        let [read, write, mixed] = turns.sums;
        assert_eq!((read.write_bytes, write.read_bytes), (0, 0), "neither counts the other's");
        assert!(mixed.read_bytes.abs_diff(mixed.write_bytes) <= 9 << 20, "by halves, in each of some slices");
        assert!(asked[0] > 0 && asked[1] > 0 && turns.slices.is_multiple_of(3));
        let rates = turns.rates();
        for rate in [rates.read, rates.write, 2.0 * rates.mixed_read, 2.0 * rates.mixed_write] {
            let most = (1 << 20) as f64 / 0.002;
            assert!(rate > 0.0 && rate <= most, "{rate} of at most {most}");
        }
    }
}
