//! Making a ring, and finding out whether it works by using it.

use crate::error::Error;
use crate::{Config, Obtained};
use hoist_memory::{AlignedBuffer, SECTOR_BYTES};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How long the trial read may take. It reads memory and takes microseconds; seconds are for a machine in trouble.
const TRIAL_DEADLINE: Duration = Duration::from_secs(10);

/// A way to make a ring, best first. DEFER_TASKRUN (Linux 6.1) needs SINGLE_ISSUER (6.0); COOP_TASKRUN is 5.19,
/// SUBMIT_ALL 5.18, CLAMP 5.6 (io_uring_setup(2)).
const LADDER: [&[&str]; 3] = [
    &["SINGLE_ISSUER", "DEFER_TASKRUN", "COOP_TASKRUN", "CLAMP", "SUBMIT_ALL"],
    &["COOP_TASKRUN", "CLAMP", "SUBMIT_ALL"],
    &["CLAMP"],
];

/// A ring with as many flags as the kernel takes, proved by a read.
pub(super) fn open_ring(config: &Config, obtained: &mut Obtained) -> Result<IoUring, Error> {
    // One entry more: the waker's read is always in flight.
    let entries = (config.queue_depth + 1).next_power_of_two();
    climb(obtained, |flags| open_proved(entries, flags))
}

/// The best way of the ladder that `open` finds to work. What works with none is an error, the plainest way's.
fn climb<Made>(
    obtained: &mut Obtained,
    mut open: impl FnMut(&[&'static str]) -> Result<Made, Error>,
) -> Result<Made, Error> {
    let [best @ .., plainest] = LADDER;
    let mut refused = Vec::new();
    for flags in best {
        match open(flags) {
            Ok(made) => return Ok(reached(made, flags, &refused, obtained)),
            Err(Error::NoRing { call, source, .. }) => {
                refused.push(format!("not with {}: {call}: {source}", flags.join("|")));
            }
            Err(error) => return Err(error),
        }
    }
    open(plainest).map(|made| reached(made, plainest, &refused, obtained))
}

fn reached<Made>(made: Made, flags: &[&'static str], refused: &[String], obtained: &mut Obtained) -> Made {
    if !refused.is_empty() {
        obtained.step_down(format!("a ring with only {}: {}", flags.join("|"), refused.join("; ")));
    }
    obtained.ring_flags = flags.to_vec();
    made
}

/// Whether a ring without flags works with so many entries, for those who make theirs elsewhere.
pub(super) fn check_ring(entries: u32) -> Result<(), Error> {
    open_proved(entries, &[]).map(drop)
}

/// A ring that has read.
fn open_proved(entries: u32, flags: &[&str]) -> Result<IoUring, Error> {
    let mut ring = build(entries, flags).map_err(|source| Error::no_ring("io_uring_setup", source))?;
    trial_read(&mut ring)?;
    Ok(ring)
}

/// A ring with these flags and no others.
pub(super) fn build(entries: u32, flags: &[&str]) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    for flag in flags {
        match *flag {
            "SINGLE_ISSUER" => builder.setup_single_issuer(),
            "DEFER_TASKRUN" => builder.setup_defer_taskrun(),
            "COOP_TASKRUN" => builder.setup_coop_taskrun(),
            "CLAMP" => builder.setup_clamp(),
            "SUBMIT_ALL" => builder.setup_submit_all(),
            other => panic!("{other} is no flag of the ladder"),
        };
    }
    builder.build(entries)
}

/// Reads 4 KiB through the ring and compares them: that a ring could be made proves little (seccomp may forbid the
/// enter, and some settings accept a read and never complete it).
fn trial_read(ring: &mut IoUring) -> Result<(), Error> {
    let failed = |call| move |source: io::Error| Error::no_ring(call, source);
    // Our own program: a file that is there, and that the kernel reads without a worker of the ring (a memfd is not).
    let file = File::open("/proc/self/exe").map_err(failed("opening /proc/self/exe for a trial read"))?;
    let mut expected = [0; SECTOR_BYTES];
    file.read_exact_at(&mut expected, 0).map_err(failed("a trial pread"))?;
    let mut buffer = AlignedBuffer::new(SECTOR_BYTES)?;
    let entry = opcode::Read::new(Fd(file.as_raw_fd()), buffer.as_mut_ptr(), SECTOR_BYTES as u32).build();
    // SAFETY: the buffer is not touched until the completion is here, and is leaked if it does not come.
    let pushed = unsafe { ring.submission().push(&entry) };
    assert!(pushed.is_ok(), "no room in a new ring");
    let completion = match wait_for_one(ring) {
        Ok(Some(completion)) => completion,
        missing => {
            std::mem::forget(buffer);
            return Err(missing
                .err()
                .unwrap_or_else(|| failed("a trial read")(io::ErrorKind::TimedOut.into())));
        }
    };
    let result = completion.result();
    if result < 0 {
        return Err(failed("a trial read")(io::Error::from_raw_os_error(-result)));
    }
    if result as usize != SECTOR_BYTES || buffer[..] != expected[..] {
        return Err(failed("a trial read")(io::Error::other(format!(
            "{result} bytes, or wrong ones, came back"
        ))));
    }
    Ok(())
}

/// Submits what is queued and waits for one completion; None when none comes in time.
fn wait_for_one(ring: &mut IoUring) -> Result<Option<cqueue::Entry>, Error> {
    let start = Instant::now();
    loop {
        let left = TRIAL_DEADLINE.saturating_sub(start.elapsed());
        let timeout = Timespec::from(left);
        // A signal may end the wait even where the call succeeds, as it then tells how many entries it took.
        match ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout)) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ETIME)) => {}
            Err(source) => return Err(Error::no_ring("io_uring_enter for a trial read", source)),
        }
        let completion = ring.completion().next();
        if completion.is_some() || left.is_zero() {
            return Ok(completion);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_with_which_a_read_fails_are_left_out() {
        let mut obtained = Obtained::default();
        let mut tried = Vec::new();
        let made = climb(&mut obtained, |flags| {
            tried.push(flags.len());
            let failed = flags.contains(&"DEFER_TASKRUN");
            if failed { Err(Error::no_ring("a trial read", io::ErrorKind::TimedOut.into())) } else { Ok(7) }
        });
        assert_eq!((made.unwrap(), &tried[..]), (7, &[5, 3][..]));
        assert_eq!(obtained.ring_flags, ["COOP_TASKRUN", "CLAMP", "SUBMIT_ALL"]);
        let step = &obtained.stepped_down[0];
        assert!(step.contains("only COOP_TASKRUN") && step.contains("a trial read: timed out"), "{step}");
    }

    #[test]
    fn what_fails_with_every_flag_is_an_error() {
        let mut obtained = Obtained::default();
        let refuse =
            |_: &[&str]| Err::<(), _>(Error::no_ring("a trial read", io::ErrorKind::TimedOut.into()));
        assert!(matches!(climb(&mut obtained, refuse), Err(Error::NoRing { call: "a trial read", .. })));
        assert_eq!(obtained, Obtained::default());
    }
}
