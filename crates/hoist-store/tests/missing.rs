//! Stores of which directories are missing: they are read as far as they are there.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;

use common::*;
use hoist_store::*;

const BYTES: u64 = 3 << 20;

fn open(paths: &[&std::path::Path]) -> Result<BlockingStore, Error> {
    BlockingStore::open_shared(&config(paths), &IoConfig::default(), &slab())
}

#[test]
fn what_is_there_is_read_and_what_is_not_says_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
    let slab = slab();
    // Each fits the writes' share of one directory, or is spread over all.
    let sizes = [BYTES, 100, 5000, 256 << 10, BYTES];
    let tensor = |number: usize| TensorSpec {
        group: format!("layer.{number}"),
        ..spec(&format!("{number}"), sizes[number], Life::Durable)
    };
    let specs: Vec<_> = (0..sizes.len()).map(tensor).collect();
    let config = Config { snapshots: 1, ..config(&[&a, &b, &c]) };
    let mut store = BlockingStore::create(&config, &IoConfig::default(), &slab, &specs).unwrap();
    for (epoch, name) in [(1, "old"), (2, "new")] {
        for (run, bytes) in sizes.into_iter().enumerate() {
            let span = Span { run: RunId(run as u32), offset: 0, bytes };
            let fill = |at: u64, slot: &mut hoist_memory::Slot| {
                let mut at = at;
                for part in slot.parts_mut() {
                    pattern(run as u32, at, epoch, part);
                    at += part.len() as u64;
                }
                Ok(())
            };
            store.write(span, fill).unwrap();
        }
        store.commit().unwrap();
        if name == "old" {
            store.snapshot(name).unwrap();
        }
    }
    store.close().unwrap();
    let error = BlockingStore::open(&common::config(&[&a, &c]), &IoConfig::default(), &slab).err().unwrap();
    assert!(error.to_string().contains("can only be read"), "{error}");
    let mut found = [0; 2];
    for (paths, left) in [(vec![&b, &a], "/c"), (vec![&c], "/a"), (vec![&b], "/c"), (vec![&a, &b, &c], "")] {
        let paths: Vec<_> = paths.into_iter().map(|path| path.as_path()).collect();
        for (snapshot, epoch) in [(None, 2), (Some("old".to_owned()), 1)] {
            let config = Config { snapshot, ..common::config(&paths) };
            let mut store = BlockingStore::open_shared(&config, &IoConfig::default(), &slab).unwrap();
            assert_eq!(store.store().missing().len(), 3 - paths.len());
            for (id, bytes) in sizes.into_iter().enumerate() {
                match store.tensor_bytes(TensorId(id as u32)) {
                    Ok(read) => {
                        let mut expected = vec![0; bytes as usize];
                        pattern(id as u32, 0, epoch, &mut expected);
                        assert!(read == expected, "{id} of epoch {epoch} in {paths:?}");
                        found[0] += usize::from(paths.len() < 3);
                    }
                    Err(error) => {
                        let text = error.to_string();
                        assert!(matches!(error, Error::Missing { .. }) && text.contains(left), "{text}");
                        assert!(paths.len() < 3, "{text}");
                        found[1] += 1;
                    }
                }
            }
            assert!(store.store().space().total_bytes > 0);
            assert!(verify(&mut store).unwrap().bad.is_empty());
            store.close().unwrap();
        }
    }
    assert!(found[0] > 0 && found[1] > 0, "{found:?}: the test shows nothing");
    drop(open(&[&a, &b, &c]).unwrap());
}

#[test]
fn ranks_do_not_go_on_without_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    let specs = [spec("t", 5000, Life::Durable)];
    let store = BlockingStore::create(&config(&[&a, &b]), &IoConfig::default(), &slab(), &specs).unwrap();
    store.close().unwrap();
    // What lies in the other would be taken for never written, and the new store would have zeros.
    let error = RankStores::open(&[vec![a.clone()]], &IoConfig::default(), &slab()).err().unwrap();
    assert!(error.to_string().contains("/b"), "{error}");
    RankStores::open(&[vec![a, b]], &IoConfig::default(), &slab()).unwrap();
}

#[test]
fn of_replicas_one_that_was_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    let specs = [spec("t", 5000, Life::Durable)];
    let mut expected = vec![0; 5000];
    pattern(0, 0, 3, &mut expected);
    for (rank, path) in [(0, &a), (1, &b)] {
        let config = Config { rank, world_size: 2, ..config(&[path]) };
        let mut store = BlockingStore::create(&config, &IoConfig::default(), &slab(), &specs).unwrap();
        if rank == 1 {
            let span = Span { run: RunId(0), offset: 0, bytes: 5000 };
            let fill = |_: u64, slot: &mut hoist_memory::Slot| {
                slot.put(0, &expected);
                Ok(())
            };
            store.write(span, fill).unwrap();
        }
        store.commit().unwrap();
        store.close().unwrap();
    }
    let mut ranks = RankStores::open(&[vec![a], vec![b]], &IoConfig::default(), &slab()).unwrap();
    let mut found = vec![0; 5000];
    ranks.read("t", 0, 5000, &mut found).unwrap();
    assert!(found == expected);
}
