//! Models into stores and back.

use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::common::{MODEL, folder, run, write_model};
use safetensors::SafeTensors;

/// Both files have the same tensors and metadata, in whatever order.
fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    let metadata = |bytes: &[u8]| SafeTensors::read_metadata(bytes).unwrap().1.metadata().clone();
    assert_eq!(metadata(&a), metadata(&b));
    let (a, b) = (SafeTensors::deserialize(&a).unwrap(), SafeTensors::deserialize(&b).unwrap());
    assert_eq!(a.len(), b.len());
    for (name, tensor) in a.tensors() {
        let other = b.tensor(&name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (other.dtype(), other.shape()), "{name}");
        assert!(tensor.data() == other.data(), "{name} has other bytes");
    }
}

#[test]
fn a_model_comes_back_as_it_was() {
    let folder = folder();
    let path = folder.path();
    let sizes = [0, 1, 511, 4095, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 28_824_000];
    let names: Vec<String> = sizes.iter().map(|bytes| format!("layer.{bytes}.weight")).collect();
    let tensors: Vec<(&str, usize)> = names.iter().map(String::as_str).zip(sizes).collect();
    let model = write_model(path.join("model.safetensors"), &tensors);
    run(path, &["import", "model.safetensors", "--store", "store"], 0);
    let listed = run(path, &["ls", "store"], 0);
    assert!(names.iter().all(|name| listed.contains(name)), "{listed}");
    assert!(run(path, &["verify", "store"], 0).contains(" 0 bad"));
    run(path, &["export", "--store", "store", "out.safetensors"], 0);
    assert_same(&model, &path.join("out.safetensors"));
}

#[test]
fn a_store_is_never_overwritten() {
    let folder = folder();
    let path = folder.path();
    write_model(path.join("model.safetensors"), MODEL);
    run(path, &["import", "model.safetensors", "--store", "store"], 0);
    assert!(run(path, &["import", "model.safetensors", "--store", "store"], 1).contains("store"));
    run(path, &["verify", "store"], 0);
}

#[test]
fn a_flipped_byte_is_named_with_its_tensor_and_place() {
    let folder = folder();
    let path = folder.path();
    let model = write_model(path.join("model.safetensors"), MODEL);
    run(path, &["import", "model.safetensors", "--store", "store"], 0);
    let model = std::fs::read(model).unwrap();
    let tensor = SafeTensors::deserialize(&model).unwrap().tensor("layers.0.weight").unwrap().data().to_vec();
    // Extents begin at multiples of 4096: there the tensor's first bytes are looked for.
    let found = std::fs::read_dir(path.join("store/data")).unwrap().find_map(|entry| {
        let segment = entry.unwrap().path();
        let bytes = std::fs::read(&segment).unwrap();
        let at = (0..bytes.len()).step_by(4096).find(|&at| bytes[at..].starts_with(&tensor[..4096]))?;
        Some((segment, at as u64))
    });
    let (segment, at) = found.expect("the tensor's bytes in a segment");
    let place = at + 1_000_000;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&segment).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).unwrap();
    file.write_all_at(&[byte[0] ^ 1], place).unwrap();
    drop(file);
    let text = run(path, &["verify", "--store", "store"], 1);
    let block = at + (1_000_000 / (256 << 10)) * (256 << 10);
    for shown in [
        "layers.0.weight",
        segment.file_name().unwrap().to_str().unwrap(),
        &format!("offset {block}"),
        " 1 bad",
    ] {
        assert!(text.contains(shown), "{shown} in {text}");
    }
    assert!(!text.contains("embed.weight"), "{text}");
    let text = run(path, &["export", "--store", "store", "out.safetensors"], 1);
    assert!(text.contains("layers.0.weight"), "{text}");
    assert!(!path.join("out.safetensors").exists());
}
