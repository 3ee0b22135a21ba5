//! What tools read, compared with its checksums.

use crate::{BlockingStore, Error, Span, verify_touched};
use hoist_memory::Slot;

impl BlockingStore {
    /// The bytes of a tensor, verified: for small ones and for tests, as all of them are in memory.
    ///
    /// # Errors
    /// Those of [`Store::read`], [`Error::Corrupt`].
    pub fn tensor_bytes(&mut self, tensor: crate::TensorId) -> Result<Vec<u8>, Error> {
        let info = &self.store.tensors()[tensor.0 as usize];
        let (from, to) = (info.offset, info.offset + info.bytes);
        let mut bytes = Vec::with_capacity(info.bytes as usize);
        let spans: Vec<_> = self.chunks(self.store.covering(tensor))?.collect();
        self.read_each(spans.into_iter(), |this, span, slot| {
            let slot = slot?;
            this.check(&span, &slot)?;
            for_overlap(slot.parts(), span.offset, from, to, |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })
        })?;
        Ok(bytes)
    }

    /// Compares what was read with its checksums; those that nobody knew are known from then on.
    pub(crate) fn check(&mut self, span: &Span, slot: &Slot) -> Result<(), Error> {
        match self.check_blocks(span, slot, false)?.first() {
            None => Ok(()),
            Some(block) => {
                let what = self.store.describe(&self.store.block(span, *block));
                Err(Error::Corrupt { what })
            }
        }
    }

    /// The same of the newest bytes, or of what sources have; the numbers of the blocks of `span` that are not what they
    /// should be.
    ///
    /// # Errors
    /// [`Error::NoBytes`], [`Error::SourceChanged`].
    pub(crate) fn check_blocks(
        &mut self,
        span: &Span,
        slot: &Slot,
        in_sources: bool,
    ) -> Result<Vec<usize>, Error> {
        let mut expected = std::mem::take(&mut self.sums);
        expected.clear();
        let unknown = match in_sources {
            true => Some(self.store.expected_of_sources(span, &mut expected)),
            false => self.store.expected(span, &mut expected),
        };
        let unknown = unknown.ok_or_else(|| self.store.no_bytes(*span))?;
        let verified = match verify_touched(&mut expected, &unknown, slot.parts()) {
            Ok(()) => self.store.touch(span, &unknown, &expected),
            Err(bad) => Ok(bad),
        };
        self.sums = expected;
        verified
    }
}

/// Calls `take` with those parts of `parts`, whose first byte is at `start`, that lie in `from..to`.
pub(crate) fn for_overlap<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    start: u64,
    from: u64,
    to: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut at = start;
    for part in parts {
        let end = at + part.len() as u64;
        if at < to && from < end {
            take(&part[(from.max(at) - at) as usize..(to.min(end) - at) as usize])?;
        }
        at = end;
    }
    Ok(())
}
