//! Kernel and memory.

use hoist_io::memory::{self, Slab};
use rustix::process::{Resource, getrlimit};

use super::{Finding, State};
use crate::config::units::format_bytes;
use crate::report::meminfo_bytes;

/// Oldest kernel whose io_uring hoist uses (single issuer, deferred work), and oldest series without spurious
/// errors that were fixed later (ENOMEM, fixed in 6.6.86 and 6.12.21; seastar issue 2728).
const KERNEL_MIN: (u32, u32) = (6, 1);
const KERNEL_GOOD: (u32, u32) = (6, 6);
/// Mapped to see what pages the machine gives: a few huge ones.
const TRIAL_BYTES: u64 = 16 << 20;
/// What the smallest useful run takes: quickstart's budgets and what the process needs beside them.
const MEMORY_BYTES_GOOD: u64 = 1 << 30;

/// Everything that does not depend on a directory.
pub fn examine() -> Vec<Finding> {
    let mut findings = vec![kernel(), lockable()];
    findings.extend(pages());
    findings.push(free_memory());
    findings
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let remedy = "use Linux 6.6.86, 6.12.21 or later";
    match version(&release) {
        Some(version) if version >= KERNEL_GOOD => Finding::ok("kernel", release),
        Some(version) if version >= KERNEL_MIN => Finding::bad(State::Degraded, "kernel", release, remedy),
        _ => {
            Finding::bad(State::Degraded, "kernel", format!("{release}, without what io_uring needs"), remedy)
        }
    }
}

/// Major and minor version of a release such as `6.18.44-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn lockable() -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    match getrlimit(Resource::Memlock).current {
        None => Finding::ok("lockable memory", "unlimited"),
        Some(_) if may_lock(&status) => Finding::ok("lockable memory", "unlimited (CAP_IPC_LOCK)"),
        Some(bytes) => {
            let found = format!("{} (ulimit -l)", format_bytes(bytes));
            let remedy =
                "raise it above host.budget: ulimit -l unlimited, or --ulimit memlock=-1:-1 for a container";
            Finding::bad(State::Degraded, "lockable memory", found, remedy)
        }
    }
}

/// Whether a process with this `/proc/self/status` has CAP_IPC_LOCK, for which no limit holds (`capabilities(7)`).
fn may_lock(status: &str) -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    effective.is_some_and(|bits| bits >> CAP_IPC_LOCK & 1 == 1)
}

/// Which pages a slab gets, and whether they can be locked, by mapping one.
fn pages() -> Vec<Finding> {
    let config = memory::Config { budget_bytes: TRIAL_BYTES, ..memory::Config::default() };
    let slab = match Slab::map(&config) {
        Ok(slab) => slab,
        Err(error) => {
            let remedy = "free memory, or raise what this process may have";
            return vec![Finding::bad(State::Broken, "host memory", error.to_string(), remedy)];
        }
    };
    let obtained = slab.obtained();
    let huge = if obtained.small_bytes == 0 {
        let kind = if obtained.transparent_bytes == 0 { "reserved (hugetlb)" } else { "transparent" };
        Finding::ok("huge pages", kind)
    } else {
        let found = format!(
            "{} of {} in small pages",
            format_bytes(obtained.small_bytes),
            format_bytes(obtained.bytes)
        );
        let remedy = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, or reserve some: sysctl vm.nr_hugepages";
        Finding::bad(State::Degraded, "huge pages", found, remedy)
    };
    let locked = if obtained.locked_bytes >= obtained.bytes {
        Finding::ok("locking", format!("{} locked", format_bytes(obtained.locked_bytes)))
    } else {
        let found = format!("{} of {}", format_bytes(obtained.locked_bytes), format_bytes(obtained.bytes));
        Finding::bad(State::Degraded, "locking", found, "raise ulimit -l, or give CAP_IPC_LOCK")
    };
    vec![huge, locked]
}

fn free_memory() -> Finding {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match meminfo_bytes(&meminfo, "MemAvailable:") {
        Some(bytes) if bytes >= MEMORY_BYTES_GOOD => Finding::ok("free memory", format_bytes(bytes)),
        Some(bytes) => {
            let remedy = "keep host.budget + device.budget well below it";
            Finding::bad(State::Degraded, "free memory", format_bytes(bytes), remedy)
        }
        None => Finding::bad(State::Degraded, "free memory", "unknown", "mount /proc"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read() {
        assert!(may_lock("Name:\thoist\nCapEff:\t000001ffffffffff\n"));
        assert!(!may_lock("CapEff:\t0000000000000000\n"));
        assert!(!may_lock(""));
    }

    #[test]
    fn releases_have_versions() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.15.0"), Some((5, 15)));
        assert_eq!(version("unknown"), None);
    }
}
