//! A while of work from an empty queue to an empty queue, of which only the time with a full queue counts.

use std::time::{Duration, Instant};

use super::order::Direction;

/// What was moved with the queue full.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Sum {
    /// Adds what another slice moved.
    pub fn add(&mut self, other: Sum) {
        self.read_bytes += other.read_bytes;
        self.write_bytes += other.write_bytes;
        self.seconds += other.seconds;
    }
}

/// A while of reading (0), writing (1) or both (2) with the queue full.
pub struct Slice {
    kind: usize,
    depth: usize,
    block_bytes: u64,
    duration: Duration,
    begin: Instant,
    started: usize,
    ended: usize,
    /// When the queue had been through once: from then on the drive is in its stride.
    since: Instant,
    sum: Sum,
}

impl Slice {
    /// Of blocks so large, of which so many are in the queue.
    pub fn begin(kind: usize, depth: usize, block_bytes: u64, duration: Duration) -> Self {
        let begin = Instant::now();
        let sum = Sum::default();
        Self { kind, depth, block_bytes, duration, begin, started: 0, ended: 0, since: begin, sum }
    }

    /// Takes the end of a block, and says what its slot does next: nothing when the slice is over. What ends after that
    /// is not counted, as the queue is not full any more.
    pub fn next(&mut self, done: Option<Direction>) -> Option<Direction> {
        // A slow drive's slice takes as long as the queue does twice.
        let over = self.ended >= 2 * self.depth && self.begin.elapsed() >= self.duration;
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

    /// Reading (0), writing (1) or both (2).
    pub fn kind(&self) -> usize {
        self.kind
    }

    /// What it found so far.
    pub fn sum(&self) -> Sum {
        self.sum
    }
}
