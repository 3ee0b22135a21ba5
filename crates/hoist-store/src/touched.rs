//! What is known of bytes outside the store: the checksums of their first read.

use crate::contents::blocks_of;
use crate::{Error, RunId, Span, Store};
use hoist_format::{CHECKSUM_BYTES, TouchRecord};
use std::collections::BTreeMap;

/// Checksums of what lies in sources, as it was when it was read first, by block. They are of no epoch: the files do not
/// change. By block alone, as a journal may name any.
#[derive(Default, Clone)]
pub(crate) struct Touched {
    checksums: BTreeMap<(RunId, u64), u64>,
}

impl Touched {
    pub fn is_empty(&self) -> bool {
        self.checksums.is_empty()
    }

    /// The checksum of a block of a run, if it is known.
    pub fn get(&self, run: RunId, block: u64) -> Option<u64> {
        self.checksums.get(&(run, block)).copied()
    }

    /// Learns the checksum of a block.
    pub fn set(&mut self, run: RunId, block: u64, checksum: u64) {
        self.checksums.insert((run, block), checksum);
    }

    /// Learns what another knows.
    pub fn extend(&mut self, other: &Touched) {
        self.checksums.extend(other.checksums.iter().map(|(place, checksum)| (*place, *checksum)));
    }

    /// All that is known, a record for each row of at most so many blocks.
    pub fn records(&self, blocks_max: usize) -> Vec<TouchRecord> {
        let mut records: Vec<TouchRecord> = Vec::new();
        for ((run, block), checksum) in &self.checksums {
            let offset = block * CHECKSUM_BYTES;
            let end = |last: &TouchRecord| last.offset + last.checksums.len() as u64 * CHECKSUM_BYTES;
            match records.last_mut() {
                Some(last)
                    if (last.run, end(last)) == (run.0, offset) && last.checksums.len() < blocks_max =>
                {
                    last.checksums.push(*checksum);
                }
                _ => records.push(TouchRecord { run: run.0, offset, checksums: vec![*checksum] }),
            }
        }
        records
    }
}

impl Store {
    /// Appends what the checksums of the newest bytes of `span` should be, one per 256 KiB, to `checksums`: 0 for those
    /// that nobody knows yet, since they lie in a source and were never read; their numbers in the span are the answer.
    /// `None`, and nothing appended, when not all of `span` has bytes.
    pub fn expected(&self, span: &Span, checksums: &mut Vec<u64>) -> Option<Vec<usize>> {
        if !self.has_bytes(span) {
            return None;
        }
        if let Some(known) = self.contents.checksums(span) {
            checksums.extend_from_slice(known);
            return Some(Vec::new());
        }
        let bytes = &self.contents.bytes[span.run.0 as usize];
        Some(self.append_known(span, checksums, |block| {
            let offset = block as u64 * CHECKSUM_BYTES;
            let own = bytes.locations.extents(offset, offset + 1).next();
            own.map(|_| bytes.checksums[block])
        }))
    }

    /// The same of what sources have, whatever the newest epoch has.
    pub(crate) fn expected_of_sources(&self, span: &Span, checksums: &mut Vec<u64>) -> Vec<usize> {
        self.append_known(span, checksums, |_| None)
    }

    fn append_known(
        &self,
        span: &Span,
        checksums: &mut Vec<u64>,
        own: impl Fn(usize) -> Option<u64>,
    ) -> Vec<usize> {
        let mut unknown = Vec::new();
        for (number, block) in blocks_of(span).enumerate() {
            let checksum = own(block).or_else(|| self.contents.touched.get(span.run, block as u64));
            checksums.push(checksum.unwrap_or(0));
            if checksum.is_none() {
                unknown.push(number);
            }
        }
        unknown
    }

    /// Learns the checksums of those blocks of `span` that [`Store::expected`] did not know, from the first read of
    /// them, which has begun after the last rollback; `checksums` are the span's. They are durable with the next commit,
    /// or when the store is closed. The answer are the blocks that another read has found otherwise meanwhile.
    ///
    /// # Errors
    /// [`Error::SourceChanged`]: a file is not what it was, so what was read of it is not believed.
    pub fn touch(&mut self, span: &Span, unknown: &[usize], checksums: &[u64]) -> Result<Vec<usize>, Error> {
        let (Some(first), Some(last)) = (unknown.first(), unknown.last()) else { return Ok(Vec::new()) };
        let start = blocks_of(span).start;
        let offset = |number: usize| (start + number) as u64 * CHECKSUM_BYTES;
        if let Some(open) = &self.sources {
            let records = &self.contents.layout.sources.files;
            let mut checked = None;
            for source in self.sources_of(span.run, offset(*first), offset(last + 1)) {
                if checked.replace(source) != Some(source) {
                    open.check(source, &records[source as usize])?;
                }
            }
        }
        let mut changed = Vec::new();
        for number in unknown.iter().copied() {
            let (block, checksum) = ((start + number) as u64, checksums[number]);
            match self.contents.touched.get(span.run, block) {
                Some(known) if known != checksum => changed.push(number),
                Some(_) => {}
                None => {
                    self.contents.touched.set(span.run, block, checksum);
                    self.unsaved_touches.set(span.run, block, checksum);
                }
            }
        }
        Ok(changed)
    }
}
