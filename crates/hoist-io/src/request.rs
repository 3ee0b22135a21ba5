//! What is asked of a backend and what it answers.

use crate::Error;
use hoist_memory::{AlignedBuffer, MemorySpan, Slot, SlotFiller, SlotReader};

/// The caller's name for a request, unique among those that have not come back.
pub type RequestId = u64;

/// What passes what: strictly in this order, first in first out inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A trainer waits for it.
    Demand,
    /// A trainer will want it.
    Prefetch,
    /// It makes room.
    WriteBack,
}

/// An open file of one backend. Never used again after it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// A run of a file and the run of the request's memory that it is moved to or from. On a file opened for direct I/O
/// all three numbers are multiples of 4096, unless it is a source ([`crate::FileOp::OpenSource`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// The file.
    pub file: FileId,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Where in the memory, in bytes.
    pub buffer_offset: u64,
}

/// What is to be done, with the memory that the kernel owns while it is being done.
#[derive(Debug)]
pub enum Transfer {
    /// Fill a slot from the ranges.
    Read(Slot),
    /// Fill a part of a slot from the ranges, while others fill the rest of it from other drives.
    Fill(SlotFiller),
    /// Write a slot to the ranges.
    Write(SlotReader),
    /// Fill a buffer from the ranges.
    ReadBuffer(AlignedBuffer),
    /// Write a buffer to the ranges.
    WriteBuffer(AlignedBuffer),
    /// fdatasync: what was written to the file, by requests that have completed, is on the drive when this is done.
    /// The request has no ranges.
    Sync(FileId),
}

/// Something to do.
#[derive(Debug)]
pub struct Request {
    /// The caller's name for it.
    pub id: RequestId,
    /// What it passes and what passes it.
    pub priority: Priority,
    /// What to move, in any number of runs: those that continue each other, in the file and in memory, move as one. None
    /// for [`Transfer::Sync`]. Comes back for reuse.
    pub ranges: Vec<FileRange>,
    /// The direction and the memory.
    pub transfer: Transfer,
}

/// Something that was done, or not.
#[derive(Debug)]
pub struct Completion {
    /// The request's name.
    pub id: RequestId,
    /// The request's memory. After [`Error::Stopped`] it may be an empty slot or another buffer: then the drive may still
    /// have the memory, which is leaked rather than given back.
    pub transfer: Transfer,
    /// The request's ranges, to be used again; none when the memory is not the request's.
    pub ranges: Vec<FileRange>,
    /// Whether all of it was done. After an error the memory of a read holds anything, and so do the ranges of a
    /// write.
    pub result: Result<(), Error>,
    /// From push to done, in nanoseconds; 0 when an I/O thread answered for its backend.
    pub seconds_ns: u64,
}

impl Transfer {
    /// Bytes that ranges may use.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        let padded = |bytes: u64| bytes.next_multiple_of(hoist_memory::SECTOR_BYTES as u64);
        match self {
            Transfer::Read(slot) => padded(slot.bytes()),
            Transfer::Fill(filler) => padded(filler.bytes()),
            Transfer::Write(reader) => padded(reader.bytes()),
            Transfer::ReadBuffer(buffer) | Transfer::WriteBuffer(buffer) => buffer.len() as u64,
            Transfer::Sync(_) => 0,
        }
    }

    /// Puts bytes that were read elsewhere into the memory, from `offset` on.
    pub(crate) fn put(&mut self, offset: u64, bytes: &[u8]) {
        match self {
            Transfer::Read(slot) => slot.put(offset, bytes),
            Transfer::ReadBuffer(buffer) => {
                buffer[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            }
            Transfer::Fill(_) | Transfer::Write(_) | Transfer::WriteBuffer(_) | Transfer::Sync(_) => {
                unreachable!("{self:?} is nothing to copy into")
            }
        }
    }

    /// The first run of memory of `bytes` from `offset` on; the caller has checked the capacity.
    pub(crate) fn first_span(&self, offset: u64, bytes: u64) -> Option<MemorySpan> {
        match self {
            Transfer::Read(slot) => slot.spans(offset, bytes).next(),
            Transfer::Fill(filler) => filler.spans(offset, bytes).next(),
            Transfer::Write(reader) => reader.spans(offset, bytes).next(),
            Transfer::ReadBuffer(buffer) | Transfer::WriteBuffer(buffer) => {
                buffer.spans(offset, bytes).next()
            }
            Transfer::Sync(_) => None,
        }
    }
}
