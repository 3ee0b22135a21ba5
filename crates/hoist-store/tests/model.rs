//! Random writes, commits that may fail, rollbacks and crashes against a model that is a table of seeds.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;
#[path = "common/fault.rs"]
mod fault;

use common::*;
use fault::{What, fail};
use hoist_io::Faults;
use hoist_store::*;
use proptest::prelude::*;
use std::path::Path;
use tempfile::tempdir;

/// Bytes of the durable runs: a bundle, one that several directories share, and one whose last block is cut.
const RUNS: [u64; 3] = [5000, (2 << 20) + 1, 5 * BLOCK - 4095];

#[derive(Debug, Clone)]
enum Op {
    Write {
        run: usize,
        first: u64,
        blocks: u64,
    },
    /// Starts a commit: what follows runs beside it.
    Commit,
    /// A commit on drives that fail, with the start of the next epoch beside it, is rolled back.
    FailedCommit {
        what: What,
        /// Whether the drives are well again only after a first rollback.
        late: bool,
        beside: usize,
    },
    Rollback,
    /// Ends the process, more or less.
    Crash,
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    let what = prop_oneof![Just(What::Syncs), Just(What::JournalWrites), Just(What::JournalSyncs)];
    prop_oneof![
        8 => (0..RUNS.len(), 0..9u64, 1..10u64).prop_map(|(run, first, blocks)| Op::Write { run, first, blocks }),
        4 => Just(Op::Commit),
        2 => (what, any::<bool>(), 0..RUNS.len()).prop_map(|(what, late, beside)| Op::FailedCommit { what, late, beside }),
        1 => Just(Op::Rollback),
        1 => Just(Op::Crash),
        1 => Just(Op::Close),
    ]
}

/// The seed of every block of every run; none when it was never written.
type Table = Vec<Vec<Option<u64>>>;

struct Model {
    newest: Table,
    /// What the commit under way will make of `durable`.
    sealed: Option<(u64, Table)>,
    durable: (u64, Table),
}

fn check(store: &mut Driver, table: &Table) {
    for (run, seeds) in table.iter().enumerate() {
        for (block, seed) in seeds.iter().enumerate() {
            let offset = block as u64 * BLOCK;
            let span = span(run as u32, offset, BLOCK.min(RUNS[run] - offset));
            match seed {
                Some(seed) => store.assert_holds(span, *seed),
                None => assert!(!store.store.has_bytes(&span)),
            }
        }
        let whole = store.whole(run as u32);
        assert_eq!(store.store.has_bytes(&whole), seeds.iter().all(Option::is_some));
        if store.store.has_bytes(&whole) {
            store.read(whole).unwrap();
        }
    }
}

fn settle(store: &mut Driver, model: &mut Model) {
    if model.sealed.is_some() && !store.committed.is_empty() {
        let (epoch, table) = model.sealed.take().unwrap();
        assert_eq!(store.committed.pop(), Some(epoch));
        model.durable = (epoch, table);
    }
}

fn finish_commit(store: &mut Driver, model: &mut Model) {
    if model.sealed.is_some() {
        let epoch = store.wait_for_commit();
        store.committed.push(epoch);
        settle(store, model);
    }
}

/// `false`: a directory that failed takes no more writes, and the others are full.
fn write(store: &mut Driver, model: &mut Model, span: Span, seed: u64) -> bool {
    let quarantined = store.store.directories().any(|one| one.quarantined.is_some());
    match store.write(span, seed) {
        Ok(()) => {}
        Err(Error::NoSpace { .. }) => {
            // Three versions at once do not fit; two always do, whole or in parts, once the commit is over.
            finish_commit(store, model);
            if let Err(error) = store.write(span, seed) {
                // A span that this epoch has written in part: with it the epoch would need a third copy of that part.
                assert!(matches!(error, Error::NoSpace { .. }), "{error}");
                store.store.commit(&Scalars::default()).unwrap();
                let epoch = store.wait_for_commit();
                model.durable = (epoch, model.newest.clone());
                match store.write(span, seed) {
                    Err(Error::NoSpace { .. }) if quarantined => return false,
                    written => written.unwrap(),
                }
            }
        }
        Err(error) => panic!("{error}"),
    }
    for block in span.offset / BLOCK..span.end().div_ceil(BLOCK) {
        model.newest[span.run.0 as usize][block as usize] = Some(seed);
    }
    true
}

/// The commit fails, and so does what depends on it, until it is rolled back; then all is as it was before.
fn fail_commit(store: &mut Driver, faults: &Faults, (what, late): (What, bool), beside: Span, written: bool) {
    fail(faults, what);
    store.store.commit(&Scalars::default()).unwrap();
    let writes = usize::from(store.start_write(beside, u64::MAX).is_ok());
    let events: Vec<_> = (0..1 + writes).map(|_| store.any_event()).collect();
    let failed = |event: &&StoreEvent| matches!(event, StoreEvent::Committed { result: Err(_), .. });
    assert_eq!(events.iter().filter(failed).count(), 1, "{events:?}");
    drop(events);
    assert!(matches!(store.store.commit(&Scalars::default()), Err(Error::Poisoned { .. })));
    if late {
        // No record was written when there was data that could not be synced: then there is nothing to take back.
        assert_eq!(store.store.rollback().is_ok(), what == What::Syncs && written);
    }
    faults.clear();
    store.store.rollback().unwrap();
}

/// All space that no version uses is free.
fn check_space(store: &Driver, durable: &Table) {
    let used = |(run, seeds): (usize, &Vec<Option<u64>>)| {
        let written = seeds.iter().enumerate().filter(|(_, seed)| seed.is_some());
        let bytes = written.map(|(block, _)| BLOCK.min(RUNS[run] - block as u64 * BLOCK));
        bytes.map(|bytes| bytes.next_multiple_of(4096)).sum::<u64>()
    };
    let used: u64 = durable.iter().enumerate().map(used).sum();
    let free: u64 = store.store.directories().map(|one| one.free_bytes).sum();
    let files = store.store.directories().flat_map(|one| std::fs::read_dir(one.path.join("data")).unwrap());
    let total: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(free, total - used);
}

fn run(paths: &[&Path], ops: Vec<Op>) {
    let (config, slab) = (config(paths), slab());
    let specs: Vec<_> =
        RUNS.iter().enumerate().map(|(n, bytes)| spec(&n.to_string(), *bytes, Life::Durable)).collect();
    Driver::create(&config, &slab, &specs).unwrap().store.close().unwrap();
    let faults = Faults::new(1);
    let open =
        || Driver::open_on(&config, &slab, &|_, deliver| fault::start(&faults, &slab, deliver)).unwrap();
    let mut store = open();
    let empty: Table = RUNS.iter().map(|bytes| vec![None; blocks(*bytes)]).collect();
    let mut model = Model { newest: empty.clone(), sealed: None, durable: (0, empty) };
    for (seed, op) in ops.into_iter().enumerate() {
        match op {
            Op::Write { run, first, blocks } => {
                let offset = (first * BLOCK).min((RUNS[run] - 1) / BLOCK * BLOCK);
                let bytes = (blocks * BLOCK).min(RUNS[run] - offset);
                let span = span(run as u32, offset, bytes);
                if !write(&mut store, &mut model, span, seed as u64) {
                    store.store.close().unwrap();
                    store = open();
                    assert!(write(&mut store, &mut model, span, seed as u64));
                }
            }
            Op::Commit => {
                finish_commit(&mut store, &mut model);
                model.sealed = Some((store.store.commit(&Scalars::default()).unwrap(), model.newest.clone()));
            }
            Op::FailedCommit { .. } | Op::Rollback => {
                finish_commit(&mut store, &mut model);
                if let Op::FailedCommit { what, late, beside } = op {
                    let beside = store.whole(beside as u32);
                    let written = model.newest != model.durable.1;
                    fail_commit(&mut store, &faults, (what, late), beside, written);
                } else {
                    store.store.rollback().unwrap();
                }
                model.newest = model.durable.1.clone();
                check_space(&store, &model.newest);
            }
            Op::Crash | Op::Close => {
                if matches!(op, Op::Close) {
                    finish_commit(&mut store, &mut model);
                    store.store.close().unwrap();
                } else {
                    drop(store);
                }
                store = open();
                let epoch = store.store.epoch();
                if let Some(sealed) = model.sealed.take().filter(|(sealed, _)| *sealed == epoch) {
                    model.durable = sealed;
                }
                assert_eq!(epoch, model.durable.0);
                model.newest = model.durable.1.clone();
            }
        }
        settle(&mut store, &mut model);
        check(&mut store, &model.newest);
    }
}

proptest! {
    // Each case makes a store: files, zeros, syncs.
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_its_model(ops in prop::collection::vec(op(), 1..40), directories in 1..4usize) {
        let folders: Vec<_> = (0..directories).map(|_| tempdir().unwrap()).collect();
        let paths: Vec<_> = folders.iter().map(|folder| folder.path()).collect();
        run(&paths, ops);
    }
}
