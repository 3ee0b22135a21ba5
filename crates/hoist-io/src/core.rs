//! What both backends share: requests, files, and the table of blocks that the kernel has.

use crate::block::{Failure, Next, Progress};
use crate::bounce::Bounces;
use crate::config::ALIGNMENT_BYTES;
use crate::cut::{Cut, Memory};
use crate::error::Operation;
use crate::faults::{BlockFaults, Faults, Meeting};
use crate::files::Files;
use crate::requests::{Key, Requests};
use crate::{Config, Error, FileOp, FileReply, Obtained, Request, Transfer};
use hoist_memory::Slab;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// A block that was started and has not ended.
struct Block {
    key: Key,
    cut: Cut,
    progress: Progress,
}

impl Block {
    fn new(key: Key, cut: Cut, alignment_bytes: u64) -> Block {
        let progress = Progress::new(cut.operation, on_drive(&cut).1, alignment_bytes);
        let progress = match cut.memory {
            Memory::Bounce { .. } => progress.with_enough(cut.offset % ALIGNMENT_BYTES + cut.bytes),
            Memory::Run { .. } | Memory::None => progress,
        };
        Block { key, cut, progress }
    }
}

/// Where in the file a block is moved, and how many bytes: whole sectors where it goes through memory for them.
fn on_drive(cut: &Cut) -> (u64, u64) {
    match cut.memory {
        Memory::Bounce { .. } => {
            let offset = cut.offset - cut.offset % ALIGNMENT_BYTES;
            (offset, (cut.offset + cut.bytes).next_multiple_of(ALIGNMENT_BYTES) - offset)
        }
        Memory::Run { .. } | Memory::None => (cut.offset, cut.bytes),
    }
}

/// What to hand to the kernel: all numbers, no borrow. The request in the table owns the memory behind `address`, and
/// the file cannot be closed, until the block's result has been given to [`Core::on_result`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The place in the block table, to be returned with the result.
    pub(crate) block: usize,
    pub(crate) operation: Operation,
    pub(crate) fd: RawFd,
    /// The file's place in the ring's table, which stands for `fd` where there is one.
    pub(crate) place: Option<u32>,
    pub(crate) offset: u64,
    pub(crate) address: usize,
    pub(crate) bytes: u64,
    pub(crate) piece: Option<u32>,
}

pub(crate) struct Core {
    pub(crate) requests: Requests,
    pub(crate) obtained: Obtained,
    pub(crate) files: Files,
    blocks: Vec<Option<Block>>,
    free: Vec<usize>,
    /// Places that are used: fewer than there are once blocks go through memory for them.
    places: usize,
    /// Blocks to be handed over once more, before any new one: they have begun.
    again: VecDeque<usize>,
    in_flight: usize,
    bounces: Bounces,
    /// What goes wrong on purpose.
    faults: Option<BlockFaults>,
}

impl Core {
    pub(crate) fn new(
        config: &Config,
        slab: &Arc<Slab>,
        obtained: Obtained,
        faults: Option<&Faults>,
    ) -> Core {
        let depth = obtained.queue_depth as usize;
        Core {
            requests: Requests::new(config.block_size),
            obtained,
            files: Files::default(),
            blocks: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            places: depth,
            again: VecDeque::with_capacity(depth),
            in_flight: 0,
            bounces: Bounces::new(slab),
            faults: faults.map(|faults| BlockFaults::new(faults, depth)),
        }
    }

    /// Blocks that the kernel has.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn push(&mut self, request: Request) {
        let refused = self.check(&request).err();
        self.requests.push(request, refused);
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        if let Transfer::Sync(file) = request.transfer {
            return self.files.get(file).map(|_| ());
        }
        let capacity_bytes = request.transfer.capacity_bytes();
        let writes = matches!(request.transfer, Transfer::Write(_) | Transfer::WriteBuffer(_));
        for range in &request.ranges {
            let file = self.files.get(range.file)?;
            if writes && file.is_read {
                return Err(Error::ReadOnly { path: Arc::clone(file.path()) });
            }
            // What others fill meanwhile is not ours to copy into.
            if file.bounced && matches!(request.transfer, Transfer::Fill(_)) {
                return Err(Error::SharedMemory { path: Arc::clone(file.path()) });
            }
            file.check(range, capacity_bytes)?;
        }
        Ok(())
    }

    /// The next part to hand over, unless the depth is reached.
    pub(crate) fn next_part(&mut self) -> Option<Part> {
        loop {
            let (part, cut) = self.next_whole_part()?;
            let Some(faults) = &mut self.faults else { return Some(part) };
            match faults.meet(part, self.files.used(cut.file)) {
                Meeting::HandOver(part) => return Some(part),
                Meeting::Answer(result) => self.settle(part.block, result, Instant::now()),
            }
        }
    }

    fn next_whole_part(&mut self) -> Option<(Part, Cut)> {
        let place = match self.again.pop_front() {
            Some(place) => place,
            None => self.start_block()?,
        };
        self.in_flight += 1;
        let block = self.blocks[place].as_ref().unwrap_or_else(|| panic!("block {place} is not under way"));
        let (cut, done_bytes) = (block.cut, block.progress.done_bytes());
        let file = self.files.used(cut.file);
        let (address, piece) = match cut.memory {
            Memory::Run { address, piece } => (address, piece),
            Memory::Bounce { .. } => self.bounces.memory(place),
            Memory::None => (0, None),
        };
        let (offset, bytes) = on_drive(&cut);
        let part = Part {
            block: place,
            operation: cut.operation,
            fd: file.raw(),
            place: file.place,
            offset: offset + done_bytes,
            address: address + done_bytes as usize,
            bytes: bytes - done_bytes,
            piece,
        };
        Some((part, cut))
    }

    fn start_block(&mut self) -> Option<usize> {
        let place = self.free.pop()?;
        let (files, bounces) = (&self.files, &self.bounces);
        let bounce_bytes = |file| files.used(file).bounced.then_some(bounces.each_bytes());
        let Some((key, cut)) = self.requests.next_block(bounce_bytes) else {
            self.free.push(place);
            return None;
        };
        let file = self.files.used(cut.file);
        let alignment_bytes = if file.aligned || file.bounced { ALIGNMENT_BYTES } else { 1 };
        self.blocks[place] = Some(Block::new(key, cut, alignment_bytes));
        Some(place)
    }

    /// Takes what the kernel returned for a part: bytes, or minus an errno. `now` is the same for results that are taken
    /// together: a look at the clock for each is a part of what a small block costs.
    pub(crate) fn on_result(&mut self, place: usize, result: i32, now: Instant) {
        let result = self.faults.as_mut().map_or(result, |faults| faults.on_result(place, result));
        self.settle(place, result, now);
    }

    fn settle(&mut self, place: usize, result: i32, now: Instant) {
        assert!(self.in_flight > 0, "a result for block {place}, but nothing is in flight");
        self.in_flight -= 1;
        let block = self.blocks[place].as_mut().unwrap_or_else(|| panic!("block {place} is not under way"));
        let result = match block.progress.on_result(result) {
            Next::Again => return self.again.push_back(place),
            Next::Done => Ok(()),
            Next::Failed(failure) => Err(failure),
        };
        let Some(Block { key, cut, .. }) = self.blocks[place].take() else { return };
        self.give_back(place);
        let file = self.files.used(cut.file);
        let result = match result {
            Ok(()) => {
                file.forget_cached(&cut);
                if let Memory::Bounce { buffer_offset } = cut.memory {
                    let skip = (cut.offset % ALIGNMENT_BYTES) as usize;
                    let bytes = &self.bounces.bytes(place)[skip..][..cut.bytes as usize];
                    self.requests.put(key, buffer_offset, bytes);
                }
                Ok(())
            }
            Err(failure) => Err(describe(failure, &cut, file.path())),
        };
        self.requests.block_done(key, result, now);
    }

    /// Takes a part back that the kernel has not seen, as the ring failed before.
    pub(crate) fn take_back(&mut self, place: usize, error: Error) {
        self.in_flight -= 1;
        self.end_block(place, error);
    }

    /// Ends the blocks that have begun and that the kernel does not have: they will not be handed over again.
    pub(crate) fn end_again(&mut self, error: impl Fn() -> Error) {
        while let Some(place) = self.again.pop_front() {
            self.end_block(place, error());
        }
    }

    fn give_back(&mut self, place: usize) {
        if place < self.places {
            self.free.push(place);
        }
    }

    fn end_block(&mut self, place: usize, error: Error) {
        let block = self.blocks[place].take();
        let Block { key, .. } = block.unwrap_or_else(|| panic!("block {place} is not under way"));
        self.give_back(place);
        self.requests.block_done(key, Err(error), Instant::now());
    }

    /// Whether a part could be handed over or is in flight.
    pub(crate) fn busy(&self) -> bool {
        !self.requests.all_done()
    }

    /// Starts no further block: what is queued comes back, what is in flight comes back when it ends.
    pub(crate) fn abandon_all(&mut self) {
        self.requests.abandon_all();
    }

    pub(crate) fn file(&mut self, op: FileOp) -> Result<FileReply, Error> {
        if let FileOp::Close(file) = op {
            let requests = self.requests.using(file);
            if requests > 0 {
                let path = self.files.get(file)?.path().clone();
                return Err(Error::FileInUse { path, requests });
            }
        }
        let reply = self.files.execute(op, &mut self.obtained)?;
        if let FileReply::Opened { file, .. } = reply
            && self.files.used(file).bounced
            && let Err(error) = self.prepare_bounces()
        {
            self.files.execute(FileOp::Close(file), &mut self.obtained)?;
            return Err(error);
        }
        Ok(reply)
    }

    /// Takes memory for the blocks of sources, one for each that is under way at a time: fewer from now on, where there is
    /// not so much.
    fn prepare_bounces(&mut self) -> Result<(), Error> {
        let places = self.bounces.prepare(self.blocks.len(), self.requests.block_bytes())?;
        // Those of blocks that are under way are left out when these end.
        self.places = self.places.min(places);
        self.free.retain(|place| *place < places);
        self.obtained.queue_depth = self.obtained.queue_depth.min(places as u32);
        self.obtained.bounce_bytes = self.bounces.all_bytes();
        Ok(())
    }
}

fn describe(failure: Failure, cut: &Cut, path: &Arc<Path>) -> Error {
    let (path, offset, bytes, operation) = (path.clone(), cut.offset, cut.bytes, cut.operation);
    match failure {
        Failure::Errno { errno, attempts } => {
            let source = io::Error::from_raw_os_error(errno);
            Error::Transfer { operation, path, offset, bytes, attempts, source }
        }
        Failure::EndOfFile { missing_bytes } => Error::EndOfFile { path, offset, bytes, missing_bytes },
        Failure::Stuck { done_bytes, attempts } => Error::Stuck { path, offset, bytes, done_bytes, attempts },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Completion, FileRange, Priority};
    use hoist_memory::AlignedBuffer;
    use std::time::Duration;

    /// A core of depth 2 with 8 KiB blocks, a direct file, and a read of 20 KiB of it at 4096 pushed.
    fn core(folder: &tempfile::TempDir) -> (Core, usize) {
        let config = Config { block_size: 8192, queue_depth: 2, ..Config::default() };
        let slab = Slab::map(&hoist_memory::Config { budget_bytes: 1 << 20, ..Default::default() }).unwrap();
        let mut core = Core::new(&config, &slab, Obtained { queue_depth: 2, ..Obtained::default() }, None);
        let open = FileOp::Open { path: folder.path().join("data"), create: true, direct: true };
        let file = core.file(open).unwrap().file();
        let buffer = AlignedBuffer::new(24576).unwrap();
        let memory = buffer.spans(4096, 1).next().unwrap().address;
        let ranges = vec![FileRange { file, offset: 4096, bytes: 20480, buffer_offset: 4096 }];
        let transfer = Transfer::ReadBuffer(buffer);
        core.push(Request { id: 1, priority: Priority::Demand, ranges, transfer });
        (core, memory)
    }

    fn result(core: &mut Core) -> Option<Completion> {
        let mut done = Vec::new();
        core.requests.take_finished(&mut done);
        done.pop()
    }

    #[test]
    fn a_short_block_goes_on_where_it_stopped_before_a_new_one_begins() {
        let folder = tempfile::tempdir().unwrap();
        let (mut core, memory) = core(&folder);
        let place = |part: &Part| (part.offset, part.address - memory, part.bytes);
        let first = core.next_part().unwrap();
        let second = core.next_part().unwrap();
        assert_eq!((place(&first), place(&second)), ((4096, 0, 8192), (12288, 8192, 8192)));
        assert!(core.next_part().is_none(), "the depth is 2");
        core.on_result(second.block, 8192, Instant::now());
        core.on_result(first.block, 5000, Instant::now());
        let rest = core.next_part().unwrap();
        assert_eq!((rest.block, place(&rest)), (first.block, (8192, 4096, 4096)));
        let third = core.next_part().unwrap();
        assert_eq!(place(&third), (20480, 16384, 4096));
        core.on_result(third.block, 4096, Instant::now());
        assert!(result(&mut core).is_none() && core.busy());
        core.on_result(rest.block, 4096, Instant::now());
        assert!(result(&mut core).unwrap().result.is_ok());
        assert!(!core.busy() && core.in_flight() == 0);
    }

    #[test]
    fn an_error_stops_its_request_and_names_the_block() {
        let folder = tempfile::tempdir().unwrap();
        let (mut core, _) = core(&folder);
        let first = core.next_part().unwrap();
        let second = core.next_part().unwrap();
        core.on_result(first.block, -libc::EIO, Instant::now());
        assert!(core.next_part().is_none(), "no further block of a request that failed");
        assert!(result(&mut core).is_none(), "a block is still in flight");
        core.on_result(second.block, 8192, Instant::now());
        let error = result(&mut core).unwrap().result.unwrap_err();
        let Error::Transfer { operation: Operation::Read, path, offset, bytes, source, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((*offset, *bytes, source.raw_os_error()), (4096, 8192, Some(libc::EIO)));
        assert_eq!(**path, *folder.path().join("data"));
    }

    #[test]
    fn a_request_has_taken_as_long_as_its_last_result_says() {
        let folder = tempfile::tempdir().unwrap();
        let (mut core, _) = core(&folder);
        let late = Instant::now() + Duration::from_secs(1000);
        while let Some(part) = core.next_part() {
            core.on_result(part.block, part.bytes as i32, late);
        }
        let seconds_ns = result(&mut core).unwrap().seconds_ns;
        assert!((1_000_000_000_000..1_001_000_000_000).contains(&seconds_ns), "{seconds_ns}");
    }
}
