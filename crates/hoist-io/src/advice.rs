//! What to do about what the kernel refuses: how error texts end.

use std::io;

/// Where the kernel says whether io_uring is switched off (Linux 6.6): 1 for those without rights, 2 for all.
const RING_DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

/// For a file or folder; empty where the errno says it all.
pub(crate) fn for_file(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => "; give this user the right to it, or choose another directory",
        Some(libc::EROFS) => "; mount the file system for writing, or choose another directory",
        Some(libc::ENOSPC) => "; free space on the file system, or choose another directory",
        Some(libc::EDQUOT) => "; free space or raise the quota, or choose another directory",
        Some(libc::ENOENT | libc::ENOTDIR) => "; check the path, and that its file system is mounted",
        Some(libc::EMFILE | libc::ENFILE) => "; raise `ulimit -n`",
        Some(libc::EIO) => "; the drive or what is above it failed: look in dmesg",
        _ => "",
    }
}

/// For memory that cannot be registered with a ring.
pub(crate) fn for_registration(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOMEM) => "raise `ulimit -l`, or grant CAP_IPC_LOCK",
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => {
            "a seccomp filter refuses io_uring_register: allow it, see config/seccomp-io-uring.json"
        }
        _ => "look in dmesg",
    }
}

/// For files that cannot be registered with a ring.
pub(crate) fn for_files(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        // Before IORING_RSRC_REGISTER_SPARSE.
        Some(libc::EINVAL) => "boot Linux 5.19 or later",
        // The table may not have more places than the process may have descriptors (io_uring_register(2)).
        Some(libc::EMFILE) => "raise `ulimit -n`",
        _ => for_registration(source),
    }
}

/// What tells one refusal of io_uring from another: the errno is the same for most.
#[derive(Clone, Copy)]
struct Facts {
    /// What the sysctl says; it reads 0 inside a container whose seccomp profile refuses io_uring.
    is_disabled: bool,
    /// Whether a seccomp filter holds for this process.
    is_filtered: bool,
}

/// For io_uring that cannot be had.
pub(crate) fn for_ring(source: &io::Error) -> &'static str {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let disabled = std::fs::read_to_string(RING_DISABLED).unwrap_or_default();
    let facts = Facts {
        is_disabled: !matches!(disabled.trim(), "" | "0"),
        // 2 is SECCOMP_MODE_FILTER (proc_pid_status(5)).
        is_filtered: status.lines().any(|line| line == "Seccomp:\t2"),
    };
    explain(source.raw_os_error(), facts)
}

fn explain(errno: Option<i32>, facts: Facts) -> &'static str {
    match (errno, facts) {
        (Some(libc::EPERM), Facts { is_disabled: true, .. }) => {
            "the sysctl kernel.io_uring_disabled forbids it: set it to 0"
        }
        (Some(libc::EPERM | libc::EACCES | libc::ENOSYS), Facts { is_filtered: true, .. }) => {
            "a seccomp filter forbids it, as containers' default profiles do: allow it, see \
             config/seccomp-io-uring.json"
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "no seccomp filter and no sysctl forbids it, so a security module may: see its log"
        }
        (Some(libc::ENOSYS), _) => "the kernel has none: boot Linux 5.1 or later, built with CONFIG_IO_URING",
        (Some(libc::ENOMEM), _) => "raise `ulimit -l`, or grant CAP_IPC_LOCK",
        _ => "look in dmesg",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_errno_of_a_file_has_its_advice() {
        let advice = |errno| for_file(&io::Error::from_raw_os_error(errno));
        for (errno, word) in [
            (libc::EACCES, "right"),
            (libc::EROFS, "mount"),
            (libc::ENOSPC, "free space"),
            (libc::EDQUOT, "quota"),
            (libc::ENOENT, "path"),
            (libc::EMFILE, "ulimit -n"),
            (libc::EIO, "dmesg"),
        ] {
            assert!(advice(errno).contains(word), "{errno}: {}", advice(errno));
        }
        assert_eq!(advice(libc::EEXIST), "");
    }

    #[test]
    fn each_refused_registration_has_its_advice() {
        let advice = |errno| for_registration(&io::Error::from_raw_os_error(errno));
        assert!(advice(libc::ENOMEM).contains("ulimit -l"));
        assert!(advice(libc::EPERM).contains("seccomp") && advice(libc::ENOSYS).contains("seccomp"));
        assert!(!advice(libc::EFAULT).contains("ulimit"));
        let advice = |errno| for_files(&io::Error::from_raw_os_error(errno));
        assert!(advice(libc::EMFILE).contains("ulimit -n") && advice(libc::EINVAL).contains("5.19"));
        assert!(advice(libc::EPERM).contains("seccomp"));
    }

    #[test]
    fn who_refuses_a_ring_is_told_apart() {
        let advice =
            |errno, is_disabled, is_filtered| explain(Some(errno), Facts { is_disabled, is_filtered });
        for (found, word) in [
            (advice(libc::EPERM, true, false), "io_uring_disabled"),
            (advice(libc::EPERM, true, true), "io_uring_disabled"),
            (advice(libc::EPERM, false, true), "a seccomp filter"),
            (advice(libc::ENOSYS, false, true), "a seccomp filter"),
            (advice(libc::ENOSYS, true, false), "CONFIG_IO_URING"),
            (advice(libc::EPERM, false, false), "security module"),
            (advice(libc::ENOMEM, false, false), "ulimit -l"),
            (advice(libc::EIO, false, false), "dmesg"),
        ] {
            assert!(found.contains(word), "{found}");
        }
        assert_eq!(explain(None, Facts { is_disabled: true, is_filtered: true }), "look in dmesg");
    }
}
