//! What becomes of a step that ends in its middle, and of calls that are wrong in one.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use hoist::{Durability, Engine, Error, Life, Scalars};
use model::drive::{NO_PAUSE, assert_holds, store};

/// Kills: a rollback that drops the step before it looks for the name.
#[test]
fn a_name_that_is_none_costs_no_step() {
    let (_dir, config, mut oracle) = store(Durability::Step);
    let engine = Engine::open(config).unwrap();
    let order = oracle.write_all(&engine, |life| *life == Life::Durable);
    let id = engine.declare(order.clone()).unwrap();
    engine.begin_step(id).unwrap();
    oracle.access(&engine, &order, 0, NO_PAUSE);
    let error = engine.rollback_to("typo").unwrap_err().to_string();
    assert!(error.contains("no snapshot \"typo\""), "{error}");
    engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    assert_holds(&engine, &mut oracle);
}

/// Kills: an epoch that is made of a part of a step where writes go in place, under what was said of the step before.
#[test]
fn half_a_step_is_of_no_epoch() {
    let (_dir, config, mut oracle) = store(Durability::Snapshot);
    let engine = Engine::open(config.clone()).unwrap();
    let order = oracle.write_all(&engine, |life| *life == Life::Durable);
    let id = engine.declare(order.clone()).unwrap();
    oracle.step(&engine, id, &order, NO_PAUSE).wait().unwrap();
    engine.snapshot("whole").unwrap();
    let whole = oracle.versions.clone();
    engine.begin_step(id).unwrap();
    for access in 0..order.accesses.len() / 2 {
        oracle.access(&engine, &order, access, NO_PAUSE);
    }
    let refused = engine.close();
    assert!(matches!(refused, Err(Error::Step { call: "close", .. })), "{refused:?}");
    drop(engine);
    oracle.versions = whole;
    let engine = Engine::open(config).unwrap();
    assert_holds(&engine, &mut oracle);
    engine.close().unwrap();
}

/// Kills: a note that is taken by a store that does not change, and fails its step.
#[test]
fn a_store_open_at_a_snapshot_takes_no_notes() {
    for durability in [Durability::Step, Durability::Snapshot, Durability::None] {
        let (_dir, mut config, oracle) = store(Durability::Step);
        let engine = Engine::open(config.clone()).unwrap();
        engine.snapshot("kept").unwrap();
        engine.close().unwrap();
        (config.store.durability, config.store.snapshot) = (durability, Some("kept".into()));
        let engine = Engine::open(config).unwrap();
        let id = engine.declare(model::drive::reads(&engine, &oracle)).unwrap();
        engine.begin_step(id).unwrap();
        let error = engine.set_note("note", vec![1]).unwrap_err().to_string();
        assert!(error.contains("open at snapshot"), "{error}");
        engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
        engine.close().unwrap();
    }
}

/// Kills: a way back that drops the steps since the last snapshot before it is refused.
#[test]
fn a_way_back_that_is_refused_leaves_the_engine_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = model::config(dir.path(), 8 * model::MIB, 4 * model::MIB, 65536);
    (config.store.durability, config.store.world_size) = (Durability::Snapshot, 2);
    let engine = Engine::create(config, &model::specs(2, model::MIB)).unwrap();
    let mut oracle = model::Oracle::new(&engine, model::MIB);
    let order = oracle.write_all(&engine, |life| *life == Life::Durable);
    let id = engine.declare(order.clone()).unwrap();
    for _ in 0..3 {
        oracle.step(&engine, id, &order, NO_PAUSE).wait().unwrap();
    }
    engine.snapshot("one").unwrap();
    oracle.step(&engine, id, &order, NO_PAUSE).wait().unwrap();
    let error = engine.rollback_to("one").unwrap_err().to_string();
    assert!(error.contains("finalize it first"), "{error}");
    assert_holds(&engine, &mut oracle);
    engine.finalize(1).unwrap();
    engine.rollback_to("one").unwrap();
    engine.finalize(2).unwrap();
    oracle.step(&engine, id, &order, NO_PAUSE).wait().unwrap();
    assert_holds(&engine, &mut oracle);
    engine.close().unwrap();
}
