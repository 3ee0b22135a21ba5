//! Ranks: an epoch is final when the trainer says so, and what comes after it waits until then.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use std::time::Duration;

use hoist::{Config, Engine, Error, Life, Scalars};
use model::drive::{LAYERS, NO_PAUSE, assert_holds};
use model::{MIB, Oracle, config, specs, training};

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
