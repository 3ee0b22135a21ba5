//! Runs of memory of a slot.

use crate::slab::Slab;

/// A run of memory as the kernel and the device driver take it. Whoever uses the address holds the slot by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySpan {
    /// The first byte.
    pub address: usize,
    /// Bytes, at least one.
    pub bytes: usize,
    /// The slab's piece that holds all of it; None for memory outside any slab.
    pub piece: Option<u32>,
}

/// Walks a chain of pages and joins neighbours, never across a piece.
pub(crate) struct Runs<'slab> {
    slab: &'slab Slab,
    page: u32,
    /// Where in `page` the next run begins.
    skip_bytes: usize,
    left_bytes: u64,
}

impl<'slab> Runs<'slab> {
    /// The runs of `bytes` from `offset` of the chain on. The caller has checked that the chain is that long.
    pub(crate) fn new(slab: &'slab Slab, first: u32, offset: u64, bytes: u64) -> Runs<'slab> {
        let page_bytes = slab.page_bytes();
        let mut page = first;
        if bytes > 0 {
            for _ in 0..offset / page_bytes as u64 {
                page = slab.free_pages().next(page);
            }
        }
        Runs { slab, page, skip_bytes: (offset % page_bytes as u64) as usize, left_bytes: bytes }
    }
}

/// A run by its place in the slab.
pub(crate) struct Run {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    pub(crate) piece: u32,
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        if self.left_bytes == 0 {
            return None;
        }
        let page_bytes = self.slab.page_bytes();
        let (first, skip_bytes) = (self.page, self.skip_bytes);
        let piece = self.slab.piece_of(first);
        let mut bytes = (page_bytes - skip_bytes) as u64;
        let mut last = first;
        self.page = self.slab.free_pages().next(last);
        while bytes < self.left_bytes && self.page == last + 1 && self.slab.piece_of(self.page) == piece {
            last = self.page;
            bytes += page_bytes as u64;
            self.page = self.slab.free_pages().next(last);
        }
        let bytes = bytes.min(self.left_bytes);
        self.left_bytes -= bytes;
        self.skip_bytes = 0;
        Some(Run { offset: first as usize * page_bytes + skip_bytes, bytes: bytes as usize, piece })
    }
}
