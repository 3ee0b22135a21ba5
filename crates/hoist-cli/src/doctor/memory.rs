//! Memory: the machine's, and what a cgroup leaves of it.

use super::{Finding, cgroup};
use crate::config::units::format_bytes;
use crate::report::meminfo_bytes;

/// What the smallest useful run takes: quickstart's budgets and what the process needs beside them.
const BYTES_GOOD: u64 = 1 << 30;

/// What is said of little memory.
const COST: &str = "a run whose host.budget + device.budget come near it is killed or swaps";

/// Free memory, and the limit of this process's cgroup or of one above it.
pub fn examine() -> Vec<Finding> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    vec![
        free(meminfo_bytes(&meminfo, "MemAvailable:")),
        limit(cgroup::narrowest(), meminfo_bytes(&meminfo, "MemTotal:")),
    ]
}

fn free(bytes: Option<u64>) -> Finding {
    match bytes {
        Some(bytes) if bytes >= BYTES_GOOD => Finding::ok("free memory", format_bytes(bytes)),
        Some(bytes) => {
            let mend = "end what uses it, or keep host.budget + device.budget well below it";
            Finding::degraded("free memory", format_bytes(bytes), COST, mend)
        }
        None => {
            let cost = "whether the budgets fit is not known";
            Finding::degraded("free memory", "/proc/meminfo does not say", cost, "mount -t proc proc /proc")
        }
    }
}

/// A limit that is no less than the machine's memory is none.
fn limit(limit: Option<cgroup::Limit>, total_bytes: Option<u64>) -> Finding {
    const NAME: &str = "memory limit";
    let Some(limit) = limit.filter(|limit| total_bytes.is_none_or(|total| limit.bytes < total)) else {
        return Finding::ok(NAME, "no cgroup sets one below the machine's memory");
    };
    let left_bytes = limit.bytes.saturating_sub(limit.used_bytes);
    let (bytes, left) = (format_bytes(limit.bytes), format_bytes(left_bytes));
    let found = format!("{bytes}, {left} of it free, set by {}", limit.file.display());
    if left_bytes >= BYTES_GOOD {
        return Finding::ok(NAME, found);
    }
    let mend = "docker run --memory with more, or systemctl set-property UNIT MemoryMax=…";
    Finding::degraded(NAME, found, COST, mend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn what_is_left_counts() {
        let set = |bytes, used_bytes| Some(cgroup::Limit { bytes, used_bytes, file: "memory.max".into() });
        let total = Some(16 << 30);
        assert_eq!(limit(None, total).state, State::Ok);
        assert!(limit(set(1 << 60, 0), total).found.starts_with("no cgroup"));
        assert_eq!(limit(set(4 << 30, 1 << 30), total).state, State::Ok);
        assert_eq!(limit(set(4 << 30, 7 << 29), total).state, State::Degraded);
        assert_eq!(limit(set(4 << 30, 5 << 30), total).state, State::Degraded);
    }

    #[test]
    fn little_or_unknown_free_memory_is_said() {
        assert_eq!(free(Some(2 << 30)).state, State::Ok);
        assert_eq!(free(Some(1 << 29)).state, State::Degraded);
        assert_eq!(free(None).state, State::Degraded);
    }
}
