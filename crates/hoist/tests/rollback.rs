//! Epochs that fail: they are rolled back, and the same engine goes on.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use std::time::Duration;

use hoist::{Config, Durability, Engine, Error, Life, Mode, Order, OrderId, Phase, Scalars};
use hoist_io::{Fault, FaultKind, Operation};
use model::drive::{Drive, EIO, ENOSPC, LAYERS, NO_PAUSE, assert_holds, at, errno, store};
use model::{MIB, Oracle, training};

/// A tensor's pieces and their versions.
type Pieces = Vec<(std::ops::Range<u64>, u64)>;

/// A trainer at epoch 1, on a drive that is well yet.
struct Scene {
    _dir: tempfile::TempDir,
    config: Config,
    drive: Drive,
    engine: Engine,
    order: Order,
    id: OrderId,
    oracle: Oracle,
    committed: Vec<Pieces>,
}

impl Scene {
    fn new() -> Scene {
        let (_dir, config, oracle) = store(Durability::Step);
        let committed = oracle.versions.clone();
        let drive = Drive::new();
        let engine = drive.open(&config);
        let order = training(&engine, &oracle, LAYERS);
        let id = engine.declare(order.clone()).unwrap();
        Scene { _dir, config, drive, engine, order, id, oracle, committed }
    }
}

/// Trains a step until something fails; what failed.
fn train_until_error(engine: &Engine, oracle: &mut Oracle, id: OrderId, order: &Order) -> Result<u64, Error> {
    engine.begin_step(id)?;
    for index in 0..order.accesses.len() {
        let mut lease = engine.acquire(index)?;
        oracle.fill(&mut lease, order, index);
    }
    engine.commit_step(&Scalars::default())?.wait()
}

/// Durable tensors are of the epoch before again; scratch is as the step left it.
fn forget(oracle: &mut Oracle, engine: &Engine, committed: &[Pieces]) {
    for (tensor, pieces) in committed.iter().enumerate() {
        if engine.tensors()[tensor].spec.life == Life::Durable {
            oracle.versions[tensor].clone_from(pieces);
        }
    }
}

/// How a drive begins to fail, by name, the errno that this gives, and whether the next step can begin on it.
type Case = (&'static str, fn(&Drive), i32, bool);

/// Kills: a write's error that does not fail the commit, or is told as something else; a committed epoch that a failed
/// one damages; bytes of a dropped epoch that are read, or written, later; a call after it that waits for ever.
#[test]
fn a_commit_that_the_drive_refuses_loses_its_step_and_nothing_else() {
    // The first fills up in the middle of the step.
    let cases: [Case; 5] = [
        ("full", |drive| drive.0.fill_after(3 * MIB + 100), ENOSPC, true),
        ("writes", |drive| drive.fail(FaultKind::Eio, Operation::Write, ".seg"), EIO, true),
        ("syncs", |drive| drive.fail(FaultKind::Eio, Operation::Sync, ".seg"), EIO, true),
        // What may have reached the journal must be taken back first.
        ("journal", |drive| drive.fail(FaultKind::Eio, Operation::Write, ".journal"), EIO, false),
        ("journal's sync", |drive| drive.fail(FaultKind::Eio, Operation::Sync, ".journal"), EIO, false),
    ];
    for (name, fail, expected, begins) in cases {
        let Scene { _dir, config, drive, engine, order, id, mut oracle, committed } = Scene::new();
        let mut epoch = 2;
        for _ in 0..2 {
            fail(&drive);
            let error = train_until_error(&engine, &mut oracle, id, &order).unwrap_err();
            assert!(matches!(error, Error::Commit { epoch: lost, .. } if lost == epoch), "{name}: {error}");
            assert_eq!(errno(&error), Some(expected), "{name}: {error}");
            forget(&mut oracle, &engine, &committed);
            if !begins {
                for _ in 0..2 {
                    let error = engine.begin_step(id).unwrap_err();
                    assert!(
                        matches!(error, Error::Commit { epoch: lost, .. } if lost == epoch),
                        "{name}: {error}"
                    );
                    assert!(error.to_string().contains("cannot be taken back"), "{name}: {error}");
                }
                drive.0.clear();
                engine.begin_step(id).unwrap();
                assert_eq!(engine.commit_step(&Scalars::default()).unwrap().wait().unwrap(), epoch, "{name}");
                epoch += 1;
            }
        }
        drive.0.clear();
        // The same engine, on a drive that is well again, or has space.
        for epoch in epoch..epoch + 2 {
            assert_eq!(oracle.step(&engine, id, &order, NO_PAUSE).wait().unwrap(), epoch, "{name}");
        }
        assert_holds(&engine, &mut oracle);
        engine.close().unwrap();
        let engine = drive.open(&config);
        assert_eq!(engine.opened_at().number, epoch + 2, "{name}");
        assert_holds(&engine, &mut oracle);
        engine.close().unwrap();
    }
}

/// Closed instead, on a drive that is still ill, the store opens at the epoch before; and a close says what nobody has
/// heard of.
#[test]
fn after_a_failed_commit_the_store_opens_at_the_epoch_before() {
    for heard in [true, false] {
        let Scene { _dir, config, drive, engine, order, id, mut oracle, committed } = Scene::new();
        drive.fail(FaultKind::Eio, Operation::Sync, ".seg");
        let commit = oracle.step(&engine, id, &order, NO_PAUSE);
        if heard {
            assert!(matches!(commit.wait(), Err(Error::Commit { epoch: 2, .. })));
            engine.close().unwrap();
        } else {
            drop(commit);
            assert!(matches!(engine.close(), Err(Error::Commit { epoch: 2, .. })));
        }
        drop(engine);
        drive.0.clear();
        let engine = drive.open(&config);
        assert_eq!(engine.opened_at().number, 1);
        forget(&mut oracle, &engine, &committed);
        assert_holds(&engine, &mut oracle);
        engine.close().unwrap();
    }
}

/// A later open may find the epoch that was lost: a close says so, whoever has heard that it is.
#[test]
fn a_close_tells_of_a_record_that_could_not_be_taken_back() {
    let Scene { _dir, config, drive, engine, order, id, mut oracle, committed } = Scene::new();
    drive.fail(FaultKind::Eio, Operation::Sync, ".journal");
    let commit = oracle.step(&engine, id, &order, NO_PAUSE);
    assert!(matches!(commit.wait(), Err(Error::Commit { epoch: 2, .. })));
    let error = engine.close().unwrap_err();
    assert!(matches!(error, Error::Commit { epoch: 2, .. }), "{error}");
    assert!(error.to_string().contains("cannot be taken back"), "{error}");
    drop(engine);
    drive.0.clear();
    let engine = drive.open(&config);
    if engine.opened_at().number == 1 {
        forget(&mut oracle, &engine, &committed);
    }
    assert_holds(&engine, &mut oracle);
    engine.close().unwrap();
}

/// Kills: a running step that goes on over the epoch before the one that it began with; a lease of it whose bytes are
/// kept; a step that begins while one is held; an error that nobody is told.
#[test]
fn the_running_step_is_lost_with_the_one_before() {
    let Scene { _dir, config, drive, engine, order, id, mut oracle, committed } = Scene::new();
    // Late enough for the next step to be under way.
    drive.fail(FaultKind::Eio, Operation::Sync, ".seg");
    drive.0.add(Fault {
        place: at(Operation::Sync, ".seg"),
        ..Fault::new(FaultKind::Latency(Duration::from_millis(700)))
    });
    engine.set_note("lost", vec![2]).unwrap();
    let commit = oracle.step(&engine, id, &order, NO_PAUSE);
    engine.begin_step(id).unwrap();
    engine.set_note("lost, too", vec![3]).unwrap();
    let optimizer = order.accesses.iter().position(|one| one.phase == Phase::Optimizer).unwrap();
    assert_eq!(order.accesses[optimizer].uses[0].mode, Mode::Update);
    let mut lease = engine.acquire(optimizer).unwrap();
    lease.parts_mut(0).for_each(|part| part.fill(7));
    assert!(matches!(commit.wait(), Err(Error::Commit { epoch: 2, .. })));
    drive.0.clear();
    let lost = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::Commit { epoch: 2, .. })), "{result:?}")
    };
    lost(engine.acquire(0).map(drop));
    lost(engine.set_note("step", vec![3]));
    lost(engine.commit_step(&Scalars::default()).map(drop));
    assert!(matches!(engine.begin_step(id), Err(Error::LeasesHeld { call: "begin_step", count: 1 })));
    drop(lease);
    forget(&mut oracle, &engine, &committed);
    assert_eq!(oracle.step(&engine, id, &order, NO_PAUSE).wait().unwrap(), 2);
    engine.close().unwrap();
    let engine = Engine::open(config).unwrap();
    assert!(engine.notes().is_empty());
    assert_holds(&engine, &mut oracle);
    engine.close().unwrap();
}

/// A trainer that does not wait for its commits hears of the failure in the next call.
#[test]
fn a_failure_that_nobody_waits_for_is_told_once() {
    told_once(|_, _| Ok(()));
    told_once(|engine, order| engine.declare(order.clone()).map(drop));
}

/// `ask` is called first when the epoch has failed.
fn told_once(ask: impl FnOnce(&Engine, &Order) -> Result<(), Error>) {
    let Scene { _dir, drive, engine, order, id, mut oracle, committed, .. } = Scene::new();
    drive.0.add(Fault { place: at(Operation::Sync, ".seg"), times: 1, ..Fault::new(FaultKind::Eio) });
    drop(oracle.step(&engine, id, &order, NO_PAUSE));
    // Time to fail. Should it take longer, a step begins, and its end says so.
    std::thread::sleep(Duration::from_millis(100));
    let next = ask(&engine, &order).and_then(|()| engine.begin_step(id));
    let next = next.and_then(|()| engine.commit_step(&Scalars::default())).and_then(|commit| commit.wait());
    let error = next.unwrap_err();
    assert!(matches!(error, Error::Commit { epoch: 2, .. }), "{error}");
    drive.0.clear();
    forget(&mut oracle, &engine, &committed);
    assert_eq!(oracle.step(&engine, id, &order, NO_PAUSE).wait().unwrap(), 2);
    engine.close().unwrap();
}

/// A trainer that begins the next step before the last one is durable, and goes on whatever fails.
struct Trainer {
    engine: Engine,
    id: OrderId,
    order: Order,
    oracle: Oracle,
    /// What the newest epoch that is known to be durable holds, and what the one under way will.
    committed: Vec<Pieces>,
    under_way: Option<(hoist::Commit, Vec<Pieces>)>,
    epochs: u64,
    failures: u64,
}

impl Trainer {
    fn step(&mut self) {
        let stepped = self.try_step();
        // The step that has begun to commit, or failed, tells how the one before it ended.
        if let Some((commit, versions)) = self.under_way.take()
            && commit.wait().is_ok()
        {
            self.committed = versions;
            self.epochs += 1;
        }
        match stepped {
            Ok(commit) => self.under_way = Some((commit, self.oracle.versions.clone())),
            Err(Error::Commit { .. }) => {
                self.failures += 1;
                forget(&mut self.oracle, &self.engine, &self.committed);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn try_step(&mut self) -> Result<hoist::Commit, Error> {
        self.engine.begin_step(self.id)?;
        for index in 0..self.order.accesses.len() {
            let mut lease = loop {
                match self.engine.acquire(index) {
                    // The gradient that is in the way is written when it is tried again.
                    Err(Error::Transfer { tensor, .. }) if tensor.contains("gradient") => {}
                    result => break result?,
                }
            };
            self.oracle.fill(&mut lease, &self.order, index);
        }
        self.engine.commit_step(&Scalars::default())
    }
}

/// Drives on which now and then a write, a sync, or a record of the journal fails, for many steps of a trainer that does
/// not wait: every byte that is read is right, what was durable stays, and at the end all is as if nothing had failed.
#[test]
fn training_goes_on_through_failures_at_random() {
    let Scene { _dir, config, drive, engine, order, id, oracle, committed } = Scene::new();
    for (operation, path_part, rate) in [
        (Operation::Write, ".seg", 0.01),
        (Operation::Sync, ".seg", 0.1),
        (Operation::Write, ".journal", 0.1),
        (Operation::Sync, ".journal", 0.1),
    ] {
        drive.0.add(Fault { place: at(operation, path_part), rate, ..Fault::new(FaultKind::Eio) });
    }
    let mut trainer =
        Trainer { engine, id, order, oracle, committed, under_way: None, epochs: 1, failures: 0 };
    while trainer.failures < 20 || trainer.epochs < 20 {
        trainer.step();
    }
    drive.0.clear();
    for _ in 0..3 {
        trainer.step();
    }
    let Trainer { engine, mut oracle, committed, under_way, mut epochs, .. } = trainer;
    if let Some((commit, _)) = under_way {
        assert_eq!(commit.wait().unwrap(), epochs + 1);
        epochs += 1;
    } else {
        forget(&mut oracle, &engine, &committed);
    }
    assert_holds(&engine, &mut oracle);
    engine.close().unwrap();
    let engine = Engine::open(config).unwrap();
    assert_eq!(engine.opened_at().number, epochs + 1);
    assert_holds(&engine, &mut oracle);
    engine.close().unwrap();
}

/// Kills: a close that waits for a rollback which waits for a lease whose holder waits for the close.
#[test]
fn closing_does_not_wait_for_a_lease_of_the_lost_step() {
    let (_dir, config, oracle) = store(Durability::Step);
    let drive = Drive::new();
    let engine = drive.open(&config);
    let order = oracle.write_all(&engine, |life| *life == Life::Durable);
    let mut reads = order.accesses[1..3].to_vec();
    reads.iter_mut().for_each(|access| access.uses[0].mode = Mode::Read);
    let order = Order { accesses: [order.accesses[..1].to_vec(), reads].concat() };
    let id = engine.declare(order).unwrap();
    let late = |millis| FaultKind::Latency(Duration::from_millis(millis));
    drive.0.add(Fault { place: at(Operation::Sync, ".seg"), ..Fault::new(FaultKind::Eio) });
    drive.0.add(Fault { place: at(Operation::Sync, ".seg"), ..Fault::new(late(1000)) });
    drive.0.add(Fault { place: at(Operation::Read, ".seg"), ..Fault::new(late(300)) });
    engine.begin_step(id).unwrap();
    drop(engine.acquire(0).unwrap());
    let commit = engine.commit_step(&Scalars::default()).unwrap();
    engine.begin_step(id).unwrap();
    let other = engine.clone();
    // It gets its first lease while the close waits, and asks for the second before the commit fails: whether it gets that
    // one, too, is up to the drive.
    let client = std::thread::spawn(move || {
        let first = other.acquire(1);
        let second = other.acquire(2);
        drop((first, second));
    });
    std::thread::sleep(Duration::from_millis(100));
    let (sender, closed) = std::sync::mpsc::channel();
    let closing = engine.clone();
    std::thread::spawn(move || sender.send(closing.close()));
    let closed = closed.recv_timeout(Duration::from_secs(20)).expect("close never ends");
    assert!(closed.is_err(), "an epoch was lost, or a lease is held");
    client.join().unwrap();
    assert!(matches!(commit.wait(), Err(Error::Commit { epoch: 2, .. })));
}
