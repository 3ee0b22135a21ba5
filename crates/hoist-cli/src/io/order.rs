//! What is asked of a file, one request after the other.

use std::collections::HashMap;

/// What the order of a file's requests begins from: runs with the same flags ask for the same bytes in the same order.
const SEED: u64 = 0;

/// Of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the file.
    Read,
    /// To the file.
    Write,
}

/// What requests do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directions {
    /// All of them the same.
    Only(Direction),
    /// A read and a write by turns, so that as many bytes are read as written.
    Both,
}

/// What is asked of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// What requests do.
    pub directions: Directions,
    /// Whether they go through the file in random order.
    pub random: bool,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Bytes of each request, at most the file's.
    pub request_bytes: u64,
    /// How many requests; none: as many as the time allows.
    pub requests: Option<u64>,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What it does.
    pub direction: Direction,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// The requests of a [`Work`], in their order.
pub struct Order {
    work: Work,
    /// Requests so far.
    number: u64,
    /// Places of the file that a request may begin at.
    places: u64,
    /// Different places in random order, as many as there are requests and at most all; empty where places are in
    /// order, or each is drawn by itself.
    shuffled: Vec<u64>,
    random: Random,
}

impl Order {
    /// From the first request on.
    pub fn new(work: &Work) -> Self {
        let places = work.size_bytes.div_ceil(work.request_bytes);
        let mut random = Random(SEED);
        let shuffled = match work.requests {
            Some(requests) if work.random => random.choose(places.min(requests), places),
            _ => Vec::new(),
        };
        Self { work: work.clone(), number: 0, places, shuffled, random }
    }

    /// Whether the run may end here: between a read and the write that belongs to it, it may not.
    pub fn may_end(&self) -> bool {
        self.work.directions != Directions::Both || self.number.is_multiple_of(2)
    }

    /// Where the requests of one direction are halfway through the file, or through what they see of it.
    fn half(&self) -> u64 {
        match self.shuffled.len() as u64 {
            0 => self.places / 2,
            shuffled => shuffled / 2,
        }
    }

    fn place(&mut self, index: u64) -> u64 {
        match self.shuffled.len() as u64 {
            0 if self.work.random => self.random.below(self.places),
            0 => index % self.places,
            shuffled => self.shuffled[(index % shuffled) as usize],
        }
    }
}

impl Iterator for Order {
    type Item = Turn;

    fn next(&mut self) -> Option<Turn> {
        let number = self.number;
        if self.work.requests.is_some_and(|requests| number >= requests) {
            return None;
        }
        self.number += 1;
        let (direction, index) = match self.work.directions {
            Directions::Only(direction) => (direction, number),
            Directions::Both if number.is_multiple_of(2) => (Direction::Read, number / 2),
            // Half a file away from what is read: the two are not to wait for each other's bytes.
            Directions::Both => (Direction::Write, number / 2 + self.half()),
        };
        let bytes = self.work.request_bytes;
        // The last place begins early where requests do not divide the file: all are of the same size.
        let offset = (self.place(index) * bytes).min(self.work.size_bytes - bytes);
        Some(Turn { direction, offset, bytes })
    }
}

/// splitmix64 (Steele, Lea, Flood 2014; the constants are theirs): good enough to spread requests, and one line each.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number under `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        // The upper half of a product of 64 bits and `end` is spread evenly, but for 2^-64 of `end`.
        ((u128::from(z ^ (z >> 31)) * u128::from(end)) >> 64) as u64
    }

    /// This many different numbers under `end`, in random order: Fisher and Yates, as far as is needed, over a row of
    /// which only what was moved is kept.
    pub fn choose(&mut self, count: u64, end: u64) -> Vec<u64> {
        let mut moved = HashMap::new();
        let mut choose = |at: u64| {
            let from = at + self.below(end - at);
            let chosen = moved.get(&from).copied().unwrap_or(from);
            let last = moved.remove(&at).unwrap_or(at);
            if from != at {
                moved.insert(from, last);
            }
            chosen
        };
        (0..count).map(&mut choose).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(directions: Directions, random: bool, requests: Option<u64>) -> Work {
        Work { directions, random, size_bytes: 10 << 20, request_bytes: 1 << 20, requests }
    }

    fn offsets(work: &Work) -> Vec<u64> {
        Order::new(work).map(|turn| turn.offset >> 20).collect()
    }

    #[test]
    fn in_order_the_file_is_gone_through_and_begun_again() {
        let read = work(Directions::Only(Direction::Read), false, Some(12));
        assert_eq!(offsets(&read), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
    }

    #[test]
    fn in_random_order_each_place_comes_once_and_always_the_same_way() {
        let read = work(Directions::Only(Direction::Read), true, Some(10));
        let mut first = offsets(&read);
        assert_eq!(first, offsets(&read));
        assert_ne!(first, (0..10).collect::<Vec<_>>());
        first.sort_unstable();
        assert_eq!(first, (0..10).collect::<Vec<_>>());
        // Fewer requests than places: different ones, from the whole file.
        let mut few = offsets(&Work { requests: Some(5), ..read });
        assert!(few.iter().any(|place| *place >= 5), "{few:?}");
        few.sort_unstable();
        few.dedup();
        assert_eq!(few.len(), 5);
    }

    #[test]
    fn both_are_half_each_and_reach_everything() {
        for random in [false, true] {
            let both = work(Directions::Both, random, Some(10));
            let turns: Vec<Turn> = Order::new(&both).collect();
            let reads = turns.iter().filter(|turn| turn.direction == Direction::Read).count();
            assert_eq!((turns.len(), reads), (10, 5));
            let mut offsets: Vec<u64> = turns.iter().map(|turn| turn.offset >> 20).collect();
            offsets.sort_unstable();
            assert_eq!(offsets, (0..10).collect::<Vec<_>>(), "none is read and written");
        }
        let mut order = Order::new(&work(Directions::Both, false, None));
        assert!(order.may_end());
        order.next();
        assert!(!order.may_end());
    }

    #[test]
    fn without_an_end_random_requests_stay_in_the_file() {
        let read =
            Work { size_bytes: (10 << 20) + 4096, ..work(Directions::Only(Direction::Read), true, None) };
        let turns: Vec<Turn> = Order::new(&read).take(1000).collect();
        assert!(turns.iter().all(|turn| turn.offset + turn.bytes <= read.size_bytes));
        let last = turns.iter().filter(|turn| turn.offset + turn.bytes == read.size_bytes).count();
        assert!((40..150).contains(&last), "{last} of 1000 at the last of 11 places");
    }
}
