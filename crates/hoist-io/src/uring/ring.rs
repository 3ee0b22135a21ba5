//! The ring itself: parts in, results out, and the waker's read.

use super::probe::open_ring;
use super::registration::Registration;
use super::table::FileTable;
use crate::core::{Core, Part};
use crate::error::Operation;
use crate::faults::Faults;
use crate::waker::WakeFd;
use crate::{Config, Error, FileOp, FileReply, Obtained};
use hoist_memory::{AlignedBuffer, Slab};
use io_uring::squeue::Flags;
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Marks the waker's read among the block numbers.
const WAKE: u64 = u64::MAX;

/// `IORING_ENTER_GETEVENTS` (io_uring_enter(2)), which the io-uring crate keeps to itself.
const ENTER_GETEVENTS: u32 = 1;

/// How often in a row the kernel may refuse to enter for want of memory (EAGAIN, EBUSY) before that is an error: some
/// 10 s with the pauses, more than the kernel's own memory reclaim takes. Each time completions are taken out first,
/// which is what the manual page advises.
const ENTER_ATTEMPTS_MAX: u32 = 1000;

/// The pause after the first refusal: about what a block takes on a fast drive. It doubles with each one in a row.
const PAUSE_MIN: Duration = Duration::from_micros(10);

/// The longest pause, and that between two looks at a ring that failed: no waiting thread's processor time is worth
/// less, and no transfer is late by more.
const PAUSE_MAX: Duration = Duration::from_millis(10);

/// Declared in the order in which it must be dropped: the ring first, its memory and files after it.
pub(super) struct Ring {
    ring: IoUring,
    pub(super) core: Core,
    wake_fd: Arc<WakeFd>,
    /// Where the kernel puts the eventfd's count.
    wake_buffer: AlignedBuffer,
    wake_armed: bool,
    woken: bool,
    registration: Registration,
    files: FileTable,
    enters_refused: u32,
    /// User data of the entries that the kernel has not taken from the submission queue, in order.
    unsubmitted: VecDeque<u64>,
    /// Why nothing is submitted any more.
    failed: Option<String>,
    results: u64,
}

impl Ring {
    pub(super) fn open(config: &Config, slab: &Arc<Slab>, faults: Option<&Faults>) -> Result<Ring, Error> {
        let mut obtained =
            Obtained { backend: "uring", queue_depth: config.queue_depth, ..Obtained::default() };
        let ring = open_ring(config, &mut obtained)?;
        let registration = Registration::new(&ring, slab, &mut obtained);
        let files = FileTable::new(&ring, &mut obtained);
        let wake_fd = WakeFd::new().map_err(|source| Error::Call { call: "eventfd", source })?;
        Ok(Ring {
            ring,
            core: Core::new(config, slab, obtained, faults),
            wake_fd: Arc::new(wake_fd),
            wake_buffer: AlignedBuffer::new(size_of::<u64>())?,
            wake_armed: false,
            woken: false,
            registration,
            files,
            enters_refused: 0,
            unsubmitted: VecDeque::with_capacity(config.queue_depth as usize + 1),
            failed: None,
            results: 0,
        })
    }

    pub(super) fn wake_fd(&self) -> Arc<WakeFd> {
        Arc::clone(&self.wake_fd)
    }

    /// Whether the kernel has the waker's read.
    pub(super) fn is_wake_armed(&self) -> bool {
        self.wake_armed
    }

    pub(super) fn is_woken(&self) -> bool {
        self.woken
    }

    pub(super) fn take_woken(&mut self) {
        self.woken = false;
    }

    /// Opens into the table of files, and takes out of it what is closed: no request uses it then.
    pub(super) fn file(&mut self, op: FileOp) -> Result<FileReply, Error> {
        let closed = if let FileOp::Close(file) = op { self.core.files.place(file) } else { None };
        let reply = self.core.file(op)?;
        let Core { files, obtained, .. } = &mut self.core;
        if let FileReply::Opened { file, .. } = reply {
            let place = self.files.add(&self.ring, files.used(file).raw(), obtained);
            files.set_place(file, place);
        }
        if let Some(place) = closed {
            self.files.remove(&self.ring, place, obtained);
        }
        Ok(reply)
    }

    /// How many results the kernel has given since the start.
    pub(super) fn results(&self) -> u64 {
        self.results
    }

    /// Puts the waker's read and as many parts as the depth allows into the submission queue.
    /// Nothing when the ring has failed.
    pub(super) fn fill(&mut self) {
        if self.failed.is_some() {
            return;
        }
        if !self.wake_armed {
            self.wake_armed = true;
            let memory = self.wake_buffer.as_mut_ptr();
            let entry = opcode::Read::new(Fd(self.wake_fd.raw()), memory, size_of::<u64>() as u32);
            self.put(entry.build(), WAKE);
        }
        while let Some(part) = self.core.next_part() {
            self.put(self.entry(&part), part.block as u64);
        }
    }

    fn put(&mut self, entry: squeue::Entry, user_data: u64) {
        // SAFETY: the memory that the entry names is owned by the request table, or is the wake buffer; the file is
        // open in the file table, and so in its place of the ring's, or is the eventfd. `Uring` drops neither before
        // the completion is here, or the ring has failed and the kernel will never take the entry (see `fail`).
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(user_data)) };
        assert!(pushed.is_ok(), "no room in a submission queue of more than the depth");
        self.unsubmitted.push_back(user_data);
    }

    fn entry(&self, part: &Part) -> squeue::Entry {
        // What `types::Fixed` does; the crate keeps the trait that it shares with `Fd` to itself, so that with it each
        // operation would stand here twice.
        let (file, flags) = match part.place {
            Some(place) => (Fd(place as i32), Flags::FIXED_FILE),
            None => (Fd(part.fd), Flags::empty()),
        };
        let memory = std::ptr::with_exposed_provenance_mut::<u8>(part.address);
        // A block is 1 GiB at most.
        let bytes = part.bytes as u32;
        let entry = match (part.operation, self.registration.index_of(part)) {
            (Operation::Read, Some(index)) => {
                opcode::ReadFixed::new(file, memory, bytes, index).offset(part.offset).build()
            }
            (Operation::Read, None) => opcode::Read::new(file, memory, bytes).offset(part.offset).build(),
            (Operation::Write, Some(index)) => {
                opcode::WriteFixed::new(file, memory, bytes, index).offset(part.offset).build()
            }
            (Operation::Write, None) => opcode::Write::new(file, memory, bytes).offset(part.offset).build(),
            (Operation::Sync, _) => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
        };
        entry.flags(flags)
    }

    /// Submits what was put in and waits for `want` results, at most `timeout`. One system call. A ring that has failed
    /// submits nothing, and waits only for a moment.
    ///
    /// # Errors
    /// When the kernel refuses for long, or for good: then the ring has failed.
    pub(super) fn enter(&mut self, want: usize, timeout: Option<Duration>) -> Result<(), Error> {
        if self.failed.is_some() {
            std::thread::sleep(timeout.map_or(PAUSE_MAX, |timeout| timeout.min(PAUSE_MAX)));
            return self.enter_for_results();
        }
        let queued = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        let entered = match timeout.map(Timespec::from) {
            // SAFETY: no argument is passed, and the entries are valid as `put` said.
            _ if want == 0 => unsafe { submitter.enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) },
            None => submitter.submit_and_wait(want),
            Some(timeout) => submitter.submit_with_args(want, &SubmitArgs::new().timespec(&timeout)),
        };
        let left = self.ring.submission().len();
        self.unsubmitted.drain(..self.unsubmitted.len() - left);
        let Err(source) = entered else {
            self.enters_refused = 0;
            return Ok(());
        };
        let refused = match source.raw_os_error() {
            Some(libc::EINTR | libc::ETIME) => Ok(()),
            Some(libc::EAGAIN | libc::EBUSY) if self.enters_refused < ENTER_ATTEMPTS_MAX => {
                self.wait_refused()
            }
            _ => Err(Error::Call { call: "io_uring_enter", source }),
        };
        refused.inspect_err(|error| self.fail(error))
    }

    /// After a refusal: lets what is finished complete, which a refused enter does not do and which gives the kernel
    /// memory back, and waits when there was nothing.
    fn wait_refused(&mut self) -> Result<(), Error> {
        let pause = pause(self.enters_refused);
        self.enters_refused += 1;
        self.enter_for_results()?;
        if self.ring.completion().is_empty() {
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// Submits nothing and lets finished transfers complete. With DEFER_TASKRUN only an enter with GETEVENTS does that
    /// (measured): to peek is not enough.
    fn enter_for_results(&self) -> Result<(), Error> {
        // SAFETY: no argument is passed, and no entry is handed over.
        match unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, ENTER_GETEVENTS, None) } {
            Ok(_) => Ok(()),
            Err(source) => match source.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(Error::Call { call: "io_uring_enter for results", source }),
            },
        }
    }

    /// Submits nothing from now on. Blocks that the kernel has not taken end with an error. That gives their memory
    /// back while entries in the submission queue still name it: sound, as the kernel takes entries only from an enter
    /// that tells it to (there is no SQPOLL), and none does any more. What it has taken is still waited for.
    pub(super) fn fail(&mut self, error: &Error) {
        let cause = self.failed.get_or_insert_with(|| error.to_string());
        let stopped = || Error::Stopped { cause: cause.clone() };
        for user_data in self.unsubmitted.drain(..) {
            match user_data {
                WAKE => self.wake_armed = false,
                block => self.core.take_back(block as usize, stopped()),
            }
        }
        self.core.end_again(stopped);
    }

    /// What to answer when the ring has failed.
    ///
    /// # Errors
    /// [`Error::Stopped`] then.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.failed {
            Some(cause) => Err(Error::Stopped { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Takes the results that are there.
    ///
    /// # Errors
    /// When the waker does not work: then the ring has failed.
    pub(super) fn collect(&mut self) -> Result<(), Error> {
        let (mut wake_result, now) = (0, Instant::now());
        for completion in self.ring.completion() {
            if completion.user_data() == WAKE {
                self.wake_armed = false;
                self.woken = true;
                wake_result = completion.result();
                self.wake_fd.seen();
            } else {
                self.results += 1;
                self.core.on_result(completion.user_data() as usize, completion.result(), now);
            }
        }
        if let Some(cause) = &self.failed {
            self.core.end_again(|| Error::Stopped { cause: cause.clone() });
        }
        match -wake_result {
            errno if errno <= 0 || errno == libc::EINTR || errno == libc::EAGAIN => Ok(()),
            errno => {
                let source = io::Error::from_raw_os_error(errno);
                let error = Error::Call { call: "reading the eventfd", source };
                self.fail(&error);
                Err(error)
            }
        }
    }
}

/// How long to wait after so many refusals in a row.
fn pause(refused: u32) -> Duration {
    PAUSE_MIN.saturating_mul(2u32.saturating_pow(refused)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_sum_to_seconds() {
        assert_eq!([0, 1, 2, 9].map(|refused| pause(refused).as_micros()), [10, 20, 40, 5120]);
        assert_eq!(pause(ENTER_ATTEMPTS_MAX), PAUSE_MAX);
        let sum: Duration = (0..ENTER_ATTEMPTS_MAX).map(pause).sum();
        assert!((5..15).contains(&sum.as_secs()), "{sum:?}");
    }
}
