//! Making a store where there is little room: what it needs finds place, and what it can do without is left out.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;
#[path = "common/drive.rs"]
mod drive;
#[path = "common/full.rs"]
mod full;

use common::*;
use drive::Drive;
use full::Full;
use hoist_io::IoThread;
use hoist_store::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::tempdir;

const MIB: u64 = 1 << 20;

/// The sizes of the segments of a directory.
fn segments(directory: &Path) -> Vec<u64> {
    let files = std::fs::read_dir(directory.join("data")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).collect()
}

fn large_segments(paths: &[&Path]) -> Config {
    Config { segment_bytes: Config::default().segment_bytes, ..config(paths) }
}

/// Makes a store of nearly nothing whose directories' drives are full, or not.
fn made_on(paths: &[&Path], drives: &[Full]) -> Result<(), Error> {
    let slab = slab();
    let start: &dyn Fn(usize, Deliver) -> _ = &|place, deliver| {
        let (slab, will) = (slab.clone(), drives[place].clone());
        let backend = move || {
            let inner = hoist_io::open(&hoist_io::Config::default(), &slab)?;
            Ok(Box::new(Drive { inner, will }) as _)
        };
        IoThread::spawn_with("hoist-io-test", backend, deliver)
    };
    let config = large_segments(paths);
    Store::create_on(&config, start, &[spec("a", 5, Life::Durable)], |_| {})?.close()?;
    let mut store = Driver::open(&config, &slab)?;
    store.write(span(0, 0, 5), 1)?;
    store.assert_holds(span(0, 0, 5), 1);
    Ok(())
}

/// Kills: an ENOSPC of what is optional that ends the creation, and one of what is needed that does not; space of a step
/// taken back that stays taken.
#[test]
fn a_store_is_made_without_what_has_no_room() {
    for (allocate_end, write_end, fails) in [
        // The rounding up of the one segment: at its allocation, at its zeros.
        (2 * MIB, u64::MAX, false),
        (u64::MAX, 2 * MIB, false),
        // What it needs.
        (MIB / 2, u64::MAX, true),
        (u64::MAX, MIB / 2, true),
    ] {
        let directory = tempdir().unwrap();
        let full = Full::new(allocate_end, write_end);
        let made = made_on(&[directory.path()], std::slice::from_ref(&full));
        assert_eq!(made.is_err(), fails, "{full:?}: {made:?}");
        assert!(fails || segments(directory.path()) == [MIB], "{full:?}");
    }
}

/// The first directory takes all that is needed, and the second has no room for its even part. (Kills: a new segment
/// that stays when its first step is taken back.)
#[test]
fn a_directory_without_room_gets_no_segment() {
    for (allocate_end, write_end) in [(0, u64::MAX), (u64::MAX, 0)] {
        let (one, two) = (tempdir().unwrap(), tempdir().unwrap());
        let drives = [Full::new(u64::MAX, u64::MAX), Full::new(allocate_end, write_end)];
        made_on(&[one.path(), two.path()], &drives).unwrap();
        assert_eq!((segments(one.path()).len(), segments(two.path()).len()), (1, 0), "{:?}", drives[1]);
    }
}

/// Set for a copy of this process that may mount: what it runs.
const MOUNTS: &str = "HOIST_TEST_MAY_MOUNT";

/// The file system's size: what ext4 needs itself besides.
const DISK_BYTES: u64 = 128 * MIB;

fn call(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let said = || format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    if output.status.success() { Ok(()) } else { Err(said()) }
}

/// A file system that is mounted here until this process ends, which alone sees it.
fn mount(kind: &str, folder: &Path) -> Result<PathBuf, String> {
    let (mounted, image) = (folder.join("mounted"), folder.join("image"));
    std::fs::create_dir(&mounted).unwrap();
    let at = mounted.to_str().unwrap();
    if kind == "tmpfs" {
        call("mount", &["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "none", at])?;
    } else {
        std::fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        let image = image.to_str().unwrap();
        call("mkfs.ext4", &["-q", "-F", "-m", "0", image])?;
        call("mount", &["-o", "loop", image, at])?;
    }
    Ok(mounted)
}

/// Three directories of one small file system: two thirds of it are needed, and rounding up alone would pass it.
fn fill_most_of(kind: &str) {
    let folder = tempdir().unwrap();
    let mounted = match mount(kind, folder.path()) {
        Ok(mounted) => mounted,
        Err(why) => return println!("{kind} is skipped: {why}"),
    };
    let paths = ["a", "b", "c"].map(|name| mounted.join(name));
    paths.iter().for_each(|path| std::fs::create_dir(path).unwrap());
    let slab = slab();
    let config = large_segments(&paths.each_ref().map(PathBuf::as_path));
    // Both copies, and an eighth more: 81 MiB.
    let mut store = Driver::create(&config, &slab, &[spec("a", 36 * MIB, Life::Durable)]).unwrap();
    for offset in (0..36 * MIB).step_by(MIB as usize) {
        store.write(span(0, offset, MIB), 1).unwrap();
    }
    store.commit();
    store.store.close().unwrap();
    let bytes: u64 = paths.iter().flat_map(|path| segments(path)).sum();
    assert!((81 * MIB..84 * MIB).contains(&bytes), "{kind}: {bytes}");
    let mut store = Driver::open(&config, &slab).unwrap();
    store.assert_holds(span(0, 35 * MIB, MIB), 1);
    drop(store);
    // Lazily: the threads of a store that was dropped are still at their end.
    call("umount", &["--lazy", mounted.to_str().unwrap()]).unwrap();
}

/// Kills: directories of one device that each count its room as their own, and round up into what others need.
#[test]
fn directories_of_one_small_device_share_it() {
    const NAME: &str = "directories_of_one_small_device_share_it";
    if std::env::var_os(MOUNTS).is_some() {
        return ["ext4", "tmpfs"].into_iter().for_each(fill_most_of);
    }
    // Root may mount a loop device, which root of its own user namespace may not.
    let ways = [&["--mount"][..], &["--mount", "--user", "--map-root-user"]];
    let may = |way: &&[&str]| call("unshare", &[*way, &["true"]].concat()).is_ok();
    let Some(way) = ways.into_iter().find(may) else {
        return println!("skipped: unshare gives no place where a file system can be mounted");
    };
    let mut copy = Command::new("unshare");
    copy.args(way).arg(std::env::current_exe().unwrap()).args([NAME, "--exact", "--nocapture"]);
    let output = copy.env(MOUNTS, "1").output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    println!("{}{}", said(&output.stdout), said(&output.stderr));
    assert!(output.status.success());
}
