//! An engine on drives that can be made to fail.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use hoist::{Config, Durability, Engine, Error, IoError, Life, Mode, Order, Tier};
use hoist_io::{Backend, Fault, FaultKind, Faults, Faulty, IoThread, Operation, Place};

use super::{MIB, Oracle, config, specs};

pub const NO_PAUSE: Duration = Duration::ZERO;
pub const LAYERS: usize = 2;

/// errno.h; the same numbers on every Linux.
pub const EIO: i32 = 5;
pub const ENOSPC: i32 = 28;

/// Faults of a seed that is said when the test fails: another one each time, unless HOIST_TEST_SEED is one.
pub struct Drive(pub Faults);

impl Drive {
    pub fn new() -> Drive {
        let given = std::env::var("HOIST_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        Drive(Faults::new(given.unwrap_or_else(now)))
    }

    pub fn open(&self, config: &Config) -> Engine {
        let io = config.io.clone();
        let start = move |_, slab: &Arc<_>, deliver| {
            let (io, slab, faults) = (io.clone(), Arc::clone(slab), self.0.clone());
            let open = move || Ok(Box::new(Faulty::open(&io, &slab, &faults)?) as Box<dyn Backend>);
            IoThread::spawn_with("faulty", open, deliver)
        };
        Engine::open_on(config.clone(), &start).unwrap()
    }

    /// From now on this goes wrong in files whose path has this part, and nothing else.
    pub fn fail(&self, kind: FaultKind, operation: Operation, path_part: &str) {
        self.0.clear();
        self.0.add(Fault { place: at(operation, path_part), ..Fault::new(kind) });
    }
}

/// An operation on files whose path has this part.
pub fn at(operation: Operation, path_part: &str) -> Place {
    Place { operation: Some(operation), path_part: path_part.into(), ..Place::default() }
}

impl Drop for Drive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// A store at epoch 1, and what it holds. Memory is so small that every layer comes and goes.
pub fn store(durability: Durability) -> (tempfile::TempDir, Config, Oracle) {
    store_of(LAYERS, durability)
}

pub fn store_of(layers: usize, durability: Durability) -> (tempfile::TempDir, Config, Oracle) {
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
pub fn reads(engine: &Engine, oracle: &Oracle) -> Order {
    let mut order = oracle.write_all(engine, |life| *life == Life::Durable);
    for (index, access) in order.accesses.iter_mut().enumerate() {
        access.tier = if index % 2 == 0 { Tier::Device } else { Tier::Host };
        access.uses[0].mode = Mode::Read;
    }
    order
}

pub fn assert_holds(engine: &Engine, oracle: &mut Oracle) {
    let order = reads(engine, oracle);
    let id = engine.declare(order.clone()).unwrap();
    oracle.step(engine, id, &order, NO_PAUSE).wait().unwrap();
}

/// What the drive said.
pub fn drive_error(error: &Error) -> &IoError {
    let cause = match error {
        Error::Commit { cause, .. } => return drive_error(cause),
        Error::Transfer { cause, .. } | Error::Store(cause) => cause,
        other => panic!("{other}"),
    };
    let hoist_store::Error::Io(error) = &**cause else { panic!("{cause}") };
    error
}

pub fn errno(error: &Error) -> Option<i32> {
    let IoError::Transfer { source, .. } = drive_error(error) else { panic!("{error}") };
    source.raw_os_error()
}
