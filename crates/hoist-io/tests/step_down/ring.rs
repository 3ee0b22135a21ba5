//! io_uring refused, as container profiles do: at its setup, at its use, at the registering of memory.

use crate::bytes::{backend, check, config, slab, step};
use crate::{child, filter};
use hoist_io::{BackendChoice, Error, open};

fn is_filtered() -> bool {
    // 2 is SECCOMP_MODE_FILTER (proc_pid_status(5)).
    std::fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line == "Seccomp:\t2")
}

/// With io_uring refused in `call`: pread by itself, an error for who insists.
fn check_refused(call: &str, folder: &std::path::Path) {
    assert!(is_filtered());
    let slab = slab();
    let mut backend = backend(&slab);
    check(&mut *backend, &slab, folder);
    let obtained = backend.obtained();
    assert_eq!(obtained.backend, "pread", "{obtained}");
    step(&obtained.stepped_down, &["pread instead of io_uring", call, "(os error 1)", "seccomp"]);
    match open(&config(BackendChoice::Uring), &slab).err() {
        Some(Error::NoRing { call: named, source }) => {
            assert!(named.starts_with(call), "{named}");
            assert_eq!(source.raw_os_error(), Some(libc::EPERM));
        }
        other => panic!("{other:?} where there is no io_uring"),
    }
}

#[test]
fn a_refused_setup_leaves_pread() {
    match child::folder() {
        Some(folder) => check_refused("io_uring_setup", &folder),
        None => child::run("ring::a_refused_setup_leaves_pread", |command| {
            filter::refuse_call(command, libc::SYS_io_uring_setup, libc::EPERM);
        }),
    }
}

#[test]
fn a_refused_enter_leaves_pread() {
    match child::folder() {
        Some(folder) => check_refused("io_uring_enter", &folder),
        None if !has_ring() => println!("skipped: this machine has no io_uring to refuse a part of"),
        None => child::run("ring::a_refused_enter_leaves_pread", |command| {
            filter::refuse_call(command, libc::SYS_io_uring_enter, libc::EPERM);
        }),
    }
}

#[test]
fn a_refused_registration_leaves_a_ring_without_it() {
    let Some(folder) = child::folder() else {
        return match has_ring() {
            false => println!("skipped: this machine has no io_uring to refuse a part of"),
            true => child::run("ring::a_refused_registration_leaves_a_ring_without_it", |command| {
                filter::refuse_call(command, libc::SYS_io_uring_register, libc::EPERM);
            }),
        };
    };
    assert!(is_filtered());
    let slab = slab();
    let mut backend = backend(&slab);
    check(&mut *backend, &slab, &folder);
    let obtained = backend.obtained();
    assert_eq!((obtained.backend, obtained.registered_pieces), ("uring", 0), "{obtained}");
    step(
        &obtained.stepped_down,
        &["unregistered memory", "IORING_REGISTER_BUFFERS", "(os error 1)", "seccomp"],
    );
}

/// `IORING_REGISTER_CLONE_BUFFERS` (linux/io_uring.h).
const CLONE_BUFFERS: u32 = 30;

#[test]
fn a_kernel_without_clones_registers_for_each_ring() {
    let Some(folder) = child::folder() else {
        return match has_ring() {
            false => println!("skipped: this machine has no io_uring to refuse a part of"),
            true => child::run("ring::a_kernel_without_clones_registers_for_each_ring", |command| {
                filter::refuse_registration(command, CLONE_BUFFERS);
            }),
        };
    };
    assert!(is_filtered());
    let slab = slab();
    for _ in 0..2 {
        let mut backend = backend(&slab);
        check(&mut *backend, &slab, &folder);
        let obtained = backend.obtained();
        assert_eq!((obtained.registered_pieces, obtained.registered_once), (2, false), "{obtained}");
        step(
            &obtained.stepped_down,
            &["pinned once per ring", "IORING_REGISTER_CLONE_BUFFERS", "Linux 6.12"],
        );
    }
}

/// Whether io_uring works where nothing is refused on purpose.
pub fn has_ring() -> bool {
    open(&config(BackendChoice::Uring), &slab()).is_ok()
}
