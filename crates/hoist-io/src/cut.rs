//! Planning a request's blocks: its ranges, cut where they are too long and merged where they continue each other. Pure.

use crate::config::ALIGNMENT_BYTES;
use crate::error::Operation;
use crate::{FileId, FileRange, Transfer};

/// A block: one run of a file, no longer than `block_size`, and its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) operation: Operation,
    pub(crate) file: FileId,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) memory: Memory,
}

/// Where the bytes of a block are moved to or from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// One run of memory, inside one piece of the slab.
    Run { address: usize, piece: Option<u32> },
    /// Memory of the backend's, and then to here in the request's.
    Bounce { buffer_offset: u64 },
    /// Nothing is moved.
    None,
}

/// How much of a request has been cut.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    range: usize,
    done_bytes: u64,
}

impl Cursor {
    /// Whether nothing is left to cut. Empty ranges are nothing.
    pub(crate) fn at_end(&self, ranges: &[FileRange], transfer: &Transfer) -> bool {
        if let Transfer::Sync(_) = transfer {
            return self.range > 0;
        }
        ranges.get(self.range..).unwrap_or_default().iter().all(|range| range.bytes == 0)
    }

    /// The next block, as long as the rules allow; None at the end. No byte is in it that no range names. Of a file for
    /// which `bounce_bytes` says so, a block and the sectors that it begins and ends in are no longer than that.
    pub(crate) fn next(
        &mut self,
        ranges: &[FileRange],
        transfer: &Transfer,
        block_bytes: u64,
        bounce_bytes: impl Fn(FileId) -> Option<u64>,
    ) -> Option<Cut> {
        let operation = match transfer {
            Transfer::Sync(file) => return self.sync(*file),
            Transfer::Read(_) | Transfer::Fill(_) | Transfer::ReadBuffer(_) => Operation::Read,
            Transfer::Write(_) | Transfer::WriteBuffer(_) => Operation::Write,
        };
        self.advance(ranges, 0);
        let bounce_bytes = bounce_bytes(ranges.get(self.range)?.file);
        let run = self.find_run(ranges, bounce_bytes.unwrap_or(block_bytes))?;
        let FileRange { file, offset, bytes, buffer_offset } = run;
        if let Some(limit) = bounce_bytes {
            let bytes = bytes.min(limit - offset % ALIGNMENT_BYTES);
            self.advance(ranges, bytes);
            return Some(Cut { operation, file, offset, bytes, memory: Memory::Bounce { buffer_offset } });
        }
        let span = transfer.first_span(buffer_offset, bytes);
        let span = span.unwrap_or_else(|| panic!("no memory for {run:?}"));
        let bytes = span.bytes as u64;
        self.advance(ranges, bytes);
        let memory = Memory::Run { address: span.address, piece: span.piece };
        Some(Cut { operation, file, offset, bytes, memory })
    }

    /// What is left of the range at hand, with those behind it that go on where it ends, in the file and in memory, as
    /// far as one block reaches.
    fn find_run(&self, ranges: &[FileRange], block_bytes: u64) -> Option<FileRange> {
        let (first, rest) = ranges.get(self.range..)?.split_first()?;
        let mut run = FileRange {
            offset: first.offset + self.done_bytes,
            bytes: first.bytes - self.done_bytes,
            buffer_offset: first.buffer_offset + self.done_bytes,
            ..*first
        };
        for range in rest.iter().filter(|range| range.bytes > 0) {
            let continues = range.file == run.file
                && range.offset == run.offset + run.bytes
                && range.buffer_offset == run.buffer_offset + run.bytes;
            if run.bytes >= block_bytes || !continues {
                break;
            }
            run.bytes += range.bytes;
        }
        run.bytes = run.bytes.min(block_bytes);
        Some(run)
    }

    /// Goes on by so many bytes, and past empty ranges to where the next block begins.
    fn advance(&mut self, ranges: &[FileRange], bytes: u64) {
        self.done_bytes += bytes;
        while let Some(range) = ranges.get(self.range)
            && range.bytes <= self.done_bytes
        {
            self.range += 1;
            self.done_bytes -= range.bytes;
        }
    }

    fn sync(&mut self, file: FileId) -> Option<Cut> {
        self.range += 1;
        (self.range == 1).then_some(Cut {
            operation: Operation::Sync,
            file,
            offset: 0,
            bytes: 0,
            memory: Memory::None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoist_memory::{Config, Slab};
    use proptest::prelude::*;
    use std::sync::Arc;

    const SECTOR: u64 = 4096;

    /// How a range follows the one before it.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Continues,
        SkipsInFile,
        SkipsInMemory,
        OtherFile,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Continues),
            1 => Just(Step::SkipsInFile),
            1 => Just(Step::SkipsInMemory),
            1 => Just(Step::OtherFile),
        ]
    }

    /// A sector of a range, with the memory that belongs to it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Sector {
        file: FileId,
        offset: u64,
        buffer_offset: u64,
        address: usize,
        piece: Option<u32>,
    }

    impl Sector {
        /// Whether one block may hold this sector and the next.
        fn leads_to(&self, next: &Sector) -> bool {
            (self.file, self.piece) == (next.file, next.piece)
                && self.offset + SECTOR == next.offset
                && self.buffer_offset + SECTOR == next.buffer_offset
                && self.address + SECTOR as usize == next.address
        }
    }

    fn ranges(steps: &[(Step, u64)]) -> Vec<FileRange> {
        let mut at = FileRange { file: FileId(0), offset: 1 << 20, bytes: 0, buffer_offset: 0 };
        steps
            .iter()
            .map(|(step, sectors)| {
                at.offset += at.bytes;
                at.buffer_offset += at.bytes;
                match step {
                    Step::Continues => {}
                    Step::SkipsInFile => at.offset += SECTOR,
                    Step::SkipsInMemory => at.buffer_offset += SECTOR,
                    Step::OtherFile => at.file = FileId(at.file.0 + 1),
                }
                at.bytes = sectors * SECTOR;
                at
            })
            .collect()
    }

    fn sectors(ranges: &[FileRange], transfer: &Transfer) -> Vec<Sector> {
        let all = ranges.iter().flat_map(|range| (0..range.bytes).step_by(4096).map(move |at| (range, at)));
        all.map(|(range, at)| {
            let buffer_offset = range.buffer_offset + at;
            let span = transfer.first_span(buffer_offset, SECTOR).unwrap();
            let (address, piece) = (span.address, span.piece);
            Sector { file: range.file, offset: range.offset + at, buffer_offset, address, piece }
        })
        .collect()
    }

    /// Of two pieces, the second of them not whole. With what else of it is held when neighbours in a slot are not to be
    /// neighbours in memory.
    fn slab(scatter: bool) -> (Arc<Slab>, Vec<hoist_memory::Slot>) {
        let config = Config { budget_bytes: 4 << 20, page_bytes: 16384, piece_bytes: 2 << 20 };
        let slab = Slab::map(&config).unwrap();
        let mut held = Vec::new();
        if scatter {
            held = (0..slab.pages()).map(|_| slab.allocate(1).unwrap()).collect();
            // Pages of each end by turns; some neighbours stay together.
            while held.len() > 4 {
                held.drain(..2);
                held.pop();
            }
        }
        (slab, held)
    }

    proptest! {
        /// The blocks of a request are its ranges: each byte once, in order, no other one; none too long, off the
        /// alignment or across a piece; and none that could have been one with the next.
        #[test]
        fn blocks_are_the_ranges_and_as_few_as_may_be(
            steps in proptest::collection::vec((step(), 0..40u64), 0..12),
            block_sectors in 1..60u64,
            scatter in any::<bool>(),
        ) {
            let (slab, held) = slab(scatter);
            let ranges = ranges(&steps);
            let capacity_bytes = ranges.last().map_or(0, |range| range.buffer_offset + range.bytes);
            let transfer = Transfer::Read(slab.allocate(capacity_bytes).unwrap());
            let expected = sectors(&ranges, &transfer);
            let mut cursor = Cursor::default();
            let (mut found, mut last) = (0, None);
            prop_assert_eq!(cursor.at_end(&ranges, &transfer), expected.is_empty());
            while let Some(cut) = cursor.next(&ranges, &transfer, block_sectors * SECTOR, |_| None) {
                let Memory::Run { address, piece } = cut.memory else { panic!("{cut:?} has no memory") };
                prop_assert!(cut.bytes > 0 && cut.bytes <= block_sectors * SECTOR);
                prop_assert!((cut.offset | cut.bytes | address as u64).is_multiple_of(SECTOR));
                let sectors = (cut.bytes / SECTOR) as usize;
                prop_assert!(found + sectors <= expected.len(), "{cut:?} moves what no range names");
                for (sector, at) in expected[found..found + sectors].iter().zip((0..).step_by(4096)) {
                    prop_assert_eq!((sector.file, sector.offset), (cut.file, cut.offset + at));
                    prop_assert_eq!((sector.address, sector.piece), (address + at as usize, piece));
                }
                if let Some(before_bytes) = last.replace(cut.bytes) {
                    let may_be_one = expected[found - 1].leads_to(&expected[found]);
                    prop_assert!(!may_be_one || before_bytes + cut.bytes > block_sectors * SECTOR, "{cut:?}");
                }
                found += sectors;
                prop_assert_eq!(cursor.at_end(&ranges, &transfer), found == expected.len());
            }
            prop_assert_eq!(found, expected.len());
            drop(held);
        }
    }

    #[test]
    fn ranges_that_continue_each_other_are_one_block() {
        let (slab, _) = slab(false);
        let transfer = Transfer::Read(slab.allocate(2 << 20).unwrap());
        let small = ranges(&[(Step::Continues, 16); 17]);
        let mut cursor = Cursor::default();
        let mut next = || {
            cursor.next(&small, &transfer, 1 << 20, |_| None).map(|cut| (cut.offset - (1 << 20), cut.bytes))
        };
        assert_eq!([next(), next(), next()], [Some((0, 1 << 20)), Some((1 << 20, 64 << 10)), None]);
    }
}
