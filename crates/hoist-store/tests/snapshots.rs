//! Snapshots against a model that is a table of seeds for each epoch that is kept.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;
#[path = "common/fault.rs"]
mod fault;
#[path = "common/tables.rs"]
mod tables;

use common::*;
use fault::{What, fail};
use hoist_io::Faults;
use hoist_store::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use tables::*;
use tempfile::tempdir;

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

struct Model {
    durability: Durability,
    newest: Table,
    epoch: u64,
    durable: Table,
    snapshots: BTreeMap<String, Table>,
}

/// Space as tables have it; and no snapshot is said to keep more for itself than it does.
fn check_all_space(store: &Driver, model: &Model) {
    check_space(store, &model.snapshots, &[&model.newest, &model.durable]);
    let space = store.store.space();
    if space.passing_bytes > 0 {
        return;
    }
    for (name, table) in &model.snapshots {
        let others = || {
            let others = model.snapshots.iter().filter(|(other, _)| *other != name);
            others.map(|(_, table)| table).chain([&model.newest])
        };
        let alone = table
            .written()
            .filter(|(run, block, seed)| others().all(|other| other.blocks[*run][*block] != Some(*seed)));
        let bytes = alone.map(|(run, block, _)| occupied((run, block))).sum();
        assert!(space.by_snapshot[name] <= bytes, "more is said to be free than will be: {space:?}");
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
    let mut specs = specs();
    specs.push(spec("spare", SPARE_BYTES, Life::Durable));
    Driver::create(&config, &slab, &specs).unwrap().store.close().unwrap();
    let faults = Faults::new(1);
    let open = |config: &Config| {
        Driver::open_on(config, &slab, &|_, deliver| fault::start(&faults, &slab, deliver)).unwrap()
    };
    let mut store = open(&config);
    let (newest, durable) = (Table::empty(), Table::empty());
    let mut model = Model { durability, newest, epoch: 0, durable, snapshots: BTreeMap::new() };
    let name = |number: u8| format!("snapshot {number}");
    for (seed, op) in ops.into_iter().enumerate() {
        let seed = seed as u64 + 1;
        match op {
            Op::Write { run, first, blocks } => {
                let span = blocks_from(run, first, blocks);
                store.write(span, seed).unwrap();
                model.newest.set(&span, Some(seed));
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
        check_all_space(&store, &model);
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
