//! Seccomp filters that refuse one thing (seccomp(2)), as a container's profile does.

use crate::child;
use std::mem::offset_of;
use std::process::Command;

/// What the kernel tells a filter about a call (linux/seccomp.h).
#[repr(C)]
struct SeccompData {
    nr: i32,
    arch: u32,
    instruction_pointer: u64,
    args: [u64; 6],
}

/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_AARCH64` (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7;

/// The fourth argument of mmap, its flags: the lower half, on little-endian machines.
const MMAP_FLAGS: usize = offset_of!(SeccompData, args) + 3 * size_of::<u64>();

/// An argument of a call: the lower half of it, on little-endian machines.
pub struct Argument {
    /// Its number, from 0.
    pub place: usize,
    pub value: u32,
}

/// Refuses a system call, by its number, with one argument.
pub fn refuse_argument(command: &mut Command, number: i64, argument: Argument, errno: i32) {
    let place = offset_of!(SeccompData, args) + argument.place * size_of::<u64>();
    refuse(command, number, &[load(place), skip_unless_equal(argument.value, 1)], errno);
}

/// Refuses a system call, by its number.
pub fn refuse_call(command: &mut Command, number: i64, errno: i32) {
    refuse(command, number, &[], errno);
}

/// Refuses mappings of hugetlb pages, as a machine does that has none left.
pub fn refuse_hugetlb(command: &mut Command) {
    let condition = [load(MMAP_FLAGS), skip_unless_bits(libc::MAP_HUGETLB as u32, 1)];
    refuse(command, libc::SYS_mmap, &condition, libc::ENOMEM);
}

/// Refuses a system call under a condition, which skips one when it does not hold.
fn refuse(command: &mut Command, number: i64, condition: &[libc::sock_filter], errno: i32) {
    // What does not match skips the rest and the refusal.
    let rest = condition.len() as u8 + 1;
    let mut filters = vec![
        load(offset_of!(SeccompData, arch)),
        skip_unless_equal(ARCH, rest + 2),
        load(offset_of!(SeccompData, nr)),
        skip_unless_equal(number as u32, rest),
    ];
    filters.extend_from_slice(condition);
    filters.push(answer(libc::SECCOMP_RET_ERRNO | errno as u32));
    filters.push(answer(libc::SECCOMP_RET_ALLOW));
    install(command, filters);
}

fn load(offset: usize) -> libc::sock_filter {
    filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32, 0)
}

fn skip_unless_equal(value: u32, skipped: u8) -> libc::sock_filter {
    filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, skipped)
}

fn skip_unless_bits(bits: u32, skipped: u8) -> libc::sock_filter {
    filter(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, bits, skipped)
}

fn answer(action: u32) -> libc::sock_filter {
    filter(libc::BPF_RET | libc::BPF_K, action, 0)
}

fn filter(code: u32, k: u32, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf, k }
}

/// The child, and what it starts, runs under the filter. Without new privileges anybody may install one.
fn install(command: &mut Command, filters: Vec<libc::sock_filter>) {
    child::set(command, move || {
        let program = libc::sock_fprog { len: filters.len() as u16, filter: filters.as_ptr().cast_mut() };
        // SAFETY: these prctls read their arguments only; the program and its filters outlive the calls.
        unsafe {
            match libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) {
                0 => libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
                refused => refused,
            }
        }
    });
}
