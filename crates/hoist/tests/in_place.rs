//! An engine over a model's file, which is read where it lies.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hoist::{
    Access, Class, Config, Dtype, Engine, Error, Life, Mode, Order, OrderId, Phase, Scalars, TensorSpec, Tier,
};

/// Of the model's tensors: bundled and not. What is odd in it puts all behind it off every alignment.
const TENSORS: [(&str, &str, usize); 5] = [
    ("odd", "U8", 3),
    ("norm", "F32", 4000),
    ("weight", "F32", 3 << 20),
    ("bias", "F64", 800),
    ("head", "BF16", (5 << 20) + 2),
];

fn byte(tensor: usize, place: usize, version: u8) -> u8 {
    (place.wrapping_mul(31) ^ place >> 8 ^ tensor << 5) as u8 ^ version.wrapping_mul(77)
}

fn write_model(path: &Path) {
    let (mut header, mut data) = (Vec::new(), Vec::new());
    for (number, (name, dtype, bytes)) in TENSORS.into_iter().enumerate() {
        let element =
            [("U8", 1), ("BF16", 2), ("F32", 4), ("F64", 8)].into_iter().find(|(one, _)| *one == dtype);
        let (from, shape) = (data.len(), bytes / element.unwrap().1);
        data.extend((0..bytes).map(|place| byte(number, place, 0)));
        let to = data.len();
        header.push(format!(
            "\"layer.0.{name}\":{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{from},{to}]}}"
        ));
    }
    let header = format!("{{{}}}", header.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    bytes.extend(data);
    std::fs::write(path, bytes).unwrap();
}

/// Less memory than the model has bytes, so that all of it passes through.
fn config(folder: &Path) -> Config {
    let mut config = Config::new(folder.join("store"), 16 << 20, 8 << 20);
    config.host.page_bytes = 256 << 10;
    config.io.block_size = 256 << 10;
    config.store.in_place_room_bytes = 4 << 20;
    config
}

/// Every tensor of the model, one after the other; on the host or on the device.
fn declare(engine: &Engine, tier: Tier, mode: Mode) -> OrderId {
    let access = |(name, ..): &(&str, &str, usize)| {
        let tensor = engine.tensor(&format!("layer.0.{name}")).unwrap();
        Access::new("layer", Phase::Forward, tier, vec![engine.whole(tensor, mode)])
    };
    engine.declare(Order { accesses: TENSORS.iter().map(access).collect() }).unwrap()
}

/// A step that compares every tensor with what its version says.
fn check(engine: &Engine, order: OrderId, versions: [u8; 5]) -> Result<(), Error> {
    engine.begin_step(order)?;
    for (number, (name, dtype, bytes)) in TENSORS.into_iter().enumerate() {
        let lease = engine.acquire(number)?;
        let found: Vec<u8> = lease.parts(0).flatten().copied().collect();
        let expected: Vec<u8> = (0..bytes).map(|place| byte(number, place, versions[number])).collect();
        assert!(found == expected, "{name}");
        let size = if dtype == "F64" { 8 } else { 4 };
        assert!(
            lease.parts(0).all(|part| part.as_ptr().addr().is_multiple_of(size)),
            "{name} is not aligned"
        );
    }
    engine.commit_step(&Scalars::default())?.wait()?;
    Ok(())
}

fn scene() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    write_model(&model);
    (folder, model)
}

#[test]
fn leases_are_the_models_bytes_and_aligned_and_what_is_written_is_the_stores() {
    let (folder, model) = scene();
    let before = std::fs::read(&model).unwrap();
    let adapter = TensorSpec {
        name: "adapter".into(),
        dtype: Dtype::F32,
        shape: vec![1 << 18],
        class: Class::Parameter,
        life: Life::Durable,
        group: "layer.0".into(),
        shard: None,
    };
    let engine = Engine::create_over(config(folder.path()), &model, &[adapter]).unwrap();
    for tier in [Tier::Host, Tier::Device] {
        let order = declare(&engine, tier, Mode::Read);
        check(&engine, order, [0; 5]).unwrap();
        check(&engine, order, [0; 5]).unwrap();
    }
    // One tensor of the model is trained, and one of the store's own.
    let weight = engine.tensor("layer.0.weight").unwrap();
    let adapter = engine.tensor("adapter").unwrap();
    let both = vec![engine.whole(weight, Mode::Update), engine.whole(adapter, Mode::Overwrite)];
    let accesses = vec![Access::new("layer", Phase::Optimizer, Tier::Host, both)];
    let order = engine.declare(Order { accesses }).unwrap();
    engine.begin_step(order).unwrap();
    let mut lease = engine.acquire(0).unwrap();
    for tensor in [0, 1] {
        for (place, byte_of) in lease.parts_mut(tensor).flatten().enumerate() {
            *byte_of = byte(2, place, 1);
        }
    }
    drop(lease);
    engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    engine.close().unwrap();

    let engine = Engine::open(config(folder.path())).unwrap();
    let order = declare(&engine, Tier::Host, Mode::Read);
    check(&engine, order, [0, 0, 1, 0, 0]).unwrap();
    engine.close().unwrap();
    assert!(std::fs::read(&model).unwrap() == before, "the model's file is only read");
}

#[test]
fn a_byte_that_changes_behind_its_back_is_no_lease() {
    let (folder, model) = scene();
    let engine = Engine::create_over(config(folder.path()), &model, &[]).unwrap();
    let order = declare(&engine, Tier::Host, Mode::Read);
    check(&engine, order, [0; 5]).unwrap();
    let file = std::fs::File::options().write(true).open(&model).unwrap();
    let end = file.metadata().unwrap().len();
    file.write_all_at(&[!byte(4, (5 << 20) + 1, 0)], end - 1).unwrap();
    let error = check(&engine, order, [0; 5]).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Corrupt { .. }), "{text}");
    assert!(text.contains("layer.0.head") && text.contains("model.safetensors"), "{text}");
    // The others are served; of the file, which was changed, nothing is read when it is opened again.
    engine.abort_step().unwrap();
    engine.close().unwrap();
    let engine = Engine::open(config(folder.path())).unwrap();
    let order = declare(&engine, Tier::Host, Mode::Read);
    let error = check(&engine, order, [0; 5]).unwrap_err().to_string();
    assert!(error.contains("model.safetensors") && error.contains("written to"), "{error}");
    engine.abort_step().unwrap();
    engine.close().unwrap();
}

#[test]
fn memory_that_is_too_small_for_its_sectors_is_told_at_once() {
    let (folder, model) = scene();
    let mut config = config(folder.path());
    config.host.budget_bytes = 768 << 10;
    let error = Engine::create_over(config, &model, &[]).err().unwrap();
    assert!(matches!(&error, Error::Config(_)), "{error}");
    assert!(error.to_string().contains("host.budget"), "{error}");
    assert!(!folder.path().join("store/manifest").exists(), "no store is left behind");
}
