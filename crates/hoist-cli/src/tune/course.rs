//! Measures candidates on the trial files, one turn after the other.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::candidate::Candidate;
use super::pace::Pace;
use super::race::{Field, Race};
use crate::bench::Progress;
use crate::interrupt::Interrupt;
use crate::io::{Direction, Done, Drive, Error, Mapped, Slice, Turn};

/// Reading, writing, and both at once: the cells of a directory.
pub const DIRECTIONS: [&str; 3] = ["read", "write", "mixed"];
/// Of one turn, as a part of the whole time: 50 ms of 30 s, many times what a queue takes to go through a drive, and
/// short enough for a first look at all candidates in a quarter of the time.
const TURNS: u32 = 600;
/// Steps of the progress bar in a second.
const TICKS: f64 = 10.0;

/// A file that is read and written, and where that goes on.
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// How much of it there is.
    pub bytes: u64,
    next_read: u64,
    next_write: u64,
}

impl Place {
    /// Reads begin at its beginning and writes in its middle: the two are not to wait for each other's bytes.
    pub fn new(path: PathBuf, bytes: u64) -> Self {
        Self { path, bytes, next_read: 0, next_write: bytes / 2 }
    }

    fn next(&mut self, direction: Direction, bytes: u64) -> Turn {
        let next = match direction {
            Direction::Read => &mut self.next_read,
            Direction::Write => &mut self.next_write,
        };
        // Requests of all sizes begin where requests of their size do, as units of a store do.
        let offset = next.next_multiple_of(bytes);
        let offset = if offset + bytes > self.bytes { 0 } else { offset };
        *next = offset + bytes;
        Turn { direction, offset, bytes }
    }
}

/// How far the run has come, as time.
pub struct Clock {
    begin: Instant,
    /// When measuring ends.
    pub deadline: Instant,
    progress: Progress,
    ticks: u64,
}

impl Clock {
    /// Begins now, for a run of this length of which measuring ends a little before.
    pub fn begin(whole: Duration, measuring: Duration) -> Self {
        let begin = Instant::now();
        let progress = Progress::new((whole.as_secs_f64() * TICKS) as u64);
        Self { begin, deadline: begin + measuring, progress, ticks: 0 }
    }

    /// Something else begins.
    pub fn say(&self, what: impl Into<String>) {
        self.progress.begin(what);
    }

    /// A line that stays.
    pub fn note(&self, line: &str) {
        self.progress.say(line);
    }

    /// Shows the time.
    pub fn show(&mut self) {
        let now = (self.elapsed().as_secs_f64() * TICKS) as u64;
        (self.ticks..now).for_each(|_| self.progress.advance());
        self.ticks = now.max(self.ticks);
    }

    /// Since the run began.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }
}

/// All directories, as the field of a race.
pub struct Course<'a> {
    places: Vec<Place>,
    memory: Mapped,
    interrupt: &'a Interrupt,
    clock: &'a mut Clock,
    begin: Instant,
    turn: Duration,
    visits: usize,
    said: usize,
    report: &'a mut dyn FnMut(&Race, Duration),
}

impl<'a> Course<'a> {
    /// Over these files, with turns for a run of `duration` for each directory; what is found goes to `report`.
    pub fn new(
        places: Vec<Place>,
        memory: Mapped,
        duration: Duration,
        interrupt: &'a Interrupt,
        clock: &'a mut Clock,
        report: &'a mut dyn FnMut(&Race, Duration),
    ) -> Self {
        let (begin, turn) = (Instant::now(), duration / TURNS);
        Self { places, memory, interrupt, clock, begin, turn, visits: 0, said: 0, report }
    }

    /// The rates of a candidate in one directory: reading, writing, and both.
    fn measure(&mut self, at: usize, candidate: Candidate) -> Result<Option<[f64; 3]>, Error> {
        let memory = self.memory.take(candidate.requests());
        let mut drive = Drive::over(&self.places[at].path, false, &candidate.config(), memory)?;
        let (mut rates, mut over) = ([0.0; 3], false);
        for number in 0..DIRECTIONS.len() {
            // What follows writes reads slower on many a drive: each comes first in its turn.
            let kind = (number + self.visits) % DIRECTIONS.len();
            match self.turn(&mut drive, at, candidate, kind)? {
                Some(rate) => rates[kind] = rate,
                None => over = true,
            }
            if over {
                break;
            }
        }
        self.memory.put_back(drive.leave()?);
        Ok((!over).then_some(rates))
    }

    fn turn(
        &mut self,
        drive: &mut Drive,
        at: usize,
        candidate: Candidate,
        kind: usize,
    ) -> Result<Option<f64>, Error> {
        let bytes = candidate.request_bytes();
        let mut slice = Slice::begin(kind, candidate.requests(), bytes, self.turn);
        let (ended, over, mut pace) = (Cell::new(None), Cell::new(false), Pace::begin(Instant::now()));
        let (place, interrupt, deadline) = (&mut self.places[at], self.interrupt, self.clock.deadline);
        drive.keep_busy(
            interrupt,
            |_| {
                if interrupt.is_set() || Instant::now() >= deadline {
                    over.set(true);
                    return None;
                }
                let done: Option<Done> = ended.take();
                let direction = slice.next(done.map(|done| done.direction))?;
                // What comes back later finds a queue that is not full any more.
                if let Some(done) = done {
                    pace.add(done.back, done.bytes);
                }
                Some(place.next(direction, bytes))
            },
            |done| ended.set(Some(done)),
        )?;
        Ok(if over.get() { None } else { pace.bytes_per_second() })
    }
}

impl Field for Course<'_> {
    type Error = Error;

    fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    fn begin_round(&mut self, candidates: usize) {
        if self.said != candidates {
            self.said = candidates;
            self.clock.say(format!("measuring {candidates} settings"));
        }
    }

    fn visit(&mut self, candidate: Candidate) -> Result<Option<Vec<f64>>, Error> {
        let mut rates = Vec::with_capacity(self.places.len() * DIRECTIONS.len());
        for at in 0..self.places.len() {
            match self.measure(at, candidate)? {
                Some(found) => rates.extend(found),
                None => return Ok(None),
            }
        }
        self.visits += 1;
        self.clock.show();
        Ok(Some(rates))
    }

    fn report(&mut self, race: &Race) {
        (self.report)(race, self.clock.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_all_sizes_stay_in_the_file_and_go_through_it() {
        let mut place = Place::new(PathBuf::new(), 10 << 20);
        let mut offsets = Vec::new();
        for bytes in [1 << 20, 4 << 20, 3 << 20, 2 << 20, 8 << 20, 1 << 20] {
            for direction in [Direction::Read, Direction::Write] {
                let turn = place.next(direction, bytes);
                assert!(turn.offset + turn.bytes <= place.bytes && turn.offset.is_multiple_of(bytes));
                offsets.push(turn.offset >> 20);
            }
        }
        assert_eq!(offsets, [0, 5, 4, 0, 0, 6, 4, 0, 0, 0, 8, 8]);
    }
}
