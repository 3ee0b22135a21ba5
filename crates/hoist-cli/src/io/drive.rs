//! Keeps one file's drive busy, through a backend over a slab of its own, on the thread that opened it: what a store's
//! I/O thread does with its backend, without the hand-over between that thread and the engine's.

use std::path::Path;
use std::time::{Duration, Instant};

use hoist_io::memory::{self, Slot};
use hoist_io::{Backend, Completion, Config, FileId, FileOp, FileRange, Priority, Request, Transfer, Wait};

use super::mapped::Mapped;
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
    /// As many requests as keep `queue_depth` blocks in the kernel's queue: where a request is one block, just so many,
    /// as one that comes back is pushed again before the kernel is entered; where it is several, one more, since one
    /// comes back only when its last block is there. No more than there are, if so many are `requests`. More memory
    /// would cost: what moves fewer bytes of memory finds more of them in the processor's caches (measured, writes to
    /// a virtual drive: 7 % less with 128 MiB under way than with 32).
    pub fn new(request_bytes: u64, requests: Option<u64>, block_bytes: u64, queue_depth: u32) -> Self {
        let (blocks, depth) = (request_bytes.div_ceil(block_bytes), u64::from(queue_depth));
        let slots = if blocks == 1 { depth } else { depth.div_ceil(blocks) + 1 };
        let slots = slots.min(requests.unwrap_or(u64::MAX));
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

    /// Maps it.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn map(self) -> Result<Mapped, Error> {
        Mapped::new(self.slots, self.slot_bytes, self.page_bytes())
    }
}

/// A backend with one file, and the slots that go to it and come back.
pub struct Drive {
    backend: Box<dyn Backend>,
    done: Vec<Completion>,
    file: FileId,
    mapped: Mapped,
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
    /// When it came back.
    pub back: Instant,
}

impl Drive {
    /// Opens a file, past the page cache where the file system can.
    ///
    /// # Errors
    /// When there is no memory, no backend, or no file.
    pub fn open(path: &Path, create: bool, io: &Config, memory: Memory) -> Result<Self, Error> {
        Self::over(path, create, io, memory.map()?)
    }

    /// The same over memory that is there.
    ///
    /// # Errors
    /// When there is no backend, or no file.
    pub fn over(path: &Path, create: bool, io: &Config, mapped: Mapped) -> Result<Self, Error> {
        let mut backend = hoist_io::open(io, mapped.slab())?;
        let file = backend.file(FileOp::Open { path: path.to_owned(), create, direct: true })?.file();
        let done = Vec::with_capacity(mapped.slots.len());
        Ok(Self { backend, done, file, mapped })
    }

    /// Does a file operation.
    ///
    /// # Errors
    /// What the file system says.
    pub fn file(&mut self, operation: impl FnOnce(FileId) -> FileOp) -> Result<(), Error> {
        self.backend.file(operation(self.file))?;
        Ok(())
    }

    /// The memory, when no request is under way.
    pub fn memory_mut(&mut self) -> &mut Mapped {
        &mut self.mapped
    }

    /// What the machine gave.
    pub fn obtained(&self) -> Obtained {
        Obtained { io: self.backend.obtained().clone(), memory: self.mapped.obtained().clone() }
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
        let (slots, mut in_flight) = (self.mapped.slots.len(), 0);
        let (mut ending, mut failure) = (false, None);
        for (id, mut slot) in std::mem::take(&mut self.mapped.slots).into_iter().enumerate() {
            match next(&mut slot) {
                Some(turn) => {
                    self.push(id as u64, slot, turn, Vec::with_capacity(1));
                    in_flight += 1;
                }
                None => self.mapped.slots.push(slot),
            }
        }
        let mut completions = std::mem::take(&mut self.done);
        while in_flight > 0 {
            if !ending && (failure.is_some() || interrupt.is_set()) {
                ending = true;
                (0..slots as u64).for_each(|id| self.backend.abandon(id));
            }
            self.backend.reap(Wait::AtMost(LOOK), &mut completions)?;
            let back = Instant::now();
            for completion in completions.drain(..) {
                in_flight -= 1;
                let (id, latency_ns, ranges) = (completion.id, completion.seconds_ns, completion.ranges);
                let (mut slot, direction) = home(completion.transfer)?;
                match completion.result {
                    Ok(()) => done(Done { direction, bytes: ranges[0].bytes, latency_ns, back }),
                    Err(hoist_io::Error::Abandoned { .. }) => {}
                    Err(error) => failure = failure.or(Some(error)),
                }
                let turn = if ending || failure.is_some() { None } else { next(&mut slot) };
                match turn {
                    Some(turn) => {
                        self.push(id, slot, turn, ranges);
                        in_flight += 1;
                    }
                    None => self.mapped.slots.push(slot),
                }
            }
        }
        self.done = completions;
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    fn push(&mut self, id: u64, slot: Slot, turn: Turn, mut ranges: Vec<FileRange>) {
        let Turn { direction, offset, bytes } = turn;
        ranges.clear();
        ranges.push(FileRange { file: self.file, offset, bytes, buffer_offset: 0 });
        let transfer = match direction {
            Direction::Read => Transfer::Read(slot),
            Direction::Write => Transfer::Write(slot.share()),
        };
        self.backend.push(Request { id, priority: Priority::Demand, ranges, transfer });
    }

    /// Waits until what was written is on the drive.
    ///
    /// # Errors
    /// What the drive says.
    pub fn sync(&mut self) -> Result<(), Error> {
        let transfer = Transfer::Sync(self.file);
        self.backend.push(Request { id: 0, priority: Priority::Demand, ranges: Vec::new(), transfer });
        let mut done = Vec::new();
        while done.is_empty() {
            self.backend.reap(Wait::UntilSomething, &mut done)?;
        }
        done.into_iter().try_for_each(|completion| completion.result)?;
        Ok(())
    }

    /// Closes the file and unmaps the memory.
    ///
    /// # Errors
    /// When the drive does not answer.
    pub fn close(self) -> Result<Obtained, Error> {
        let obtained = self.obtained();
        self.leave()?;
        Ok(obtained)
    }

    /// Closes the file and gives the memory back.
    ///
    /// # Errors
    /// When the drive does not answer.
    pub fn leave(mut self) -> Result<Mapped, Error> {
        self.backend.file(FileOp::Close(self.file))?;
        Ok(self.mapped)
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
    fn memory_is_the_queue_in_whole_requests_and_one_to_come_back() {
        let memory = |request, block, depth| {
            let memory = Memory::new(request, None, block, depth);
            (memory.slots, memory.budget_bytes())
        };
        assert_eq!(memory(64 << 20, 1 << 20, 32), (2, 128 << 20));
        assert_eq!(memory(4096, 4096, 32), (32, 128 << 10));
        assert_eq!(memory(4096, 1 << 20, 1), (1, 4096));
        assert_eq!(memory(64 << 20, 64 << 20, 4), (4, 256 << 20));
        assert_eq!(memory(4 << 20, 1 << 20, 32), (9, 36 << 20));
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
        assert_eq!((number, drive.memory_mut().slots.len() as u64), (0, memory.slots));
        drive.close().unwrap();
    }
}
