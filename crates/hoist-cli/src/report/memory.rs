//! The most memory that this process ever had.

/// VmHWM + HugetlbPages of `/proc/self/status`, in bytes: pages of hugetlbfs are not in VmHWM (`proc_pid_status(5)`).
///
/// # Errors
/// When `/proc` is not there or says something else than Linux does.
pub fn peak_rss_bytes() -> std::io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    sum(&status).ok_or_else(|| std::io::Error::other("/proc/self/status has no VmHWM and HugetlbPages in kB"))
}

fn sum(status: &str) -> Option<u64> {
    Some(bytes(status, "VmHWM:")? + bytes(status, "HugetlbPages:").unwrap_or(0))
}

/// The value of a line such as `VmHWM:     1234 kB`, in bytes; of `/proc/meminfo` too.
pub fn bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_pages_count() {
        let status = "VmPeak:\t  999 kB\nVmHWM:\t    1000 kB\nHugetlbPages:\t    2048 kB\n";
        assert_eq!(sum(status), Some(3048 << 10));
        assert_eq!(sum("VmHWM:\t 7 kB\n"), Some(7 << 10));
        assert_eq!(sum("HugetlbPages:\t 7 kB\n"), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(peak_rss_bytes().unwrap() > 1 << 20);
    }
}
