//! The engine on real files: every byte that a lease shows is checked against an oracle.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use std::time::Duration;

use hoist::{Access, Durability, Engine, Error, Life, Mode, Order, Phase, Scalars, TensorUse, Tier};
use model::{MIB, Oracle, Random, check, config, find, specs, tensor, training};
use proptest::prelude::*;

const NO_PAUSE: Duration = Duration::ZERO;

/// Trains, closes, opens again and goes on; every byte is checked.
fn train(seed: u64, prefetch: bool, durability: Durability) {
    let mut random = Random(seed);
    let layers = 2 + random.below(3) as usize;
    let bytes = 300_000 + random.below(2 * MIB);
    let piece = MIB;
    let dir = tempfile::tempdir().unwrap();
    let host = 8 * MIB + random.below(8 * MIB);
    let device = 4 * MIB + random.below(4 * MIB);
    let page = [4096, 65536, MIB as usize][random.below(3) as usize];
    let mut config = config(dir.path(), host, device, page);
    config.prefetch = prefetch;
    config.store.durability = durability;
    let engine = Engine::create(config.clone(), &specs(layers, bytes)).unwrap();
    let mut oracle = Oracle::new(&engine, piece);
    let init = oracle.write_all(&engine, |life| *life == Life::Durable);
    let init_id = engine.declare(init.clone()).unwrap();
    let order = training(&engine, &oracle, layers);
    let id = engine.declare(order.clone()).unwrap();
    oracle.step(&engine, init_id, &init, NO_PAUSE).wait().unwrap();
    for step in 0..3 {
        let commit = oracle.step(&engine, id, &order, Duration::from_micros(50));
        if step == 1 {
            commit.wait().unwrap();
        }
    }
    let stats = engine.stats().unwrap();
    assert!(stats.host_peak_bytes <= host && stats.device_peak_bytes <= device, "{stats:?}");
    assert_eq!(stats.departures, 0, "{stats:?}");
    engine.close().unwrap();

    let engine = Engine::open(config).unwrap();
    let id = engine.declare(order.clone()).unwrap();
    for _ in 0..2 {
        oracle.step(&engine, id, &order, NO_PAUSE).wait().unwrap();
    }
    engine.close().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_what_was_written_last(seed: u64, prefetch: bool, each_step: bool) {
        train(seed, prefetch, if each_step { Durability::Step } else { Durability::None });
    }
}

/// Four small tensors in one bundle, written one by one, read together.
#[test]
fn bundles_keep_their_members_apart() {
    let dir = tempfile::tempdir().unwrap();
    let small: Vec<_> =
        (0..4).map(|i| tensor(&format!("bias.{i}"), 1000 + i * 777, Life::Durable, "layer.0")).collect();
    let engine = Engine::create(config(dir.path(), 8 * MIB, MIB, 4096), &small).unwrap();
    let mut oracle = Oracle::new(&engine, MIB);
    let init = oracle.write_all(&engine, |_| true);
    let init_id = engine.declare(init.clone()).unwrap();
    oracle.step(&engine, init_id, &init, NO_PAUSE).wait().unwrap();
    let uses = (0..4).map(|i| engine.whole(hoist::TensorId(i), Mode::Read)).collect();
    let order = Order { accesses: vec![Access::new("all", Phase::Forward, Tier::Device, uses)] };
    let id = engine.declare(order.clone()).unwrap();
    oracle.step(&engine, id, &order, NO_PAUSE).wait().unwrap();
    engine.close().unwrap();
}

/// A derived tensor is made from its source at its first access after open.
#[test]
fn derived_tensors_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let elements = 700_000u64;
    let spec = |name: &str, dtype, life, elements| hoist::TensorSpec {
        name: name.into(),
        dtype,
        shape: vec![elements],
        class: hoist::Class::Parameter,
        life,
        group: "layer.0".into(),
        shard: None,
    };
    let (f32, bf16) = (hoist::Dtype::F32, hoist::Dtype::BF16);
    let from = |name: &str| Life::Derived { from: name.into() };
    let specs = [
        spec("w.master", f32, Life::Durable, elements),
        spec("b.master", f32, Life::Durable, 77),
        spec("w", bf16, from("w.master"), elements),
        spec("b", bf16, from("b.master"), 77),
    ];
    let config = config(dir.path(), 16 * MIB, 4 * MIB, 65536);
    let engine = Engine::create(config.clone(), &specs).unwrap();
    let order = |engine: &Engine, names: [&str; 2], tier, mode| {
        let uses = names.map(|name| engine.whole(engine.tensor(name).unwrap(), mode)).to_vec();
        Order { accesses: vec![Access::new("layer.0", Phase::Forward, tier, uses)] }
    };
    let value = |tensor: usize, i: u64| ((tensor as u64 * 31 + i) as f32).sqrt() + 1.0 / 3.0;
    let id = engine.declare(order(&engine, ["w.master", "b.master"], Tier::Host, Mode::Overwrite)).unwrap();
    engine.begin_step(id).unwrap();
    let mut lease = engine.acquire(0).unwrap();
    for place in 0..2 {
        let mut i = 0;
        for part in lease.parts_mut(place) {
            for four in part.chunks_mut(4) {
                four.copy_from_slice(&value(place, i).to_le_bytes());
                i += 1;
            }
        }
    }
    lease.release();
    engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    engine.close().unwrap();

    let engine = Engine::open(config).unwrap();
    let id = engine.declare(order(&engine, ["w", "b"], Tier::Device, Mode::Read)).unwrap();
    engine.begin_step(id).unwrap();
    let lease = engine.acquire(0).unwrap();
    for (place, count) in [(0, elements), (1, 77)] {
        let mut i = 0;
        for part in lease.parts(place) {
            for two in part.chunks(2) {
                // Round to nearest even by hand: an independent way to the same bits.
                let bits = value(place, i).to_bits();
                let rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
                assert_eq!(two, (rounded as u16).to_le_bytes(), "element {i} of {place}");
                i += 1;
            }
        }
        assert_eq!(i, count);
    }
    drop(lease);
    engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    engine.close().unwrap();
}

/// What was written outside a commit is not there after a crash; what was committed is.
#[test]
fn a_dropped_engine_leaves_the_last_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), 16 * MIB, 4 * MIB, 65536);
    let engine = Engine::create(config.clone(), &specs(2, MIB)).unwrap();
    let mut oracle = Oracle::new(&engine, MIB);
    let init = oracle.write_all(&engine, |life| *life == Life::Durable);
    let id = engine.declare(init.clone()).unwrap();
    let epoch = oracle.step(&engine, id, &init, NO_PAUSE).wait().unwrap();
    let committed = oracle.versions.clone();
    engine.begin_step(id).unwrap();
    (0..init.accesses.len()).for_each(|index| oracle.access(&engine, &init, index, NO_PAUSE));
    drop(engine);

    let engine = Engine::open(config).unwrap();
    assert_eq!(engine.opened_at().number, epoch);
    oracle.versions = committed;
    let mut reads = init.clone();
    reads.accesses.iter_mut().flat_map(|access| &mut access.uses).for_each(|one| one.mode = Mode::Read);
    let id = engine.declare(reads.clone()).unwrap();
    oracle.step(&engine, id, &reads, NO_PAUSE).wait().unwrap();
    engine.close().unwrap();
}

/// A flipped byte is found by the acquire that reads it, named, and nothing else is affected.
#[test]
fn corruption_is_named_and_contained() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), 16 * MIB, 4 * MIB, 65536);
    let engine = Engine::create(config.clone(), &specs(2, MIB)).unwrap();
    let mut oracle = Oracle::new(&engine, MIB);
    let init = oracle.write_all(&engine, |life| *life == Life::Durable);
    let id = engine.declare(init.clone()).unwrap();
    oracle.step(&engine, id, &init, NO_PAUSE).wait().unwrap();
    engine.close().unwrap();
    flip_a_byte(dir.path(), oracle.versions[3][0].1, 3);

    let engine = Engine::open(config).unwrap();
    let mut reads = init.clone();
    reads.accesses.iter_mut().flat_map(|access| &mut access.uses).for_each(|one| one.mode = Mode::Read);
    let id = engine.declare(reads.clone()).unwrap();
    for _ in 0..2 {
        engine.begin_step(id).unwrap();
        for (index, access) in reads.accesses.iter().enumerate() {
            let one = &access.uses[0];
            match engine.acquire(index) {
                Ok(lease) => {
                    let pieces = &oracle.versions[one.tensor.0 as usize];
                    let version = pieces.iter().find(|(range, _)| *range == one.bytes).unwrap().1;
                    check(lease.parts(0), one.tensor.0, version, one.bytes.clone());
                    assert_ne!(one.tensor.0, 3, "the corrupt tensor was handed out");
                }
                Err(Error::Corrupt { tensor, place }) => {
                    assert_eq!((tensor.as_str(), one.tensor.0), ("1.weight", 3));
                    assert!(place.contains(".seg"), "{place}");
                }
                Err(error) => panic!("{error}"),
            }
        }
        engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    }
    engine.close().unwrap();
}

/// Flips one bit of a tensor's version.
fn flip_a_byte(dir: &std::path::Path, version: u64, tensor: u32) {
    let (path, offset) = find(dir, tensor, version, 0);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[offset as usize + 1234] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn misuse_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::create(config(dir.path(), 16 * MIB, 2 * MIB, 65536), &specs(1, 3 * MIB)).unwrap();
    let (weight, gradient) = (engine.tensor("0.weight").unwrap(), engine.tensor("0.gradient").unwrap());
    let order = |uses, tier| Order { accesses: vec![Access::new("layer.0", Phase::Forward, tier, uses)] };
    let whole = engine.whole(weight, Mode::Overwrite);

    let error = engine.declare(order(vec![whole.clone()], Tier::Device)).unwrap_err().to_string();
    assert!(error.contains("3145728") && error.contains("2097152") && error.contains("layer.0"), "{error}");
    let crooked = TensorUse { tensor: weight, bytes: 0..1000, mode: Mode::Read };
    assert!(matches!(engine.declare(order(vec![crooked], Tier::Host)), Err(Error::BadAccess { .. })));
    let twice = vec![whole.clone(), whole.clone()];
    assert!(matches!(engine.declare(order(twice, Tier::Host)), Err(Error::BadAccess { .. })));
    assert!(matches!(engine.acquire(0), Err(Error::Step { .. })));
    assert!(matches!(engine.commit_step(&Scalars::default()), Err(Error::Step { .. })));

    let reads = engine.declare(order(vec![engine.whole(gradient, Mode::Read)], Tier::Host)).unwrap();
    let writes = engine.declare(order(vec![whole], Tier::Host)).unwrap();
    engine.begin_step(reads).unwrap();
    assert!(matches!(engine.begin_step(reads), Err(Error::Step { .. })));
    assert!(matches!(engine.acquire(0), Err(Error::NoContents { tensor }) if tensor == "0.gradient"));
    assert!(matches!(engine.acquire(1), Err(Error::NoSuch { index: 1, count: 1, .. })));
    engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    engine.begin_step(writes).unwrap();
    let lease = engine.acquire(0).unwrap();
    assert!(matches!(engine.commit_step(&Scalars::default()), Err(Error::LeasesHeld { count: 1, .. })));
    assert!(matches!(engine.acquire(0), Err(Error::WouldDeadlock { .. })));
    drop(lease);
    engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    assert!(
        matches!(engine.acquire(0), Err(Error::Step { .. })),
        "durable tensors are read-only outside a step"
    );
    let other = engine.clone();
    engine.close().unwrap();
    assert!(matches!(other.acquire(0), Err(Error::Closed)));
}

/// Accesses in any order, two clients, leases held together: slow, never wrong.
#[test]
fn departures_and_two_clients() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::create(config(dir.path(), 8 * MIB, 8 * MIB, 65536), &specs(3, MIB)).unwrap();
    let mut oracle = Oracle::new(&engine, MIB);
    let init = oracle.write_all(&engine, |_| true);
    let init_id = engine.declare(init.clone()).unwrap();
    let mut reads = init.clone();
    for (index, access) in reads.accesses.iter_mut().enumerate() {
        access.uses[0].mode = Mode::Read;
        access.tier = if index % 2 == 0 { Tier::Device } else { Tier::Host };
    }
    let id = engine.declare(reads.clone()).unwrap();
    oracle.step(&engine, init_id, &init, NO_PAUSE).wait().unwrap();
    engine.begin_step(id).unwrap();
    std::thread::scope(|scope| {
        for client in 0..2u64 {
            let (engine, reads, oracle) = (engine.clone(), &reads, &oracle);
            scope.spawn(move || {
                let mut random = Random(client);
                for _ in 0..60 {
                    let index = random.below(reads.accesses.len() as u64) as usize;
                    let one = &reads.accesses[index].uses[0];
                    let lease = engine.acquire(index).unwrap();
                    let pieces = &oracle.versions[one.tensor.0 as usize];
                    let version = pieces.iter().find(|(range, _)| *range == one.bytes).unwrap().1;
                    check(lease.parts(0), one.tensor.0, version, one.bytes.clone());
                }
            });
        }
    });
    engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    engine.close().unwrap();
}
