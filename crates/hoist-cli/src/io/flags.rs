//! The flags of `hoist io`, read one by one, with every mistake found before anything opens.

use std::collections::BTreeSet;
use std::path::PathBuf;

use hoist_io::{BackendChoice, QUEUE_DEPTH_MAX};

use super::order::{Direction, Directions};
use crate::config::Problem;
use crate::config::limits::{ALIGNMENT_BYTES, RIGHT_BLOCK, is_block};
use crate::config::units::{format_bytes, parse_bytes};
use crate::report::meminfo_bytes;

/// Twice what drives and hypervisors were seen to take into a write cache at once.
const SIZE_BYTES: u64 = 1 << 30;
/// Drives drift over seconds: shorter runs differ more from each other.
const SECONDS: f64 = 5.0;
/// Nobody waits longer than a day.
const SECONDS_MAX: f64 = 86_400.0;
/// Their order is kept in memory, up to 8 MiB of it; minutes of work for a drive of a million operations a second
/// are asked for with `--seconds`.
const REQUESTS_MAX: u64 = 1 << 20;

const MODES: [(&str, Directions, bool); 5] = [
    ("read", Directions::Only(Direction::Read), false),
    ("write", Directions::Only(Direction::Write), false),
    ("mixed", Directions::Both, false),
    ("randread", Directions::Only(Direction::Read), true),
    ("randwrite", Directions::Only(Direction::Write), true),
];

/// The flags that say what is done, as they were written: read all at once, so that all mistakes are named at once.
#[derive(Debug, Default, clap::Args)]
pub struct Given {
    /// What requests do: read, write, mixed (as many bytes read as written), randread or randwrite. [default: read]
    #[arg(long, value_name = "MODE")]
    rw: Option<String>,
    /// Size of the file in each directory, such as "4 GiB". [default: what --requests need, else 1 GiB]
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// N requests of BYTES each to each file, in order or in random order, such as "64:16 MiB:random"; the run ends
    /// when all are done.
    #[arg(long, value_name = "N:BYTES[:random]")]
    requests: Option<String>,
    /// Bytes of the largest block that a request is cut into. [default: 1 MiB]
    #[arg(long, value_name = "SIZE")]
    block_size: Option<String>,
    /// Blocks that the kernel has at a time, for each directory. [default: 32]
    #[arg(long, value_name = "N")]
    queue_depth: Option<String>,
    /// What moves the bytes: auto, uring, tokio-uring or pread. [default: auto]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// How long to measure. [default: 5]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<String>,
}

/// `--requests`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requests {
    /// How many.
    pub number: u64,
    /// Bytes of each.
    pub bytes: u64,
    /// Whether they go through the file in random order.
    pub random: bool,
}

/// Reads flags; keeps every mistake, and none ends the reading.
pub struct Reader<'a> {
    given: &'a Given,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader of these flags.
    pub fn new(given: &'a Given) -> Self {
        Self { given, problems: Vec::new() }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All mistakes.
    pub fn finish(self) -> Result<(), Vec<Problem>> {
        if self.problems.is_empty() { Ok(()) } else { Err(self.problems) }
    }

    fn problem(&mut self, key: &str, what: impl Into<String>, right: impl Into<String>) {
        self.problems.push(Problem::new(key, what, right));
    }

    /// What `read` makes of a flag; a problem when it makes nothing of it; `None` where it was not given.
    fn read<T>(
        &mut self,
        flag: &str,
        text: &Option<String>,
        right: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = text.as_deref()?;
        let result = read(text.trim());
        if result.is_none() {
            self.problem(flag, format!("\"{text}\" is not right"), right);
        }
        result
    }

    /// Each of them is there, once.
    pub fn check_directories(&mut self, directories: &[PathBuf]) {
        self.problems.extend(directory_problems(directories));
    }

    /// `--rw`: its name, what requests do, and whether in random order.
    pub fn mode(&mut self) -> (&'static str, Directions, bool) {
        let right = one_of(MODES.iter().map(|mode| mode.0));
        let find = |text: &str| MODES.into_iter().find(|mode| mode.0 == text);
        self.read("--rw", &self.given.rw, &right, find).unwrap_or(MODES[0])
    }

    /// `--backend`
    pub fn backend(&mut self) -> BackendChoice {
        let right = one_of(BackendChoice::ALL.iter().map(|backend| backend.0));
        let find = |text: &str| BackendChoice::ALL.into_iter().find(|backend| backend.0 == text);
        let found = self.read("--backend", &self.given.backend, &right, find);
        found.map_or(hoist_io::Config::default().backend, |(_, backend)| backend)
    }

    /// `--block-size`
    pub fn block_size(&mut self) -> u64 {
        let block = |text: &str| parse_bytes(text).filter(|bytes| is_block(*bytes));
        let found = self.read("--block-size", &self.given.block_size, RIGHT_BLOCK, block);
        found.unwrap_or(hoist_io::Config::default().block_size)
    }

    /// `--queue-depth`
    pub fn queue_depth(&mut self) -> u32 {
        let right = format!("would be right: a whole number from 1 to {QUEUE_DEPTH_MAX}");
        let depth = |text: &str| text.parse().ok().filter(|depth| (1..=QUEUE_DEPTH_MAX).contains(depth));
        let found = self.read("--queue-depth", &self.given.queue_depth, &right, depth);
        found.unwrap_or(hoist_io::Config::default().queue_depth)
    }

    /// `--requests`
    pub fn requests(&mut self, directions: Directions) -> Option<Requests> {
        let right = format!(
            "would be right: N:BYTES or N:BYTES:random, with N up to {REQUESTS_MAX} and BYTES a multiple of 4 KiB, \
             such as \"64:16 MiB:random\""
        );
        let requests = self.read("--requests", &self.given.requests, &right, parse_requests)?;
        if directions == Directions::Both && !requests.number.is_multiple_of(2) {
            let what = format!("{} requests are not as many reads as writes", requests.number);
            self.problem("--requests", what, "with --rw mixed give an even number");
        }
        Some(requests)
    }

    /// Of the file, and of each request: `wish_bytes` unless something else was asked for or the file is smaller.
    pub fn sizes(&mut self, requests: Option<Requests>, wish_bytes: u64) -> (u64, u64) {
        let right = "would be right: a multiple of 4 KiB with its unit, such as \"1 GiB\"";
        let size = self.read("--size", &self.given.size, right, aligned_bytes);
        let Some(requests) = requests else {
            let size = size.unwrap_or(SIZE_BYTES);
            return (size, wish_bytes.min(size));
        };
        if let Some(size) = size.filter(|size| *size < requests.bytes) {
            let what = format!("{} is less than one request of --requests", format_bytes(size));
            self.problem("--size", what, format!("would be right: {} or more", format_bytes(requests.bytes)));
        }
        (size.unwrap_or(requests.number * requests.bytes), requests.bytes)
    }

    /// `--seconds`
    pub fn seconds(&mut self) -> f64 {
        let right = format!("would be right: a number above 0 and up to {SECONDS_MAX}, such as 5");
        let number = |text: &str| text.parse().ok().filter(|number| *number > 0.0 && *number <= SECONDS_MAX);
        let seconds = self.read("--seconds", &self.given.seconds, &right, number);
        if seconds.is_some() && self.given.requests.is_some() {
            self.problem(
                "--seconds",
                "with --requests the run ends when all are done",
                "leave one of them out",
            );
        }
        seconds.unwrap_or(SECONDS)
    }

    /// The slab is filled and locked: a machine that has not as much would end this process or others.
    pub fn check_memory(&mut self, bytes: u64) {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let available = meminfo_bytes(&meminfo, "MemAvailable:");
        if let Some(available) = available.filter(|available| bytes > *available) {
            let (bytes, available) = (format_bytes(bytes), format_bytes(available));
            let what =
                format!("requests under way would take {bytes} of memory, and {available} are available");
            let right = "smaller requests or blocks, less depth, or fewer directories";
            self.problem("--queue-depth, --block-size, --requests", what, right);
        }
    }
}

/// Directories that are not there, or are named twice.
pub fn directory_problems(directories: &[PathBuf]) -> Vec<Problem> {
    let mut seen = BTreeSet::new();
    let judge = |path: &PathBuf| {
        let (what, right) = if !path.is_dir() {
            ("there is no such directory", "make it, or name another")
        } else if !seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
            ("is named twice", "name each directory once")
        } else {
            return None;
        };
        Some(Problem::new(path.display().to_string(), what, right))
    };
    directories.iter().filter_map(judge).collect()
}

fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    format!("would be right: {}", names.collect::<Vec<_>>().join(", "))
}

/// A size with its unit that direct I/O can move.
fn aligned_bytes(text: &str) -> Option<u64> {
    parse_bytes(text).filter(|bytes| bytes.is_multiple_of(ALIGNMENT_BYTES))
}

/// `N:BYTES[:random]`
fn parse_requests(text: &str) -> Option<Requests> {
    let mut parts = text.split(':').map(str::trim);
    let number = parts.next()?.parse().ok().filter(|number| (1..=REQUESTS_MAX).contains(number))?;
    let bytes = aligned_bytes(parts.next()?)?;
    let random = match parts.next() {
        None => false,
        Some("random") => true,
        Some(_) => return None,
    };
    // All of them must fit into a file, whose offsets are signed.
    let fits = bytes.checked_mul(number).is_some_and(|all| i64::try_from(all).is_ok());
    (parts.next().is_none() && fits).then_some(Requests { number, bytes, random })
}

#[cfg(test)]
mod tests;
