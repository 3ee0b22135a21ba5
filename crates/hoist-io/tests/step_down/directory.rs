//! Directories that are less than a file system on a drive.

use crate::bytes::{backend, check, config, slab, step};
use crate::child;
use hoist_io::{BackendChoice, Error, FileOp, open};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[test]
fn memory_as_a_file_system_is_buffered_and_says_so() {
    const SHARED_MEMORY: &str = "/dev/shm";
    let found = rustix::fs::statfs(SHARED_MEMORY);
    if !found.is_ok_and(|found| found.f_type == libc::TMPFS_MAGIC) {
        return println!("skipped: {SHARED_MEMORY} is no tmpfs here");
    }
    let folder = tempfile::tempdir_in(SHARED_MEMORY).unwrap();
    for choice in [BackendChoice::Auto, BackendChoice::Pread] {
        let slab = slab();
        let mut backend = open(&config(choice), &slab).unwrap();
        check(&mut *backend, &slab, folder.path());
        let obtained = backend.obtained();
        assert_eq!((obtained.files_direct, obtained.files_buffered), (0, 1), "{obtained}");
        step(&obtained.stepped_down, &["buffered instead of direct I/O", SHARED_MEMORY, "tmpfs"]);
    }
}

/// The errno of a file that cannot be made there. The error names the file and what was being done.
fn refusal(folder: &Path) -> i32 {
    let path = folder.join("data");
    let slab = slab();
    match backend(&slab).file(FileOp::Open { path: path.clone(), create: true, direct: true }) {
        Err(Error::File { operation: "open", path: named, source }) => {
            assert_eq!(named, path);
            source.raw_os_error().unwrap()
        }
        other => panic!("{other:?} where no file can be made"),
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_that_names_it() {
    let Some(folder) = child::folder() else {
        return child::run(
            "directory::a_directory_that_cannot_be_written_is_an_error_that_names_it",
            child::drop_rights,
        );
    };
    std::fs::set_permissions(&folder, Permissions::from_mode(0o555)).unwrap();
    assert_eq!(refusal(&folder), libc::EACCES);
    // With the right to write it is a directory like others.
    std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    let slab = slab();
    check(&mut *backend(&slab), &slab, &folder);
}

#[test]
fn a_file_system_that_takes_no_files_is_an_error_that_names_it() {
    // EACCES for users, EPERM or EROFS for root: nobody makes files in sysfs.
    let errno = refusal(Path::new("/sys/kernel"));
    assert!([libc::EACCES, libc::EPERM, libc::EROFS].contains(&errno), "errno {errno}");
}
