//! A long run takes no more disk than a short one.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hoist::{Engine, Life};
use model::drive::NO_PAUSE;
use model::{MIB, Oracle, config, tensor};

/// What the files below a folder occupy, and the largest journal.
fn used_bytes(path: &Path) -> (u64, u64) {
    let mut used = (0, 0);
    for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
        let (metadata, path) = (entry.metadata().unwrap(), entry.path());
        let (bytes, journal) =
            if metadata.is_dir() { used_bytes(&path) } else { (metadata.blocks() * 512, 0) };
        let journal = if path.extension().is_some_and(|kind| kind == "journal") { bytes } else { journal };
        used = (used.0 + bytes, used.1.max(journal));
    }
    used
}

/// Kills: extents that are lost when a snapshot is deleted, or a step aborted; journals that grow.
#[test]
fn a_thousand_steps_take_no_more_disk_than_ten() {
    let dir = tempfile::tempdir().unwrap();
    let specs = [tensor("large", MIB + 1, Life::Durable, "a"), tensor("small", 5000, Life::Durable, "a")];
    let mut config = config(dir.path(), 8 * MIB, 4 * MIB, 65536);
    config.store.snapshots = 1;
    let engine = Engine::create(config, &specs).unwrap();
    let mut oracle = Oracle::new(&engine, MIB);
    let order = oracle.write_all(&engine, |_| true);
    let id = engine.declare(order.clone()).unwrap();
    let mut at_ten = (0, 0);
    for step in 1..=1000 {
        if step % 50 == 0 {
            engine.begin_step(id).unwrap();
            engine.acquire(0).unwrap().parts_mut(0).for_each(|part| part.fill(1));
            engine.abort_step().unwrap();
        }
        oracle.step(&engine, id, &order, NO_PAUSE).wait().unwrap();
        if step % 20 == 0 {
            engine.snapshot("one").unwrap();
        } else if step % 20 == 7 && step > 20 {
            engine.delete_snapshot("one").unwrap();
        }
        if step == 10 {
            at_ten = used_bytes(dir.path());
        }
    }
    let at_end = used_bytes(dir.path());
    assert!(at_end.0 <= at_ten.0 + at_ten.1, "{at_ten:?} bytes at step 10, {at_end:?} at step 1000");
    println!("{at_ten:?} bytes (and its journal) at step 10, {at_end:?} at step 1000");
    engine.close().unwrap();
}
