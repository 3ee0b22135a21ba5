//! A machine that has no memory left.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;

use common::*;
use hoist_store::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::tempdir;

const BYTES: u64 = 1 << 20;

/// The largest note, more or less.
const NOTE_BYTES: usize = 15 << 20;

/// Enough for the notes that a way back finds, and for their records; too little for the new journal that has both.
const LEFT_BYTES: u64 = 400 << 20;

/// Says that a process is the one that runs out of memory.
const CHILD: &str = "HOIST_TEST_LITTLE_MEMORY";

fn free(store: &Driver) -> u64 {
    store.store.directories().map(|one| one.free_bytes).sum()
}

/// Lets this process have so much address space more than it has; all that it wants without a number.
fn limit(bytes: Option<u64>) {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let kib: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    let current = bytes.map(|bytes| (kib << 10) + bytes);
    let maximum = getrlimit(Resource::As).maximum;
    setrlimit(Resource::As, Rlimit { current: current.or(maximum), maximum }).unwrap();
}

/// Kills: extents that a way back which could not begin has kept, or has given to others; notes of the snapshot that stay.
#[test]
fn a_way_back_without_memory_changes_nothing() {
    // The limit is a process's: others have other tests beside them.
    if std::env::var_os(CHILD).is_some() {
        return run();
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "a_way_back_without_memory_changes_nothing", "--nocapture"]).env(CHILD, "1");
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn run() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = config(&[directory.path()]);
    let specs = [spec("a", BYTES, Life::Durable), spec("room", 8 * BYTES, Life::Durable)];
    let mut store = Driver::create(&config, &slab, &specs).unwrap();
    let whole = store.whole(0);
    let keys = ["0", "1", "2", "3"];
    store.write(whole, 1).unwrap();
    keys.iter().for_each(|key| store.store.set_note(key, vec![1; NOTE_BYTES]).unwrap());
    store.commit();
    store.store.snapshot("kept").unwrap();
    assert!(matches!(store.any_event(), StoreEvent::Recorded { result: Ok(()) }));
    store.write(whole, 2).unwrap();
    keys.iter().for_each(|key| store.store.set_note(key, vec![2]).unwrap());
    store.commit();
    let before = free(&store);
    limit(Some(LEFT_BYTES));
    for _ in 0..2 {
        let refused = store.store.rollback_to("kept");
        assert!(matches!(refused, Err(Error::Memory(_))), "{refused:?}");
    }
    limit(None);
    store.assert_holds(whole, 2);
    assert_eq!((store.store.note("0"), free(&store)), (Some(&[2][..]), before));
    // What the snapshot has is nobody else's.
    for seed in 3..6 {
        store.write(whole, seed).unwrap();
        store.commit();
        assert_eq!(free(&store), before);
    }
    assert_eq!(store.store.rollback_to("kept").unwrap(), 6);
    assert_eq!(store.wait_for_commit(), 6);
    store.assert_holds(whole, 1);
    assert_eq!(store.store.note("3"), Some(&vec![1; NOTE_BYTES][..]));
    // Nor has anybody kept it.
    store.write(whole, 7).unwrap();
    store.commit();
    store.store.delete_snapshot("kept").unwrap();
    assert!(matches!(store.any_event(), StoreEvent::Recorded { result: Ok(()) }));
    assert_eq!(free(&store), before + BYTES);
}
