//! Models in several safetensors files, with an index as the Hugging Face hub has it.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;

use common::*;
use hoist_store::*;
use safetensors::tensor::{Dtype as TheirDtype, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use tempfile::{TempDir, tempdir};

const INDEX: &str = "model.safetensors.index.json";
const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

/// The tensors of the model below: (name, bytes, shard).
const TENSORS: [(&str, usize, &str); 4] = [
    ("layer.0.a", 4097, FIRST),
    ("layer.0.b", 0, FIRST),
    ("layer.1.a", 3, SECOND),
    ("layer.0.c", 511, SECOND),
];

fn data(name: &str, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    pattern(name.len() as u32, 0, name.bytes().fold(1, |seed, byte| seed * 31 + u64::from(byte)), &mut out);
    out
}

fn write_shard(path: &Path, tensors: &[(&str, usize)], metadata: &[(&str, &str)]) {
    let held: Vec<_> = tensors.iter().map(|(name, bytes)| (*name, data(name, *bytes))).collect();
    let view = |data| TensorView::new(TheirDtype::U8, vec![<[u8]>::len(data)], data).unwrap();
    let views: Vec<_> = held.iter().map(|(name, data)| (*name, view(data))).collect();
    let metadata: HashMap<_, _> = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    safetensors::serialize_to_file(views, Some(metadata), path).unwrap();
}

/// A model of two shards whose index a test changes.
struct Model {
    folder: TempDir,
    files: BTreeMap<String, String>,
}

impl Model {
    fn new() -> Model {
        let model = Model {
            folder: tempdir().unwrap(),
            files: TENSORS.iter().map(|(name, _, file)| (name.to_string(), file.to_string())).collect(),
        };
        for file in [FIRST, SECOND] {
            let tensors = TENSORS.iter().filter(|tensor| tensor.2 == file);
            let tensors: Vec<_> = tensors.map(|(name, bytes, _)| (*name, *bytes)).collect();
            write_shard(&model.path(file), &tensors, &[("format", "pt"), (file, "here"), ("which", file)]);
        }
        model.write_index();
        model
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_index(&self) {
        let total = TENSORS.iter().map(|tensor| tensor.1).sum::<usize>();
        let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": self.files});
        std::fs::write(self.path(INDEX), index.to_string()).unwrap();
    }

    fn import(&self, path: &Path) -> Result<BlockingStore, Error> {
        import_safetensors(path, &config(&[&self.path("store")]), &hoist_io::Config::default(), &slab())
    }

    fn import_index(&self) -> Result<BlockingStore, Error> {
        self.import(&self.path(INDEX))
    }

    /// What is said of the index as it is now, before a store is made.
    fn refusal(&self) -> Error {
        let error = self.import_index().err().expect("the model was imported");
        assert!(!self.path("store").exists(), "{error}");
        error
    }

    /// The same, which must be an error of the index with these words.
    fn assert_index_refused(&self, words: &str) {
        let error = self.refusal();
        assert!(matches!(&error, Error::Index { path, .. } if *path == self.path(INDEX)), "{error:?}");
        assert!(error.to_string().contains(words), "{words} in {error}");
    }

    /// The same for an error of this shard.
    fn assert_shard_refused(&self, shard: &str, words: [&str; 2]) {
        let error = self.refusal();
        let Error::Shard { path, index, .. } = &error else { panic!("{error:?}") };
        assert_eq!((path, index), (&self.path(shard), &self.path(INDEX)));
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{words:?} in {error}");
    }
}

fn assert_whole(mut store: BlockingStore) {
    assert!(verify(&mut store).unwrap().bad.is_empty());
    assert_eq!(store.store().tensors().len(), TENSORS.len());
    for (name, bytes, _) in TENSORS {
        let id = store.store().tensor(name).unwrap();
        assert!(store.tensor_bytes(id).unwrap() == data(name, bytes), "{name}");
    }
    store.close().unwrap();
}

#[test]
fn an_index_or_a_directory_is_imported() {
    let model = Model::new();
    assert_whole(model.import_index().unwrap());
    std::fs::remove_dir_all(model.path("store")).unwrap();
    // The index is the model, whatever else lies in its directory.
    write_shard(&model.path("model.safetensors"), &[("another", 5)], &[]);
    let store = model.import(model.folder.path()).unwrap();
    // Both shards' metadata; where they differ, the first's.
    let note = store.store().note("safetensors.metadata").unwrap();
    let metadata: BTreeMap<String, String> = serde_json::from_slice(note).unwrap();
    let expected = [("format", "pt"), (FIRST, "here"), (SECOND, "here"), ("which", FIRST)];
    assert_eq!(metadata, expected.map(|(k, v)| (k.into(), v.into())).into());
    assert_whole(store);
}

#[test]
fn a_directory_with_one_file_is_imported_and_one_without_is_refused() {
    let model = Model::new();
    std::fs::remove_file(model.path(INDEX)).unwrap();
    let error = model.import(model.folder.path()).err().unwrap();
    assert!(matches!(&error, Error::NoModel { directory } if directory == model.folder.path()), "{error:?}");
    write_shard(&model.path("model.safetensors"), &[("a", 5)], &[]);
    let store = model.import(model.folder.path()).unwrap();
    assert!(store.store().tensor("a").is_some());
    store.close().unwrap();
    std::fs::remove_dir_all(model.path("store")).unwrap();
    // Half a download of the hub's: the index's link leads nowhere yet.
    std::os::unix::fs::symlink("nowhere", model.path(INDEX)).unwrap();
    assert!(matches!(model.import(model.folder.path()), Err(Error::File { .. })));
}

#[test]
fn a_file_that_the_index_names_must_be_there() {
    let model = Model::new();
    std::fs::remove_file(model.path(SECOND)).unwrap();
    model.assert_shard_refused(SECOND, ["is not there", "get both again"]);
}

#[test]
fn a_tensor_that_the_index_has_in_a_file_must_be_in_it() {
    let mut model = Model::new();
    model.files.insert("layer.0.bb".into(), FIRST.into());
    model.write_index();
    model.assert_shard_refused(FIRST, ["no tensor \"layer.0.bb\"", "get both again"]);
}

#[test]
fn a_tensor_of_a_file_must_be_in_the_index() {
    let mut model = Model::new();
    model.files.remove("layer.0.c").unwrap();
    model.write_index();
    model.assert_shard_refused(SECOND, ["\"layer.0.c\"", "does not name"]);
}

#[test]
fn a_tensor_in_two_files_is_refused() {
    let model = Model::new();
    write_shard(&model.path(SECOND), &[("layer.1.a", 3), ("layer.0.c", 511), ("layer.0.a", 4097)], &[]);
    model.assert_shard_refused(SECOND, ["\"layer.0.a\"", FIRST]);
}

#[test]
fn an_index_names_only_files_beside_it() {
    let mut model = Model::new();
    std::fs::create_dir(model.path("sub")).unwrap();
    std::fs::copy(model.path(FIRST), model.path("sub/x.safetensors")).unwrap();
    let above = format!("../{}/{FIRST}", model.folder.path().file_name().unwrap().to_str().unwrap());
    let absolute = model.path(FIRST).to_str().unwrap().to_owned();
    let (here, cut) = (format!("./{FIRST}"), format!("{FIRST}\0"));
    for file in [&above, &absolute, &here, &cut, "sub/x.safetensors", "sub/", "..", ".", ""] {
        for tensor in ["layer.0.a", "layer.0.b"] {
            model.files.insert(tensor.into(), file.into());
        }
        model.write_index();
        model.assert_index_refused(&format!("{file:?}"));
    }
}

#[test]
fn what_is_no_index_is_refused() {
    let model = Model::new();
    let good = std::fs::read_to_string(model.path(INDEX)).unwrap();
    let pair = format!("\"layer.0.a\":\"{FIRST}\"");
    let twice = good.replace(&pair, &format!("{pair},{pair}"));
    let nested = format!("{{\"metadata\":{}", "[".repeat(1_000_000));
    for (text, words) in [
        ("", "line 1"),
        ("not JSON", "line 1"),
        (&good[..good.len() - 1], "line 1"),
        (&format!("{good}{good}"), "trailing"),
        ("{}", "weight_map"),
        ("{\"weight_map\":{}}", "no tensors"),
        ("{\"weight_map\":[]}", "names of tensors"),
        ("{\"weight_map\":{\"a\":5}}", "string"),
        (&twice, "\"layer.0.a\" is in it twice"),
        (&good.replace("\"weight_map\"", "\"weight_map\":{},\"weight_map\""), "duplicate"),
        (&nested, "line 1"),
    ] {
        std::fs::write(model.path(INDEX), text).unwrap();
        model.assert_index_refused(words);
        model.assert_index_refused("get it again");
    }
    std::fs::write(model.path(INDEX), &good).unwrap();
    assert_whole(model.import_index().unwrap());
}

#[test]
fn an_index_has_a_bound() {
    let model = Model::new();
    // Spaces, which JSON allows at its end: only their number is wrong.
    let pad = |bytes: u64| {
        let mut text = std::fs::read(model.path(INDEX)).unwrap();
        text.resize(bytes as usize, b' ');
        std::fs::write(model.path(INDEX), text).unwrap();
    };
    pad(100_000_001);
    model.assert_index_refused("100000000");
    pad(100_000_000);
    assert_whole(model.import_index().unwrap());
}

#[test]
fn a_total_that_is_wrong_or_none_is_no_error() {
    let model = Model::new();
    for metadata in ["{\"total_size\":1}", "{\"total_size\":4611.0}", "{\"more\":[1]}", "{}", "null"] {
        let files = serde_json::to_string(&model.files).unwrap();
        let text = format!("{{\"metadata\":{metadata},\"weight_map\":{files},\"more\":{{}}}}");
        std::fs::write(model.path(INDEX), text).unwrap();
        assert_whole(model.import_index().unwrap());
        std::fs::remove_dir_all(model.path("store")).unwrap();
    }
    std::fs::write(model.path(INDEX), serde_json::json!({"weight_map": model.files}).to_string()).unwrap();
    assert_whole(model.import_index().unwrap());
}

#[test]
fn a_shard_that_was_cut_is_named() {
    let model = Model::new();
    let whole = std::fs::read(model.path(SECOND)).unwrap();
    std::fs::write(model.path(SECOND), &whole[..whole.len() - 1]).unwrap();
    let error = model.refusal();
    assert!(matches!(&error, Error::Safetensors { path, .. } if *path == model.path(SECOND)), "{error:?}");
}

#[test]
fn files_that_are_replaced_while_they_are_read_are_noticed() {
    let model = Model::new();
    let mut files = ModelFiles::open(&model.path(INDEX)).unwrap();
    let place = |files: &ModelFiles, name| files.specs().iter().position(|spec| spec.name == name).unwrap();
    let (first, second) = (place(&files, "layer.0.a"), place(&files, "layer.1.a"));
    let mut part = [0; 3];
    files.read(first, 4094, &mut part).unwrap();
    assert_eq!(part, data("layer.0.a", 4097)[4094..]);
    files.read(second, 0, &mut part).unwrap();
    assert_eq!(part, data("layer.1.a", 3)[..]);
    // The same bytes in another file: it could as well have others.
    std::fs::copy(model.path(FIRST), model.path("copy")).unwrap();
    std::fs::rename(model.path("copy"), model.path(FIRST)).unwrap();
    files.read(second, 0, &mut part).unwrap();
    let error = files.read(first, 0, &mut part).unwrap_err();
    assert!(matches!(&error, Error::Safetensors { path, .. } if *path == model.path(FIRST)), "{error:?}");
    std::fs::remove_file(model.path(FIRST)).unwrap();
    assert!(matches!(files.read(first, 0, &mut part), Err(Error::File { .. })));
}
