//! Files in the ring's table: each transfer finds its own, whoever had the place before.

use crate::common::{backend, byte, contents, filled, open_file, read_slot, slab, whole, write_slot};
use hoist_io::{BackendChoice, FileId, FileOp};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Two blocks of a test's backend and one that is not full.
const BYTES: u64 = (64 << 10) + 4096;

/// As many as may be open at a time, so that every place is used.
const FILES: u64 = 512;

#[test]
fn places_are_used_again_without_mixing_files() {
    let folder = tempfile::tempdir().unwrap();
    let slab = slab(4 << 20);
    let mut backend = backend(BackendChoice::Uring, &slab);
    let path = |index: u64| folder.path().join(index.to_string());
    let expected = |step| (0..BYTES).map(|index| byte(step, index)).collect::<Vec<_>>();
    let mut files: Vec<FileId> = (0..FILES).map(|index| open_file(&mut *backend, &path(index))).collect();
    assert_eq!(u64::from(backend.obtained().files_registered), FILES, "{}", backend.obtained());
    for (&file, step) in files.iter().zip(0..) {
        write_slot(&mut *backend, whole(file, BYTES), filled(&slab, BYTES, step)).unwrap();
    }
    // Each third file gives its place up to another, and comes back in a place of another.
    let moved: Vec<u64> = (0..FILES).step_by(3).collect();
    for &index in &moved {
        backend.file(FileOp::Close(files[index as usize])).unwrap();
    }
    for &index in &moved {
        files[index as usize] = open_file(&mut *backend, &path(index));
    }
    for (&file, step) in files.iter().zip(0..) {
        let slot = read_slot(&mut *backend, whole(file, BYTES), filled(&slab, BYTES, 7777)).unwrap();
        assert!(contents(slot.parts()) == expected(step), "file {step} read back differs");
        assert!(std::fs::read(path(step)).unwrap() == expected(step), "file {step} differs");
    }
    let obtained = backend.obtained();
    assert_eq!(obtained.files_registered as usize, files.len() + moved.len(), "{obtained}");
    assert!(obtained.to_string().contains(" registered"), "{obtained}");
}

/// A closed file that the kernel still held would keep the space of one that is removed.
#[test]
fn a_closed_file_is_open_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let slab = slab(2 << 20);
    let mut backend = backend(BackendChoice::Uring, &slab);
    let path = folder.path().join("data");
    let file = open_file(&mut *backend, &path);
    write_slot(&mut *backend, whole(file, BYTES), filled(&slab, BYTES, 1)).unwrap();
    backend.file(FileOp::Close(file)).unwrap();
    // A lease to write is refused with EAGAIN while anybody else has the file open (fcntl(2)). Older kernels let go of
    // what left the table up to a second later.
    let plain = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let start = Instant::now();
    loop {
        // SAFETY: the call has no memory arguments.
        let leased = unsafe { libc::fcntl(plain.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
        let refused = std::io::Error::last_os_error();
        if leased == 0 {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{refused}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
