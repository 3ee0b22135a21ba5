//! What a drive is asked for while it is measured, and what comes of it.

use std::time::{Duration, Instant};

use super::probe::Rates;

/// Of all that is measured of a drive. A shared virtual disk was seen to differ by a tenth from one half second to the
/// next, and by a third at times.
const DURATION: Duration = Duration::from_millis(2250);
/// Of one measurement before the next begins: what drifts is to drift under all three alike. Many times the latency of
/// a full queue, which each begins and ends with.
const SLICE: Duration = Duration::from_millis(150);

/// Of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Read,
    Write,
}

/// Reading, writing and both at once, by turns.
pub struct Turns {
    begin: Instant,
    depth: usize,
    block_bytes: u64,
    slices: usize,
    /// What is known of each of the three.
    sums: [Sum; 3],
}

#[derive(Clone, Copy, Default)]
struct Sum {
    read_bytes: u64,
    write_bytes: u64,
    seconds: f64,
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
        (!over).then(|| Slice::begin(self.slices % 3, self.depth, self.block_bytes))
    }

    /// Takes what a slice found.
    pub fn add(&mut self, slice: &Slice) {
        let sum = &mut self.sums[slice.kind];
        sum.read_bytes += slice.sum.read_bytes;
        sum.write_bytes += slice.sum.write_bytes;
        sum.seconds += slice.sum.seconds;
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

/// A while of reading (0), writing (1) or both (2) with the queue full.
pub struct Slice {
    kind: usize,
    depth: usize,
    block_bytes: u64,
    begin: Instant,
    started: usize,
    ended: usize,
    /// When the queue had been through once: from then on the drive is in its stride.
    since: Instant,
    sum: Sum,
}

impl Slice {
    fn begin(kind: usize, depth: usize, block_bytes: u64) -> Self {
        let begin = Instant::now();
        Self { kind, depth, block_bytes, begin, started: 0, ended: 0, since: begin, sum: Sum::default() }
    }

    /// Takes the end of a block, and says what its slot does next: nothing when the slice is over. What ends after that
    /// is not counted, as the queue is not full any more.
    pub fn next(&mut self, done: Option<Direction>) -> Option<Direction> {
        // A slow drive's slice takes as long as the queue does twice.
        let over = self.ended >= 2 * self.depth && self.begin.elapsed() >= SLICE;
        if over {
            return None;
        }
        if let Some(direction) = done {
            self.count(direction);
        }
        self.started += 1;
        Some(match self.kind {
            0 => Direction::Read,
            1 => Direction::Write,
            // As many blocks are read as written.
            _ if self.started.is_multiple_of(2) => Direction::Read,
            _ => Direction::Write,
        })
    }

    fn count(&mut self, direction: Direction) {
        self.ended += 1;
        if self.ended <= self.depth {
            self.since = Instant::now();
            return;
        }
        match direction {
            Direction::Read => self.sum.read_bytes += self.block_bytes,
            Direction::Write => self.sum.write_bytes += self.block_bytes,
        }
        self.sum.seconds = self.since.elapsed().as_secs_f64();
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
