use std::ops::Range;

use range_alloc::RangeAllocator;

/// Device ranges start at multiples of this: what `cuMemAlloc` promises (CUDA Driver API,
/// "suitably aligned for any kind of variable", 256 bytes in practice) and what tensors inside a
/// bundle start at.
pub(crate) const DEVICE_ALIGN_BYTES: u64 = 256;

/// Which bytes of the device arena are taken: exact best fit, in the plan and not in the device,
/// so that what the plan says fits does fit.
pub(crate) struct Arena {
    ranges: RangeAllocator<u64>,
    bytes: u64,
    used_bytes: u64,
    peak_bytes: u64,
}

impl Arena {
    pub(crate) fn new(bytes: u64) -> Arena {
        let usable = bytes - bytes % DEVICE_ALIGN_BYTES;
        Arena { ranges: RangeAllocator::new(0..usable), bytes: usable, used_bytes: 0, peak_bytes: 0 }
    }

    /// The bytes that a unit of `bytes` takes.
    pub(crate) fn rounded(bytes: u64) -> u64 {
        bytes.max(1).next_multiple_of(DEVICE_ALIGN_BYTES)
    }

    pub(crate) fn allocate(&mut self, bytes: u64) -> Option<u64> {
        let range = self.ranges.allocate_range(Self::rounded(bytes)).ok()?;
        self.used_bytes += range.end - range.start;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
        Some(range.start)
    }

    pub(crate) fn free(&mut self, offset: u64, bytes: u64) {
        let range: Range<u64> = offset..offset + Self::rounded(bytes);
        self.used_bytes -= range.end - range.start;
        self.ranges.free_range(range);
    }

    /// What can be taken in all.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_exactly_is_found() {
        let mut arena = Arena::new(64 << 20);
        let a = arena.allocate(1 << 20).unwrap();
        // 63 MiB are left: an allocator that rounds requests up to size classes would refuse.
        assert!(arena.allocate(63 << 20).is_some());
        assert!(arena.allocate(1).is_none());
        arena.free(a, 1 << 20);
        assert_eq!(arena.used_bytes(), 63 << 20);
        assert_eq!(arena.allocate(1 << 20), Some(a));
        assert_eq!(arena.peak_bytes(), 64 << 20);
    }
}
