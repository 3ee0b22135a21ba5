//! safetensors files through a store and back.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;

use common::*;
use hoist_store::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as TheirDtype, TensorView};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tempfile::tempdir;

fn import(path: &Path, store: &Path) -> Result<BlockingStore, Error> {
    import_safetensors(path, &config(&[store]), &hoist_io::Config::default(), &slab())
}

/// Bytes of the shape, 8 bits each.
const BYTES: [usize; 12] =
    [0, 1, 511, 4095, 4096, 4097, 262_144, 262_145, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 28_824_000];

fn data(name: &str, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    pattern(name.len() as u32, 0, name.bytes().map(u64::from).sum(), &mut out);
    out
}

#[test]
fn sizes_shapes_types_and_metadata_come_back() {
    let folder = tempdir().unwrap();
    let (file, out) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    let mut tensors: Vec<(String, TheirDtype, Vec<usize>)> = Vec::new();
    for (n, bytes) in BYTES.into_iter().enumerate() {
        tensors.push((format!("layer.{}.of {bytes}", n % 3), TheirDtype::U8, vec![bytes]));
    }
    for dtype in Dtype::ALL {
        let theirs: TheirDtype = serde_json::from_value(dtype.name().into()).unwrap();
        tensors.push((format!("type {dtype}"), theirs, vec![2, 4, 3]));
    }
    tensors.push(("scalar".into(), TheirDtype::F32, vec![]));
    tensors.push(("no rows".into(), TheirDtype::F32, vec![0, 7]));
    tensors.push(("quoted \"\\ name\n".into(), TheirDtype::I64, vec![1]));
    let held: Vec<_> = tensors
        .iter()
        .map(|(name, dtype, shape)| data(name, shape.iter().product::<usize>() * dtype.bitsize() / 8))
        .collect();
    let views: Vec<_> = tensors
        .iter()
        .zip(&held)
        .map(|((name, dtype, shape), data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()))
        .collect();
    let metadata =
        HashMap::from([("format".to_owned(), "pt".to_owned()), ("a \"b\"".to_owned(), "ü\n".to_owned())]);
    safetensors::serialize_to_file(views.clone(), Some(metadata.clone()), &file).unwrap();

    let mut store = import(&file, &folder.path().join("store")).unwrap();
    assert!(verify(&mut store).unwrap().bad.is_empty());
    store.close().unwrap();
    let store_config = config(&[&folder.path().join("store")]);
    let mut store = BlockingStore::open(&store_config, &hoist_io::Config::default(), &slab()).unwrap();
    for ((name, ..), data) in tensors.iter().zip(&held) {
        let id = store.store().tensor(name).unwrap();
        assert!(store.tensor_bytes(id).unwrap() == *data, "{name}");
    }
    let small = |name: &str| store.store().tensors()[store.store().tensor(name).unwrap().0 as usize].run;
    assert_eq!(small("layer.1.of 1"), small("layer.1.of 4096"), "one bundle per layer");
    assert_ne!(small("layer.1.of 1"), small("layer.0.of 0"));

    std::fs::write(&out, "an old file").unwrap();
    export_safetensors(&mut store, &out, SHARD_BYTES_DEFAULT).unwrap();
    let (before, after) = (std::fs::read(&file).unwrap(), std::fs::read(&out).unwrap());
    let theirs = SafeTensors::deserialize(&after).unwrap();
    assert_eq!(theirs.len(), views.len());
    for (name, view) in &views {
        let found = theirs.tensor(name).unwrap();
        assert_eq!((found.dtype(), found.shape()), (view.dtype(), view.shape()), "{name}");
        assert!(found.data() == view.data(), "{name}");
    }
    let header = |bytes: &[u8]| SafeTensors::read_metadata(bytes).unwrap();
    assert_eq!(header(&after).1.metadata().as_ref(), Some(&metadata));
    let data_of = |bytes: &[u8]| bytes[8 + header(bytes).0..].to_vec();
    assert!(data_of(&before) == data_of(&after), "the tensors' bytes lie in the same order");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing temporary is left");
}

#[test]
fn a_file_that_is_cut_is_refused_before_a_store_is_made() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("in.safetensors");
    let data = data("a", 24);
    let view = TensorView::new(TheirDtype::F32, vec![2, 3], &data).unwrap();
    safetensors::serialize_to_file([("a", view)], None, &file).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&file, &whole[..cut]).unwrap();
        let error = import(&file, &folder.path().join("store")).err().unwrap();
        assert!(matches!(error, Error::Safetensors { .. }), "cut at {cut}: {error}");
    }
    std::fs::write(&file, u64::MAX.to_le_bytes()).unwrap();
    assert!(matches!(import(&file, &folder.path().join("store")), Err(Error::Safetensors { .. })));
    assert!(matches!(
        import(&folder.path().join("none"), &folder.path().join("store")),
        Err(Error::File { .. })
    ));
    assert!(!folder.path().join("store").exists());
}

#[test]
fn an_export_over_bad_bytes_leaves_the_old_file() {
    let folder = tempdir().unwrap();
    let (path, out) = (folder.path().join("store"), folder.path().join("out.safetensors"));
    std::fs::write(&out, "old").unwrap();
    let specs = [spec("a", 3000, Life::Durable)];
    let (config, io) = (config(&[&path]), hoist_io::Config::default());
    let mut store = BlockingStore::create(&config, &io, &slab(), &specs).unwrap();
    assert!(matches!(export_safetensors(&mut store, &out, SHARD_BYTES_DEFAULT), Err(Error::NoBytes { .. })));
    let whole = store.store().covering(TensorId(0));
    store
        .write(whole, |offset, slot| {
            slot.parts_mut().for_each(|part| pattern(0, offset, 1, part));
            Ok(())
        })
        .unwrap();
    store.commit().unwrap();
    let (segment, extent) = store.store().extents(&whole).remove(0);
    store.close().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[extent.offset as usize + 5] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let mut store = BlockingStore::open(&config, &io, &slab()).unwrap();
    let error = export_safetensors(&mut store, &out, SHARD_BYTES_DEFAULT).unwrap_err();
    assert!(
        matches!(&error, Error::Corrupt { what } if what.contains("\"a\"") || what.contains("(a)")),
        "{error}"
    );
    assert_eq!(std::fs::read(&out).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing temporary is left");
}

fn models() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models");
    std::env::var_os("HOIST_MODELS").map_or(beside, PathBuf::from)
}

#[test]
fn a_real_model_comes_back() {
    let file = models().join("all-MiniLM-L6-v2/model.safetensors");
    if !file.exists() {
        eprintln!("skipped: {} is not there; set HOIST_MODELS to a folder of models", file.display());
        return;
    }
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let mut store = import(&file, &folder.path().join("store")).unwrap();
    let report = verify(&mut store).unwrap();
    assert!(report.bad.is_empty() && report.bytes > 90_000_000, "{report:?}");
    let groups: std::collections::BTreeSet<_> =
        store.store().tensors().iter().map(|tensor| tensor.spec.group.as_str()).collect();
    assert!(groups.contains("encoder.layer.5") && groups.contains(""), "{groups:?}");
    export_safetensors(&mut store, &out, SHARD_BYTES_DEFAULT).unwrap();
    let (before, after) = (std::fs::read(&file).unwrap(), std::fs::read(&out).unwrap());
    let (theirs, ours) =
        (SafeTensors::deserialize(&before).unwrap(), SafeTensors::deserialize(&after).unwrap());
    assert_eq!(theirs.len(), ours.len());
    for (name, view) in theirs.iter() {
        assert!(ours.tensor(name).unwrap() == view, "{name}");
    }
}
