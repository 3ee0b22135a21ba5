//! The engine on drives that fail: what can be made good does not show, and what cannot is one error that says where.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use std::sync::Arc;
use std::time::Duration;

use hoist::{Config, Durability, Engine, Error, IoError, Life, Mode, Order, OrderId, Phase, Tier};
use hoist_io::{Backend, Fault, FaultKind, Faults, Faulty, IoThread, Operation, Place, Short};
use model::{MIB, Oracle, byte, check, config, fill, find, specs, training};

const NO_PAUSE: Duration = Duration::ZERO;
const LAYERS: usize = 2;

/// errno.h; the same numbers on every Linux.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// A tensor's pieces and their versions.
type Pieces = Vec<(std::ops::Range<u64>, u64)>;

/// Faults of a seed that is said when the test fails: another one each time, unless HOIST_TEST_SEED is one.
struct Drive(Faults);

impl Drive {
    fn new() -> Drive {
        let given = std::env::var("HOIST_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        Drive(Faults::new(given.unwrap_or_else(now)))
    }

    fn open(&self, config: &Config) -> Engine {
        let io = config.io.clone();
        let start = move |_, slab: &Arc<_>, deliver| {
            let (io, slab, faults) = (io.clone(), Arc::clone(slab), self.0.clone());
            let open = move || Ok(Box::new(Faulty::open(&io, &slab, &faults)?) as Box<dyn Backend>);
            IoThread::spawn_with("faulty", open, deliver)
        };
        Engine::open_on(config.clone(), &start).unwrap()
    }

    /// From now on this goes wrong in files whose path has this part, and nothing else.
    fn fail(&self, kind: FaultKind, operation: Operation, path_part: &str) {
        self.0.clear();
        let place = Place { operation: Some(operation), path_part: path_part.into(), ..Place::default() };
        self.0.add(Fault { place, ..Fault::new(kind) });
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// A store at epoch 1, and what it holds. Memory is so small that every layer comes and goes.
fn store(durability: Durability) -> (tempfile::TempDir, Config, Oracle) {
    store_of(LAYERS, durability)
}

fn store_of(layers: usize, durability: Durability) -> (tempfile::TempDir, Config, Oracle) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), 8 * MIB, 4 * MIB, 65536);
    config.store.durability = durability;
    // Blocks that one tensor has many of.
    config.io.block_size = 128 << 10;
    let engine = Engine::create(config.clone(), &specs(layers, MIB)).unwrap();
    let mut oracle = Oracle::new(&engine, MIB);
    let init = oracle.write_all(&engine, |life| *life == Life::Durable);
    let id = engine.declare(init.clone()).unwrap();
    oracle.step(&engine, id, &init, NO_PAUSE).wait().unwrap();
    engine.close().unwrap();
    (dir, config, oracle)
}

/// All durable tensors, read on both tiers.
fn reads(engine: &Engine, oracle: &Oracle) -> Order {
    let mut order = oracle.write_all(engine, |life| *life == Life::Durable);
    for (index, access) in order.accesses.iter_mut().enumerate() {
        access.tier = if index % 2 == 0 { Tier::Device } else { Tier::Host };
        access.uses[0].mode = Mode::Read;
    }
    order
}

fn assert_holds(engine: &Engine, oracle: &mut Oracle) {
    let order = reads(engine, oracle);
    let id = engine.declare(order.clone()).unwrap();
    oracle.step(engine, id, &order, NO_PAUSE).wait().unwrap();
}

/// What the drive said.
fn drive_error(error: &Error) -> &IoError {
    let cause = match error {
        Error::Commit { cause, .. } => return drive_error(cause),
        Error::Transfer { cause, .. } | Error::Store(cause) => cause,
        other => panic!("{other}"),
    };
    let hoist_store::Error::Io(error) = &**cause else { panic!("{cause}") };
    error
}

fn errno(error: &Error) -> Option<i32> {
    let IoError::Transfer { source, .. } = drive_error(error) else { panic!("{error}") };
    source.raw_os_error()
}

/// Kills: an error of a prefetch that hits another acquire, or ends the engine; one that is remembered for good; one
/// that does not say what, where and why.
#[test]
fn a_bad_block_is_the_error_of_what_lies_there_until_it_can_be_read() {
    let (dir, config, mut oracle) = store(Durability::Step);
    let drive = Drive::new();
    // The second of three pieces of a tensor, somewhere in its middle.
    let (tensor, at) = (1, MIB + 300 * 1024);
    let (path, offset) = find(dir.path(), tensor, oracle.versions[1][1].1, at);
    let place = Place {
        operation: Some(Operation::Read),
        path_part: path.to_str().unwrap().into(),
        bytes: offset..offset + 1,
    };
    let engine = drive.open(&config);
    let order = reads(&engine, &oracle);
    let id = engine.declare(order.clone()).unwrap();
    drive.0.add(Fault { place, ..Fault::new(FaultKind::Eio) });
    for _ in 0..2 {
        engine.begin_step(id).unwrap();
        for (index, access) in order.accesses.iter().enumerate() {
            let one = &access.uses[0];
            if one.tensor.0 != tensor || !one.bytes.contains(&at) {
                oracle.access(&engine, &order, index, NO_PAUSE);
                continue;
            }
            let error = engine.acquire(index).err().unwrap();
            let Error::Transfer { tensor, .. } = &error else { panic!("{error}") };
            assert_eq!(tensor, "0.state");
            let IoError::Transfer { offset: start, bytes, .. } = drive_error(&error) else {
                panic!("{error}")
            };
            assert!((*start..start + bytes).contains(&offset), "{offset} is not in {error}");
            let said = error.to_string();
            let whole = format!(
                "tensor 0.state: cannot read {bytes} bytes at {start} of {}: Input/output error (os error {EIO})",
                path.display()
            );
            assert!(said.starts_with(&whole), "{said}");
        }
        engine.commit_step().unwrap().wait().unwrap();
    }
    engine.begin_step(id).unwrap();
    let bad =
        order.accesses.iter().position(|a| a.uses[0].tensor.0 == tensor && a.uses[0].bytes.contains(&at));
    assert!(engine.acquire(bad.unwrap()).is_err());
    drive.0.clear();
    // The same step, and the same engine.
    for index in 0..order.accesses.len() {
        oracle.access(&engine, &order, index, NO_PAUSE);
    }
    engine.commit_step().unwrap().wait().unwrap();
    engine.close().unwrap();
}

/// Trains a step until something fails; what failed.
fn train_until_error(engine: &Engine, oracle: &mut Oracle, id: OrderId, order: &Order) -> Result<u64, Error> {
    engine.begin_step(id)?;
    for (index, access) in order.accesses.iter().enumerate() {
        let mut lease = engine.acquire(index)?;
        for (place, one) in access.uses.iter().enumerate() {
            let piece = &mut oracle.versions[one.tensor.0 as usize];
            let piece = piece.iter_mut().find(|(range, _)| *range == one.bytes).unwrap();
            if one.mode.reads() {
                check(lease.parts(place), one.tensor.0, piece.1, one.bytes.clone());
            }
            if one.mode.writes() {
                oracle.next += 1;
                piece.1 = oracle.next;
                fill(lease.parts_mut(place), one.tensor.0, piece.1, one.bytes.start);
            }
        }
    }
    engine.commit_step()?.wait()
}

/// How a drive begins to fail, by name, and the errno that this gives.
type Case = (&'static str, fn(&Drive), i32);

/// What is there can still be read: of the epoch before, or what the lost step made of it.
fn read_on(engine: &Engine, order: &Order, committed: &[Pieces], newest: &[Pieces]) {
    for (index, access) in order.accesses.iter().enumerate().filter(|(_, one)| one.phase == Phase::Forward) {
        let (lease, one) = (engine.acquire(index).unwrap_or_else(|error| panic!("{error}")), &access.uses[0]);
        let holds = |versions: &[Pieces]| {
            let pieces = &versions[one.tensor.0 as usize];
            let version = pieces.iter().find(|(range, _)| *range == one.bytes).unwrap().1;
            let bytes = lease.parts(0).flatten().zip(one.bytes.clone());
            bytes.into_iter().all(|(found, at)| *found == byte(one.tensor.0, version, at))
        };
        assert!(holds(committed) || holds(newest), "access {index} has wrong bytes");
    }
}

/// Kills: a write's error that does not fail the commit, or is told as something else; a committed epoch that a failed
/// one damages; a call after it that waits for ever.
#[test]
fn a_commit_that_the_drive_refuses_is_an_error_and_loses_nothing_of_the_epoch_before() {
    // The first fills up in the middle of the step.
    let cases: [Case; 4] = [
        ("full", |drive| drive.0.fill_after(3 * MIB + 100), ENOSPC),
        ("writes", |drive| drive.fail(FaultKind::Eio, Operation::Write, ".seg"), EIO),
        ("syncs", |drive| drive.fail(FaultKind::Eio, Operation::Sync, ".seg"), EIO),
        ("journal", |drive| drive.fail(FaultKind::Eio, Operation::Write, ".journal"), EIO),
    ];
    for (name, fail, expected) in cases {
        let (_dir, config, mut oracle) = store(Durability::Step);
        let committed = oracle.versions.clone();
        let drive = Drive::new();
        let engine = drive.open(&config);
        let order = training(&engine, &oracle, LAYERS);
        let id = engine.declare(order.clone()).unwrap();
        fail(&drive);
        let error = train_until_error(&engine, &mut oracle, id, &order).unwrap_err();
        assert!(matches!(error, Error::Commit { epoch: 2, .. }), "{name}: {error}");
        assert_eq!(errno(&error), Some(expected), "{name}: {error}");
        // There is space again, and the drive works: this engine still writes nothing.
        drive.0.clear();
        for again in [engine.begin_step(id), engine.commit_step().map(drop)] {
            assert!(matches!(again, Err(Error::Commit { epoch: 2, .. })), "{name}: {again:?}");
        }
        read_on(&engine, &order, &committed, &oracle.versions);
        assert!(matches!(engine.close(), Err(Error::Commit { epoch: 2, .. })), "{name}");
        drop(engine);

        oracle.versions = committed;
        let engine = drive.open(&config);
        assert_eq!(engine.epoch(), 1, "{name}");
        assert_holds(&engine, &mut oracle);
        let init = oracle.write_all(&engine, |life| *life == Life::Durable);
        let id = engine.declare(init.clone()).unwrap();
        oracle.step(&engine, id, &init, NO_PAUSE).wait().unwrap();
        assert_holds(&engine, &mut oracle);
        engine.close().unwrap();
    }
}

/// Kills: any byte that a transfer which was cut short, refused for a moment or late leaves out, anywhere between the
/// drive and the lease.
#[test]
fn under_storms_every_byte_is_the_same() {
    for durability in [Durability::Step, Durability::None] {
        let (_dir, config, mut oracle) = store(durability);
        let drive = Drive::new();
        let often = |kind| Fault { rate: 0.15, ..Fault::new(kind) };
        for kind in [
            FaultKind::Eintr,
            FaultKind::Eagain,
            FaultKind::Short(Short::First),
            FaultKind::Short(Short::Odd),
            FaultKind::Latency(Duration::from_micros(300)),
        ] {
            drive.0.add(often(kind));
        }
        let nothing = Place { operation: Some(Operation::Write), ..Place::default() };
        drive.0.add(Fault { place: nothing, ..often(FaultKind::Short(Short::None)) });
        let engine = drive.open(&config);
        let order = training(&engine, &oracle, LAYERS);
        let id = engine.declare(order.clone()).unwrap();
        for _ in 0..3 {
            oracle.step(&engine, id, &order, NO_PAUSE);
        }
        engine.close().unwrap();
        assert!(drive.0.hits() > 100, "{}", drive.0);
        let engine = Engine::open(config).unwrap();
        assert_holds(&engine, &mut oracle);
        engine.close().unwrap();
    }
}

/// Scratch that cannot be written takes memory until nothing more fits; when the drive is well again, the next step
/// writes it. (Kills: a write that failed and is never tried again.)
#[test]
fn scratch_that_could_not_be_written_is_written_in_the_next_step() {
    // Eight times as much as the host holds.
    let (_dir, config, oracle) = store_of(16, Durability::Step);
    let drive = Drive::new();
    let engine = drive.open(&config);
    let mut order = oracle.write_all(&engine, |life| *life == Life::Scratch);
    let mut reads = order.accesses.clone();
    reads.iter_mut().for_each(|access| access.uses[0].mode = Mode::Read);
    order.accesses.extend(reads);
    let id = engine.declare(order.clone()).unwrap();
    engine.begin_step(id).unwrap();
    drive.fail(FaultKind::Eio, Operation::Write, ".seg");
    let refused = (0..order.accesses.len()).position(|index| engine.acquire(index).is_err());
    let refused = refused.expect("all of it fits the host");
    drive.0.clear();
    engine.commit_step().unwrap().wait().unwrap();
    engine.begin_step(id).unwrap();
    // First what found no room, before anything else makes some by overwriting what had failed.
    for index in std::iter::once(refused).chain(0..order.accesses.len()) {
        engine.acquire(index).unwrap_or_else(|error| panic!("access {index}: {error}"));
    }
    engine.commit_step().unwrap().wait().unwrap();
    engine.close().unwrap();
}
