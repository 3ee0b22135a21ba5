//! Stores pass by the page cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::OFlags;
use rustix::process::Pid;

use crate::command::{folder, run};
use crate::interrupt::Running;

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

/// How many bytes of a file are in the page cache, as `fincore` (util-linux) has it; `None` where it is not installed.
/// (A read with RWF_NOWAIT would say so too, but begins to fetch what it does not find.)
fn cached_bytes(path: &Path) -> Option<u64> {
    let output =
        Command::new("fincore").args(["--bytes", "--noheadings", "--output", "RES"]).arg(path).output();
    let output = output.ok()?;
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}

#[test]
fn segments_are_opened_direct_and_stay_out_of_the_page_cache() {
    let folder = folder();
    let mut bench = Running::bench(folder.path());
    bench.wait_for("step 2 ");
    let segments = open_segments(bench.pid());
    assert!(!segments.is_empty(), "the run has no segment open");
    for (path, flags) in &segments {
        assert!(flags.contains(OFlags::DIRECT), "{} is open with {flags:?}", path.display());
    }
    bench.interrupt();

    let path = &segments[0].0;
    let Some(cached) = cached_bytes(path) else {
        println!(
            "skipped: what is in the page cache is asked of fincore (util-linux), which is not installed"
        );
        return;
    };
    assert_eq!(cached, 0, "the run has left bytes of {} in the page cache", path.display());
    run(folder.path(), &["verify", "hoist-quickstart"], 0);
    assert_eq!(cached_bytes(path), Some(0), "verify has left bytes of {} in the page cache", path.display());
    // What is there is seen.
    let bytes = fs::read(path).unwrap();
    assert_eq!(cached_bytes(path), Some(bytes.len() as u64));
}
