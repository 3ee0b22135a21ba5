//! Models into stores and back, and what a byte that has changed comes to.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hoist::{Access, Config, Engine, Error, Mode, Order, Phase, Scalars, Tier};

use crate::bench::assert_sound;
use crate::command::{bench, config, folder, number, report, run};
use crate::model::{self, LAYERS, Sized};

/// What one checksum covers.
const CHECKSUM_BYTES: u64 = 256 << 10;

#[test]
fn tensors_of_every_size_come_back_as_they_were() {
    let folder = folder();
    let path = folder.path();
    const MIB: usize = 1 << 20;
    let sizes: [Sized; 10] = [
        ("layer.0.none", 0),
        ("layer.1.one", 1),
        ("layer.2.511", 511),
        ("layer.3.4095", 4095),
        ("layer.4.4096", 4096),
        ("layer.5.4097", 4097),
        ("layer.6.mib-1", MIB - 1),
        ("layer.7.mib", MIB),
        ("layer.8.mib+1", MIB + 1),
        ("layer.9.28824000", 28_824_000),
    ];
    let (written, exported) = (path.join("model.safetensors"), path.join("out.safetensors"));
    model::write(&written, &sizes);
    run(path, &["import", "model.safetensors", "--store", "store"], 0);
    let listed = run(path, &["ls", "store"], 0);
    assert!(sizes.iter().all(|(name, _)| listed.contains(name)), "{listed}");
    assert!(run(path, &["verify", "store"], 0).contains(" 0 bad"));
    run(path, &["export", "--store", "store", "out.safetensors"], 0);
    model::assert_same(&written, &exported);
    // What was exported is a model like any other.
    std::fs::remove_file(&written).unwrap();
    run(path, &["import", "out.safetensors", "--store", "again"], 0);
    run(path, &["export", "--store", "again", "model.safetensors"], 0);
    model::assert_same(&written, &exported);
}

#[test]
fn in_place_nothing_is_copied_and_all_is_there() {
    let folder = folder();
    let path = folder.path();
    let (written, exported) = (path.join("model.safetensors"), path.join("out.safetensors"));
    model::write(&written, &[("layer.0.odd", 12_345), ("layer.1.large", 9 << 20), ("layer.1.last", 7)]);
    let said = run(path, &["import", "model.safetensors", "--store", "store", "--in-place"], 0);
    assert!(said.contains("tensors in place"), "{said}");
    assert!(run(path, &["ls", "store"], 0).contains("in place"));
    assert!(run(path, &["verify", "store"], 0).contains(" 0 bad"));
    run(path, &["export", "--store", "store", "out.safetensors"], 0);
    model::assert_same(&written, &exported);
    let data = path.join("store/data");
    assert!(!data.exists() || std::fs::read_dir(data).unwrap().count() == 0, "no second copy");
    // What was verified once is compared from then on; what is not the same file is not opened.
    let bytes = std::fs::read(&written).unwrap();
    let modified = std::fs::metadata(&written).unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(&written).unwrap();
    file.write_all_at(&[!bytes[bytes.len() - 100]], bytes.len() as u64 - 100).unwrap();
    assert!(run(path, &["ls", "store"], 0).contains("in place"));
    assert!(run(path, &["verify", "store"], 1).contains("written to since"));
    file.set_times(std::fs::FileTimes::new().set_modified(modified)).unwrap();
    let bad = run(path, &["verify", "store"], 1);
    assert!(bad.contains("layer.1.large") && bad.contains("model.safetensors"), "{bad}");
    assert!(
        run(path, &["import", "model.safetensors", "--store", "other", "--room", "1 MiB"], 2)
            .contains("--in-place")
    );
    run(path, &["import", "model.safetensors", "--store", "other", "--in-place", "--room", "much"], 2);
}

#[test]
fn a_model_file_is_compared_byte_by_byte() {
    let folder = folder();
    let written = folder.path().join("model.safetensors");
    model::write(&written, &LAYERS);
    let bytes = {
        let bytes = std::fs::read(&written).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors();
        tensors.iter().map(|(_, tensor)| tensor.data().len() as u64).sum::<u64>()
    };
    // The device is smaller than the largest tensor, which must be read in pieces then.
    let sets =
        ["model.safetensors=model.safetensors", "device.budget=4 MiB", "host.budget=16 MiB", "run.steps=2"];
    run(folder.path(), &bench(&config("safetensors.toml"), &sets), 0);
    let report = report(folder.path());
    assert_sound(&report);
    assert_eq!(number(&report, "/model/bytes"), bytes);
    assert_eq!(number(&report, "/summary/verified_bytes"), 3 * bytes);
}

#[test]
fn a_store_is_never_overwritten() {
    let folder = folder();
    let path = folder.path();
    model::write(&path.join("model.safetensors"), &LAYERS);
    run(path, &["import", "model.safetensors", "--store", "store"], 0);
    assert!(run(path, &["import", "model.safetensors", "--store", "store"], 1).contains("store"));
    assert!(run(path, &["verify", "store"], 0).contains(" 0 bad"));
}

/// Where the segments of a store have these bytes. Extents begin at multiples of 4096.
pub fn find(store: &Path, wanted: &[u8]) -> (PathBuf, u64) {
    let place = std::fs::read_dir(store.join("data")).unwrap().find_map(|entry| {
        let segment = entry.unwrap().path();
        let bytes = std::fs::read(&segment).unwrap();
        let block = bytes.chunks_exact(4096).position(|block| block == &wanted[..4096])?;
        Some((segment, block as u64 * 4096))
    });
    place.expect("the bytes are in no segment")
}

/// Changes one bit.
pub fn flip(segment: &Path, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(segment).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Reads each tensor of the store through the engine; gives what was said of those that could not be had.
fn acquire_all(store: &Path) -> Vec<(String, String)> {
    let engine = Engine::open(Config::new(store, 32 << 20, 16 << 20)).unwrap();
    let names: Vec<String> = engine.tensors().iter().map(|tensor| tensor.spec.name.clone()).collect();
    let accesses = names.iter().map(|name| {
        let whole = engine.whole(engine.tensor(name).unwrap(), Mode::Read);
        Access::new(name, Phase::Forward, Tier::Device, vec![whole])
    });
    let order = engine.declare(Order { accesses: accesses.collect() }).unwrap();
    engine.begin_step(order).unwrap();
    let mut refused = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match engine.acquire(index) {
            Ok(lease) => {
                let bytes: Vec<u8> = lease.parts(0).flatten().copied().collect();
                assert!(bytes == model::bytes_of(name, bytes.len()), "{name} has other bytes");
            }
            Err(Error::Corrupt { tensor, place }) => {
                assert_eq!(&tensor, name);
                refused.push((tensor, place));
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
    engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    engine.close().unwrap();
    refused
}

#[test]
fn a_flipped_byte_is_named_and_all_else_can_be_read() {
    const NAME: &str = "layers.0.weight";
    const PLACE: u64 = 1_000_000;
    let folder = folder();
    let path = folder.path();
    let store = path.join("store");
    model::write(&path.join("model.safetensors"), &LAYERS);
    run(path, &["import", "model.safetensors", "--store", "store"], 0);
    assert_eq!(acquire_all(&store), []);

    let (segment, extent) = find(&store, &model::bytes_of(NAME, 1_500_000));
    flip(&segment, extent + PLACE);
    let block = format!("offset {}", extent + PLACE / CHECKSUM_BYTES * CHECKSUM_BYTES);
    let file = segment.file_name().unwrap().to_str().unwrap();
    let text = run(path, &["verify", "--store", "store"], 1);
    for shown in [NAME, file, &block, " 1 bad"] {
        assert!(text.contains(shown), "{shown} in {text}");
    }
    for (other, _) in LAYERS.iter().filter(|(name, _)| *name != NAME) {
        assert!(!text.contains(other), "{other} in {text}");
    }
    let refused = acquire_all(&store);
    assert!(refused.len() == 1 && refused[0].0 == NAME && refused[0].1.contains(file), "{refused:?}");
    let text = run(path, &["export", "--store", "store", "out.safetensors"], 1);
    assert!(text.contains(NAME), "{text}");
    assert!(!path.join("out.safetensors").exists(), "half a model was left");

    flip(&segment, extent + PLACE);
    assert!(run(path, &["verify", "store"], 0).contains(" 0 bad"));
}
