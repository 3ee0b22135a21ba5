//! Slots: pages owned by value, by one writer or by counted readers.

use crate::free_pages::NO_PAGE;
use crate::slab::Slab;
use crate::spans::{MemorySpan, Run, Runs};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// A chain of pages and nothing else: what [`Slot`] and [`SlotReader`] have in common.
struct Chain {
    slab: Arc<Slab>,
    first: u32,
    pages: u32,
    bytes: u64,
}

impl Chain {
    fn runs(&self, offset: u64, bytes: u64) -> Runs<'_> {
        let capacity_bytes = Slab::padded(self.bytes);
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= capacity_bytes);
        assert!(inside, "bytes {offset}+{bytes} of a slot of {capacity_bytes}");
        Runs::new(&self.slab, self.first, offset, bytes)
    }

    fn spans(&self, offset: u64, bytes: u64) -> impl Iterator<Item = MemorySpan> {
        self.runs(offset, bytes).map(|run| MemorySpan {
            // The kernel and drivers reach the memory by number, so its provenance is exposed.
            address: self.slab.at(run.offset).expose_provenance(),
            bytes: run.bytes,
            piece: Some(run.piece),
        })
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        // SAFETY: each run lies in pages of this chain, mapped and initialised (by the kernel, with zeros) until the
        // slab is dropped, which `self` prevents. Nobody writes them while `&self` lives: a slot's only writer is its
        // one owner, who is lending it, and a shared chain has no writer.
        self.runs(0, self.bytes).map(|Run { offset, bytes, .. }| unsafe {
            std::slice::from_raw_parts(self.slab.at(offset).cast_const(), bytes)
        })
    }

    fn give_back(&self) {
        if self.pages > 0 {
            self.slab.free_pages().give(self.first, self.pages);
        }
    }
}

/// Bytes in the slab that one holder may write. Owned by value: it moves into a transfer and comes back. Dropping it
/// gives its pages back.
pub struct Slot {
    chain: Chain,
}

impl Slot {
    pub(crate) fn take(slab: &Arc<Slab>, bytes: u64, pages: u32) -> Option<Slot> {
        let first = if pages == 0 { NO_PAGE } else { slab.free_pages().take(pages)? };
        let mut slot = Slot { chain: Chain { slab: Arc::clone(slab), first, pages, bytes } };
        slot.clear_padding();
        Some(slot)
    }

    fn clear_padding(&mut self) {
        let padding_bytes = Slab::padded(self.bytes()) - self.bytes();
        for run in self.chain.runs(self.bytes(), padding_bytes) {
            // SAFETY: the run lies in this slot's pages (a page is a multiple of 4096), which `&mut self` owns alone.
            unsafe { std::ptr::write_bytes(self.chain.slab.at(run.offset), 0, run.bytes) };
        }
    }

    /// Bytes that were asked for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.chain.bytes
    }

    /// The slot's bytes in order, neighbouring pages joined. Every part but the last is a multiple of the page.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.chain.parts()
    }

    /// The same, to write. The parts do not overlap.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let chain = &self.chain;
        // SAFETY: as in `Chain::parts`; besides, `&mut self` is the only holder of these pages, and the runs of one
        // walk are disjoint, as no page is in a chain twice.
        chain.runs(0, chain.bytes).map(|Run { offset, bytes, .. }| unsafe {
            std::slice::from_raw_parts_mut(chain.slab.at(offset), bytes)
        })
    }

    /// Runs of memory for `bytes` from `offset` on: neighbouring pages joined, never across a piece. They may reach
    /// into the padding, up to the next multiple of 4096 of the slot's bytes.
    ///
    /// # Panics
    /// When the range ends behind that.
    pub fn spans(&self, offset: u64, bytes: u64) -> impl Iterator<Item = MemorySpan> {
        self.chain.spans(offset, bytes)
    }

    /// Ends writing: the first of any number of readers.
    #[must_use]
    pub fn share(self) -> SlotReader {
        let slot = std::mem::ManuallyDrop::new(self);
        // SAFETY: the chain is moved out of a value that is never used or dropped again.
        let chain = unsafe { std::ptr::read(&raw const slot.chain) };
        if chain.pages > 0 {
            let before = chain.slab.readers(chain.first).swap(1, Ordering::Relaxed);
            assert_eq!(before, 0, "page {} had readers beside its writer", chain.first);
        }
        SlotReader { chain }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.chain.give_back();
    }
}

/// A counted reader of a slot. The last one that is dropped gives the pages back.
pub struct SlotReader {
    chain: Chain,
}

impl SlotReader {
    /// Bytes of the slot.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.chain.bytes
    }

    /// See [`Slot::parts`].
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.chain.parts()
    }

    /// See [`Slot::spans`].
    ///
    /// # Panics
    /// When the range ends behind the slot's padding.
    pub fn spans(&self, offset: u64, bytes: u64) -> impl Iterator<Item = MemorySpan> {
        self.chain.spans(offset, bytes)
    }

    /// The slot to write again, when this is its last reader.
    ///
    /// # Errors
    /// Gives the reader back when there are others. (A slot of no bytes has nothing to share and always succeeds.)
    pub fn try_into_slot(self) -> Result<Slot, SlotReader> {
        if self.chain.pages > 0 {
            // Acquire: what the other readers did with the bytes happened before their counts went down.
            let readers = self.chain.slab.readers(self.chain.first);
            if readers.load(Ordering::Acquire) != 1 {
                return Err(self);
            }
            // Nobody can add a reader meanwhile: that takes one, and this is the only one.
            readers.store(0, Ordering::Relaxed);
        }
        let reader = std::mem::ManuallyDrop::new(self);
        // SAFETY: the chain is moved out of a value that is never used or dropped again.
        Ok(Slot { chain: unsafe { std::ptr::read(&raw const reader.chain) } })
    }
}

impl Clone for SlotReader {
    fn clone(&self) -> SlotReader {
        let Chain { ref slab, first, pages, bytes } = self.chain;
        if pages > 0 {
            let before = slab.readers(first).fetch_add(1, Ordering::Relaxed);
            assert!((1..u32::MAX / 2).contains(&before), "page {first} had {before} readers");
        }
        SlotReader { chain: Chain { slab: Arc::clone(slab), first, pages, bytes } }
    }
}

impl Drop for SlotReader {
    fn drop(&mut self) {
        if self.chain.pages == 0 {
            return;
        }
        let before = self.chain.slab.readers(self.chain.first).fetch_sub(1, Ordering::Release);
        assert!(before >= 1, "page {} had no reader", self.chain.first);
        if before == 1 {
            // Every other reader's use of the bytes happened before its count went down (Release above).
            fence(Ordering::Acquire);
            self.chain.give_back();
        }
    }
}

macro_rules! impl_debug {
    ($($name:ident)*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let Chain { first, pages, bytes, .. } = &self.chain;
                write!(out, "{} {{ {bytes} bytes in {pages} pages from {first} }}", stringify!($name))
            }
        }
    )*};
}
impl_debug!(Slot SlotReader);
