//! A store into several safetensors files and back, as the crate `safetensors` and the hub's convention see them.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;

use common::*;
use hoist_store::*;
use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as TheirDtype, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use tempfile::tempdir;

const MIB: usize = 1 << 20;

/// Bytes of the tensors, 8 bits each.
const BYTES: [usize; 10] = [0, 1, 511, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 3 * MIB + 5];

fn open(store: &Path) -> BlockingStore {
    BlockingStore::open(&config(&[store]), &hoist_io::Config::default(), &slab()).unwrap()
}

fn import(model: &Path, store: &Path) -> BlockingStore {
    import_safetensors(model, &config(&[store]), &hoist_io::Config::default(), &slab()).unwrap()
}

/// The tensors of a model: bytes of each size, and every type.
fn tensors() -> Vec<(String, TheirDtype, Vec<usize>)> {
    let sized = BYTES.into_iter().enumerate();
    let mut tensors: Vec<_> = sized
        .map(|(n, bytes)| (format!("layer.{}.of {bytes}", n % 3), TheirDtype::U8, vec![bytes]))
        .collect();
    for dtype in Dtype::ALL {
        let theirs: TheirDtype = serde_json::from_value(dtype.name().into()).unwrap();
        tensors.push((format!("type \"{dtype}\""), theirs, vec![2, 4, 300]));
    }
    tensors.push(("scalar".into(), TheirDtype::F32, vec![]));
    tensors.push(("no rows".into(), TheirDtype::F32, vec![0, 7]));
    tensors
}

/// Writes the model to one file.
fn write_model(file: &Path) {
    let tensors = tensors();
    let bytes = |(name, dtype, shape): &(String, TheirDtype, Vec<usize>)| {
        let mut out = vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8];
        let seed = name.bytes().fold(1, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
        pattern(name.len() as u32, 0, seed, &mut out);
        out
    };
    let held: Vec<_> = tensors.iter().map(bytes).collect();
    let view = |((name, dtype, shape), data): (&(String, TheirDtype, Vec<usize>), _)| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap())
    };
    let views: Vec<_> = tensors.iter().zip(held.iter().map(Vec::as_slice)).map(view).collect();
    let metadata =
        HashMap::from([("format".to_owned(), "pt".to_owned()), ("ö\"".to_owned(), "ü\n".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), file).unwrap();
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What an index and its shards hold is, tensor by tensor, what the one file holds; gives the bytes of each shard's
/// tensors, one length each.
fn compare(index: &Path, whole: &Path) -> Vec<Vec<u64>> {
    let whole = std::fs::read(whole).unwrap();
    let metadata = |bytes: &[u8]| SafeTensors::read_metadata(bytes).unwrap().1.metadata().clone();
    let expected_metadata = metadata(&whole);
    let whole = SafeTensors::deserialize(&whole).unwrap();
    let text: serde_json::Value = serde_json::from_slice(&std::fs::read(index).unwrap()).unwrap();
    let total: usize = whole.iter().map(|(_, view)| view.data().len()).sum();
    assert_eq!(text["metadata"], serde_json::json!({ "total_size": total }));
    let map: BTreeMap<String, String> = serde_json::from_value(text["weight_map"].clone()).unwrap();
    assert_eq!(map.len(), whole.len());
    let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
    map.into_iter().for_each(|(tensor, file)| shards.entry(file).or_default().push(tensor));
    let compare_shard = |(number, (name, tensors)): (usize, (&String, &Vec<String>))| {
        assert_eq!(*name, format!("out-{:05}-of-{:05}.safetensors", number + 1, shards.len()));
        let bytes = std::fs::read(index.with_file_name(name)).unwrap();
        assert_eq!(metadata(&bytes), expected_metadata, "{name}");
        let shard = SafeTensors::deserialize(&bytes).unwrap();
        let mut found = shard.names();
        found.sort();
        assert_eq!(&found, tensors);
        tensors
            .iter()
            .for_each(|tensor| assert!(shard.tensor(tensor).unwrap() == whole.tensor(tensor).unwrap()));
        shard.iter().map(|(_, view)| view.data().len() as u64).collect()
    };
    shards.iter().enumerate().map(compare_shard).collect()
}

/// Exports `store` in shards of at most so many bytes, compares them with the model's one file, imports and exports
/// them again as one, and gives the number of files with tensors.
fn round_trip(store: &mut BlockingStore, model: &Path, shard_bytes_max: u64) -> usize {
    let folder = tempdir().unwrap();
    let (exports, back) = (folder.path().join("exports"), folder.path().join("back.safetensors"));
    std::fs::create_dir(&exports).unwrap();
    let out = exports.join("out.safetensors");
    let written = export_safetensors(store, &out, shard_bytes_max).unwrap();
    let files: Vec<_> = written.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names_in(&exports), files, "nothing temporary is left");
    if written.len() > 1 {
        let shards = compare(&exports.join("out.safetensors.index.json"), model);
        assert_eq!(shards.len(), written.len() - 1);
        let fits = |lengths: &Vec<u64>| lengths.len() == 1 || lengths.iter().sum::<u64>() <= shard_bytes_max;
        assert!(shards.iter().all(fits), "{shards:?}");
    }
    let mut again = import(written.last().unwrap(), &folder.path().join("store"));
    export_safetensors(&mut again, &back, SHARD_BYTES_DEFAULT).unwrap();
    again.close().unwrap();
    // Byte by byte: the order of the tensors is kept too.
    assert!(std::fs::read(&back).unwrap() == std::fs::read(model).unwrap());
    if written.len() == 1 { 1 } else { written.len() - 1 }
}

/// The model as hoist writes it into one file, whose order and header it keeps.
fn imported(folder: &Path) -> (BlockingStore, PathBuf) {
    let (model, one) = (folder.join("in.safetensors"), folder.join("one.safetensors"));
    write_model(&model);
    let mut store = import(&model, &folder.join("store"));
    let files = export_safetensors(&mut store, &one, SHARD_BYTES_DEFAULT).unwrap();
    assert_eq!(files, std::slice::from_ref(&one));
    (store, one)
}

#[test]
fn a_model_comes_back_from_one_two_and_many_shards() {
    let folder = tempdir().unwrap();
    let (mut store, one) = imported(folder.path());
    let total: u64 = store.store().tensors().iter().map(|tensor| tensor.bytes).sum();
    assert_eq!(round_trip(&mut store, &one, total), 1);
    assert_eq!(round_trip(&mut store, &one, total - 1), 2);
    assert!(round_trip(&mut store, &one, MIB as u64) > 4);
    let tensors = store.store().tensors().len();
    assert!(round_trip(&mut store, &one, 0) > tensors - 3, "empty tensors alone share one");
}

#[test]
fn a_model_comes_back_from_shards_of_any_size() {
    let folder = tempdir().unwrap();
    let (mut store, one) = imported(folder.path());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(12));
    let store = std::cell::RefCell::new(&mut store);
    let limits = prop_oneof![1_u64..20_000, 20_000_u64..8_000_000];
    runner
        .run(&limits, |shard_bytes_max| {
            round_trip(&mut store.borrow_mut(), &one, shard_bytes_max);
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_is_there_already_is_refused_and_stays() {
    let folder = tempdir().unwrap();
    let (mut store, _) = imported(folder.path());
    let exports = folder.path().join("exports");
    std::fs::create_dir(&exports).unwrap();
    let out = exports.join("m.safetensors");
    let several = ["m.safetensors", "m.safetensors.index.json", "m-00002-of-00002.safetensors"];
    let in_one: u64 = store.store().tensors().iter().map(|tensor| tensor.bytes).sum();
    // An index would make readers take its files for the model, so it is in the way of one file too.
    let cases = several.map(|name| (name, in_one - 1)).into_iter().chain([(several[1], in_one)]);
    for (name, shard_bytes_max) in cases {
        let path = exports.join(name);
        std::fs::write(&path, "old").unwrap();
        let error = export_safetensors(&mut store, &out, shard_bytes_max).unwrap_err();
        assert!(matches!(&error, Error::InTheWay { path: there } if *there == path), "{error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names_in(&exports), [name]);
        std::fs::remove_file(&path).unwrap();
    }
    std::fs::create_dir(&out).unwrap();
    let error = export_safetensors(&mut store, &out, in_one).unwrap_err();
    assert!(matches!(error, Error::InTheWay { .. }), "{error:?}");
}

/// Kills: space that a killed export costs for ever; anything else that goes.
#[test]
fn what_a_killed_export_left_goes_and_nothing_else() {
    let folder = tempdir().unwrap();
    let (mut store, _) = imported(folder.path());
    let exports = folder.path().join("exports");
    std::fs::create_dir(&exports).unwrap();
    // Larger than PID_MAX_LIMIT: no process has it.
    let gone = 4_194_305;
    let left = ["m.safetensors", "m-00001-of-00009.safetensors", "m.safetensors.index.json"];
    left.iter().for_each(|name| std::fs::write(exports.join(format!("{name}.{gone}.tmp")), "left").unwrap());
    let mut others = vec!["m.safetensors.1.tmp".to_owned(), "m.safetensors.tmp".to_owned()];
    others.extend([format!("m.safetensors.0{gone}.tmp"), format!("m.safetensors.{gone}.tmp.old")]);
    others.extend(
        ["m2.safetensors", "m-one-of-00009.safetensors", "m-00001-of-00009.safetensors.index.json"]
            .map(|name| format!("{name}.{gone}.tmp")),
    );
    others.iter().for_each(|name| std::fs::write(exports.join(name), "another's").unwrap());
    std::fs::create_dir(exports.join(format!("m-00002-of-00009.safetensors.{gone}.tmp"))).unwrap();
    others.push(format!("m-00002-of-00009.safetensors.{gone}.tmp"));
    export_safetensors(&mut store, &exports.join("m.safetensors"), SHARD_BYTES_DEFAULT).unwrap();
    others.push("m.safetensors".to_owned());
    others.sort();
    assert_eq!(names_in(&exports), others);
}

#[test]
fn an_index_that_cannot_be_written_takes_its_shards_away() {
    let folder = tempdir().unwrap();
    let (mut store, _) = imported(folder.path());
    let exports = folder.path().join("exports");
    // What the index is called at first is a directory: all shards have their names by then.
    let temporary = format!("m.safetensors.index.json.{}.tmp", std::process::id());
    std::fs::create_dir_all(exports.join(&temporary)).unwrap();
    let error = export_safetensors(&mut store, &exports.join("m.safetensors"), 4096).unwrap_err();
    assert!(matches!(&error, Error::File { doing: "creating", .. }), "{error:?}");
    assert_eq!(names_in(&exports), [temporary]);
}

#[test]
fn bad_bytes_in_a_later_shard_leave_none() {
    let folder = tempdir().unwrap();
    let (store, _) = imported(folder.path());
    // In no bundle: what comes before it is whole.
    let tensors = store.store().tensors();
    let last = tensors.iter().rposition(|tensor| tensor.bytes > BUNDLED_BYTES_MAX).unwrap();
    assert!(last > 0);
    let (segment, extent) = store.store().extents(&store.store().covering(TensorId(last as u32))).remove(0);
    store.close().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[extent.offset as usize] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let mut store = open(&folder.path().join("store"));
    let exports = folder.path().join("exports");
    std::fs::create_dir(&exports).unwrap();
    let error = export_safetensors(&mut store, &exports.join("m.safetensors"), 4096).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { .. }), "{error:?}");
    assert_eq!(names_in(&exports), [""; 0]);
}

#[test]
fn a_name_that_is_not_utf_8_is_for_one_file_only() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempdir().unwrap();
    let (mut store, one) = imported(folder.path());
    let out = folder.path().join(std::ffi::OsStr::from_bytes(b"m\xff.safetensors"));
    let error = export_safetensors(&mut store, &out, 4096).unwrap_err();
    assert!(matches!(&error, Error::Index { what, .. } if what.contains("UTF-8")), "{error:?}");
    export_safetensors(&mut store, &out, SHARD_BYTES_DEFAULT).unwrap();
    assert!(std::fs::read(&out).unwrap() == std::fs::read(&one).unwrap());
}
