//! Ranks: an epoch is final when the trainer says so, and what comes after it waits until then; a run goes on at another
//! number of them.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use std::time::Duration;

use hoist::{Access, Config, Engine, Error, Life, Mode, Order, Phase, Scalars, Shard, TensorSpec, Tier};
use model::drive::{LAYERS, NO_PAUSE, assert_holds};
use model::{MIB, Oracle, check, config, fill, specs, tensor, training};

fn rank(dir: &std::path::Path) -> Config {
    let mut config = config(dir, 8 * MIB, 4 * MIB, 65536);
    (config.store.rank, config.store.world_size) = (1, 2);
    config
}

/// Kills: a commit that does not wait for the one before it to be final; a write that fails for want of the space that an
/// epoch has which is not final; what waits that is forgotten; calls that wait for it for ever.
#[test]
fn what_comes_after_an_epoch_waits_until_it_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let config = rank(dir.path());
    let engine = Engine::create(config.clone(), &specs(LAYERS, MIB)).unwrap();
    let mut oracle = Oracle::new(&engine, MIB);
    let init = oracle.write_all(&engine, |life| *life == Life::Durable);
    let id = engine.declare(init.clone()).unwrap();
    oracle.step(&engine, id, &init, NO_PAUSE).wait().unwrap();
    assert_eq!(engine.epochs().unwrap(), [0, 1]);
    engine.finalize(1).unwrap();
    assert!(engine.finalize(7).unwrap_err().to_string().contains("no epoch 7"));
    let order = training(&engine, &oracle, LAYERS);
    let id = engine.declare(order.clone()).unwrap();
    oracle.step(&engine, id, &order, NO_PAUSE).wait().unwrap();
    for epoch in 2..6 {
        assert_eq!(engine.epochs().unwrap(), [epoch - 1, epoch]);
        // The next step runs, and is not committed; nor has it space for all that it writes.
        let commit = std::thread::scope(|scope| {
            let (engine, oracle, order) = (&engine, &mut oracle, &order);
            let next = scope.spawn(move || oracle.step(engine, id, order, NO_PAUSE));
            std::thread::sleep(Duration::from_millis(30));
            assert_eq!(engine.epochs().unwrap(), [epoch - 1, epoch]);
            engine.finalize(epoch).unwrap();
            next.join().unwrap()
        });
        assert_eq!(commit.wait().unwrap(), epoch + 1);
    }
    // This rank has epoch 7, and another has not: both go on at the one before.
    engine.finalize(6).unwrap();
    let before = oracle.versions.clone();
    oracle.step(&engine, id, &order, NO_PAUSE).wait().unwrap();
    engine.close().unwrap();
    let mut at = config.clone();
    at.store.epoch = Some(6);
    oracle.versions = before;
    let engine = Engine::open(at).unwrap();
    assert_eq!((engine.opened_at().number, engine.epochs().unwrap()), (6, vec![6]));
    assert_holds(&engine, &mut oracle);
    engine.close().unwrap();
}

/// A call that nobody could help says so, and an engine that is dropped ends.
#[test]
fn nothing_waits_for_an_epoch_that_nobody_can_make_final_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::create(rank(dir.path()), &specs(LAYERS, MIB)).unwrap();
    let mut oracle = Oracle::new(&engine, MIB);
    let init = oracle.write_all(&engine, |life| *life == Life::Durable);
    let id = engine.declare(init.clone()).unwrap();
    oracle.step(&engine, id, &init, NO_PAUSE).wait().unwrap();
    // Less than all, so that it has space.
    engine.begin_step(id).unwrap();
    oracle.access(&engine, &init, 0, NO_PAUSE);
    let commit = engine.commit_step(&Scalars::default()).unwrap();
    let waits = |error: Error| assert!(error.to_string().contains("finalize that first"), "{error}");
    waits(engine.snapshot("one").unwrap_err());
    waits(engine.close().unwrap_err());
    engine.begin_step(id).unwrap();
    waits(engine.abort_step().unwrap_err());
    drop(engine);
    assert!(matches!(commit.wait(), Err(Error::Closed)));
    let mut config = rank(dir.path());
    config.store.epoch = Some(1);
    assert_eq!(Engine::open(config).unwrap().epochs().unwrap(), [0, 1]);
}

/// Elements of the whole of "w", a byte each.
const WHOLE: u64 = 3 * MIB + 5;

/// A shard of "w", and all of "step".
fn shards(rank: u64, ranks: u64) -> (u64, Vec<TensorSpec>) {
    let (from, to) = (WHOLE * rank / ranks, WHOLE * (rank + 1) / ranks);
    let shard = Some(Box::new(Shard { shape: vec![WHOLE], start: from }));
    let own = TensorSpec { shard, ..tensor("w", to - from, Life::Durable, "0") };
    (from, vec![own, tensor("step", 100, Life::Durable, "0")])
}

/// A step that reads what was written, and writes the next version.
fn step(engine: &Engine, from: u64, version: u64) {
    let uses = |mode| {
        engine.tensors().iter().zip(0..).map(|(_, id)| engine.whole(hoist::TensorId(id), mode)).collect()
    };
    let mode = if version == 1 { Mode::Overwrite } else { Mode::Update };
    let access = Access::new("all", Phase::Optimizer, Tier::Host, uses(mode));
    let id = engine.declare(Order { accesses: vec![access] }).unwrap();
    engine.begin_step(id).unwrap();
    let mut lease = engine.acquire(0).unwrap();
    for (part, start) in [(0, from), (1, 0)] {
        let bytes = engine.tensors()[part].bytes;
        if version > 1 {
            check(lease.parts(part), part as u32, version - 1, start..start + bytes);
        }
        fill(lease.parts_mut(part), part as u32, version, start);
    }
    lease.release();
    engine.commit_step(&Scalars::step(version).with("lr", [7])).unwrap().wait().unwrap();
}

/// Kills: shards of another place; an epoch that not all have; a new rank without the step and scalars of the old.
#[test]
fn two_ranks_go_on_as_three() {
    let dir = tempfile::tempdir().unwrap();
    let of = |rank: u32, ranks: u32| {
        let mut config = config(&dir.path().join(format!("{rank}of{ranks}")), 16 * MIB, 4 * MIB, 65536);
        (config.store.rank, config.store.world_size) = (rank, ranks);
        config
    };
    for rank in 0..2 {
        let (from, specs) = shards(u64::from(rank), 2);
        let engine = Engine::create(of(rank, 2), &specs).unwrap();
        step(&engine, from, 1);
        engine.finalize(1).unwrap();
        if rank == 0 {
            // The other has died before it.
            step(&engine, from, 2);
        }
        engine.close().unwrap();
    }
    let old: Vec<_> = (0..2).map(|rank| of(rank, 2).store.nvme_path).collect();
    let missing = Engine::reshard(of(0, 3), &old[1..], &shards(0, 3).1).err().unwrap().to_string();
    assert!(missing.contains("missing are 0"), "{missing}");
    for rank in 0..3 {
        let (from, specs) = shards(u64::from(rank), 3);
        let engine = Engine::reshard(of(rank, 3), &old, &specs).unwrap();
        assert_eq!(
            (engine.opened_at().number, &engine.opened_at().scalars),
            (1, &Scalars::step(1).with("lr", [7]))
        );
        assert_eq!(engine.tensors()[0].spec, specs[0]);
        engine.finalize(1).unwrap();
        step(&engine, from, 2);
        engine.close().unwrap();
    }
}
