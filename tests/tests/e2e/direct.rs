//! Stores pass by the page cache.

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use rustix::process::Pid;

use crate::command::{folder, run};
use crate::interrupt::Bench;

/// The kernel caches files in pages of this, or of a multiple.
const PAGE_BYTES: u64 = 4096;

/// The segments that a process has open, each with its flags.
fn open_segments(process: Pid) -> Vec<(PathBuf, OFlags)> {
    let root = PathBuf::from(format!("/proc/{}", process.as_raw_nonzero()));
    let open = fs::read_dir(root.join("fd")).unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let target = fs::read_link(entry.path())
            .ok()
            .filter(|target| target.extension().is_some_and(|e| e == "seg"))?;
        let info = fs::read_to_string(root.join("fdinfo").join(entry.file_name())).ok()?;
        // "flags:\t02140002", octal (proc_pid_fdinfo(5))
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim();
        Some((target, OFlags::from_bits_retain(u32::from_str_radix(flags, 8).unwrap())))
    });
    open.collect()
}

/// How many pages of a file are in the page cache; `None` where the file system cannot say.
///
/// A read that may not wait gets what is cached and nothing else (RWF_NOWAIT, preadv2(2)). It may set the kernel to
/// fetching the page it did not find, hence the advice, which keeps it from fetching others too.
fn cached_pages(path: &Path) -> Option<usize> {
    let file = File::open(path).unwrap();
    fadvise(&file, 0, None, Advice::Random).unwrap();
    let mut cached = 0;
    for offset in (0..file.metadata().unwrap().len()).step_by(PAGE_BYTES as usize) {
        let mut byte = [0];
        match preadv2(&file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT) {
            Ok(_) => cached += 1,
            Err(Errno::AGAIN) => {}
            Err(Errno::OPNOTSUPP) => return None,
            Err(errno) => panic!("{}: {errno}", path.display()),
        }
    }
    Some(cached)
}

#[test]
fn segments_are_opened_direct_and_stay_out_of_the_page_cache() {
    let folder = folder();
    let mut bench = Bench::start(folder.path());
    bench.wait_for("step 2 ");
    let segments = open_segments(bench.pid());
    assert!(!segments.is_empty(), "the run has no segment open");
    for (path, flags) in &segments {
        assert!(flags.contains(OFlags::DIRECT), "{} is open with {flags:?}", path.display());
    }
    bench.interrupt();

    let path = &segments[0].0;
    // What was there is counted before anything else looks at the file.
    let Some(cached) = cached_pages(path) else {
        println!("skipped: the file system under {} has no RWF_NOWAIT", path.display());
        return;
    };
    assert_eq!(cached, 0, "pages of {} are cached", path.display());
    fadvise(File::open(path).unwrap(), 0, None, Advice::DontNeed).unwrap();
    run(folder.path(), &["verify", "hoist-quickstart"], 0);
    assert_eq!(cached_pages(path), Some(0), "verify has left pages of {} in the cache", path.display());
    // The count can see what is cached.
    let bytes = fs::read(path).unwrap();
    assert_eq!(cached_pages(path), Some(bytes.len() / PAGE_BYTES as usize));
}
