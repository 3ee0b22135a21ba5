//! A run from its call to its report.

use std::cell::Cell;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hoist_io::{BackendChoice, Config, FileOp};
use rustix::fs::statvfs;

use super::call::Call;
use super::candidate::{Candidate, candidates, reference};
use super::course::{Clock, Course, DIRECTIONS, Place};
use super::race::Race;
use super::report::{Directory, Report};
use super::residency::{SHARE_MAX, cached_share};
use super::trial::{Trial, Trials};
use crate::config::units::format_bytes;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::io::{Drive, Error, Mapped, Obtained, write};
use crate::report::add_steps;

/// What becomes of a report.
pub type Publish = dyn Fn(&Report) -> Result<(), Failure> + Send + Sync;

/// Size of the trial file: twice what drives and hypervisors were seen to take into a write cache at once, as for
/// `hoist io`.
const FILE_BYTES: u64 = 1 << 30;
/// With less of a file caches of drives would hold all of it.
const FILE_BYTES_MIN: u64 = 16 << 20;
/// A file holds each request so often, so that reads and writes keep apart.
const REQUESTS_MIN: u64 = 4;
/// The part of the free space that the file takes at most: others write there, too.
const FREE_PART: u64 = 4;
/// Parts of the time: a slow drive's file is made no longer than the first, and nothing is measured after the second,
/// so that the last turn, its queue and the removal of the file end in time.
const FILL_PART: f64 = 0.15;
const MEASURE_PART: f64 = 0.95;
/// So many times the first, until there is as much of the file as there must be: half of the time is still left.
const FILL_PATIENCE: u32 = 3;
/// Deeper than any candidate, to see how deep a backend goes.
const PROBE_DEPTH: u32 = 256;
/// A page of the slab, for the probe.
const PROBE_BYTES: u64 = 1 << 20;
/// What the order of candidates begins from.
const SEED: u64 = 0;

/// Finds the best settings and has the report published, when the files are removed. An interrupted run gives a report
/// too, which is marked so.
///
/// # Errors
/// When a file cannot be made, read or written, its numbers would be the page cache's, or the run was interrupted; those
/// of `publish`.
pub fn run(call: &Call, interrupt: &Interrupt, publish: Arc<Publish>) -> Result<(), Failure> {
    let trials = Arc::new(Trials::make(&call.directories)?);
    let found = Arc::new(Mutex::new(Report::blank(call)));
    let last_words = {
        let (publish, found, trials) = (Arc::clone(&publish), Arc::clone(&found), Arc::clone(&trials));
        // The process ends right after it: nobody is left who could be told of an error.
        move || drop((publish(&lock(&found)), trials.remove()))
    };
    interrupt.set_last_words(Some(Box::new(last_words)));
    let tuned = tune(call, interrupt, &trials, &found);
    // They hold the files, too: only now do these go when this function ends.
    interrupt.set_last_words(None);
    tuned?;
    trials.remove()?;
    let mut report = lock(&found).clone();
    report.partial = interrupt.is_set();
    if report.chosen.is_none() && !report.partial {
        let why = "no settings were measured in every direction before the time was over";
        return Err(Failure::work("tuning", why, "give it more --seconds, or see what hoist io says"));
    }
    publish(&report)?;
    if report.partial { Err(Failure::Interrupted) } else { Ok(()) }
}

fn lock(found: &Mutex<Report>) -> std::sync::MutexGuard<'_, Report> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tune(call: &Call, interrupt: &Interrupt, trials: &Trials, found: &Mutex<Report>) -> Result<(), Failure> {
    let whole = call.duration * call.directories.len() as u32;
    let mut clock = Clock::begin(whole, whole.mul_f64(MEASURE_PART));
    let (mut places, mut rates, mut own) = (Vec::new(), Vec::new(), None);
    for (trial, directory) in trials.iter().zip(&call.directories) {
        let obtained = probe(trial).map_err(|why| failed(directory, why))?;
        refuse_buffered(directory, &obtained)?;
        clock.say(format!("making a file in {}", directory.display()));
        let filled = fill(trial, directory, call.duration.mul_f64(FILL_PART), interrupt, &mut clock)?;
        if interrupt.is_set() {
            return Ok(());
        }
        let mut report = lock(found);
        add_steps(&mut report.stepped_down, &obtained.io.stepped_down);
        report.machine.obtained.push(obtained.io.to_string());
        report.directories.push(filled.directory);
        own.get_or_insert((backend(&obtained), obtained.io.queue_depth));
        rates.push(filled.bytes_per_second);
        places.push(Place::new(trial.path.clone(), filled.bytes));
    }
    let Some((own, depth_max)) = own else { return Ok(()) };
    // Of all directories in the mean: a store's settings are the same for all.
    let mut all = candidates(own, depth_max, rates.iter().sum::<f64>() / rates.len() as f64);
    let bytes_min = places.iter().map(|place| place.bytes).min().unwrap_or(FILE_BYTES_MIN);
    all.retain(|candidate| candidate.request_bytes() * REQUESTS_MIN <= bytes_min);
    let first = &call.directories[0];
    let memory = map(&all).map_err(|why| failed(first, why))?;
    let mut report = lock(found);
    add_steps(&mut report.stepped_down, &memory.obtained().stepped_down);
    report.machine.obtained.push(memory.obtained().to_string());
    drop(report);
    let (cells, reference) = (places.len() * DIRECTIONS.len(), reference(&all, own));
    let mut race = Race::new(all, reference, cells, SEED);
    let window = clock.deadline.saturating_duration_since(Instant::now());
    let mut report = |race: &Race, elapsed: Duration| lock(found).update(race, elapsed);
    let mut course = Course::new(places, memory, call.duration, interrupt, &mut clock, &mut report);
    race.run(window, &mut course).map_err(|why| failed(first, why))?;
    for (at, (trial, directory)) in trials.iter().zip(&call.directories).enumerate() {
        let directory_found = &mut lock(found).directories[at];
        directory_found.page_cache_share = refuse_cached(trial, directory, directory_found.file_bytes, 1)?;
    }
    Ok(())
}

fn failed(directory: &Path, why: impl std::fmt::Display) -> Failure {
    let doing = format!("tuning {}", directory.display());
    Failure::work(doing, why, "see what hoist doctor says about the directory")
}

/// What the machine gives when it may choose.
fn probe(trial: &Trial) -> Result<Obtained, Error> {
    let io = Config { queue_depth: PROBE_DEPTH, ..Config::default() };
    Drive::over(&trial.path, false, &io, Mapped::new(1, PROBE_BYTES, PROBE_BYTES)?)?.close()
}

fn backend(obtained: &Obtained) -> BackendChoice {
    let named = |(name, _): &&(&str, BackendChoice)| *name == obtained.io.backend;
    BackendChoice::ALL.iter().find(named).map_or(BackendChoice::Auto, |(_, backend)| *backend)
}

fn refuse_buffered(directory: &Path, obtained: &Obtained) -> Result<(), Failure> {
    if obtained.io.files_buffered == 0 {
        return Ok(());
    }
    let why = format!("the numbers would be the page cache's ({})", obtained.io.stepped_down.join(", "));
    Err(refused(directory, why))
}

fn refuse_cached(trial: &Trial, directory: &Path, bytes: u64, seed: u64) -> Result<Option<f64>, Failure> {
    let share = cached_share(&trial.file, bytes, seed);
    match share.filter(|share| *share > SHARE_MAX) {
        None => Ok(share),
        Some(share) => {
            let cached = share * 100.0;
            let why = format!(
                "the numbers would be the page cache's ({cached:.0} % of the file lie in it, though it was written and \
                 read by direct I/O)"
            );
            Err(refused(directory, why))
        }
    }
}

fn refused(directory: &Path, why: String) -> Failure {
    let doing = format!("tuning {}", directory.display());
    Failure::work(doing, why, "name a directory on a local drive with ext4 or xfs")
}

/// A trial file that is whole.
struct Filled {
    bytes: u64,
    bytes_per_second: f64,
    directory: Directory,
}

/// Writes a trial file for at most so long, and sees that it lies on the drive.
fn fill(
    trial: &Trial,
    directory: &Path,
    limit: Duration,
    interrupt: &Interrupt,
    clock: &mut Clock,
) -> Result<Filled, Failure> {
    let found = statvfs(directory).map_err(|why| failed(directory, why))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let wanted = FILE_BYTES.min(free / FREE_PART / FILE_BYTES_MIN * FILE_BYTES_MIN);
    if wanted < FILE_BYTES_MIN {
        let (least, free) = (format_bytes(FILE_BYTES_MIN * FREE_PART), format_bytes(free));
        let why = format!("{free} are free, and it takes {least}");
        return Err(Failure::work(
            format!("tuning {}", directory.display()),
            why,
            "make room, or name another",
        ));
    }
    // Mapping memory and allocating blocks come before, and take longer than the limit of a short run on a busy machine.
    let begin = Cell::new(None);
    let over = |asked_bytes| {
        let since = begin.get().unwrap_or_else(Instant::now);
        begin.set(Some(since));
        let limit = if asked_bytes < FILE_BYTES_MIN { limit * FILL_PATIENCE } else { limit };
        interrupt.is_set() || since.elapsed() >= limit
    };
    let (mut drive, bytes) =
        write(&trial.path, wanted, BackendChoice::Auto, interrupt, over, || clock.show())
            .map_err(|why| failed(directory, why))?;
    let since = begin.get().unwrap_or_else(Instant::now);
    let bytes_per_second = bytes as f64 / since.elapsed().as_secs_f64();
    let finish = || {
        drive.file(|file| FileOp::Truncate { file, bytes })?;
        drive.sync()?;
        drive.close()
    };
    finish().map_err(|why: Error| failed(directory, why))?;
    if interrupt.is_set() {
        // What is there does not matter any more.
    } else if bytes < FILE_BYTES_MIN {
        let (bytes, least) = (format_bytes(bytes), format_bytes(FILE_BYTES_MIN));
        let why = format!(
            "it took {bytes} in {:.1} s, and {least} are the least",
            (limit * FILL_PATIENCE).as_secs_f64()
        );
        return Err(failed(directory, why));
    } else if bytes < FILE_BYTES {
        let (name, bytes, usual) = (directory.display(), format_bytes(bytes), format_bytes(FILE_BYTES));
        clock.note(&format!("{name}: a file of {bytes} instead of {usual}: caches may hold more of it"));
    }
    let page_cache_share = if interrupt.is_set() { None } else { refuse_cached(trial, directory, bytes, 0)? };
    let directory =
        Directory { file_bytes: bytes, file_bytes_wanted: FILE_BYTES, page_cache_share, directions: None };
    Ok(Filled { bytes, bytes_per_second, directory })
}

/// Memory for the candidate that takes most, filled with what is not zeros.
fn map(candidates: &[Candidate]) -> Result<Mapped, Error> {
    let slots = candidates.iter().map(|candidate| candidate.requests()).max().unwrap_or(1);
    let bytes = candidates.iter().map(|candidate| candidate.request_bytes()).max().unwrap_or(PROBE_BYTES);
    let mut memory = Mapped::new(slots as u64, bytes, bytes)?;
    memory.fill();
    Ok(memory)
}
