//! What a run reports: the keys of `--json`, described in `docs/tune.md`.

use std::time::Duration;

use serde::Serialize;

use super::call::{Call, Settings};
use super::candidate::Candidate;
use super::course::DIRECTIONS;
use super::race::Race;
use super::standings::Standings;
use crate::report::Machine;

/// The version of the keys: a key that changes its meaning changes this.
const SCHEMA: &str = "hoist-tune/1";

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    /// The run was interrupted: what is here is what was found before.
    pub partial: bool,
    /// Where it ran.
    pub machine: Machine,
    /// What it was asked for.
    pub config: Settings,
    /// How long it took up to what is here.
    pub seconds: f64,
    /// The best settings; none before anything was measured.
    pub chosen: Option<Chosen>,
    /// The directories, in their order.
    pub directories: Vec<Directory>,
    /// All that was tried.
    pub candidates: Vec<Entry>,
    /// What was asked for and not obtained, each with its cause.
    pub stepped_down: Vec<String>,
}

/// Settings of `io.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// `io.backend`
    pub backend: &'static str,
    /// `io.block_size`, in bytes.
    pub block_size: u64,
    /// `io.queue_depth`
    pub queue_depth: u32,
}

impl From<Candidate> for Setting {
    fn from(from: Candidate) -> Self {
        let Candidate { backend, block_size, queue_depth } = from;
        Self { backend: backend.name(), block_size, queue_depth }
    }
}

/// `chosen`
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Chosen {
    /// What it is.
    #[serde(flatten)]
    pub setting: Setting,
    /// Bytes that the kernel has at a time.
    pub in_flight_bytes: u64,
    /// The least of its shares of the best found.
    pub worst_share: f64,
    /// How much less than the best counted as the same.
    pub tolerance: f64,
}

/// One of `directories`.
#[derive(Clone, Debug, Serialize)]
pub struct Directory {
    /// Bytes of the trial file.
    pub file_bytes: u64,
    /// What it was to have.
    pub file_bytes_wanted: u64,
    /// The share of the file in the page cache; none where the file system does not tell.
    pub page_cache_share: Option<f64>,
    /// Each direction of it.
    #[serde(flatten)]
    pub directions: Option<Directions<Direction>>,
}

/// One for each direction.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Directions<T> {
    /// Reading.
    pub read: T,
    /// Writing.
    pub write: T,
    /// Both at once.
    pub mixed: T,
}

impl<T: Copy> Directions<T> {
    /// Made of three.
    fn of(make: impl Fn(usize) -> Option<T>) -> Option<Self> {
        Some(Self { read: make(0)?, write: make(1)?, mixed: make(2)? })
    }

    /// Each with its name.
    pub fn each(self) -> [(&'static str, T); 3] {
        let [read, write, mixed] = DIRECTIONS;
        [(read, self.read), (write, self.write), (mixed, self.mixed)]
    }
}

/// What the chosen settings give in one direction of one directory.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Direction {
    /// Its rate.
    pub bytes_per_second: f64,
    /// Of the best found.
    pub share: f64,
    /// The best found.
    pub best: Setting,
    /// Its rate.
    pub best_bytes_per_second: f64,
}

/// One of `candidates`.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// What it is.
    #[serde(flatten)]
    pub setting: Setting,
    /// Bytes that the kernel has at a time.
    pub in_flight_bytes: u64,
    /// Whether the others were compared with it.
    pub reference: bool,
    /// Whether it was measured to the end.
    pub finalist: bool,
    /// The least of its shares; none when it was not measured.
    pub worst_share: Option<f64>,
    /// What was measured, for each directory in their order.
    pub directories: Vec<Directions<Measured>>,
}

/// A candidate in one direction of one directory.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measured {
    /// Its rate.
    pub bytes_per_second: f64,
    /// Of the best found.
    pub share: f64,
    /// The standard error of both, as a part of them.
    pub error: f64,
    /// How often it was measured.
    pub turns: usize,
}

impl Report {
    /// Of a run that has measured nothing yet.
    pub fn blank(call: &Call) -> Self {
        Self {
            schema: SCHEMA,
            partial: true,
            machine: Machine::here(&call.directories[0]),
            config: call.settings.clone(),
            seconds: 0.0,
            chosen: None,
            directories: Vec::new(),
            candidates: Vec::new(),
            stepped_down: Vec::new(),
        }
    }

    /// Takes what a race has found by now.
    pub fn update(&mut self, race: &Race, elapsed: Duration) {
        let standings = race.standings();
        self.seconds = elapsed.as_secs_f64();
        let candidates = race.candidates();
        let chosen = race.choose();
        self.chosen = chosen.and_then(|index| {
            Some(Chosen {
                setting: candidates[index].into(),
                in_flight_bytes: candidates[index].in_flight_bytes(),
                worst_share: standings.score(index)?,
                tolerance: race.tolerance()?,
            })
        });
        for (at, directory) in self.directories.iter_mut().enumerate() {
            directory.directions = chosen.and_then(|index| {
                Directions::of(|direction| {
                    chosen_in(race, &standings, index, at * DIRECTIONS.len() + direction)
                })
            });
        }
        let directories = self.directories.len();
        let entry = |index: usize| {
            let in_each = |at| {
                Directions::of(|direction| {
                    measured(race, &standings, index, at * DIRECTIONS.len() + direction)
                })
            };
            Entry {
                setting: candidates[index].into(),
                in_flight_bytes: candidates[index].in_flight_bytes(),
                reference: index == race.reference(),
                finalist: race.is_alive(index),
                worst_share: standings.score(index),
                directories: (0..directories).map_while(in_each).collect(),
            }
        };
        self.candidates = (0..candidates.len()).map(entry).collect();
    }
}

fn measured(race: &Race, standings: &Standings, index: usize, cell: usize) -> Option<Measured> {
    let figure = standings.figures(index)?[cell];
    Some(Measured {
        bytes_per_second: figure.ratio * race.reference_rate(cell)?,
        share: standings.share(index, cell)?,
        error: figure.error,
        turns: figure.turns,
    })
}

fn chosen_in(race: &Race, standings: &Standings, index: usize, cell: usize) -> Option<Direction> {
    let own = measured(race, standings, index, cell)?;
    let best = *standings.best().get(cell)?;
    Some(Direction {
        bytes_per_second: own.bytes_per_second,
        share: own.share,
        best: race.candidates()[best].into(),
        best_bytes_per_second: measured(race, standings, best, cell)?.bytes_per_second,
    })
}
