//! io_uring refused, as container profiles do: at its setup, at its use, at the registering of memory.

use crate::bytes::{backend, check, config, slab, step};
use crate::child;
use crate::filter::{self, Argument};
use hoist_io::{BackendChoice, Config, Error, open};

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
    for choice in [BackendChoice::Uring, BackendChoice::TokioUring] {
        match open(&config(choice), &slab).err() {
            Some(Error::NoRing { call: named, source, advice }) => {
                assert!(named.starts_with(call), "{choice:?}: {named}");
                assert_eq!(source.raw_os_error(), Some(libc::EPERM));
                assert!(advice.contains("a seccomp filter"), "{advice}");
            }
            other => panic!("{choice:?}: {other:?} where there is no io_uring"),
        }
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
    assert_eq!(obtained.files_registered, 0, "{obtained}");
    step(
        &obtained.stepped_down,
        &["unregistered memory", "IORING_REGISTER_BUFFERS", "(os error 1)", "seccomp"],
    );
    step(
        &obtained.stepped_down,
        &["unregistered files", "IORING_REGISTER_FILES2", "(os error 1)", "seccomp"],
    );
    assert!(obtained.registration_advice.is_some_and(|advice| advice.contains("seccomp")));
}

/// `IORING_REGISTER_CLONE_BUFFERS` (linux/io_uring.h).
const CLONE_BUFFERS: u32 = 30;

#[test]
fn a_kernel_without_clones_registers_for_each_ring() {
    let Some(folder) = child::folder() else {
        return match has_ring() {
            false => println!("skipped: this machine has no io_uring to refuse a part of"),
            true => child::run("ring::a_kernel_without_clones_registers_for_each_ring", |command| {
                let operation = Argument { place: 1, value: CLONE_BUFFERS };
                filter::refuse_argument(command, libc::SYS_io_uring_register, operation, libc::EINVAL);
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

/// `IORING_REGISTER_FILES2` (linux/io_uring.h).
const FILES2: u32 = 13;

#[test]
fn a_kernel_without_sparse_tables_leaves_descriptors_and_registered_memory() {
    let Some(folder) = child::folder() else {
        return match has_ring() {
            false => println!("skipped: this machine has no io_uring to refuse a part of"),
            true => child::run(
                "ring::a_kernel_without_sparse_tables_leaves_descriptors_and_registered_memory",
                |command| {
                    let operation = Argument { place: 1, value: FILES2 };
                    filter::refuse_argument(command, libc::SYS_io_uring_register, operation, libc::EINVAL);
                },
            ),
        };
    };
    assert!(is_filtered());
    let slab = slab();
    let mut backend = backend(&slab);
    check(&mut *backend, &slab, &folder);
    let obtained = backend.obtained();
    assert_eq!((obtained.files_registered, obtained.registered_pieces), (0, 2), "{obtained}");
    step(&obtained.stepped_down, &["unregistered files", "(os error 22)", "Linux 5.19"]);
}

/// A machine that has rings, and none as deep as the runtime of tokio-uring asks for, which panics then.
#[test]
fn a_refused_depth_is_an_error_and_no_panic() {
    const DEPTH: u32 = 512;
    if child::folder().is_none() {
        return match has_ring() {
            false => println!("skipped: this machine has no io_uring to refuse a part of"),
            true => child::run("ring::a_refused_depth_is_an_error_and_no_panic", |command| {
                let entries = Argument { place: 0, value: DEPTH };
                filter::refuse_argument(command, libc::SYS_io_uring_setup, entries, libc::ENOMEM);
            }),
        };
    }
    let shallow = config(BackendChoice::TokioUring);
    assert!(open(&shallow, &slab()).is_ok());
    match open(&Config { queue_depth: DEPTH - 1, ..shallow }, &slab()).err() {
        Some(Error::NoRing { source, .. }) => assert_eq!(source.raw_os_error(), Some(libc::ENOMEM)),
        other => panic!("{other:?} for a ring that is refused"),
    }
}

/// Whether io_uring works where nothing is refused on purpose.
pub fn has_ring() -> bool {
    open(&config(BackendChoice::Uring), &slab()).is_ok()
}
