//! Reserved addresses: taken without memory, given memory part by part, given back as a whole.
//!
//! Other threads map memory meanwhile. So no call here may take addresses away and then fail: the kernel would be free
//! to put another mapping into the gap, and the next try would wipe it. mmap(2) with `MAP_FIXED` is such a call ("If
//! MAP_FIXED fails, previously existing mappings may have been removed"; so they are for `MAP_HUGETLB` without pages):
//! small pages come by mprotect(2), which leaves the mapping there whatever happens, and hugetlb pages are got at an
//! address of the kernel's choice and moved. Where even the move fails, its target counts as lost.

use crate::Error;
use crate::config::HUGE_PAGE_BYTES;
use rustix::io::Errno;
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mprotect, mremap_fixed,
    munmap,
};
use std::ffi::c_void;
use std::ops::Range;
use std::ptr;

/// A range of addresses that is this value's own, but for [`Reservation::lost`].
pub(crate) struct Reservation {
    address: *mut u8,
    bytes: usize,
    /// Offsets of the part into which moving failed: it may be a gap, or another thread's by now. Neither used nor
    /// given back. Empty unless that happened.
    lost: Range<usize>,
}

// SAFETY: the value is an address range; it is not bound to a thread, and `&Reservation` gives only the address.
unsafe impl Send for Reservation {}
// SAFETY: as above.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves addresses. They are not accessible and count as no memory, even where overcommitting is forbidden.
    pub(crate) fn new(bytes: usize) -> Result<Reservation, Error> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let address =
            unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE) };
        let address = address.map_err(|source| Error::Reserve { bytes, source: source.into() })?.cast();
        Ok(Reservation { address, bytes, lost: 0..0 })
    }

    pub(crate) fn address(&self) -> *mut u8 {
        self.address
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address of a part that is this reservation's own.
    fn part(&self, part: &Range<usize>) -> *mut c_void {
        let own = part.start < part.end && part.end <= self.bytes && self.lost.is_empty();
        assert!(own, "part {part:?} of {} reserved bytes, {:?} of them lost", self.bytes, self.lost);
        self.address.wrapping_add(part.start).cast()
    }

    /// Makes a part readable and writable. It is zeros, and no memory yet.
    pub(crate) fn open(&self, part: Range<usize>) -> Result<(), Errno> {
        // SAFETY: the part is mapped by this reservation, and more access invalidates no reference.
        unsafe { mprotect(self.part(&part), part.len(), MprotectFlags::READ | MprotectFlags::WRITE) }
    }

    /// Gives advice on a part, of a kind that changes no contents.
    pub(crate) fn advise(&self, part: Range<usize>, advice: Advice) -> Result<(), Errno> {
        let kind = matches!(
            advice,
            Advice::LinuxHugepage | Advice::LinuxPopulateWrite | Advice::LinuxDontFork | Advice::Normal
        );
        assert!(kind, "{advice:?} may change contents");
        // SAFETY: the part is mapped by this reservation, and the advice leaves its contents as they are.
        unsafe { madvise(self.part(&part), part.len(), advice) }
    }

    /// Moves hugetlb pages into the part that begins at `offset`, to which no reference may exist yet.
    ///
    /// When the kernel refuses (before 5.16 it moves no hugetlb pages), it may have unmapped the part first. Then the
    /// reservation is good for nothing but [`Reservation::give_back`].
    pub(crate) fn place(&mut self, offset: usize, pages: HugePages) -> Result<(), Errno> {
        let part = offset..offset + pages.bytes;
        let (to, from, bytes) = (self.part(&part), pages.address, pages.bytes);
        // SAFETY: `from` is the mapping of `pages`, which nobody refers to; what is replaced at `to` is a part of this
        // reservation (asserted by `part`), to which nobody refers either, as the caller promises.
        match unsafe { mremap_fixed(from, bytes, bytes, MremapFlags::MAYMOVE, to) } {
            Ok(_) => {
                std::mem::forget(pages);
                Ok(())
            }
            Err(errno) => {
                self.lost = part;
                Err(errno)
            }
        }
    }

    /// Unmaps. Not a `Drop`, since in a forked child the addresses are not this reservation's any more.
    pub(crate) fn give_back(&mut self) {
        for part in [0..self.lost.start, self.lost.end..self.bytes] {
            if !part.is_empty() {
                let address = self.address.wrapping_add(part.start).cast();
                // SAFETY: the part is this reservation's own; the caller (the slab's drop, or the mapping that could
                // not be made) has no slot left, so no reference into it and no I/O on it exist.
                let _ = unsafe { munmap(address, part.len()) };
            }
        }
    }
}

/// Hugetlb pages, populated, at an address of the kernel's choice. Given back on drop.
pub(crate) struct HugePages {
    address: *mut c_void,
    bytes: usize,
}

impl HugePages {
    /// Takes pages from the machine's pool, or says which call failed.
    pub(crate) fn take(bytes: usize) -> Result<HugePages, (&'static str, Errno)> {
        assert!(bytes > 0 && bytes.is_multiple_of(HUGE_PAGE_BYTES), "{bytes} bytes are no huge pages");
        let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let address =
            unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags) };
        let address = address.map_err(|errno| ("mmap(MAP_HUGETLB)", errno))?;
        let pages = HugePages { address, bytes };
        // SAFETY: the range was mapped writable just now and holds nothing yet.
        unsafe { madvise(address, bytes, Advice::LinuxPopulateWrite) }
            .map_err(|errno| ("madvise(MADV_POPULATE_WRITE)", errno))?;
        Ok(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // SAFETY: mapped by `take` with this size and not moved since (a move that fails is undone by the kernel, and
        // one that succeeds forgets the value); nobody refers to it.
        let _ = unsafe { munmap(self.address, self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn addresses_are_no_memory_and_a_refusal_takes_none_of_them_away() {
        // More than any machine has: the kernel would refuse it as memory.
        let mut reservation = Reservation::new(1 << 45).unwrap();
        assert_eq!(reservation.open(0..1 << 44), Err(Errno::NOMEM));
        assert!(HugePages::take(1 << 44).is_err());
        // madvise says ENOMEM where a part of the range is not mapped.
        reservation.advise(0..1 << 45, Advice::Normal).unwrap();
        reservation.open(MIB..2 * MIB).unwrap();
        reservation.advise(MIB..2 * MIB, Advice::LinuxPopulateWrite).unwrap();
        reservation.give_back();
    }

    #[test]
    fn what_a_failed_move_may_have_lost_is_left_alone() {
        let mut reservation = Reservation::new(4 * MIB).unwrap();
        // No pages lie at an odd address: the kernel refuses, here without having touched the target.
        let nowhere = HugePages { address: ptr::without_provenance_mut(1), bytes: MIB };
        assert_eq!(reservation.place(MIB, nowhere), Err(Errno::INVAL));
        reservation.give_back();
        let lost = reservation.address.wrapping_add(MIB).cast();
        // SAFETY: the part was left mapped, and the advice changes no contents.
        unsafe { madvise(lost, MIB, Advice::Normal) }.expect("the part was unmapped");
        // SAFETY: the part is this test's own, since the kernel kept it.
        unsafe { munmap(lost, MIB) }.unwrap();
    }

    #[test]
    #[should_panic(expected = "part 0..4096 of 8192 reserved bytes, 4096..8192 of them lost")]
    fn a_reservation_with_a_lost_part_is_not_used() {
        let mut reservation = Reservation::new(8192).unwrap();
        let nowhere = HugePages { address: ptr::without_provenance_mut(1), bytes: 4096 };
        reservation.place(4096, nowhere).unwrap_err();
        let _ = reservation.open(0..4096);
    }
}
