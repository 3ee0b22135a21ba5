//! Keeps one file's drive busy, through an I/O thread over a slab of its own.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use hoist_io::memory::{self, Slab, Slot};
use hoist_io::{Completion, Config, FileId, FileOp, FileRange, IoThread, Priority, Request, Transfer};

use super::order::{Direction, Turn};
use crate::interrupt::Interrupt;

/// How long nothing is heard of the drive before a look at Ctrl-C: well under the 2 s in which a run must have ended.
const LOOK: Duration = Duration::from_millis(50);
/// Pages are no larger: where drives reach their peak, and what a slab has by default.
const PAGE_BYTES_MAX: u64 = memory::PAGE_BYTES_DEFAULT as u64;

/// Whatever went wrong with a file; its text says what.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The memory for what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Requests under way at most.
    slots: u64,
    /// Bytes of each.
    slot_bytes: u64,
}

impl Memory {
    /// Twice the blocks that the kernel has at a time, in whole requests: while one half is moved the other waits in
    /// hoist-io, so that the kernel's queue never runs dry. Two requests at least, for the same reason; and no more than
    /// there are, if so many are `requests`.
    pub fn new(request_bytes: u64, requests: Option<u64>, block_bytes: u64, queue_depth: u32) -> Self {
        let blocks = request_bytes.div_ceil(block_bytes);
        let slots = (2 * u64::from(queue_depth)).div_ceil(blocks).max(2).min(requests.unwrap_or(u64::MAX));
        Self { slots, slot_bytes: request_bytes }
    }

    /// A power of two that requests up to 1 MiB fit into, so that none is cut where two pages do not touch.
    fn page_bytes(self) -> u64 {
        self.slot_bytes.min(PAGE_BYTES_MAX).next_power_of_two()
    }

    /// Bytes of the slab.
    pub fn budget_bytes(self) -> u64 {
        self.slots.saturating_mul(self.slot_bytes.next_multiple_of(self.page_bytes()))
    }
}

/// An I/O thread with one file, and the slots that go to it and come back.
pub struct Drive {
    io: IoThread,
    completions: Receiver<Completion>,
    file: FileId,
    slots: Vec<Slot>,
    memory: memory::Obtained,
}

/// What a drive was made of.
#[derive(Clone, Debug)]
pub struct Obtained {
    /// Of I/O.
    pub io: hoist_io::Obtained,
    /// Of memory.
    pub memory: memory::Obtained,
}

/// A request that is done.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// What it did.
    pub direction: Direction,
    /// How many bytes.
    pub bytes: u64,
    /// From push to done.
    pub latency_ns: u64,
}

impl Drive {
    /// Opens a file, past the page cache where the file system can.
    ///
    /// # Errors
    /// When there is no memory, no backend, or no file.
    pub fn open(path: &Path, create: bool, io: &Config, memory: Memory) -> Result<Self, Error> {
        let config = memory::Config {
            budget_bytes: memory.budget_bytes(),
            page_bytes: usize::try_from(memory.page_bytes())?,
            ..memory::Config::default()
        };
        let slab = Slab::map(&config)?;
        let slots: Vec<Slot> = (0..memory.slots).map_while(|_| slab.allocate(memory.slot_bytes)).collect();
        let obtained = slab.obtained().clone();
        let (sender, completions) = channel();
        // The receiver lives until the thread has been closed.
        let io = IoThread::spawn("hoist-io", io, slab, move |completion| drop(sender.send(completion)))?;
        let file = io.file(FileOp::Open { path: path.to_owned(), create, direct: true })?.file();
        Ok(Self { io, completions, file, slots, memory: obtained })
    }

    /// Does a file operation.
    ///
    /// # Errors
    /// What the file system says.
    pub fn file(&self, operation: impl FnOnce(FileId) -> FileOp) -> Result<(), Error> {
        self.io.file(operation(self.file))?;
        Ok(())
    }

    /// The slots, when none is under way.
    pub fn slots_mut(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    /// Does with each slot what `next` says, again as soon as it is done, until `next` says no more or the work is
    /// interrupted; then what has not begun is given up. Everything that is done goes to `done`.
    ///
    /// # Errors
    /// The first request that failed.
    pub fn keep_busy(
        &mut self,
        interrupt: &Interrupt,
        mut next: impl FnMut(&mut Slot) -> Option<Turn>,
        mut done: impl FnMut(Done),
    ) -> Result<(), Error> {
        let (slots, mut in_flight) = (self.slots.len(), 0);
        let (mut ending, mut failure) = (false, None);
        for (id, mut slot) in std::mem::take(&mut self.slots).into_iter().enumerate() {
            match next(&mut slot) {
                Some(turn) => {
                    self.push(id as u64, slot, turn, Vec::with_capacity(1));
                    in_flight += 1;
                }
                None => self.slots.push(slot),
            }
        }
        while in_flight > 0 {
            if !ending && (failure.is_some() || interrupt.is_set()) {
                ending = true;
                (0..slots as u64).for_each(|id| self.io.abandon(id));
            }
            let completion = match self.completions.recv_timeout(LOOK) {
                Ok(completion) => completion,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Err("the I/O thread has ended".into()),
            };
            in_flight -= 1;
            let (id, latency_ns, ranges) = (completion.id, completion.seconds_ns, completion.ranges);
            if let Err(error) = completion.result {
                if !matches!(error, hoist_io::Error::Abandoned { .. }) {
                    failure = failure.or(Some(error));
                }
                // A drive that may still have the memory gives something else back, or nothing.
                self.slots.extend(home(completion.transfer).map(|(slot, _)| slot));
                continue;
            }
            let (mut slot, direction) = home(completion.transfer)?;
            done(Done { direction, bytes: ranges[0].bytes, latency_ns });
            let turn = if ending || failure.is_some() { None } else { next(&mut slot) };
            match turn {
                Some(turn) => {
                    self.push(id, slot, turn, ranges);
                    in_flight += 1;
                }
                None => self.slots.push(slot),
            }
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    fn push(&self, id: u64, slot: Slot, turn: Turn, mut ranges: Vec<FileRange>) {
        let Turn { direction, offset, bytes } = turn;
        ranges.clear();
        ranges.push(FileRange { file: self.file, offset, bytes, buffer_offset: 0 });
        let transfer = match direction {
            Direction::Read => Transfer::Read(slot),
            Direction::Write => Transfer::Write(slot.share()),
        };
        self.io.push(Request { id, priority: Priority::Demand, ranges, transfer });
    }

    /// Waits until what was written is on the drive.
    ///
    /// # Errors
    /// What the drive says.
    pub fn sync(&self) -> Result<(), Error> {
        let transfer = Transfer::Sync(self.file);
        self.io.push(Request { id: 0, priority: Priority::Demand, ranges: Vec::new(), transfer });
        self.completions.recv()?.result?;
        Ok(())
    }

    /// Closes the file and gives the memory back.
    ///
    /// # Errors
    /// When the drive does not answer.
    pub fn close(self) -> Result<Obtained, Error> {
        let io = self.io.obtained();
        self.io.file(FileOp::Close(self.file))?;
        self.io.close()?;
        Ok(Obtained { io, memory: self.memory })
    }
}

/// The slot of a request, and what it did.
fn home(transfer: Transfer) -> Result<(Slot, Direction), Error> {
    match transfer {
        Transfer::Read(slot) => Ok((slot, Direction::Read)),
        Transfer::Write(reader) => match reader.try_into_slot() {
            Ok(slot) => Ok((slot, Direction::Write)),
            Err(_) => Err("a slot that was written has another reader".into()),
        },
        _ => Err("a completion of something that was not asked for".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_twice_the_queue_in_whole_requests() {
        let memory = |request, block, depth| {
            let memory = Memory::new(request, None, block, depth);
            (memory.slots, memory.budget_bytes())
        };
        assert_eq!(memory(64 << 20, 1 << 20, 32), (2, 128 << 20));
        assert_eq!(memory(4096, 4096, 32), (64, 256 << 10));
        assert_eq!(memory(4096, 1 << 20, 1), (2, 8192));
        assert_eq!(memory(64 << 20, 64 << 20, 4), (8, 512 << 20));
        // Three sectors lie in a page of four, 1.5 MiB in two of 1 MiB.
        assert_eq!(memory(12 << 10, 4096, 3), (2, 32 << 10));
        assert_eq!(memory(3 << 19, 1 << 20, 2), (2, 4 << 20));
        // No more than there are requests.
        assert_eq!(Memory::new(64 << 20, Some(1), 1 << 20, 32).slots, 1);
    }

    #[test]
    fn a_failed_request_ends_the_work_with_its_error_and_all_slots_at_home() {
        let folder = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        let path = folder.path().join("empty");
        let memory = Memory::new(8192, None, 4096, 4);
        let mut drive = Drive::open(&path, true, &Config::default(), memory).unwrap();
        let read = Turn { direction: Direction::Read, offset: 0, bytes: 8192 };
        let mut number = 0;
        let error = drive
            .keep_busy(&Interrupt::default(), |_| Some(read), |_| number += 1)
            .expect_err("there is nothing in the file");
        assert!(error.to_string().contains("ends too early"), "{error}");
        assert_eq!((number, drive.slots_mut().len() as u64), (0, memory.slots));
        drive.close().unwrap();
    }
}
