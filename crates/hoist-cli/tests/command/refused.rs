//! io_uring refused as container engines do: said by its cause, and done without.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::common::folder;

/// A filter that answers `io_uring_setup` with EPERM (seccomp(2)): the number is the first word of what it is given, and
/// the same for every machine that hoist runs on.
const FILTER: [libc::sock_filter; 4] = [
    libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: 0 },
    libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: libc::SYS_io_uring_setup as u32,
    },
    answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    answer(libc::SECCOMP_RET_ALLOW),
];

const fn answer(action: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: action }
}

/// Without new privileges anybody may install a filter.
fn install() -> std::io::Result<()> {
    let mut filter = FILTER;
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: these prctls read their arguments only; the program and its filter outlive the calls.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    if refused { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn a_doctor_tells_a_seccomp_filter_from_other_refusals() {
    let folder = folder();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hoist"));
    command.current_dir(folder.path()).arg("doctor");
    // SAFETY: between fork and exec the function makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let line = text.lines().find(|line| line.contains(" io_uring: ")).unwrap();
    assert!(line.starts_with("degraded"), "{line}");
    // Where the machine refuses io_uring to everybody, that is the cause.
    let cause = if is_disabled() { "kernel.io_uring_disabled" } else { "seccomp-io-uring.json" };
    assert!(line.contains(cause), "{line}");
    assert!(!text.contains("written and read by io_uring") && text.contains("written and read by pread"));
}

fn is_disabled() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|level| level.trim() == "2")
}
