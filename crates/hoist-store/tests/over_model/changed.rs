//! Files that are not what they were.

use crate::model::*;
use hoist_store::*;
use std::fs::{File, FileTimes};
use std::os::unix::fs::FileExt;

#[test]
fn a_file_that_is_not_the_same_is_refused_and_a_byte_that_is_not_is_found() {
    let model = Model::new(&[&[MIB, 300, 2 * MIB]], 3);
    let config = model.config();
    let mut store = model.create(&config);
    model.check(&mut store);
    store.close().unwrap();
    // Somebody changes a byte and hides it.
    let file = File::options().write(true).open(model.file(0)).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let bytes = file.metadata().unwrap().len();
    let byte = model.tensors[2].1[2 * MIB - 5];
    file.write_all_at(&[!byte], bytes - 5).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    let mut store = reopen(&config).unwrap();
    let id = store.store().tensor(&model.tensors[2].0).unwrap();
    let error = store.tensor_bytes(id).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Corrupt { .. }) && text.contains("m-0.safetensors"), "{text}");
    let bad = verify(&mut store).unwrap().bad;
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0].tensors, [model.tensors[2].0.clone()]);
    assert!(bad[0].places[0].0.ends_with("m-0.safetensors"), "{bad:?}");
    store.close().unwrap();
    // Not hidden: not read, and said so; all else is.
    file.write_all_at(&[byte], bytes - 5).unwrap();
    let first = |what: &str| {
        let mut store = reopen(&config).unwrap();
        let id = store.store().tensor(&model.tensors[0].0).unwrap();
        let error = store.tensor_bytes(id).unwrap_err();
        assert!(error.to_string().contains(what) && matches!(error, Error::SourceChanged { .. }), "{error}");
        let bad = verify(&mut store).unwrap().bad;
        assert!(bad.len() == 13 && bad[0].unreadable.as_ref().unwrap().contains(what), "{bad:?}");
        store.close().unwrap();
    };
    first("written to");
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    let mut store = reopen(&config).unwrap();
    model.check(&mut store);
    store.close().unwrap();
    file.set_len(bytes - 1).unwrap();
    first("bytes, and had");
    std::fs::remove_file(model.file(0)).unwrap();
    first("No such file");
}

#[test]
fn what_is_read_of_a_file_that_was_changed_is_not_believed() {
    let model = Model::new(&[&[3 * MIB]], 1);
    let config = model.config();
    let mut store = model.create(&config);
    let id = TensorId(0);
    let file = File::options().write(true).open(model.file(0)).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let end = file.metadata().unwrap().len();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let byte = model.tensors[0].1[3 * MIB - 9];
    file.write_all_at(&[!byte], end - 9).unwrap();
    let error = store.tensor_bytes(id).unwrap_err();
    assert!(matches!(error, Error::SourceChanged { .. }), "{error}");
    store.close().unwrap();
    // The file is put back: nothing wrong was learned.
    file.write_all_at(&[byte], end - 9).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    let mut store = reopen(&config).unwrap();
    assert!(unknown(&store) > 0);
    model.check(&mut store);
    store.close().unwrap();
}

#[test]
fn what_was_read_is_known_at_every_durability_and_a_snapshots_part_is_verified() {
    for durability in [Durability::Step, Durability::Snapshot, Durability::None] {
        let model = Model::new(&[&[2 * MIB, 77]], 5);
        let config = Config { durability, ..model.config() };
        let mut store = model.create(&config);
        model.check(&mut store);
        let refused = write_block(&mut store, 0, 0, 9).err().unwrap();
        match durability {
            Durability::None => assert!(matches!(refused, Error::InModel { .. }), "{refused}"),
            _ => assert!(matches!(refused, Error::NoSpace { .. }), "{refused}"),
        }
        store.close().unwrap();
        let store = reopen(&config).unwrap();
        assert_eq!(unknown(&store), 0, "{durability:?}");
        store.close().unwrap();
    }
    let model = Model::new(&[&[2 * MIB]], 5);
    let config = Config { in_place_room_bytes: 2 << 20, ..model.config() };
    let mut store = model.create(&config);
    model.check(&mut store);
    store.snapshot("before").unwrap();
    write_block(&mut store, 0, 0, 9).unwrap();
    store.commit().unwrap();
    let file = File::options().write(true).open(model.file(0)).unwrap();
    let end = file.metadata().unwrap().len();
    file.write_all_at(&[!model.tensors[0].1[5]], end - 2 * MIB as u64 + 5).unwrap();
    let bad = verify(&mut store).unwrap().bad;
    assert_eq!(bad.len(), 1);
    assert_eq!((bad[0].snapshots.as_slice(), bad[0].span.offset), (&["before".to_owned()][..], 0));
    store.close().unwrap();
}
