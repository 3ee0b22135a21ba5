//! Slots: pages owned by value, by one writer, or by counted readers or fillers.

use crate::free_pages::NO_PAGE;
use crate::slab::Slab;
use crate::spans::{MemorySpan, Run, Runs};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// A chain of pages and nothing else: what all holders of a slot have in common.
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
        // one owner, who is lending it, and readers are no writers; fillers do not come here.
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

    /// Copies `bytes` to `offset` of the slot.
    ///
    /// # Panics
    /// When they end behind the slot's padding.
    pub fn put(&mut self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for run in self.chain.runs(offset, bytes.len() as u64) {
            let (part, behind) = rest.split_at(run.bytes);
            // SAFETY: the run lies in this slot's pages, which `&mut self` owns alone, so that `part` is elsewhere.
            unsafe {
                std::ptr::copy_nonoverlapping(part.as_ptr(), self.chain.slab.at(run.offset), part.len())
            };
            rest = behind;
        }
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
        SlotReader { shared: Shared::first(self) }
    }

    /// Has it filled from several places at once: the first of any number of fillers. Nobody sees the bytes until
    /// [`SlotFiller::try_into_slot`] has made it one slot again.
    #[must_use]
    pub fn divide(self) -> SlotFiller {
        SlotFiller { shared: Shared::first(self) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.chain.give_back();
    }
}

/// A chain with a count of its holders. The last one that is dropped gives the pages back.
struct Shared {
    chain: Chain,
}

impl Shared {
    fn first(slot: Slot) -> Shared {
        let slot = std::mem::ManuallyDrop::new(slot);
        // SAFETY: the chain is moved out of a value that is never used or dropped again.
        let chain = unsafe { std::ptr::read(&raw const slot.chain) };
        if chain.pages > 0 {
            let before = chain.slab.holders(chain.first).swap(1, Ordering::Relaxed);
            assert_eq!(before, 0, "page {} had holders beside its writer", chain.first);
        }
        Shared { chain }
    }

    /// The slot, when this is its last holder. (A slot of no bytes has nothing to share and always succeeds.)
    fn try_into_slot(self) -> Result<Slot, Shared> {
        if self.chain.pages > 0 {
            // Acquire: what the other holders did with the bytes happened before their counts went down.
            let holders = self.chain.slab.holders(self.chain.first);
            if holders.load(Ordering::Acquire) != 1 {
                return Err(self);
            }
            // Nobody can add a holder meanwhile: that takes one, and this is the only one.
            holders.store(0, Ordering::Relaxed);
        }
        let shared = std::mem::ManuallyDrop::new(self);
        // SAFETY: the chain is moved out of a value that is never used or dropped again.
        Ok(Slot { chain: unsafe { std::ptr::read(&raw const shared.chain) } })
    }
}

impl Clone for Shared {
    fn clone(&self) -> Shared {
        let Chain { ref slab, first, pages, bytes } = self.chain;
        if pages > 0 {
            let before = slab.holders(first).fetch_add(1, Ordering::Relaxed);
            assert!((1..u32::MAX / 2).contains(&before), "page {first} had {before} holders");
        }
        Shared { chain: Chain { slab: Arc::clone(slab), first, pages, bytes } }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.chain.pages == 0 {
            return;
        }
        let before = self.chain.slab.holders(self.chain.first).fetch_sub(1, Ordering::Release);
        assert!(before >= 1, "page {} had no holder", self.chain.first);
        if before == 1 {
            // Every other holder's use of the bytes happened before its count went down (Release above).
            fence(Ordering::Acquire);
            self.chain.give_back();
        }
    }
}

/// A counted reader of a slot. The last one that is dropped gives the pages back.
#[derive(Clone)]
pub struct SlotReader {
    shared: Shared,
}

impl SlotReader {
    /// Bytes of the slot.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.chain.bytes
    }

    /// See [`Slot::parts`].
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.shared.chain.parts()
    }

    /// See [`Slot::spans`].
    ///
    /// # Panics
    /// When the range ends behind the slot's padding.
    pub fn spans(&self, offset: u64, bytes: u64) -> impl Iterator<Item = MemorySpan> {
        self.shared.chain.spans(offset, bytes)
    }

    /// The slot to write again, when this is its last reader.
    ///
    /// # Errors
    /// Gives the reader back when there are others. (A slot of no bytes has nothing to share and always succeeds.)
    pub fn try_into_slot(self) -> Result<Slot, SlotReader> {
        self.shared.try_into_slot().map_err(|shared| SlotReader { shared })
    }
}

/// One of those who fill a slot together, from different drives: each has it written by the kernel, none can look. The
/// last one that is dropped gives the pages back.
#[derive(Clone)]
pub struct SlotFiller {
    shared: Shared,
}

impl SlotFiller {
    /// Bytes of the slot.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.chain.bytes
    }

    /// See [`Slot::spans`]. Fillers that are given the same bytes to write leave any of them there.
    ///
    /// # Panics
    /// When the range ends behind the slot's padding.
    pub fn spans(&self, offset: u64, bytes: u64) -> impl Iterator<Item = MemorySpan> {
        self.shared.chain.spans(offset, bytes)
    }

    /// The slot, when this is its last filler.
    ///
    /// # Errors
    /// Gives the filler back when there are others. (A slot of no bytes has nothing to share and always succeeds.)
    pub fn try_into_slot(self) -> Result<Slot, SlotFiller> {
        self.shared.try_into_slot().map_err(|shared| SlotFiller { shared })
    }
}

macro_rules! impl_debug {
    ($($name:ident $($shared:ident)?;)*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let Chain { first, pages, bytes, .. } = &self$(.$shared)?.chain;
                write!(out, "{} {{ {bytes} bytes in {pages} pages from {first} }}", stringify!($name))
            }
        }
    )*};
}
impl_debug!(Slot; SlotReader shared; SlotFiller shared;);
