//! What this process may do, from `/proc/self/status` (proc_pid_status(5)).

/// `CAP_IPC_LOCK`: no limit of locked memory holds (capabilities(7)).
pub const CAP_IPC_LOCK: u32 = 14;
/// `CAP_SYS_ADMIN` (capabilities(7)).
pub const CAP_SYS_ADMIN: u32 = 21;

/// The lines of the file.
pub struct Status(String);

impl Status {
    /// Of this process; without `/proc`, of one that may nothing.
    pub fn here() -> Self {
        Self(std::fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// Whether a capability is effective.
    pub fn has(&self, capability: u32) -> bool {
        let effective = self.value("CapEff").and_then(|digits| u64::from_str_radix(digits, 16).ok());
        effective.is_some_and(|bits| bits >> capability & 1 == 1)
    }

    /// Whether a seccomp filter looks at its system calls (mode 2, SECCOMP_MODE_FILTER).
    pub fn is_filtered(&self) -> bool {
        self.value("Seccomp") == Some("2")
    }
}

#[cfg(test)]
impl From<&str> for Status {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read() {
        assert!(Status::from("Name:\thoist\nCapEff:\t000001ffffffffff\n").has(CAP_IPC_LOCK));
        assert!(Status::from("CapEff:\t0000000000004000\n").has(CAP_IPC_LOCK));
        assert!(!Status::from("CapEff:\t0000000000004000\n").has(CAP_SYS_ADMIN));
        assert!(!Status::from("").has(CAP_IPC_LOCK));
    }

    #[test]
    fn filters_are_read() {
        assert!(Status::from("Seccomp:\t2\nSeccomp_filters:\t1\n").is_filtered());
        assert!(!Status::from("Seccomp:\t0\nSeccomp_filters:\t2\n").is_filtered());
    }
}
