//! Opening: locks, versions, several directories and their mirrored journals.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;
#[path = "common/drive.rs"]
mod drive;

use common::*;
use drive::{Drive, Will};
use hoist_io::{FileOp, IoThread};
use hoist_store::*;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::tempdir;

/// Two stripes and a rest.
const RUN: u64 = (2 << 20) + 5000;

fn two(slab: &std::sync::Arc<hoist_memory::Slab>, paths: &[&Path]) -> Driver {
    let tensors = [spec("a", RUN, Life::Durable), spec("b", RUN, Life::Durable)];
    let mut store = Driver::create(&config(paths), slab, &tensors).unwrap();
    for run in [0, 1] {
        store.write(store.whole(run), 1).unwrap();
    }
    store.commit();
    store
}

fn text<T>(result: Result<T, Error>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn what_the_drives_have_taken_is_data_in_whole_blocks_and_every_journal() {
    let (folders, slab) = ([tempdir().unwrap(), tempdir().unwrap()], slab());
    let config = config(&[folders[0].path(), folders[1].path()]);
    let mut store = Driver::create(&config, &slab, &[spec("a", 5000, Life::Durable)]).unwrap();
    assert_eq!(store.store.written_bytes(), 0, "making the store is before it");
    store.write(store.whole(0), 1).unwrap();
    assert_eq!(store.store.written_bytes(), 8192);
    store.read(store.whole(0)).unwrap();
    assert_eq!(store.store.written_bytes(), 8192, "reads are no writes");
    store.commit();
    assert_eq!(store.store.written_bytes(), 8192 + 2 * 4096, "a small epoch is one block of each journal");
}

#[test]
fn what_is_no_store_is_told() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let open = |path: &Path| Driver::open(&config(&[path]), &slab);
    assert!(matches!(open(directory.path()), Err(Error::NoStore { .. })));
    assert!(matches!(open(&directory.path().join("none")), Err(Error::NoStore { .. })));
    std::fs::create_dir(directory.path().join("manifest")).unwrap();
    assert!(matches!(open(directory.path()), Err(Error::NoStore { .. })));
    std::fs::write(directory.path().join("manifest/0000.journal"), vec![7; 9000]).unwrap();
    assert!(matches!(open(directory.path()), Err(Error::NoStore { .. })));
    assert!(matches!(Driver::open(&Config::default(), &slab), Err(Error::Config(_))));
}

#[test]
fn a_store_is_not_made_over_another_or_opened_twice() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let store = two(&slab, &[directory.path()]);
    let config = config(&[directory.path()]);
    let locked = text(Driver::open(&config, &slab));
    assert!(locked.contains(&format!("process {}", std::process::id())), "{locked}");
    assert!(matches!(Driver::create(&config, &slab, &[]), Err(Error::Locked { .. })));
    store.store.close().unwrap();
    assert!(matches!(Driver::create(&config, &slab, &[]), Err(Error::Exists { .. })));
    Driver::open(&config, &slab).unwrap().assert_holds(span(0, 0, RUN), 1);
}

#[test]
fn another_version_is_told() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    drop(two(&slab, &[directory.path()]));
    let path = journal(directory.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 99;
    let head = {
        let mut out = Vec::new();
        checksum([&bytes[..16]].into_iter(), &mut out);
        out[0]
    };
    bytes[16..24].copy_from_slice(&head.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = text(Driver::open(&config(&[directory.path()]), &slab));
    assert!(error.contains("format version 99") && error.contains("reads version 4"), "{error}");
}

#[test]
fn directories_may_change_their_order_and_none_may_be_missing() {
    let (first, second, slab) = (tempdir().unwrap(), tempdir().unwrap(), slab());
    let paths = [first.path(), second.path()];
    let store = two(&slab, &paths);
    for run in [0, 1] {
        let extents = store.store.extents(&store.whole(run));
        let lies = |path: &Path| extents.iter().any(|(file, _)| file.starts_with(path));
        assert!(paths.into_iter().all(lies), "a run lies in all directories: {extents:?}");
    }
    drop(store);
    let mut store = Driver::open(&config(&[paths[1], paths[0]]), &slab).unwrap();
    store.assert_holds(span(0, 0, RUN), 1);
    store.assert_holds(span(1, 0, RUN), 1);
    assert_eq!(store.store.directories().map(|one| one.path).collect::<Vec<_>>(), paths);
    drop(store);
    let error = text(Driver::open(&config(&paths[1..]), &slab));
    assert!(error.contains(paths[0].to_str().unwrap()), "{error}");
    let other = tempdir().unwrap();
    drop(two(&slab, &[other.path()]));
    assert!(matches!(
        Driver::open(&config(&[paths[0], other.path()]), &slab),
        Err(Error::Directories { .. })
    ));
}

#[test]
fn the_newest_mirror_wins_and_the_others_are_brought_up() {
    let (first, second, slab) = (tempdir().unwrap(), tempdir().unwrap(), slab());
    let paths = [first.path(), second.path()];
    let mut store = two(&slab, &paths);
    let old = std::fs::read(journal(paths[0])).unwrap();
    store.write(store.whole(0), 2).unwrap();
    store.commit();
    drop(store);
    // As if the first drive had lost what was written last; then as if it had lost its journals.
    std::fs::write(journal(paths[0]), &old).unwrap();
    let mut store = Driver::open(&config(&paths), &slab).unwrap();
    assert_eq!(store.store.epoch(), 2);
    store.assert_holds(span(0, 0, RUN), 2);
    store.write(store.whole(0), 3).unwrap();
    assert_eq!(store.commit(), 3);
    drop(store);
    for path in [paths[0], paths[1]] {
        for name in ["0000.journal", "0001.journal"] {
            std::fs::remove_file(path.join("manifest").join(name)).unwrap();
        }
        let mut store = Driver::open(&config(&paths), &slab).unwrap();
        assert_eq!(store.store.epoch(), 3);
        store.assert_holds(span(0, 0, RUN), 3);
        store.assert_holds(span(1, 0, RUN), 1);
    }
}

#[test]
fn a_cut_segment_is_told() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    drop(two(&slab, &[directory.path()]));
    let segment = directory.path().join("data/0001.seg");
    std::fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(4096).unwrap();
    let error = text(Driver::open(&config(&[directory.path()]), &slab));
    assert!(error.contains("0001.seg has 4096 bytes"), "{error}");
    std::fs::remove_file(segment).unwrap();
    assert!(text(Driver::open(&config(&[directory.path()]), &slab)).contains("0001.seg"));
}

/// Notes which folders are synced.
struct Syncs(Arc<Mutex<Vec<PathBuf>>>);

impl Will for Syncs {
    fn file(&mut self, op: &FileOp) -> Result<(), hoist_io::Error> {
        if let FileOp::SyncDir { path } = op {
            self.0.lock().unwrap().push(path.clone());
        }
        Ok(())
    }
}

/// Kills: a store that is gone after a power cut with the folder that was made for it.
#[test]
fn folders_that_are_made_are_synced_where_they_lie() {
    let (directory, slab, synced) = (tempdir().unwrap(), slab(), Arc::default());
    let path = directory.path().join("deep/store");
    let start = |_, deliver: Deliver| {
        let (slab, will) = (slab.clone(), Syncs(Arc::clone(&synced)));
        let open = move || {
            let inner = hoist_io::open(&hoist_io::Config::default(), &slab)?;
            Ok(Box::new(Drive { inner, will }) as _)
        };
        IoThread::spawn_with("hoist-io-test", open, deliver)
    };
    drop(Driver::create_on(&config(&[&path]), &slab, &start, &[]).unwrap());
    let synced = synced.lock().unwrap();
    for folder in ["", "deep", "deep/store", "deep/store/data", "deep/store/manifest"] {
        assert!(synced.iter().any(|one| *one == directory.path().join(folder)), "{folder:?}: {synced:?}");
    }
    assert!(!synced.contains(&directory.path().parent().unwrap().to_owned()), "what was there is left alone");
}
