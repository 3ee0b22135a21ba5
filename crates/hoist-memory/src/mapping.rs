//! The mapping: addresses reserved first, then filled piece by piece on a ladder of page kinds.

use crate::config::HUGE_PAGE_BYTES;
use crate::reservation::{HugePages, Reservation};
use crate::{Config, Error, Obtained};
use rustix::io::Errno;
use rustix::mm::{Advice, mlock};

/// Whether the machine gives transparent huge pages at all (Documentation/admin-guide/mm/transhuge.rst).
const TRANSPARENT_ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// One reserved range of addresses, the slab's bytes mapped at its 2 MiB-aligned start, a guard behind them.
pub(crate) struct Mapping {
    reservation: Reservation,
    /// Bytes of the reservation before the first huge page.
    skipped_bytes: usize,
    bytes: usize,
}

/// The page kinds, best first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rung {
    Hugetlb,
    Transparent,
    Small,
}

/// Why a mapping was not made.
enum Stop {
    /// There is no way on.
    Refused(Error),
    /// Hugetlb pages were there, but could not be moved into the reservation, which is spoilt by that.
    NotPlaced(Errno),
}

impl Mapping {
    /// Maps `bytes` and says what it got.
    pub(crate) fn map(bytes: usize, config: &Config) -> Result<(Mapping, Obtained), Error> {
        let mut best = Rung::Hugetlb;
        let mut stepped_down = Vec::new();
        loop {
            let mut mapping = Mapping::reserve(bytes)?;
            let mut obtained = Obtained { bytes: bytes as u64, ..Obtained::default() };
            obtained.stepped_down.append(&mut stepped_down);
            let stop = match mapping.fill(config, best, &mut obtained) {
                Ok(()) => return Ok((mapping, obtained)),
                Err(stop) => stop,
            };
            mapping.unmap();
            match stop {
                Stop::Refused(error) => return Err(error),
                Stop::NotPlaced(errno) => {
                    stepped_down
                        .push(format!("no hugetlb pages: mremap: {errno} (Linux moves them from 5.16 on)"));
                    best = Rung::Transparent;
                }
            }
        }
    }

    fn fill(&mut self, config: &Config, best: Rung, obtained: &mut Obtained) -> Result<(), Stop> {
        let bytes = self.bytes;
        let mut rung = best;
        let mut offset = 0;
        while offset < bytes {
            let piece_bytes = config.piece_bytes.min(bytes - offset);
            let huge_bytes = piece_bytes / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
            self.map_part(offset, huge_bytes, &mut rung, obtained)?;
            let mut small = Rung::Small;
            self.map_part(offset + huge_bytes, piece_bytes - huge_bytes, &mut small, obtained)?;
            offset += piece_bytes;
        }
        self.reservation
            .advise(0..self.reservation.bytes(), Advice::LinuxDontFork)
            .map_err(|source| self.failed("madvise(MADV_DONTFORK)", 0, bytes, source))?;
        self.verify_transparent(rung, obtained);
        self.lock(config.piece_bytes, obtained);
        Ok(())
    }

    fn reserve(bytes: usize) -> Result<Mapping, Error> {
        // One huge page more: room to align the start, and what is left behind the end keeps the kernel from merging
        // this mapping with a neighbour, whose pages smaps would then count as ours.
        let reservation = Reservation::new(bytes + HUGE_PAGE_BYTES)?;
        let skipped_bytes = reservation.address().align_offset(HUGE_PAGE_BYTES);
        assert!(skipped_bytes < HUGE_PAGE_BYTES, "mmap gave {:?}", reservation.address());
        Ok(Mapping { reservation, skipped_bytes, bytes })
    }

    /// The first byte; valid for reads and writes of [`Mapping::bytes`] until drop.
    pub(crate) fn base(&self) -> *mut u8 {
        self.reservation.address().wrapping_add(self.skipped_bytes)
    }

    fn failed(&self, call: &'static str, offset: usize, bytes: usize, source: Errno) -> Stop {
        Stop::Refused(Error::Map { call, offset, bytes, budget_bytes: self.bytes, source: source.into() })
    }

    /// Maps and fills one part, stepping down `rung` (for the parts that follow, too) when the kernel refuses.
    fn map_part(
        &mut self,
        offset: usize,
        bytes: usize,
        rung: &mut Rung,
        obtained: &mut Obtained,
    ) -> Result<(), Stop> {
        if bytes == 0 {
            return Ok(());
        }
        if *rung == Rung::Hugetlb {
            match HugePages::take(bytes) {
                Ok(pages) => {
                    let place = self.skipped_bytes + offset;
                    self.reservation.place(place, pages).map_err(Stop::NotPlaced)?;
                    obtained.hugetlb_bytes += bytes as u64;
                    return Ok(());
                }
                Err((call, errno)) => {
                    let step = format!(
                        "no hugetlb pages from byte {offset} on: {call}: {errno} (see vm.nr_hugepages)"
                    );
                    obtained.stepped_down.push(step);
                    *rung = Rung::Transparent;
                }
            }
        }
        self.map_anonymous(offset, bytes, rung, obtained)?;
        obtained.small_bytes += bytes as u64;
        Ok(())
    }

    /// Fills one part with transparent huge pages if `rung` is that and the kernel has them, else with small ones.
    fn map_anonymous(
        &self,
        offset: usize,
        bytes: usize,
        rung: &mut Rung,
        obtained: &mut Obtained,
    ) -> Result<(), Stop> {
        let start = self.skipped_bytes + offset;
        let part = start..start + bytes;
        self.reservation
            .open(part.clone())
            .map_err(|errno| self.failed("mprotect(PROT_WRITE)", offset, bytes, errno))?;
        if *rung == Rung::Transparent
            && let Err(errno) = self.reservation.advise(part.clone(), Advice::LinuxHugepage)
        {
            obtained.stepped_down.push(format!("no transparent huge pages: madvise(MADV_HUGEPAGE): {errno}"));
            *rung = Rung::Small;
        }
        // Filled by the kernel, which reports a lack of memory where a touch would kill the process with SIGBUS.
        self.reservation
            .advise(part, Advice::LinuxPopulateWrite)
            .map_err(|errno| self.failed("madvise(MADV_POPULATE_WRITE)", offset, bytes, errno))
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
        let start = self.base().addr();
        let huge_bytes = anon_huge_bytes(&smaps, start, start + self.bytes).min(obtained.small_bytes);
        obtained.transparent_bytes = huge_bytes;
        obtained.small_bytes -= huge_bytes;
        if obtained.small_bytes >= HUGE_PAGE_BYTES as u64 {
            let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
            let cause = refusal(&read("/proc/self/status"), &read(TRANSPARENT_ENABLED));
            let step = format!(
                "{} bytes in small pages although huge ones were asked for: {cause}",
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
            if let Err(errno) = unsafe { mlock(self.base().wrapping_add(offset).cast(), bytes) } {
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
        self.reservation.give_back();
    }
}

/// Why the kernel gives no transparent huge pages, from `/proc/self/status` (proc_pid_status(5)) and the machine's
/// setting.
fn refusal(status: &str, enabled: &str) -> String {
    if status.lines().any(|line| line == "THP_enabled:\t0") {
        "this process may have none: prctl(PR_SET_THP_DISABLE), by whoever started it".to_owned()
    } else if enabled.contains("[never]") {
        format!("{TRANSPARENT_ENABLED} is `never`: set it to `madvise`")
    } else {
        "memory is fragmented: reserve some with vm.nr_hugepages, soon after the machine starts".to_owned()
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
    fn a_refusal_has_its_cause() {
        let (allowed, refused) = ("Name:\thoist\nTHP_enabled:\t1\n", "THP_enabled:\t0\nThreads:\t1\n");
        assert!(refusal(refused, "always [madvise] never").contains("PR_SET_THP_DISABLE"));
        assert!(refusal(allowed, "always madvise [never]").contains("`madvise`"));
        assert!(refusal(allowed, "[always] madvise never").contains("fragmented"));
    }

    #[test]
    fn smaps_are_counted_inside_the_range_only() {
        let smaps = "1000-3000 rw-p 00000000 00:00 0\nSize: 8 kB\nAnonHugePages:     4 kB\n\
                     3000-5000 rw-p 00000000 00:00 0 [heap]\nAnonHugePages:   16 kB\nVmFlags: rd wr\n";
        assert_eq!(anon_huge_bytes(smaps, 0x1000, 0x5000), 20 * 1024);
        assert_eq!(anon_huge_bytes(smaps, 0x2000, 0x5000), 16 * 1024);
        assert_eq!(anon_huge_bytes(smaps, 0x1000, 0x4000), 4 * 1024);
    }
}
