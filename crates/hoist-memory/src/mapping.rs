//! The mapping: addresses reserved first, then mapped piece by piece on a ladder of page kinds.

use crate::config::HUGE_PAGE_BYTES;
use crate::{Config, Error, Obtained};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use std::ptr;

/// One reserved range of addresses, the slab's bytes mapped at its 2 MiB-aligned start, a guard behind them.
pub(crate) struct Mapping {
    reserved: *mut u8,
    reserved_bytes: usize,
    base: *mut u8,
    bytes: usize,
}

// SAFETY: the value is an address range; it is not bound to a thread, and `&Mapping` gives only the address.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// The page kinds, best first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rung {
    Hugetlb,
    Transparent,
    Small,
}

impl Mapping {
    /// Maps `bytes` and says what it got.
    pub(crate) fn map(bytes: usize, config: &Config) -> Result<(Mapping, Obtained), Error> {
        let mut mapping = Mapping::reserve(bytes)?;
        match mapping.fill(config) {
            Ok(obtained) => Ok((mapping, obtained)),
            Err(error) => {
                mapping.unmap();
                Err(error)
            }
        }
    }

    fn fill(&self, config: &Config) -> Result<Obtained, Error> {
        let bytes = self.bytes;
        let mut obtained = Obtained { bytes: bytes as u64, ..Obtained::default() };
        let mut rung = Rung::Hugetlb;
        let mut offset = 0;
        while offset < bytes {
            let piece_bytes = config.piece_bytes.min(bytes - offset);
            let huge_bytes = piece_bytes / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
            self.map_part(offset, huge_bytes, &mut rung, &mut obtained)?;
            let mut small = Rung::Small;
            self.map_part(offset + huge_bytes, piece_bytes - huge_bytes, &mut small, &mut obtained)?;
            offset += piece_bytes;
        }
        // SAFETY: the range is this mapping's own reservation; the advice changes only what a forked child sees.
        unsafe { madvise(self.reserved.cast(), self.reserved_bytes, Advice::LinuxDontFork) }
            .map_err(|source| self.failed("madvise(MADV_DONTFORK)", 0, bytes, source))?;
        self.verify_transparent(rung, &mut obtained);
        self.lock(config.piece_bytes, &mut obtained);
        Ok(obtained)
    }

    fn reserve(bytes: usize) -> Result<Mapping, Error> {
        // One huge page more: room to align the start, and what is left behind the end keeps the kernel from merging
        // this mapping with a neighbour, whose pages smaps would then count as ours.
        let reserved_bytes = bytes + HUGE_PAGE_BYTES;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let reserved = unsafe { mmap_anonymous(ptr::null_mut(), reserved_bytes, ProtFlags::empty(), flags) };
        let reserved = reserved
            .map_err(|source| Error::Reserve { bytes: reserved_bytes, source: source.into() })?
            .cast::<u8>();
        let skipped_bytes = reserved.align_offset(HUGE_PAGE_BYTES);
        assert!(skipped_bytes < HUGE_PAGE_BYTES, "mmap gave {reserved:?}");
        Ok(Mapping { reserved, reserved_bytes, base: reserved.wrapping_add(skipped_bytes), bytes })
    }

    /// The first byte; valid for reads and writes of [`Mapping::bytes`] until drop.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }

    fn failed(&self, call: &'static str, offset: usize, bytes: usize, source: Errno) -> Error {
        Error::Map { call, offset, bytes, budget_bytes: self.bytes, source: source.into() }
    }

    /// Maps and fills one part, stepping down `rung` (for the parts that follow, too) when the kernel refuses.
    fn map_part(
        &self,
        offset: usize,
        bytes: usize,
        rung: &mut Rung,
        obtained: &mut Obtained,
    ) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        loop {
            match (self.try_part(offset, bytes, *rung), *rung) {
                (Ok(()), Rung::Hugetlb) => obtained.hugetlb_bytes += bytes as u64,
                (Ok(()), _) => obtained.small_bytes += bytes as u64,
                (Err((call, errno)), Rung::Hugetlb) => {
                    let step = format!(
                        "no hugetlb pages from byte {offset} on: {call}: {errno} (see vm.nr_hugepages)"
                    );
                    obtained.stepped_down.push(step);
                    *rung = Rung::Transparent;
                    continue;
                }
                (Err((call @ "madvise(MADV_HUGEPAGE)", errno)), Rung::Transparent) => {
                    obtained.stepped_down.push(format!("no transparent huge pages: {call}: {errno}"));
                    *rung = Rung::Small;
                    continue;
                }
                (Err((call, errno)), _) => return Err(self.failed(call, offset, bytes, errno)),
            }
            return Ok(());
        }
    }

    fn try_part(&self, offset: usize, bytes: usize, rung: Rung) -> Result<(), (&'static str, Errno)> {
        assert!(offset + bytes <= self.bytes, "part {offset}+{bytes} of {}", self.bytes);
        let address = self.base.wrapping_add(offset).cast();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        let (flags, call) = match rung {
            Rung::Hugetlb => (flags | MapFlags::HUGETLB | MapFlags::HUGE_2MB, "mmap(MAP_HUGETLB)"),
            Rung::Transparent | Rung::Small => (flags, "mmap"),
        };
        // SAFETY: MAP_FIXED replaces addresses inside this mapping's own reservation (asserted above), to which no
        // reference exists yet: the slab is still being made.
        unsafe { mmap_anonymous(address, bytes, access, flags) }.map_err(|errno| (call, errno))?;
        if rung == Rung::Transparent {
            // SAFETY: the range was mapped just now; the advice changes only the size of its pages.
            unsafe { madvise(address, bytes, Advice::LinuxHugepage) }
                .map_err(|errno| ("madvise(MADV_HUGEPAGE)", errno))?;
        }
        // Filled by the kernel, which reports a lack of memory where a touch would kill the process with SIGBUS.
        // SAFETY: the range was mapped writable just now and holds nothing yet.
        unsafe { madvise(address, bytes, Advice::LinuxPopulateWrite) }
            .map_err(|errno| ("madvise(MADV_POPULATE_WRITE)", errno))
    }

    /// Counts the transparent huge pages that the kernel really gave: asking for them promises nothing.
    fn verify_transparent(&self, rung: Rung, obtained: &mut Obtained) {
        if rung != Rung::Transparent {
            return;
        }
        let smaps = match std::fs::read_to_string("/proc/self/smaps") {
            Ok(smaps) => smaps,
            Err(error) => {
                let step = format!(
                    "transparent huge pages not verified, counted as small: /proc/self/smaps: {error}"
                );
                return obtained.stepped_down.push(step);
            }
        };
        let start = self.base.addr();
        let huge_bytes = anon_huge_bytes(&smaps, start, start + self.bytes).min(obtained.small_bytes);
        obtained.transparent_bytes = huge_bytes;
        obtained.small_bytes -= huge_bytes;
        if obtained.small_bytes >= HUGE_PAGE_BYTES as u64 {
            let step = format!(
                "{} bytes in small pages although huge ones were asked for: memory is fragmented, or \
                 /sys/kernel/mm/transparent_hugepage/enabled is `never`",
                obtained.small_bytes
            );
            obtained.stepped_down.push(step);
        }
    }

    /// Locks as much as the limits allow: a page that is swapped out costs what hoist is here to save.
    fn lock(&self, piece_bytes: usize, obtained: &mut Obtained) {
        for offset in (0..self.bytes).step_by(piece_bytes) {
            let bytes = piece_bytes.min(self.bytes - offset);
            // SAFETY: the range is mapped by this mapping; locking changes no contents.
            if let Err(errno) = unsafe { mlock(self.base.wrapping_add(offset).cast(), bytes) } {
                let step = format!(
                    "{} of {} bytes locked: mlock: {errno} (raise `ulimit -l`, or grant CAP_IPC_LOCK)",
                    obtained.locked_bytes, self.bytes
                );
                return obtained.stepped_down.push(step);
            }
            obtained.locked_bytes += bytes as u64;
        }
    }

    /// Unmaps. Not a `Drop`, since in a forked child the addresses are not this mapping's any more.
    pub(crate) fn unmap(&mut self) {
        // SAFETY: the reservation is this mapping's own; the caller (the slab's drop) has no slot left, so no
        // reference into it and no I/O on it exist.
        let _ = unsafe { munmap(self.reserved.cast(), self.reserved_bytes) };
    }
}

/// The sum of `AnonHugePages` of the mappings inside `start..end`, in bytes (proc_pid_smaps(5)).
fn anon_huge_bytes(smaps: &str, start: usize, end: usize) -> u64 {
    let mut inside = false;
    let mut kib = 0;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some((from, to)) = first.split_once('-')
            && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
        {
            inside = start <= from && to <= end;
        } else if inside && first == "AnonHugePages:" {
            kib += words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    kib * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaps_are_counted_inside_the_range_only() {
        let smaps = "1000-3000 rw-p 00000000 00:00 0\nSize: 8 kB\nAnonHugePages:     4 kB\n\
                     3000-5000 rw-p 00000000 00:00 0 [heap]\nAnonHugePages:   16 kB\nVmFlags: rd wr\n";
        assert_eq!(anon_huge_bytes(smaps, 0x1000, 0x5000), 20 * 1024);
        assert_eq!(anon_huge_bytes(smaps, 0x2000, 0x5000), 16 * 1024);
        assert_eq!(anon_huge_bytes(smaps, 0x1000, 0x4000), 4 * 1024);
    }
}
