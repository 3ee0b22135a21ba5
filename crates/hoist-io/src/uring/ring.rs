//! The ring itself: parts in, results out, and the waker's read.

use super::probe::{open_ring, register_slab};
use crate::core::{Core, Part};
use crate::error::Operation;
use crate::waker::WakeFd;
use crate::{Config, Error, Obtained};
use hoist_memory::{AlignedBuffer, Piece, Slab};
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Marks the waker's read among the block numbers.
const WAKE: u64 = u64::MAX;

/// `IORING_ENTER_GETEVENTS` (io_uring_enter(2)), which the io-uring crate keeps to itself.
const ENTER_GETEVENTS: u32 = 1;

/// How often in a row the kernel may refuse to enter for want of memory (EAGAIN, EBUSY) before that is an error. Each
/// time completions are taken out first, which is what the manual page advises.
const ENTER_ATTEMPTS_MAX: u32 = 1000;

/// Declared in the order in which it must be dropped: the ring first, its memory and files after it.
pub(super) struct Ring {
    ring: IoUring,
    pub(super) core: Core,
    wake_fd: Arc<WakeFd>,
    /// Where the kernel puts the eventfd's count.
    wake_buffer: AlignedBuffer,
    wake_armed: bool,
    woken: bool,
    /// The pieces registered with the ring, by index.
    registered: Vec<Piece>,
    enters_refused: u32,
    results: u64,
    /// Keeps what is registered mapped until the ring is gone.
    _slab: Arc<Slab>,
}

impl Ring {
    pub(super) fn open(config: &Config, slab: &Arc<Slab>) -> Result<Ring, Error> {
        let mut obtained =
            Obtained { backend: "uring", queue_depth: config.queue_depth, ..Obtained::default() };
        let ring = open_ring(config, &mut obtained)?;
        let registered = register_slab(&ring, slab, &mut obtained);
        let registered = if registered { slab.pieces().collect() } else { Vec::new() };
        let wake_fd = WakeFd::new().map_err(|source| Error::Call { call: "eventfd", source })?;
        Ok(Ring {
            ring,
            core: Core::new(config, obtained),
            wake_fd: Arc::new(wake_fd),
            wake_buffer: AlignedBuffer::new(size_of::<u64>())?,
            wake_armed: false,
            woken: false,
            registered,
            enters_refused: 0,
            results: 0,
            _slab: Arc::clone(slab),
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

    /// How many results the kernel has given since the start.
    pub(super) fn results(&self) -> u64 {
        self.results
    }

    /// Puts the waker's read and as many parts as the depth allows into the submission queue.
    pub(super) fn fill(&mut self) {
        if !self.wake_armed {
            self.wake_armed = true;
            let memory = self.wake_buffer.as_mut_ptr();
            let entry = opcode::Read::new(Fd(self.wake_fd.raw()), memory, size_of::<u64>() as u32);
            self.put(&entry.build().user_data(WAKE));
        }
        while let Some(part) = self.core.next_part() {
            let entry = self.entry(&part).user_data(part.block as u64);
            self.put(&entry);
        }
    }

    fn put(&mut self, entry: &squeue::Entry) {
        // SAFETY: the memory that the entry names is owned by the request table, or is the wake buffer; the file is
        // open in the file table, or is the eventfd. `Uring` drops neither before the completion is here.
        let pushed = unsafe { self.ring.submission().push(entry) };
        assert!(pushed.is_ok(), "no room in a submission queue of more than the depth");
    }

    fn entry(&self, part: &Part) -> squeue::Entry {
        let file = Fd(part.fd);
        let memory = std::ptr::with_exposed_provenance_mut::<u8>(part.address);
        // A block is 1 GiB at most.
        let bytes = part.bytes as u32;
        match (part.operation, self.registered_index(part)) {
            (Operation::Read, Some(index)) => {
                opcode::ReadFixed::new(file, memory, bytes, index).offset(part.offset).build()
            }
            (Operation::Read, None) => opcode::Read::new(file, memory, bytes).offset(part.offset).build(),
            (Operation::Write, Some(index)) => {
                opcode::WriteFixed::new(file, memory, bytes, index).offset(part.offset).build()
            }
            (Operation::Write, None) => opcode::Write::new(file, memory, bytes).offset(part.offset).build(),
            (Operation::Sync, _) => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
        }
    }

    /// The registered buffer that a part lies in. A slot of another slab has a piece number, too, but not our address.
    fn registered_index(&self, part: &Part) -> Option<u16> {
        let piece = self.registered.get(part.piece? as usize)?;
        let inside = piece.address <= part.address
            && part.address + part.bytes as usize <= piece.address + piece.bytes;
        inside.then_some(piece.index as u16)
    }

    /// Submits what was put in and waits for `want` results, at most `timeout`. One system call.
    pub(super) fn enter(&mut self, want: usize, timeout: Option<Duration>) -> Result<(), Error> {
        let queued = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        let entered = match timeout.map(Timespec::from) {
            // With DEFER_TASKRUN only an enter with GETEVENTS lets finished transfers complete (measured): to peek is
            // not enough.
            // SAFETY: no argument is passed, and the entries are valid as `put` said.
            _ if want == 0 => unsafe { submitter.enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) },
            None => submitter.submit_and_wait(want),
            Some(timeout) => submitter.submit_with_args(want, &SubmitArgs::new().timespec(&timeout)),
        };
        let Err(source) = entered else {
            self.enters_refused = 0;
            return Ok(());
        };
        match source.raw_os_error() {
            Some(libc::EINTR | libc::ETIME) => Ok(()),
            Some(libc::EAGAIN | libc::EBUSY) if self.enters_refused < ENTER_ATTEMPTS_MAX => {
                self.enters_refused += 1;
                Ok(())
            }
            _ => Err(Error::Call { call: "io_uring_enter", source }),
        }
    }

    /// Takes the results that are there.
    pub(super) fn collect(&mut self) -> Result<(), Error> {
        let mut wake_result = 0;
        for completion in self.ring.completion() {
            if completion.user_data() == WAKE {
                self.wake_armed = false;
                self.woken = true;
                wake_result = completion.result();
                self.wake_fd.seen();
            } else {
                self.results += 1;
                self.core.on_result(completion.user_data() as usize, completion.result());
            }
        }
        match -wake_result {
            errno if errno <= 0 || errno == libc::EINTR || errno == libc::EAGAIN => Ok(()),
            errno => {
                Err(Error::Call { call: "reading the eventfd", source: io::Error::from_raw_os_error(errno) })
            }
        }
    }
}
