//! Reading ranges of whole tensors from the ranks that have them.

use super::wholes::{Whole, blocks_with};
use super::{RankStores, RanksError};
use crate::blocking_verified::for_overlap;
use crate::spec::elements;
use crate::{BlockingStore, Error, Life, Span, Store, TensorId};
use hoist_format::CHECKSUM_BYTES;
use hoist_memory::Slot;

/// One rank's store, read.
pub(crate) struct Reader {
    store: BlockingStore,
    /// The block that was read last, verified: the next range often begins in it, and small tensors, which are asked for one
    /// by one, lie in it together.
    last: Option<(Span, Vec<u8>)>,
    /// Bytes that were read from its drives.
    pub read_bytes: u64,
}

/// How much of a range has bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    All,
    Some,
    None,
}

impl Written {
    fn and(self, other: Written) -> Written {
        if self == other { self } else { Written::Some }
    }
}

impl Reader {
    pub fn new(mut store: BlockingStore) -> Reader {
        store.share_slab();
        Reader { store, last: None, read_bytes: 0 }
    }

    pub fn store(&self) -> &Store {
        self.store.store()
    }

    pub fn close(self) -> Result<(), Error> {
        self.store.close()
    }

    /// The blocks that hold `from..to` of a tensor, and where that is in the run.
    fn blocks(&self, tensor: TensorId, from: u64, to: u64) -> (Span, u64, u64) {
        let info = &self.store().tensors()[tensor.0 as usize];
        let run_bytes = self.store().runs()[info.run.0 as usize].bytes;
        (blocks_with(info, run_bytes, from, to), info.offset + from, info.offset + to)
    }

    /// How much of `from..to` of a tensor was ever written, by blocks.
    fn written(&self, tensor: TensorId, from: u64, to: u64) -> Written {
        let (span, ..) = self.blocks(tensor, from, to);
        if self.store().has_bytes(&span) {
            return Written::All;
        }
        let blocks = (span.offset..span.end()).step_by(CHECKSUM_BYTES as usize);
        let mut blocks =
            blocks.map(|offset| Span { offset, bytes: CHECKSUM_BYTES.min(span.end() - offset), ..span });
        if blocks.any(|block| self.store().has_bytes(&block)) { Written::Some } else { Written::None }
    }

    /// Reads `from..to` of a tensor, verified, and gives it to `take` piece by piece, in order.
    fn read(
        &mut self,
        tensor: TensorId,
        from: u64,
        to: u64,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        let (mut span, from, to) = self.blocks(tensor, from, to);
        let Reader { store, last, read_bytes } = self;
        if let Some((block, bytes)) =
            last.as_ref().filter(|(block, _)| (block.run, block.offset) == (span.run, span.offset))
        {
            take(&bytes[(from - block.offset) as usize..(to.min(block.end()) - block.offset) as usize]);
            span = Span { offset: block.end(), bytes: span.end() - block.end(), ..span };
        }
        let chunks: Vec<_> = store.chunks(span)?.collect();
        store.read_each(chunks.into_iter(), |store, chunk, slot| {
            let slot = slot?;
            *read_bytes += chunk.bytes;
            store.check(&chunk, &slot)?;
            if chunk.end() == span.end() {
                *last = Some(last_block(&chunk, &slot)?);
            }
            for_overlap(slot.parts(), chunk.offset, from, to, |part| {
                take(part);
                Ok(())
            })
        })
    }
}

/// A copy of the last block of what was read.
fn last_block(chunk: &Span, slot: &Slot) -> Result<(Span, Vec<u8>), Error> {
    let offset = chunk.end().saturating_sub(1) / CHECKSUM_BYTES * CHECKSUM_BYTES;
    let block = Span { run: chunk.run, offset, bytes: chunk.end() - offset };
    let mut bytes = Vec::with_capacity(block.bytes as usize);
    for_overlap(slot.parts(), chunk.offset, block.offset, block.end(), |part| {
        bytes.extend_from_slice(part);
        Ok(())
    })?;
    Ok((block, bytes))
}

impl RankStores {
    /// Reads `count` elements of a durable tensor from element `first` of the whole on into `into`, which is as long as they
    /// are, from whichever ranks have them; blocks. Only the blocks of 256 KiB that hold them are read, and each is
    /// verified. After an error `into` holds anything.
    ///
    /// # Errors
    /// [`Error::Ranks`] when there is no such durable tensor, or the elements or `into` do not fit it;
    /// [`Error::NoBytes`] when some were never written; [`Error::Corrupt`], and what the drives say.
    pub fn read(&mut self, name: &str, first: u64, count: u64, into: &mut [u8]) -> Result<(), Error> {
        let (from, to) = self.range(name, first, count, into.len() as u64)?;
        let mut at = 0;
        self.read_bytes_of(name, from, to, &mut |part| {
            into[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        })
    }

    /// The bytes of the whole that these elements are.
    fn range(&self, name: &str, first: u64, count: u64, into_bytes: u64) -> Result<(u64, u64), RanksError> {
        let bad = |what: String| RanksError::BadRead { tensor: name.to_owned(), first, count, what };
        let Some(Whole { spec, .. }) = self.wholes.get(name) else {
            return Err(bad("there is no such tensor on any rank".into()));
        };
        if spec.life != Life::Durable {
            return Err(bad(format!("it is {}, and epochs do not have it", spec.life.kind().name())));
        }
        let all = elements(&spec.shape).unwrap_or(0);
        let Some(end) = first.checked_add(count).filter(|end| *end <= all) else {
            return Err(bad(format!("it has {all}")));
        };
        // The bits of the whole are counted in 64 bits, so these are.
        let (from, to) = (first * spec.dtype.bits(), end * spec.dtype.bits());
        if !from.is_multiple_of(8) || !to.is_multiple_of(8) {
            return Err(bad(format!("{} elements there are no whole bytes", spec.dtype)));
        }
        if (to - from) / 8 != into_bytes {
            return Err(bad(format!(
                "they have {} bytes, and there is room for {into_bytes}",
                (to - from) / 8
            )));
        }
        Ok((from / 8, to / 8))
    }

    /// Reads bytes of a whole tensor, which are there, in order.
    pub(crate) fn read_bytes_of(
        &mut self,
        name: &str,
        from: u64,
        to: u64,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        let RankStores { ranks, wholes, .. } = self;
        let parts = wholes.get(name).into_iter().flat_map(|whole| whole.parts_in(from, to));
        for (part, from, to) in parts {
            ranks[part.rank as usize].read(part.tensor, from - part.from, to - part.from, take)?;
        }
        Ok(())
    }

    /// How much of a range of a whole tensor was ever written; all, of none.
    pub(crate) fn written(&self, whole: &Whole, from: u64, to: u64) -> Written {
        let parts = whole.parts_in(from, to).map(|(part, from, to)| {
            self.ranks[part.rank as usize].written(part.tensor, from - part.from, to - part.from)
        });
        parts.reduce(Written::and).unwrap_or(Written::All)
    }
}
