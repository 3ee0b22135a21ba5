//! Device memory of the emulated device: one anonymous mapping.

use std::ffi::c_void;
use std::ptr;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::Error;

/// One private anonymous mapping, readable and writable, zero until written.
///
/// All of it is populated when it is mapped, as a device has all of its memory: a copy into pages that the
/// kernel has yet to give ran at a tenth of its link's bandwidth (measured: 0.5 of 6 GB/s on a virtual machine).
pub(crate) struct Arena {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and `Arena` itself never reads or
// writes it; who may do so is decided by the slots, which are handed out for disjoint ranges.
unsafe impl Send for Arena {}
// SAFETY: as above; `&Arena` gives nothing but addresses, and making slices of them is `unsafe`.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps `bytes` (above 0). What could not be had goes to `stepped_down`, a line each.
    pub fn map(bytes: u64, stepped_down: &mut Vec<String>) -> Result<Self, Error> {
        let refused = |call, errno: rustix::io::Errno| Error::Arena { call, bytes, errno: errno.into() };
        let length = usize::try_from(bytes).map_err(|_| refused("map", rustix::io::Errno::NOMEM))?;
        // SAFETY: a new private mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe {
            mmap_anonymous(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }
        .map_err(|errno| refused("map", errno))?;
        let arena = Self { base: base.cast(), bytes: length };
        // SAFETY: the range is the mapping made above; MADV_DONTFORK changes no byte in this process.
        unsafe { madvise(base, length, Advice::LinuxDontFork) }
            .map_err(|errno| refused("keep from forked children", errno))?;
        // SAFETY: the same range; MADV_HUGEPAGE is a hint and changes no byte.
        if let Err(errno) = unsafe { madvise(base, length, Advice::LinuxHugepage) } {
            let line = format!("device arena has small pages: madvise(MADV_HUGEPAGE): {errno}");
            step_down(line, stepped_down);
        }
        // SAFETY: the same range; MADV_POPULATE_WRITE faults its pages in and leaves their bytes as they are.
        match unsafe { madvise(base, length, Advice::LinuxPopulateWrite) } {
            Ok(()) => {}
            // madvise(2): since Linux 5.14; before, the advice is not known.
            Err(errno @ rustix::io::Errno::INVAL) => {
                let line = format!(
                    "device arena is populated by its first use: madvise(MADV_POPULATE_WRITE): {errno}"
                );
                step_down(line, stepped_down);
            }
            Err(errno) => return Err(refused("populate", errno)),
        }
        Ok(arena)
    }

    /// The length of the mapping in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// The address of `offset`, after checking that `bytes` bytes from there lie inside.
    fn address(&self, offset: u64, bytes: u64) -> *mut u8 {
        let end = offset.checked_add(bytes);
        assert!(
            end.is_some_and(|end| end <= self.bytes()),
            "range {offset}+{bytes} is outside the device arena of {} bytes",
            self.bytes
        );
        // SAFETY: `offset <= self.bytes`, so the result lies inside the mapping or one past its end.
        unsafe { self.base.add(offset as usize) }
    }

    /// The bytes of a range.
    ///
    /// # Safety
    /// Nothing may write the range while the slice lives.
    pub unsafe fn slice(&self, offset: u64, bytes: u64) -> &[u8] {
        let address = self.address(offset, bytes);
        // SAFETY: the range lies inside a live mapping (`&self` keeps it), whose bytes are always
        // initialised (the kernel zeroes them), and the caller promises that nothing writes it.
        unsafe { std::slice::from_raw_parts(address, bytes as usize) }
    }

    /// The bytes of a range, to write.
    ///
    /// # Safety
    /// Nothing else may read or write the range while the slice lives.
    #[expect(clippy::mut_from_ref, reason = "the caller owns the range; the arena is shared by all ranges")]
    pub unsafe fn slice_mut(&self, offset: u64, bytes: u64) -> &mut [u8] {
        let address = self.address(offset, bytes);
        // SAFETY: as in `slice`, and the caller promises that nothing else uses the range.
        unsafe { std::slice::from_raw_parts_mut(address, bytes as usize) }
    }
}

/// Logs what was done without and keeps it for reports.
fn step_down(line: String, stepped_down: &mut Vec<String>) {
    tracing::warn!("{line}");
    stepped_down.push(line);
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this base and length, and every slot holds the
        // arena by `Arc`, so no slice into it is left.
        if let Err(errno) = unsafe { munmap(self.base.cast::<c_void>(), self.bytes) } {
            tracing::error!("the device arena of {} bytes stays mapped: munmap: {errno}", self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags that `/proc/self/smaps` gives the mapping of `address`. (The kernel may have merged it with
    /// the arena of another test, so it need not start there.)
    fn flags(address: usize) -> Option<String> {
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let holds = |line: &&str| {
            let (range, rest) = line.split_once(' ').unwrap_or_default();
            let ends = range.split_once('-').map(|(first, last)| {
                [first, last].map(|end| usize::from_str_radix(end, 16).unwrap_or_default())
            });
            rest.starts_with("rw-p") && ends.is_some_and(|[first, last]| (first..last).contains(&address))
        };
        let mut lines = text.lines().skip_while(|line| !holds(line));
        lines.find_map(|line| line.strip_prefix("VmFlags: ")).map(str::to_owned)
    }

    #[test]
    fn the_arena_is_its_budget_and_not_for_children() {
        let bytes = 3 * 2 * 1024 * 1024;
        let mut stepped_down = Vec::new();
        let arena = Arena::map(bytes, &mut stepped_down).unwrap();
        assert_eq!(arena.bytes(), bytes);
        for offset in [0, bytes as usize - 1] {
            let address = arena.base as usize + offset;
            let flags = flags(address).unwrap_or_else(|| panic!("no mapping at {address:x}"));
            assert!(flags.split(' ').any(|flag| flag == "dc"), "not MADV_DONTFORK: {flags}");
            let small = stepped_down.iter().any(|line| line.contains("MADV_HUGEPAGE"));
            assert_eq!(flags.split(' ').any(|flag| flag == "hg"), !small, "{flags}");
        }
    }

    #[test]
    #[should_panic(expected = "range 4090+10 is outside the device arena of 4096 bytes")]
    fn a_range_outside_asserts() {
        Arena::map(4096, &mut Vec::new()).unwrap().address(4090, 10);
    }

    #[test]
    fn a_budget_no_machine_has_is_an_error_with_the_number() {
        let error = Arena::map(1 << 60, &mut Vec::new()).err().unwrap().to_string();
        assert!(error.contains("1152921504606846976") && error.contains("device.budget"), "{error}");
    }
}
