//! A run from its call to its report.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::call::Call;
use super::counts::Counts;
use super::drive::{Drive, Error, Obtained};
use super::files::{Files, data};
use super::fill::{fill, requests};
use super::order::Order;
use super::report::Report;
use super::together::{Start, in_all};
use crate::bench::Progress;
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// What becomes of a report.
pub type Publish = dyn Fn(&Report) -> Result<(), Failure> + Send + Sync;

/// Measures all directories at once and has the report published before the files are removed. An interrupted run gives
/// a report too, which is marked so.
///
/// # Errors
/// When a file cannot be made, read or written, or the run was interrupted; those of `publish`.
pub fn run(call: &Call, interrupt: &Interrupt, publish: Arc<Publish>) -> Result<(), Failure> {
    let files = Arc::new(Files::new(&call.directories, call.keep));
    let blank = Report::blank(call);
    let last_words = {
        let (publish, blank, files) = (Arc::clone(&publish), blank.clone(), Arc::clone(&files));
        // The process ends right after it: nobody is left who could be told of an error.
        move || drop((publish(&blank), files.remove()))
    };
    interrupt.set_last_words(Some(Box::new(last_words)));
    let report = measure(call, interrupt, blank);
    // They hold the files, too: only now do these go when this function ends.
    interrupt.set_last_words(None);
    let report = report?;
    publish(&report)?;
    files.remove()?;
    if report.partial { Err(Failure::Interrupted) } else { Ok(()) }
}

fn measure(call: &Call, interrupt: &Interrupt, blank: Report) -> Result<Report, Failure> {
    let progress = Progress::new(requests(call.work.size_bytes) * call.directories.len() as u64);
    progress.begin("making the files");
    in_all("making a file in", &call.directories, |directory, _| {
        fill(directory, call.work.size_bytes, &call.io, interrupt, &progress)
    })?;
    if interrupt.is_set() {
        return Ok(blank);
    }
    progress.begin("measuring");
    let measured = in_all("measuring", &call.directories, |directory, start| {
        measure_one(call, interrupt, directory, start)
    })?;
    let mut counts = Counts::new();
    measured.iter().for_each(|one| counts.add(&one.counts));
    let begun = measured.iter().map(|one| one.cpu_seconds.0).fold(f64::INFINITY, f64::min);
    let ended = measured.iter().map(|one| one.cpu_seconds.1).fold(begun, f64::max);
    let obtained: Vec<Obtained> = measured.into_iter().map(|one| one.obtained).collect();
    blank.with(&counts, ended - begun, &obtained, interrupt.is_set()).map_err(|error| {
        Failure::work("reading the process's memory", error, "mount /proc, or report it where it is mounted")
    })
}

/// What was measured of one directory.
struct Measured {
    counts: Counts,
    /// What the process had used when it began and when it ended.
    cpu_seconds: (f64, f64),
    obtained: Obtained,
}

fn measure_one(
    call: &Call,
    interrupt: &Interrupt,
    directory: &Path,
    start: Start,
) -> Result<Measured, Error> {
    let mut drive = Drive::open(&data(directory), false, &call.io, call.memory)?;
    drive.memory_mut().fill();
    let (mut order, mut counts) = (Order::new(&call.work), Counts::new());
    let timed = call.work.requests.is_none();
    start.wait();
    let (begin, cpu_begun) = (Instant::now(), cpu_seconds());
    // Looked at once for all requests that come back together: a look at the clock for each is a part of what a small
    // one costs.
    let since_begin = Cell::new(Duration::ZERO);
    let over = |order: &Order| timed && order.may_end() && since_begin.get() >= call.duration;
    drive.keep_busy(
        interrupt,
        |_| if interrupt.is_set() || over(&order) { None } else { order.next() },
        |done| {
            since_begin.set(done.back - begin);
            counts.count(done.direction, done.bytes, done.latency_ns, since_begin.get());
        },
    )?;
    let cpu_seconds = (cpu_begun, cpu_seconds());
    Ok(Measured { counts, cpu_seconds, obtained: drive.close()? })
}

/// Processor time of all threads of this process so far, in user mode and in the kernel.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + Duration::from_nanos(time.tv_nsec as u64).as_secs_f64()
}
