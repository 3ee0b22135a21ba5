//! The slab: one mapping, its free pages, the counts of shared slots' holders.

use crate::free_pages::FreePages;
use crate::mapping::Mapping;
use crate::owner::Owner;
use crate::{Config, Error, Obtained, SECTOR_BYTES, Slot};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// One fixed budget of host memory, mapped, populated and locked as a whole, handed out as [`Slot`]s of whole pages.
///
/// It is unmapped when the last slot, reader and handle are gone. Allocating takes no lock and no heap.
pub struct Slab {
    mapping: Mapping,
    owner: Owner,
    free_pages: FreePages,
    /// How many holders the shared slot that begins at a page has.
    holders: Box<[AtomicU32]>,
    page_bytes: usize,
    piece_bytes: usize,
    bytes: usize,
    obtained: Obtained,
}

/// A part of the slab that is registered as one buffer with io_uring or the device driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its number, from 0, as in [`crate::MemorySpan::piece`].
    pub index: u32,
    /// The first byte.
    pub address: usize,
    /// Bytes: the config's `piece_bytes`, fewer in the last one.
    pub bytes: usize,
}

impl Slab {
    /// Maps the budget, rounded down to whole pages, and fills it.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem, or what the kernel refused. Huge pages and locking are not required: what
    /// was obtained instead, and why, is in [`Slab::obtained`] and in a warning.
    pub fn map(config: &Config) -> Result<Arc<Slab>, Error> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(Error::Config(problems));
        }
        let pages = (config.budget_bytes / config.page_bytes as u64) as u32;
        let bytes = pages as usize * config.page_bytes;
        let owner = Owner::claim()?;
        let (mapping, obtained) = Mapping::map(bytes, config)?;
        for step in &obtained.stepped_down {
            tracing::warn!(step, "host memory stepped down");
        }
        let holders = (0..pages).map(|_| AtomicU32::new(0)).collect();
        let (page_bytes, piece_bytes) = (config.page_bytes, config.piece_bytes);
        let free_pages = FreePages::new(pages);
        Ok(Arc::new(Slab { mapping, owner, free_pages, holders, page_bytes, piece_bytes, bytes, obtained }))
    }

    /// A slot of `bytes`, in whole pages; None when too few are free, or in a forked child (see
    /// [`Slab::check_owner`]). Its contents are what the pages last held, but for the padding: what lies between
    /// `bytes` and the next multiple of 4096 is zero. No bytes take no pages.
    #[must_use]
    pub fn allocate(self: &Arc<Self>, bytes: u64) -> Option<Slot> {
        let pages = bytes.div_ceil(self.page_bytes as u64);
        if pages > u64::from(self.free_pages.pages()) || !self.owner.is_here() {
            return None;
        }
        Slot::take(self, bytes, pages as u32)
    }

    /// Whether this process may use the slab.
    ///
    /// # Errors
    /// [`Error::Forked`] in a forked child, where the memory is not mapped (`MADV_DONTFORK`). Costs one load.
    pub fn check_owner(&self) -> Result<(), Error> {
        self.owner.check()
    }

    /// Pages in all.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.free_pages.pages() as usize
    }

    /// Pages that no slot has.
    #[must_use]
    pub fn pages_free(&self) -> usize {
        self.free_pages.free() as usize
    }

    /// Bytes of a page.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// The pieces, in order of address.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> {
        let base = self.mapping.base().expose_provenance();
        (0..self.bytes).step_by(self.piece_bytes).enumerate().map(move |(index, offset)| Piece {
            index: index as u32,
            address: base + offset,
            bytes: self.piece_bytes.min(self.bytes - offset),
        })
    }

    /// What the machine gave.
    #[must_use]
    pub fn obtained(&self) -> &Obtained {
        &self.obtained
    }

    pub(crate) fn free_pages(&self) -> &FreePages {
        &self.free_pages
    }

    pub(crate) fn holders(&self, page: u32) -> &AtomicU32 {
        &self.holders[page as usize]
    }

    pub(crate) fn piece_of(&self, page: u32) -> u32 {
        page / (self.piece_bytes / self.page_bytes) as u32
    }

    /// The address of a byte of the slab.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.bytes, "byte {offset} of {}", self.bytes);
        self.mapping.base().wrapping_add(offset)
    }

    /// Bytes that a slot of `bytes` may be read or written in: whole sectors.
    pub(crate) fn padded(bytes: u64) -> u64 {
        bytes.next_multiple_of(SECTOR_BYTES as u64)
    }
}

impl std::fmt::Debug for Slab {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "Slab {{ {} pages of {} bytes, {} free }}",
            self.pages(),
            self.page_bytes,
            self.pages_free()
        )
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // In a forked child the range is not mapped, and something else may lie at its addresses by now.
        if self.owner.is_here() {
            self.mapping.unmap();
        }
    }
}
