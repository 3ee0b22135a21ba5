//! A run from its call to its report.

use std::path::PathBuf;
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
use crate::bench::Progress;
use crate::contents::{Contents, Kind};
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
    in_all(&call.directories, call.directories.clone(), |directory| {
        fill(&directory, call.work.size_bytes, &call.io, interrupt, &progress)
    })?;
    if interrupt.is_set() {
        return Ok(blank);
    }
    let drives = in_all(&call.directories, call.directories.clone(), |directory| {
        let mut drive = Drive::open(&data(&directory), false, &call.io, call.memory)?;
        // What is written is not zeros: drives and hypervisors may treat those as nothing to do.
        for (number, slot) in drive.slots_mut().iter_mut().enumerate() {
            let contents = Contents::new(Kind::Bits, 1, number as u64);
            slot.parts_mut().for_each(|part| contents.fill(part, 0));
        }
        Ok(drive)
    })?;
    progress.begin("measuring");
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let measured = in_all(&call.directories, drives, |drive| drive_one(call, interrupt, begin, drive))?;
    let cpu = cpu_seconds() - cpu;
    let mut counts = Counts::new();
    measured.iter().for_each(|(_, one)| counts.add(one));
    let drives = measured.into_iter().map(|(drive, _)| drive).collect();
    let obtained: Vec<Obtained> = in_all(&call.directories, drives, Drive::close)?;
    blank.with(&counts, cpu, &obtained, interrupt.is_set()).map_err(|error| {
        Failure::work("reading the process's memory", error, "mount /proc, or report it where it is mounted")
    })
}

fn drive_one(
    call: &Call,
    interrupt: &Interrupt,
    begin: Instant,
    mut drive: Drive,
) -> Result<(Drive, Counts), Error> {
    let (mut order, mut counts) = (Order::new(&call.work), Counts::new());
    let timed = call.work.requests.is_none();
    let over = |order: &Order| timed && order.may_end() && begin.elapsed() >= call.duration;
    drive.keep_busy(
        interrupt,
        |_| if interrupt.is_set() || over(&order) { None } else { order.next() },
        |done| counts.count(done.direction, done.bytes, done.latency_ns, begin.elapsed()),
    )?;
    Ok((drive, counts))
}

/// Does the same with what belongs to each directory, all at once, each in a thread.
fn in_all<Given: Send, Made: Send>(
    directories: &[PathBuf],
    given: Vec<Given>,
    work: impl Fn(Given) -> Result<Made, Error> + Sync,
) -> Result<Vec<Made>, Failure> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = given.into_iter().map(|given| scope.spawn(move || work(given))).collect();
        let made = threads.into_iter().zip(directories).map(|(thread, directory)| {
            let made = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            made.map_err(|why| {
                let doing = format!("measuring {}", directory.display());
                Failure::work(doing, why, "see what hoist doctor says about the directory")
            })
        });
        made.collect()
    })
}

/// Processor time of all threads of this process so far, in user mode and in the kernel.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + Duration::from_nanos(time.tv_nsec as u64).as_secs_f64()
}
