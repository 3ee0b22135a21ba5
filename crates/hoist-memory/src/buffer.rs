//! Memory outside the slab for journals and tools.

use crate::{Error, MemorySpan, SECTOR_BYTES};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// Zeroed memory with a mapping of its own, aligned to 4096, absent in forked children. For what has no place in the
/// slab: journal records, tools. It does not count against the slab's budget, so its users keep it small.
pub struct AlignedBuffer {
    address: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is owned by this value alone and bound to no thread.
unsafe impl Send for AlignedBuffer {}
// SAFETY: `&AlignedBuffer` only reads.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// Maps `bytes`, rounded up to 4096 (at least 4096): that many are its length.
    ///
    /// # Errors
    /// [`Error::Reserve`] when the kernel has no memory.
    pub fn new(bytes: usize) -> Result<AlignedBuffer, Error> {
        let bytes = bytes.max(1).next_multiple_of(SECTOR_BYTES);
        let failed = |source: rustix::io::Errno| Error::Reserve { bytes, source: source.into() };
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let address =
            unsafe { mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE) }.map_err(failed)?;
        let address = NonNull::new(address.cast::<u8>()).ok_or_else(|| failed(rustix::io::Errno::NOMEM))?;
        let buffer = AlignedBuffer { address, bytes };
        // SAFETY: the range is the mapping made above; the advice changes only what a forked child sees. (A child that
        // shared it copy-on-write could leave the parent's direct I/O writing into the child's copy.)
        unsafe { madvise(address.as_ptr().cast(), bytes, Advice::LinuxDontFork) }.map_err(failed)?;
        Ok(buffer)
    }

    /// Its memory for `bytes` from `offset` on, as one run.
    ///
    /// # Panics
    /// When the range ends behind the buffer.
    pub fn spans(&self, offset: u64, bytes: u64) -> impl Iterator<Item = MemorySpan> {
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes as u64);
        assert!(inside, "bytes {offset}+{bytes} of a buffer of {}", self.bytes);
        let address = self.address.as_ptr().expose_provenance() + offset as usize;
        (bytes > 0).then_some(MemorySpan { address, bytes: bytes as usize, piece: None }).into_iter()
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped, initialised with zeros by the kernel, and not written while `&self` lives.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.bytes) }
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "AlignedBuffer {{ {} bytes }}", self.bytes)
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this size, unmapped only here; no reference outlives self.
        let _ = unsafe { munmap(self.address.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_zeroed_aligned_and_rounded_up() {
        let mut buffer = AlignedBuffer::new(5000).unwrap();
        assert_eq!(buffer.len(), 8192);
        assert!(buffer.iter().all(|byte| *byte == 0));
        buffer[8191] = 7;
        let span = buffer.spans(4096, 4096).next().unwrap();
        assert_eq!(span.address % SECTOR_BYTES, 0);
        assert_eq!(span.address, buffer.as_ptr().addr() + 4096);
        assert_eq!((span.bytes, span.piece), (4096, None));
        assert_eq!(buffer.spans(8192, 0).next(), None);
    }
}
