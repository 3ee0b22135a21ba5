//! Drives of a store on which all of one kind of transfer fails.
#![allow(dead_code, reason = "each test file uses a part of it")]

use super::common::{Driver, config, slab, spec};
use hoist_io::{Backend, Config, Error, Fault, FaultKind, Faults, Faulty, IoThread, Operation, Place};
use hoist_memory::Slab;
use hoist_store::{Deliver, Life};
use std::sync::Arc;
use tempfile::{TempDir, tempdir};

/// Of each tensor of [`store`]: several blocks, and a last one that is cut.
pub const BYTES: u64 = (1 << 20) + 5;

/// A store at epoch 1 with the pattern of seed 1 in its durable tensor, and a scratch one, on a backend that can fail.
pub fn store(faults: &Faults) -> (TempDir, hoist_store::Config, Driver) {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = config(&[directory.path()]);
    let tensors = [spec("a", BYTES, Life::Durable), spec("s", BYTES, Life::Scratch)];
    let mut store = Driver::create(&config, &slab, &tensors).unwrap();
    store.write(store.whole(0), 1).unwrap();
    store.commit();
    store.store.close().unwrap();
    let store = Driver::open_on(&config, &slab, &|_, deliver| start(faults, &slab, deliver)).unwrap();
    (directory, config, store)
}

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Reads,
    Writes,
    JournalWrites,
    Syncs,
    JournalSyncs,
}

/// From now on this fails, and nothing else.
pub fn fail(faults: &Faults, what: What) {
    let (operation, path_part) = match what {
        What::Reads => (Operation::Read, ".seg"),
        What::Writes => (Operation::Write, ".seg"),
        What::JournalWrites => (Operation::Write, ".journal"),
        What::Syncs => (Operation::Sync, ""),
        What::JournalSyncs => (Operation::Sync, ".journal"),
    };
    let place = Place { operation: Some(operation), path_part: path_part.into(), ..Place::default() };
    faults.clear();
    faults.add(Fault { place, ..Fault::new(FaultKind::Eio) });
}

/// A directory's thread.
pub fn start(faults: &Faults, slab: &Arc<Slab>, deliver: Deliver) -> Result<IoThread, Error> {
    let (faults, slab) = (faults.clone(), Arc::clone(slab));
    let open = move || Ok(Box::new(Faulty::open(&Config::default(), &slab, &faults)?) as Box<dyn Backend>);
    IoThread::spawn_with("faulty", open, deliver)
}

/// Whether this is what the drive said.
pub fn is_eio(error: &hoist_store::Error) -> bool {
    let hoist_store::Error::Io(Error::Transfer { source, .. }) = error else { return false };
    // EIO: the number is the same on every Linux.
    source.raw_os_error() == Some(5)
}
