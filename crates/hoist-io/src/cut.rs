//! Cutting a request into blocks. Pure.

use crate::error::Operation;
use crate::{FileId, FileRange, Transfer};

/// A block: one run of a file and one run of memory, no longer than `block_size` and inside one piece of the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) operation: Operation,
    pub(crate) file: FileId,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) address: usize,
    pub(crate) piece: Option<u32>,
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

    /// The next block; None at the end.
    pub(crate) fn next(
        &mut self,
        ranges: &[FileRange],
        transfer: &Transfer,
        block_bytes: u64,
    ) -> Option<Cut> {
        let operation = match transfer {
            Transfer::Sync(file) => return self.sync(*file),
            Transfer::Read(_) | Transfer::Fill(_) | Transfer::ReadBuffer(_) => Operation::Read,
            Transfer::Write(_) | Transfer::WriteBuffer(_) => Operation::Write,
        };
        loop {
            let range = ranges.get(self.range)?;
            let bytes = (range.bytes - self.done_bytes).min(block_bytes);
            let Some(span) = transfer.first_span(range.buffer_offset + self.done_bytes, bytes) else {
                assert_eq!(bytes, 0, "no memory for {range:?} from {} on", self.done_bytes);
                *self = Cursor { range: self.range + 1, done_bytes: 0 };
                continue;
            };
            let (file, offset, bytes) = (range.file, range.offset + self.done_bytes, span.bytes as u64);
            self.done_bytes += bytes;
            if self.done_bytes == range.bytes {
                *self = Cursor { range: self.range + 1, done_bytes: 0 };
            }
            return Some(Cut { operation, file, offset, bytes, address: span.address, piece: span.piece });
        }
    }

    fn sync(&mut self, file: FileId) -> Option<Cut> {
        self.range += 1;
        (self.range == 1).then_some(Cut {
            operation: Operation::Sync,
            file,
            offset: 0,
            bytes: 0,
            address: 0,
            piece: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoist_memory::{Config, Slab};
    use proptest::prelude::*;

    proptest! {
        /// The blocks of a request are its ranges, byte for byte, in order, none too long.
        #[test]
        fn blocks_are_the_ranges(
            sectors in proptest::collection::vec(0..40u64, 0..6),
            block_sectors in 1..20u64,
            scatter in any::<bool>(),
        ) {
            let config = Config { budget_bytes: 4 << 20, page_bytes: 16384, piece_bytes: 2 << 20 };
            let slab = Slab::map(&config).unwrap();
            let mut held = Vec::new();
            if scatter {
                // Gives pages back in such an order that neighbours in the slot are not neighbours in memory.
                let mut pages: Vec<_> = (0..slab.pages()).map(|_| slab.allocate(1).unwrap()).collect();
                while pages.len() > 1 {
                    drop(pages.remove(0));
                    drop(pages.pop());
                }
                held = pages;
            }
            let total_bytes = sectors.iter().sum::<u64>() * 4096;
            let transfer = Transfer::Read(slab.allocate(total_bytes).unwrap());
            let mut buffer_offset = 0;
            let mut ranges = Vec::new();
            for (index, count) in sectors.iter().enumerate() {
                let (file, bytes) = (FileId(index as u32), count * 4096);
                ranges.push(FileRange { file, offset: 1 << (20 + index), bytes, buffer_offset });
                buffer_offset += bytes;
            }
            let mut expected = Vec::new();
            for range in &ranges {
                for at in (0..range.bytes).step_by(4096) {
                    let span = transfer.first_span(range.buffer_offset + at, 4096).unwrap();
                    expected.push((range.file, range.offset + at, span.address));
                }
            }
            let mut found = Vec::new();
            let mut cursor = Cursor::default();
            while let Some(cut) = cursor.next(&ranges, &transfer, block_sectors * 4096) {
                prop_assert!(cut.bytes > 0 && cut.bytes <= block_sectors * 4096);
                for at in (0..cut.bytes).step_by(4096) {
                    found.push((cut.file, cut.offset + at, cut.address + at as usize));
                }
                prop_assert_eq!(cursor.at_end(&ranges, &transfer), found.len() == expected.len());
            }
            prop_assert_eq!(found, expected);
            drop(held);
        }
    }
}
