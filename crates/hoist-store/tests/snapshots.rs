//! Snapshots against a model that is a table of seeds for each epoch that is kept.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;
#[path = "common/fault.rs"]
mod fault;

use common::*;
use fault::{What, fail};
use hoist_io::Faults;
use hoist_store::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tempfile::tempdir;

/// Bytes of the durable runs: a bundle, one that several directories share, and one whose last block is cut.
const RUNS: [u64; 3] = [5000, (2 << 20) + 1, 5 * BLOCK - 4095];

/// Bytes of a run that is never written: its space is there for what snapshots keep.
const SPARE_BYTES: u64 = 8 << 20;

#[derive(Debug, Clone)]
enum Op {
    Write {
        run: usize,
        first: u64,
        blocks: u64,
    },
    Note,
    Commit,
    Snapshot(u8),
    /// On drives that fail.
    FailedSnapshot(u8, What),
    FailedDelete(u8, What),
    Delete(u8),
    Restore(u8),
    FailedRestore(u8, What),
    Rollback,
    /// Ends the process, more or less.
    Crash,
    Close,
    /// Opens the store at a snapshot.
    Look(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let what = || prop_oneof![Just(What::Syncs), Just(What::JournalWrites), Just(What::JournalSyncs)];
    let name = || 0..4u8;
    prop_oneof![
        8 => (0..RUNS.len(), 0..9u64, 1..10u64).prop_map(|(run, first, blocks)| Op::Write { run, first, blocks }),
        2 => Just(Op::Note),
        4 => Just(Op::Commit),
        4 => name().prop_map(Op::Snapshot),
        1 => (name(), what()).prop_map(|(name, what)| Op::FailedSnapshot(name, what)),
        1 => (name(), what()).prop_map(|(name, what)| Op::FailedDelete(name, what)),
        2 => name().prop_map(Op::Delete),
        3 => name().prop_map(Op::Restore),
        1 => (name(), what()).prop_map(|(name, what)| Op::FailedRestore(name, what)),
        1 => Just(Op::Rollback),
        1 => Just(Op::Crash),
        1 => Just(Op::Close),
        2 => name().prop_map(Op::Look),
    ]
}

/// The seed of every block of every run, none when it was never written; of the note; and of the step.
#[derive(Debug, Clone, PartialEq, Default)]
struct Table {
    blocks: Vec<Vec<Option<u64>>>,
    note: Option<u64>,
    step: u64,
}

struct Model {
    durability: Durability,
    newest: Table,
    epoch: u64,
    durable: Table,
    snapshots: BTreeMap<String, Table>,
}

/// So long that a few of them fill a journal, which is written anew then.
fn note(seed: u64) -> Vec<u8> {
    seed.to_le_bytes().repeat(40_000)
}

fn check(store: &mut Driver, table: &Table) {
    for (run, seeds) in table.blocks.iter().enumerate() {
        for (block, seed) in seeds.iter().enumerate() {
            let offset = block as u64 * BLOCK;
            let span = span(run as u32, offset, BLOCK.min(RUNS[run] - offset));
            match seed {
                Some(seed) => store.assert_holds(span, *seed),
                None => assert!(!store.store.has_bytes(&span), "{span} was never written"),
            }
        }
    }
    assert!(store.store.note("seed") == table.note.map(note).as_deref(), "the note of {:?}", table.note);
}

/// All space that no epoch uses is free, and no block is kept twice.
fn check_space(store: &Driver, model: &Model) {
    let mut used = BTreeSet::new();
    for table in model.snapshots.values().chain([&model.newest, &model.durable]) {
        for (run, seeds) in table.blocks.iter().enumerate() {
            used.extend(seeds.iter().enumerate().filter_map(|(block, seed)| Some((run, block, (*seed)?))));
        }
    }
    let bytes = used.into_iter().map(|(run, block, _)| BLOCK.min(RUNS[run] - block as u64 * BLOCK));
    let used: u64 = bytes.map(|bytes| bytes.next_multiple_of(4096)).sum();
    let free: u64 = store.store.directories().map(|one| one.free_bytes).sum();
    let files = store.store.directories().flat_map(|one| std::fs::read_dir(one.path.join("data")).unwrap());
    let total: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(total - free, used);
    let space = store.store.space();
    assert_eq!((space.total_bytes, space.free_bytes), (total, free));
    assert_eq!(
        space.total_bytes,
        space.free_bytes + space.newest_bytes + space.snapshot_bytes + space.passing_bytes
    );
    let seeds = |table: &Table, run: usize, block: usize| table.blocks[run][block];
    let passing = space.passing_bytes > 0;
    for (name, table) in model.snapshots.iter().filter(|_| !passing) {
        let others = || {
            model
                .snapshots
                .iter()
                .filter(|(other, _)| *other != name)
                .map(|(_, table)| table)
                .chain([&model.newest])
        };
        let all = (0..RUNS.len()).flat_map(|run| (0..table.blocks[run].len()).map(move |block| (run, block)));
        let alone = all.filter(|(run, block)| {
            let seed = seeds(table, *run, *block);
            seed.is_some() && others().all(|other| seeds(other, *run, *block) != seed)
        });
        let bytes =
            alone.map(|(run, block)| BLOCK.min(RUNS[run] - block as u64 * BLOCK).next_multiple_of(4096));
        assert!(space.by_snapshot[name] <= bytes.sum(), "more is said to be free than will be: {space:?}");
    }
}

/// Whether the record that was asked for came to be.
fn wait(store: &mut Driver) -> bool {
    match store.any_event() {
        StoreEvent::Committed { result, .. } | StoreEvent::Recorded { result } => result.is_ok(),
        other => panic!("{other:?}"),
    }
}

/// What is asked for fails, and is rolled back.
fn fails<T>(
    store: &mut Driver,
    model: &mut Model,
    faults: &Faults,
    what: What,
    ask: impl Fn(&mut Store) -> Result<T, Error>,
) {
    fail(faults, what);
    ask(&mut store.store).unwrap();
    assert!(!wait(store), "{what:?} fail");
    faults.clear();
    store.store.rollback().unwrap();
    model.newest = model.durable.clone();
}

impl Model {
    /// A snapshot of a name, or an error that says why not.
    fn snapshot(&mut self, store: &mut Driver, name: String) {
        let asked = store.store.snapshot(&name);
        if self.snapshots.contains_key(&name) {
            assert!(matches!(asked, Err(Error::BadSnapshotName { .. })), "{asked:?}");
            return;
        }
        asked.unwrap();
        assert!(wait(store));
        if self.durability == Durability::Snapshot {
            self.durable = self.newest.clone();
            self.epoch += 1;
        }
        self.snapshots.insert(name, self.durable.clone());
    }

    fn rollback_to(&mut self, store: &mut Driver, name: &str) {
        let asked = store.store.rollback_to(name);
        let Some(table) = self.snapshots.get(name) else {
            assert!(matches!(asked, Err(Error::NoSnapshot { .. })), "{asked:?}");
            return;
        };
        if self.newest != (Table { step: self.newest.step, ..self.durable.clone() }) {
            assert!(matches!(asked, Err(Error::NotYet { .. })), "{asked:?}");
            store.store.rollback().unwrap();
            store.store.rollback_to(name).unwrap();
        }
        assert!(wait(store));
        self.epoch += 1;
        (self.durable, self.newest) = (table.clone(), table.clone());
    }
}

fn run(paths: &[&Path], durability: Durability, ops: Vec<Op>) {
    let (config, slab) = (Config { durability, ..config(paths) }, slab());
    let mut specs: Vec<_> =
        RUNS.iter().enumerate().map(|(n, bytes)| spec(&n.to_string(), *bytes, Life::Durable)).collect();
    specs.push(spec("spare", SPARE_BYTES, Life::Durable));
    Driver::create(&config, &slab, &specs).unwrap().store.close().unwrap();
    let faults = Faults::new(1);
    let open = |config: &Config| {
        Driver::open_on(config, &slab, &|_, deliver| fault::start(&faults, &slab, deliver)).unwrap()
    };
    let mut store = open(&config);
    let empty =
        Table { blocks: RUNS.iter().map(|bytes| vec![None; blocks(*bytes)]).collect(), ..Table::default() };
    let (newest, durable) = (empty.clone(), empty);
    let mut model = Model { durability, newest, epoch: 0, durable, snapshots: BTreeMap::new() };
    let name = |number: u8| format!("snapshot {number}");
    for (seed, op) in ops.into_iter().enumerate() {
        let seed = seed as u64 + 1;
        match op {
            Op::Write { run, first, blocks } => {
                let offset = (first * BLOCK).min((RUNS[run] - 1) / BLOCK * BLOCK);
                let span = span(run as u32, offset, (blocks * BLOCK).min(RUNS[run] - offset));
                store.write(span, seed).unwrap();
                for block in span.offset / BLOCK..span.end().div_ceil(BLOCK) {
                    model.newest.blocks[run][block as usize] = Some(seed);
                }
            }
            Op::Note => {
                store.store.set_note("seed", note(seed)).unwrap();
                model.newest.note = Some(seed);
            }
            Op::Commit => {
                let scalars = Scalars::step(seed).with("seed", seed.to_le_bytes());
                store.store.commit(&scalars).unwrap();
                model.newest.step = seed;
                if store.store.commits() {
                    assert!(wait(&mut store));
                    model.durable = model.newest.clone();
                    model.epoch += 1;
                }
            }
            Op::Snapshot(number) => model.snapshot(&mut store, name(number)),
            Op::FailedSnapshot(number, what) => {
                let name = name(number);
                if !model.snapshots.contains_key(&name) {
                    fails(&mut store, &mut model, &faults, what, |store| store.snapshot(&name));
                }
            }
            Op::FailedDelete(number, what) => {
                let name = name(number);
                if model.snapshots.contains_key(&name) {
                    fails(&mut store, &mut model, &faults, what, |store| store.delete_snapshot(&name));
                }
            }
            Op::FailedRestore(number, what) => {
                let name = name(number);
                if model.snapshots.contains_key(&name) {
                    store.store.rollback().unwrap();
                    model.newest = model.durable.clone();
                    fails(&mut store, &mut model, &faults, what, |store| store.rollback_to(&name));
                }
            }
            Op::Delete(number) => {
                let asked = store.store.delete_snapshot(&name(number));
                if model.snapshots.remove(&name(number)).is_some() {
                    asked.unwrap();
                    assert!(wait(&mut store));
                } else {
                    assert!(matches!(asked, Err(Error::NoSnapshot { .. })), "{asked:?}");
                }
            }
            Op::Restore(number) => model.rollback_to(&mut store, &name(number)),
            Op::Rollback => {
                store.store.rollback().unwrap();
                model.newest = model.durable.clone();
            }
            Op::Crash => {
                drop(store);
                store = open(&config);
                model.newest = model.durable.clone();
            }
            Op::Close => {
                store.store.close().unwrap();
                if durability == Durability::Step {
                    model.newest = model.durable.clone();
                } else if model.newest != model.durable {
                    model.durable = model.newest.clone();
                    model.epoch += 1;
                }
                store = open(&config);
            }
            Op::Look(number) => {
                let Some(table) = model.snapshots.get(&name(number)) else { continue };
                drop(store);
                let mut view = open(&Config { snapshot: Some(name(number)), ..config.clone() });
                check(&mut view, table);
                assert_eq!(view.store.newest().scalars.step, table.step);
                let refused = view.write(span(0, 0, RUNS[0]), 0).unwrap_err();
                assert!(matches!(refused, Error::ReadOnly { .. }), "{refused}");
                drop(view);
                store = open(&config);
                model.newest = model.durable.clone();
            }
        }
        assert_eq!(store.store.epoch(), model.epoch);
        assert_eq!(store.store.newest().scalars.step, model.durable.step);
        let names: Vec<_> = store.store.snapshots().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names, model.snapshots.keys().cloned().collect::<Vec<_>>());
        check(&mut store, &model.newest);
        check_space(&store, &model);
    }
}

fn run_in_one(ops: Vec<Op>) {
    run(&[tempdir().unwrap().path()], Durability::Step, ops);
}

fn whole(run: usize) -> Op {
    Op::Write { run, first: 0, blocks: 9 }
}

// Kills: what the snapshot and the epoch that went back to it both have is free when one of them drops it.
#[test]
fn what_a_snapshot_and_a_later_epoch_have_is_free_when_neither_has() {
    let both = || [whole(1), whole(2), Op::Commit];
    let mut ops = Vec::from(both());
    ops.push(Op::Snapshot(0));
    ops.extend(both());
    ops.push(Op::Restore(0));
    ops.extend(both());
    ops.extend([Op::Restore(0), Op::Snapshot(1), Op::Crash]);
    ops.extend(both());
    ops.extend([Op::Look(0), Op::Look(1), Op::Restore(1), Op::Delete(0), Op::Crash, Op::Delete(1)]);
    ops.extend([Op::FailedSnapshot(2, What::JournalSyncs), whole(1), Op::Commit, Op::Crash]);
    run_in_one(ops);
}

// Kills: a journal that is written anew for a snapshot tells of what the next epoch is to have.
#[test]
fn a_snapshot_while_a_step_writes_is_of_the_epoch_before() {
    let mut ops =
        vec![whole(1), Op::Note, Op::Commit, Op::Note, Op::Commit, Op::Note, Op::Commit, whole(1), Op::Note];
    // The room that is left in the journal is for fewer records than these.
    ops.extend((0..30).flat_map(|_| [Op::Snapshot(0), Op::Delete(0)]));
    ops.extend([Op::Snapshot(1), Op::Crash, Op::Look(1)]);
    run_in_one(ops);
}

// Kills: notes of snapshots are lost when they are set anew.
#[test]
fn a_snapshot_has_its_notes() {
    let early = [
        Op::Snapshot(0),
        Op::Note,
        Op::Commit,
        Op::Look(0),
        Op::Snapshot(1),
        Op::Note,
        Op::Commit,
        Op::Look(1),
    ];
    let late = [
        Op::Note,
        Op::Commit,
        Op::Note,
        Op::Commit,
        Op::Look(1),
        Op::Restore(0),
        Op::Look(1),
        Op::Restore(1),
    ];
    run_in_one(early.into_iter().chain(late).collect());
}

proptest! {
    // Each case makes a store: files, zeros, syncs.
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn snapshots_are_their_model(
        ops in prop::collection::vec(op(), 1..50),
        directories in 1..3usize,
        durability in prop_oneof![3 => Just(Durability::Step), 1 => Just(Durability::Snapshot)],
    ) {
        let folders: Vec<_> = (0..directories).map(|_| tempdir().unwrap()).collect();
        let paths: Vec<_> = folders.iter().map(|folder| folder.path()).collect();
        run(&paths, durability, ops);
    }
}
