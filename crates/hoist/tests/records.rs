//! Records that a drive refuses, and writes that an end of the engine needs, where steps are no epochs.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use hoist::{Config, Durability, Engine, Error, Life, Scalars};
use hoist_io::{Fault, FaultKind, Operation};
use model::drive::{Drive, EIO, NO_PAUSE, assert_holds, at, errno, store};
use model::{MIB, Oracle};

/// Writes all that is durable.
fn step(engine: &Engine, oracle: &mut Oracle) {
    let order = oracle.write_all(engine, |life| *life == Life::Durable);
    let id = engine.declare(order.clone()).unwrap();
    oracle.step(engine, id, &order, NO_PAUSE).wait().unwrap();
}

/// Writes to the journal fail from now on, or once.
fn fail_journal(drive: &Drive, once: bool) {
    let fault = Fault { place: at(Operation::Write, ".journal"), ..Fault::new(FaultKind::Eio) };
    drive.0.add(if once { Fault { times: 1, ..fault } } else { fault });
}

fn names(engine: &Engine) -> Vec<String> {
    engine.snapshots().unwrap().into_iter().map(|(name, _)| name).collect()
}

fn record_failed(result: Result<(), Error>) {
    let error = result.unwrap_err();
    let Error::Record { cause } = &error else { panic!("{error}") };
    assert_eq!(errno(cause), Some(EIO), "{error}");
}

/// A store with a snapshot of its first epoch, open at a durability on a drive.
fn with_snapshot(durability: Durability, drive: &Drive) -> (tempfile::TempDir, Config, Engine, Oracle) {
    let (dir, mut config, oracle) = store(Durability::Step);
    let engine = Engine::open(config.clone()).unwrap();
    engine.snapshot("kept").unwrap();
    engine.close().unwrap();
    config.store.durability = durability;
    let engine = drive.open(&config);
    (dir, config, engine, oracle)
}

/// Kills: a snapshot that is forgotten though its end could not be written; steps since that go with it.
#[test]
fn a_deletion_that_fails_once_costs_nothing() {
    for durability in [Durability::None, Durability::Snapshot] {
        let drive = Drive::new();
        let (_dir, mut config, engine, mut oracle) = with_snapshot(durability, &drive);
        let mut first = Oracle { versions: oracle.versions.clone(), next: oracle.next };
        step(&engine, &mut oracle);
        fail_journal(&drive, true);
        record_failed(engine.delete_snapshot("kept"));
        assert_eq!(names(&engine), ["kept"]);
        assert_holds(&engine, &mut oracle);
        step(&engine, &mut oracle);
        engine.close().unwrap();
        config.store.snapshot = Some("kept".into());
        let engine = Engine::open(config.clone()).unwrap();
        assert_holds(&engine, &mut first);
        engine.close().unwrap();
        config.store.snapshot = None;
        let engine = drive.open(&config);
        assert_holds(&engine, &mut oracle);
        engine.delete_snapshot("kept").unwrap();
        assert_eq!(names(&engine), [""; 0]);
        engine.close().unwrap();
    }
}

/// What was written in place cannot be dropped, so the engine ends; on a drive that is well again the store opens, and a
/// snapshot is what it was.
#[test]
fn a_deletion_that_cannot_be_taken_back_ends_the_engine() {
    for durability in [Durability::None, Durability::Snapshot] {
        let drive = Drive::new();
        let (_dir, mut config, engine, mut oracle) = with_snapshot(durability, &drive);
        let mut first = Oracle { versions: oracle.versions.clone(), next: oracle.next };
        step(&engine, &mut oracle);
        fail_journal(&drive, false);
        record_failed(engine.delete_snapshot("kept"));
        record_failed(engine.declare(model::drive::reads(&engine, &oracle)).map(drop));
        record_failed(engine.close());
        drop(engine);
        drive.0.clear();
        config.store.snapshot = Some("kept".into());
        let engine = Engine::open(config).unwrap();
        assert_holds(&engine, &mut first);
        engine.close().unwrap();
    }
}

/// Kills: a step since the last snapshot that a failed record takes along.
#[test]
fn an_epoch_that_could_not_be_finalized_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = model::config(dir.path(), 8 * MIB, 4 * MIB, 65536);
    (config.store.durability, config.store.world_size) = (Durability::Snapshot, 2);
    let engine = Engine::create(config.clone(), &model::specs(2, MIB)).unwrap();
    let mut oracle = Oracle::new(&engine, MIB);
    step(&engine, &mut oracle);
    engine.snapshot("one").unwrap();
    engine.finalize(1).unwrap();
    engine.close().unwrap();
    let drive = Drive::new();
    let engine = drive.open(&config);
    step(&engine, &mut oracle);
    engine.snapshot("two").unwrap();
    assert_eq!(engine.epochs().unwrap(), [1, 2]);
    step(&engine, &mut oracle);
    fail_journal(&drive, true);
    record_failed(engine.finalize(2));
    assert_eq!(engine.epochs().unwrap(), [1, 2]);
    assert_holds(&engine, &mut oracle);
    engine.finalize(2).unwrap();
    assert_eq!(engine.epochs().unwrap(), [2]);
    engine.close().unwrap();
    assert_holds(&Engine::open(config).unwrap(), &mut oracle);
}

/// What cannot be written keeps the engine open; given up, the store has what each durability promises.
#[test]
fn a_close_that_cannot_write_says_so_and_can_be_tried_again() {
    for (durability, is_well) in
        [Durability::None, Durability::Snapshot].into_iter().flat_map(|one| [(one, true), (one, false)])
    {
        let drive = Drive::new();
        let (_dir, config, engine, mut oracle) = with_snapshot(durability, &drive);
        let mut first = Oracle { versions: oracle.versions.clone(), next: oracle.next };
        // So little that it stays in memory.
        let mut order = oracle.write_all(&engine, |life| *life == Life::Durable);
        order.accesses.truncate(1);
        let id = engine.declare(order.clone()).unwrap();
        oracle.step(&engine, id, &order, NO_PAUSE).wait().unwrap();
        drive.fail(FaultKind::Eio, Operation::Write, ".seg");
        for _ in 0..2 {
            let error = engine.close().unwrap_err();
            assert_eq!(errno(&error), Some(EIO), "{error}");
        }
        if is_well {
            drive.0.clear();
            engine.close().unwrap();
            assert_holds(&Engine::open(config).unwrap(), &mut oracle);
            continue;
        }
        drop(engine);
        drive.0.clear();
        let engine = Engine::open(config).unwrap();
        if durability == Durability::Snapshot {
            // The store was not closed over bytes that it has not.
            assert_eq!(engine.opened_at().number, 1);
            assert_holds(&engine, &mut first);
        }
        engine.close().unwrap();
    }
}

/// Kills: steps that are counted as epochs where they are none, so that a trainer waits for one that never is.
#[test]
fn steps_belong_to_the_epoch_that_is_made_of_them() {
    for durability in [Durability::Snapshot, Durability::None] {
        let (_dir, config, mut oracle) = store(durability);
        let engine = Engine::open(config.clone()).unwrap();
        let order = oracle.write_all(&engine, |life| *life == Life::Durable);
        let id = engine.declare(order.clone()).unwrap();
        let mut next = 2;
        let mut steps = |engine: &Engine, epoch: u64| {
            for _ in 0..2 {
                assert_eq!(
                    oracle.step(engine, id, &order, NO_PAUSE).wait().unwrap(),
                    epoch,
                    "{durability:?}"
                );
            }
        };
        steps(&engine, next);
        if durability == Durability::Snapshot {
            engine.snapshot("one").unwrap();
            assert_eq!(engine.snapshots().unwrap()[0].1.number, next);
            assert_eq!(engine.epochs().unwrap(), [next]);
            next += 1;
            steps(&engine, next);
            assert_eq!(engine.rollback_to("one").unwrap().number, next);
            next += 1;
            steps(&engine, next);
        }
        engine.close().unwrap();
        assert_eq!(Engine::open(config).unwrap().opened_at().number, next);
    }
}

/// Kills: a note of a dropped step that the next one makes durable.
#[test]
fn an_aborted_step_has_no_notes() {
    for durability in [Durability::Step, Durability::Snapshot, Durability::None] {
        let (_dir, config, oracle) = store(durability);
        let engine = Engine::open(config.clone()).unwrap();
        let id = engine.declare(model::drive::reads(&engine, &oracle)).unwrap();
        engine.begin_step(id).unwrap();
        engine.set_note("dropped", vec![1]).unwrap();
        engine.abort_step().unwrap();
        engine.begin_step(id).unwrap();
        engine.set_note("kept", vec![2]).unwrap();
        engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
        engine.close().unwrap();
        let engine = Engine::open(config).unwrap();
        assert_eq!(engine.notes(), [("kept".to_owned(), vec![2])], "{durability:?}");
        engine.close().unwrap();
    }
}
