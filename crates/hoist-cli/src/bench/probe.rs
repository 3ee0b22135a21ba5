//! What the drives under a store can do, measured through the same I/O that the store uses, and what memory can.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use hoist_io::memory::{self, Slab, Slot};
use hoist_io::{
    Completion, Config, FileId, FileOp, FileRange, FileReply, IoThread, Priority, Request, Transfer,
};

use super::copy_rate;
use super::place::PROBE;
use super::turns::Turns;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::io::{Direction, Error, Start, in_all};

/// Length of the file: more than drives and hypervisors take into a write cache at once, and written in well under
/// a second by any NVMe drive.
const FILE_BYTES: u64 = 512 << 20;
/// Memory for what is in flight in all directories: 32 blocks of 1 MiB, where drives reach their peak. It is not the
/// host tier's, and a run may use 96 MiB beside its budgets.
const MEMORY_BYTES: u64 = 32 << 20;
/// A slot's least size: a page of the slab.
const PAGE_BYTES: u64 = 1 << 20;

/// Bytes per second: of all directories together, and of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Reading alone.
    pub read: f64,
    /// Writing alone.
    pub write: f64,
    /// Reading while writing.
    pub mixed_read: f64,
    /// Writing while reading.
    pub mixed_write: f64,
    /// Copying host memory.
    pub copy: f64,
}

impl Rates {
    /// The mean of two measurements: a drive drifts over a run.
    pub fn mean(self, other: Self) -> Self {
        let mean = |a: f64, b: f64| (a + b) / 2.0;
        Self {
            read: mean(self.read, other.read),
            write: mean(self.write, other.write),
            mixed_read: mean(self.mixed_read, other.mixed_read),
            mixed_write: mean(self.mixed_write, other.mixed_write),
            copy: mean(self.copy, other.copy),
        }
    }
}

/// Measures all directories at once and adds them up: they may share a drive, or a link. An interrupted measurement ends
/// early, and its rates say nothing.
///
/// # Errors
/// When the file cannot be made, written or read.
pub fn measure(directories: &[PathBuf], config: &Config, interrupt: &Interrupt) -> Result<Rates, Failure> {
    let mut sum = Rates { copy: copy_rate::measure(), ..Rates::default() };
    let memory_bytes = MEMORY_BYTES / directories.len().max(1) as u64;
    let measured = in_all("measuring", directories, |directory, start| {
        measure_one(directory, config, memory_bytes, start, interrupt)
    })?;
    for rates in measured {
        sum.read += rates.read;
        sum.write += rates.write;
        sum.mixed_read += rates.mixed_read;
        sum.mixed_write += rates.mixed_write;
    }
    Ok(sum)
}

fn measure_one(
    directory: &Path,
    config: &Config,
    memory_bytes: u64,
    start: Start,
    interrupt: &Interrupt,
) -> Result<Rates, Error> {
    let block_bytes = config.block_size.max(PAGE_BYTES).next_multiple_of(PAGE_BYTES);
    let blocks = (memory_bytes / block_bytes).max(2);
    let budget_bytes = blocks * block_bytes;
    let slab = Slab::map(&memory::Config { budget_bytes, ..memory::Config::default() })?;
    let mut slots: Vec<Slot> = (0..blocks).filter_map(|_| slab.allocate(block_bytes)).collect();
    for (number, slot) in slots.iter_mut().enumerate() {
        // Drives and hypervisors may treat zeros as nothing to do.
        slot.parts_mut().for_each(|part| part.fill(0x5A ^ number as u8));
    }
    let (sender, completions) = channel();
    // The receiver lives until the thread has been closed.
    let io = IoThread::spawn("probe", config, slab, move |completion| drop(sender.send(completion)))?;
    let path = directory.join(PROBE);
    let open = FileOp::Open { path, create: true, direct: true };
    let FileReply::Opened { file, bytes, .. } = io.file(open)? else {
        return Err("the file system opened no file".into());
    };
    let mut drive =
        Drive { io: &io, completions, file, block_bytes, next_read: 0, next_write: 0, next_id: 0 };
    if bytes < FILE_BYTES {
        io.file(FileOp::Allocate { file, offset: 0, bytes: FILE_BYTES })?;
        // First writes to allocated extents cost more than later ones, so they are not measured.
        let mut left_bytes = FILE_BYTES;
        slots = drive.run(slots, |_| {
            let more = left_bytes > 0 && !interrupt.is_set();
            left_bytes = left_bytes.saturating_sub(block_bytes);
            more.then_some(Direction::Write)
        })?;
    }
    start.wait();
    let mut turns = Turns::begin(slots.len(), block_bytes);
    while let Some(mut slice) = turns.next() {
        slots = drive.run(slots, |done| if interrupt.is_set() { None } else { slice.next(done) })?;
        if interrupt.is_set() {
            break;
        }
        turns.add(&slice);
    }
    io.file(FileOp::Close(file))?;
    drop(slots);
    io.close()?;
    Ok(turns.rates())
}

/// Keeps a file's drive busy.
struct Drive<'a> {
    io: &'a IoThread,
    completions: Receiver<Completion>,
    file: FileId,
    block_bytes: u64,
    next_read: u64,
    next_write: u64,
    next_id: u64,
}

impl Drive<'_> {
    /// Does with each slot what `next` says, again as soon as it is done, until it says no more of any. Returns the
    /// slots.
    fn run(
        &mut self,
        slots: Vec<Slot>,
        mut next: impl FnMut(Option<Direction>) -> Option<Direction>,
    ) -> Result<Vec<Slot>, Error> {
        let (mut home, mut in_flight) = (Vec::with_capacity(slots.len()), 0_u64);
        for slot in slots {
            match next(None) {
                Some(direction) => {
                    self.push(slot, direction);
                    in_flight += 1;
                }
                None => home.push(slot),
            }
        }
        while in_flight > 0 {
            let completion = self.completions.recv()?;
            completion.result?;
            in_flight -= 1;
            let (slot, direction) = match completion.transfer {
                Transfer::Read(slot) => (slot, Direction::Read),
                Transfer::Write(reader) => {
                    let slot =
                        reader.try_into_slot().map_err(|_| "a slot that was written has another reader")?;
                    (slot, Direction::Write)
                }
                _ => return Err("a completion of something that was not asked for".into()),
            };
            match next(Some(direction)) {
                Some(direction) => {
                    self.push(slot, direction);
                    in_flight += 1;
                }
                None => home.push(slot),
            }
        }
        Ok(home)
    }

    fn push(&mut self, slot: Slot, direction: Direction) {
        let reads = direction == Direction::Read;
        let next = if reads { &mut self.next_read } else { &mut self.next_write };
        let offset = *next;
        let after = offset + self.block_bytes;
        *next = if after + self.block_bytes > FILE_BYTES { 0 } else { after };
        let transfer = if reads { Transfer::Read(slot) } else { Transfer::Write(slot.share()) };
        let ranges = vec![FileRange { file: self.file, offset, bytes: self.block_bytes, buffer_offset: 0 }];
        self.next_id += 1;
        self.io.push(Request { id: self.next_id, priority: Priority::Demand, ranges, transfer });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_have_rates() {
        let folder = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        let paths = ["first", "second"].map(|name| folder.path().join(name));
        paths.iter().for_each(|path| std::fs::create_dir(path).unwrap());
        let rates = measure(&paths, &Config::default(), &Interrupt::default()).unwrap();
        for rate in [rates.read, rates.write, rates.mixed_read, rates.mixed_write, rates.copy] {
            assert!(rate > 0.0 && rate.is_finite(), "{rates:?}");
        }
        assert_eq!(rates.mean(rates), rates);
    }
}
