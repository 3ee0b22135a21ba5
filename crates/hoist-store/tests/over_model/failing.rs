//! What cannot be done, and what it leaves behind.

use crate::common::*;
use crate::model::*;
use hoist_store::*;

#[test]
fn without_room_a_write_says_what_it_needs_and_all_stays_as_it_was() {
    let model = Model::new(&[&[MIB]], 0);
    let mut store = model.create(&model.config());
    let error = write_block(&mut store, 0, 0, 9).err().unwrap();
    assert!(matches!(error, Error::NoSpace { need_bytes: BLOCK, free_bytes: 0, .. }), "{error}");
    model.check(&mut store);
    store.close().unwrap();
}

#[test]
fn what_cannot_be_made_leaves_nothing_behind() {
    let store_is_there = |model: &Model| model.folder.path().join("store/manifest").exists();
    let fails = |model: &Model, config: &Config| {
        let made = BlockingStore::create_over(config, &IoConfig::default(), &slab(), &model.open());
        made.err().unwrap()
    };
    // More than a process keeps open.
    let files = vec![&[8_usize][..]; 520];
    let model = Model::new(&files, 0);
    let error = fails(&model, &model.config());
    assert!(error.to_string().contains("512 files") && !store_is_there(&model), "{error}");
    // More room than there is anywhere.
    let model = Model::new(&[&[8]], 0);
    let error = fails(&model, &Config { in_place_room_bytes: u64::MAX - 1, ..model.config() });
    assert!(matches!(error, Error::NoRoom { .. }), "{error}");
    let none = Config { in_place_room_bytes: 1, durability: Durability::None, ..model.config() };
    let error = fails(&model, &none);
    assert!(matches!(error, Error::Config(_)) && error.to_string().contains("in_place_room"), "{error}");
    // A path that a journal cannot have.
    let strange =
        model.folder.path().join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff"));
    std::fs::rename(model.file(0), &strange).unwrap();
    let files = ModelFiles::open(&strange).unwrap();
    let made = BlockingStore::create_over(&model.config(), &IoConfig::default(), &slab(), &files);
    let error = made.err().unwrap();
    assert!(error.to_string().contains("UTF-8") && !store_is_there(&model), "{error}");
}

/// Without the directory that a written block lies in, the file's block would come to light: it is refused.
#[test]
fn a_directory_with_written_blocks_is_not_done_without() {
    let model = Model::new(&[&[3 * MIB]], 0);
    let paths = ["a", "b"].map(|name| model.folder.path().join(name));
    let config =
        Config { nvme_path: paths.to_vec(), in_place_room_bytes: 6 << 20, snapshots: 1, ..model.config() };
    let mut store = model.create(&config);
    for block in 0..12 {
        write_block(&mut store, 0, block * BLOCK, 9).unwrap();
    }
    store.commit().unwrap();
    store.close().unwrap();
    let open = |nvme_path| {
        let config = Config { nvme_path, ..model.config() };
        BlockingStore::open_shared(&config, &IoConfig::default(), &slab())
    };
    open(paths.to_vec()).unwrap().close().unwrap();
    let opened = paths.clone().map(|path| open(vec![path]));
    let refused = opened.iter().filter(|opened| matches!(opened, Err(Error::Directories { .. }))).count();
    assert!(refused > 0, "the blocks lie in one directory or both");
    for mut store in opened.into_iter().flatten() {
        let found = store.tensor_bytes(TensorId(0)).unwrap();
        assert!(found != model.tensors[0].1, "the written blocks are in the directory that is there");
    }
}
