//! Stores that are only read: beside each other, beside no writer, and without a trace.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;

use common::*;
use hoist_memory::Slab;
use hoist_store::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tempfile::tempdir;

const BYTES: u64 = (1 << 20) + 77;

fn shared(config: &Config, slab: &Arc<Slab>) -> Result<BlockingStore, Error> {
    BlockingStore::open_shared(config, &hoist_io::Config::default(), slab)
}

/// Every file under a folder, with its bytes and when they were changed.
fn files(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, metadata) = (entry.as_ref().unwrap().path(), entry.unwrap().metadata().unwrap());
        if metadata.is_dir() {
            all.extend(files(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            all.insert(path, (bytes, metadata.modified().unwrap()));
        }
    }
    all
}

fn bytes_at(store: &mut BlockingStore) -> Vec<u8> {
    let id = store.store().tensor("a").unwrap();
    store.tensor_bytes(id).unwrap()
}

fn written(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; BYTES as usize];
    pattern(0, 0, seed, &mut bytes);
    bytes
}

/// A store of two directories that died: epoch 2 is not final, the journal of one directory is behind, and that of the
/// other goes on with a torn batch.
fn died(slab: &Arc<Slab>) -> (tempfile::TempDir, Config) {
    let folder = tempdir().unwrap();
    let paths = ["0", "1"].map(|name| folder.path().join(name));
    let config = Config { world_size: 2, ..config(&[&paths[0], &paths[1]]) };
    let tensors = [spec("a", BYTES, Life::Durable), spec("s", BYTES, Life::Scratch)];
    let mut store = Driver::create(&config, slab, &tensors).unwrap();
    let mut behind = Vec::new();
    for epoch in 1..=2 {
        store.write(store.whole(0), epoch).unwrap();
        assert_eq!(store.commit(), epoch);
        if epoch == 1 {
            assert!(store.store.finalize(1).unwrap());
            assert!(matches!(store.any_event(), StoreEvent::Recorded { result: Ok(()) }));
            behind = std::fs::read(journal(&paths[0])).unwrap();
        }
    }
    drop(store);
    std::fs::write(journal(&paths[0]), behind).unwrap();
    // A frame of a batch that did not get to its end: the last whole block that the journal has, under the next number.
    let ends = journal(&paths[1]);
    let mut bytes = std::fs::read(&ends).unwrap();
    let end =
        bytes.chunks(4096).rposition(|block| block.iter().any(|byte| *byte != 0)).unwrap() * 4096 + 4096;
    let mut torn = Vec::new();
    let record = hoist_format::Record::SnapshotDeleted("torn".into());
    let mut number = 0;
    hoist_format::read_journal(&bytes, |batch| number = batch.id.number).0.unwrap();
    let id = hoist_format::BatchId { number: number + 1, attempt: 9 };
    hoist_format::encode_record(id, 0, &record, &mut torn).unwrap();
    bytes[end..end + torn.len()].copy_from_slice(&torn);
    std::fs::write(&ends, bytes).unwrap();
    (folder, config)
}

#[test]
fn a_reader_leaves_everything_as_it_is() {
    let slab = slab();
    let (folder, config) = died(&slab);
    let before = files(folder.path());
    let mut newest = shared(&config, &slab).unwrap();
    assert_eq!((newest.store().epoch(), newest.store().epochs()), (2, vec![1, 2]));
    assert!(bytes_at(&mut newest) == written(2));
    let mut older = shared(&Config { epoch: Some(1), ..config.clone() }, &slab).unwrap();
    assert_eq!((older.store().epoch(), older.store().epochs()), (1, vec![1]));
    assert!(bytes_at(&mut older) == written(1));
    assert!(bytes_at(&mut newest) == written(2));
    assert!(verify(&mut older).unwrap().bad.is_empty());
    let none = Config { epoch: Some(7), ..config.clone() };
    assert!(matches!(shared(&none, &slab), Err(Error::NoEpoch { asked: 7, .. })));
    newest.close().unwrap();
    drop(older);
    assert!(files(folder.path()) == before, "files have changed");
    // Whoever opens it to write finds both epochs, and what the other has left is put in order.
    let mut writer = Driver::open(&Config { epoch: Some(1), ..config }, &slab).unwrap();
    writer.assert_holds(writer.whole(0), 1);
    drop(writer);
    assert!(files(folder.path()) != before);
}

#[test]
fn readers_share_a_store_and_no_writer_is_beside_them() {
    let slab = slab();
    let (_folder, config) = died(&slab);
    let writer = Driver::open(&config, &slab).unwrap();
    let error = shared(&config, &slab).err().unwrap();
    assert!(matches!(&error, Error::Locked { pid, .. } if *pid == std::process::id().to_string()), "{error}");
    drop(writer);
    let readers = [shared(&config, &slab).unwrap(), shared(&config, &slab).unwrap()];
    for one in readers {
        let error = Driver::open(&config, &slab).err().unwrap();
        assert!(matches!(error, Error::BeingRead { .. }), "{error}");
        assert!(error.to_string().contains("wait until all readers"), "{error}");
        drop(one);
    }
    Driver::open(&config, &slab).unwrap();
}

#[test]
fn nothing_is_written_through_a_reader() {
    let slab = slab();
    let (folder, config) = died(&slab);
    let before = files(folder.path());
    let mut store = Driver::open_shared(&config, &slab);
    let refused = |result: Result<(), Error>| assert!(matches!(result, Err(Error::ReadAlone)), "{result:?}");
    for run in 0..2 {
        refused(store.write(store.whole(run), 3));
    }
    refused(store.store.commit(&Scalars::default()).map(drop));
    refused(store.store.set_note("key", vec![1]));
    refused(store.store.snapshot("kept"));
    refused(store.store.delete_snapshot("kept"));
    refused(store.store.rollback_to("kept").map(drop));
    refused(store.store.finalize(2).map(drop));
    store.store.rollback().unwrap();
    store.assert_holds(store.whole(0), 2);
    store.store.close().unwrap();
    for durability in [Durability::Snapshot, Durability::None] {
        let mut store = Driver::open_shared(&Config { durability, ..config.clone() }, &slab);
        refused(store.store.commit(&Scalars::step(9)).map(drop));
        store.store.close().unwrap();
    }
    assert!(files(folder.path()) == before, "files have changed");
}
