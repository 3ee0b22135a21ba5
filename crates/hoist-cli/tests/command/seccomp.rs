//! The seccomp profile for containers lets the command's system calls through.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::common::config;

/// What `strace -f -c` counted over all commands and backends on x86-64. (clone3 is not among what is allowed: libc falls
/// back on clone, whose flags a filter can see.)
const COUNTED: &str = "access arch_prctl brk clock_gettime clock_nanosleep close epoll_create1 epoll_ctl epoll_wait \
    eventfd2 execve fallocate fcntl fdatasync flock fstat fstatfs fsync ftruncate futex getcwd getdents64 getpid \
    getrandom gettid io_uring_enter io_uring_register io_uring_setup ioctl lseek madvise mkdir mlock mmap mprotect \
    munmap newfstatat open openat poll prctl pread64 preadv2 prlimit64 pwrite64 read readlink rename renameat renameat2 rmdir rseq \
    rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield set_robust_list set_tid_address \
    sigaltstack statfs statx uname unlink unlinkat write clone exit exit_group";

#[test]
fn the_profile_allows_what_the_command_calls() {
    let text = std::fs::read(config("seccomp-io-uring.json")).unwrap();
    let profile: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    // 38 is ENOSYS.
    assert_eq!(profile["defaultErrnoRet"], 38);
    let mut allowed = BTreeMap::new();
    for rule in profile["syscalls"].as_array().unwrap() {
        assert_eq!(rule["action"], "SCMP_ACT_ALLOW", "{rule}");
        for name in rule["names"].as_array().unwrap() {
            let before = allowed.insert(name.as_str().unwrap(), rule);
            assert!(before.is_none(), "{name} has two rules");
        }
    }
    for name in COUNTED.split_whitespace() {
        assert!(allowed.contains_key(name), "{name} is not allowed");
    }
    assert_eq!(allowed["clone"]["args"][0]["op"], "SCMP_CMP_MASKED_EQ");
    for name in ["clone3", "unshare", "mount", "ptrace", "bpf", "kexec_load", "add_key"] {
        assert!(!allowed.contains_key(name), "{name} is allowed");
    }
}
