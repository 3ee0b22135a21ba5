//! Random work in a store that is opened at one durability after the other, on drives that fail now and then, against a
//! model that is a table of seeds for each epoch that is kept.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;
#[path = "common/fault.rs"]
mod fault;
#[path = "common/tables.rs"]
mod tables;

use common::*;
use fault::{What, fail};
use hoist_io::{Fault, FaultKind, Faults, Operation, Place};
use hoist_store::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use tables::*;
use tempfile::tempdir;

/// Some blocks of a run.
type Blocks = (usize, u64, u64);

#[derive(Debug, Clone)]
enum Op {
    Write(Blocks),
    /// Fails in one directory, or in all, and is tried again; what then fails again is given up.
    FailedWrite(Blocks, Option<usize>),
    /// Fails in all, and is given up by an end of the store, or by a rollback where there is one.
    LostWrite(Blocks, bool),
    Scratch,
    Note,
    Commit,
    Snapshot(u8),
    FailedSnapshot(u8, What),
    Delete(u8),
    /// What fails is only its record; or all that was written goes with it.
    FailedDelete(u8, What, bool),
    Restore(u8),
    FailedRestore(u8, What),
    Rollback,
    /// Ends the process, more or less; and opens the store at a durability.
    Crash(Durability),
    Close(Durability),
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![2 => Just(Durability::None), 1 => Just(Durability::Step), 1 => Just(Durability::Snapshot)]
}

fn op() -> impl Strategy<Value = Op> {
    let what = || prop_oneof![Just(What::Syncs), Just(What::JournalWrites), Just(What::JournalSyncs)];
    let (name, blocks) = (|| 0..2u8, || (0..RUNS.len(), 0..9u64, 1..10u64));
    prop_oneof![
        8 => blocks().prop_map(Op::Write),
        1 => (blocks(), prop::option::of(0..2usize)).prop_map(|(blocks, place)| Op::FailedWrite(blocks, place)),
        1 => (blocks(), any::<bool>()).prop_map(|(blocks, ends)| Op::LostWrite(blocks, ends)),
        1 => Just(Op::Scratch),
        2 => Just(Op::Note),
        3 => Just(Op::Commit),
        2 => name().prop_map(Op::Snapshot),
        1 => (name(), what()).prop_map(|(name, what)| Op::FailedSnapshot(name, what)),
        1 => name().prop_map(Op::Delete),
        1 => (name(), what(), any::<bool>()).prop_map(|(name, what, only)| Op::FailedDelete(name, what, only)),
        4 => name().prop_map(Op::Restore),
        1 => (name(), what()).prop_map(|(name, what)| Op::FailedRestore(name, what)),
        1 => Just(Op::Rollback),
        1 => durability().prop_map(Op::Crash),
        2 => durability().prop_map(Op::Close),
    ]
}

struct Model {
    durability: Durability,
    newest: Table,
    durable: Table,
    epoch: u64,
    snapshots: BTreeMap<String, Table>,
}

impl Model {
    /// Whether bytes of the newest epoch may be no more what they were.
    fn is_in_place(&self) -> bool {
        self.durability == Durability::None && self.newest.blocks != self.durable.blocks
    }

    fn is_clean(&self) -> bool {
        (&self.newest.blocks, self.newest.note) == (&self.durable.blocks, self.durable.note)
    }

    /// A new epoch.
    fn commits(&mut self) {
        self.durable = self.newest.clone();
        self.epoch += 1;
    }

    fn goes_to(&mut self, name: &str) {
        self.newest = self.snapshots[name].clone();
        self.commits();
    }
}

/// A store, its model, and what is needed to open it.
struct Work<'a> {
    open: &'a dyn Fn(Durability, Option<&str>) -> Driver,
    paths: &'a [&'a Path],
    faults: &'a Faults,
    /// None while it is opened again.
    store: Option<Driver>,
    model: Model,
}

impl Work<'_> {
    fn store(&mut self) -> &mut Driver {
        self.store.as_mut().unwrap()
    }

    /// Opens the store at a durability, and at each snapshot before.
    fn reopen(&mut self, durability: Durability) {
        for (name, table) in &self.model.snapshots {
            let mut view = (self.open)(Durability::Step, Some(name));
            check(&mut view, table);
            assert_eq!(view.store.newest().scalars.step, table.step);
        }
        self.store = Some((self.open)(durability, None));
        self.model.durability = durability;
    }

    fn close(&mut self, next: Durability) {
        self.store.take().unwrap().store.close().unwrap();
        if self.model.durability == Durability::Step {
            self.model.newest = self.model.durable.clone();
        } else if self.model.newest != self.model.durable {
            self.model.commits();
        }
        self.reopen(next);
    }

    fn crash(&mut self, next: Durability) {
        let in_place = self.model.is_in_place();
        let snapshot = self.model.snapshots.keys().next().cloned();
        if in_place && snapshot.is_none() {
            // Nothing is promised of what is there.
            return;
        }
        drop(self.store.take());
        self.model.newest = self.model.durable.clone();
        self.reopen(next);
        if let Some(name) = snapshot.filter(|_| in_place) {
            self.restore(&name);
        }
    }

    fn rollback(&mut self) {
        let in_place = self.model.is_in_place();
        match self.store().store.rollback() {
            Err(Error::InPlace) => assert!(in_place),
            done => {
                done.unwrap();
                assert!(!in_place);
                self.model.newest = self.model.durable.clone();
            }
        }
    }

    fn restore(&mut self, name: &str) {
        self.store().store.rollback_to(name).unwrap();
        assert!(wait(self.store()));
        self.model.goes_to(name);
    }

    /// Whether nothing was written since the newest epoch, or it could be dropped.
    fn cleaned(&mut self) -> bool {
        if !self.model.is_clean() {
            self.rollback();
        }
        self.model.is_clean()
    }

    /// What is asked for fails.
    fn fails<T>(&mut self, what: What, ask: impl FnOnce(&mut Store) -> Result<T, Error>) {
        fail(self.faults, what);
        ask(&mut self.store().store).unwrap();
        assert!(!wait(self.store()), "{what:?} fail");
        self.faults.clear();
    }

    fn write(&mut self, span: Span, seed: u64) -> Result<(), Error> {
        let written = self.store().write(span, seed);
        match &written {
            Ok(()) => self.model.newest.set(&span, Some(seed)),
            // Bytes that there were are there still, or are no more.
            Err(error) if !matches!(error, Error::NoSpace { .. }) => {
                for block in span.offset / BLOCK..span.end().div_ceil(BLOCK) {
                    let one = blocks_from(span.run.0 as usize, block, 1);
                    if !self.store().store.has_bytes(&one) {
                        self.model.newest.set(&one, None);
                    }
                }
            }
            Err(_) => {}
        }
        written
    }

    /// Whether a write came to nothing; no space is no failure.
    fn write_fails(&mut self, span: Span, seed: u64, place: Option<usize>) -> bool {
        match place.and_then(|place| self.paths.get(place)) {
            None => fail(self.faults, What::Writes),
            Some(path) => {
                let path_part = format!("{}/data", path.display());
                let place = Place { operation: Some(Operation::Write), path_part, ..Place::default() };
                self.faults.add(Fault { place, ..Fault::new(FaultKind::Eio) });
            }
        }
        let written = self.write(span, seed);
        self.faults.clear();
        written.is_err_and(|error| !matches!(error, Error::NoSpace { .. }))
    }

    /// Nobody makes a write good that failed.
    fn lose(&mut self, span: Span, ends: bool) {
        let durability = self.model.durability;
        if durability == Durability::Step || (durability == Durability::Snapshot && !ends) {
            self.store().store.rollback().unwrap();
            self.model.newest = self.model.durable.clone();
            return;
        }
        let closed = self.store.take().unwrap().store.close();
        if durability == Durability::None {
            assert!(matches!(closed, Err(Error::Lost { spans: 1, .. })), "{closed:?}");
            self.model.newest.set(&span, None);
            self.model.commits();
        } else {
            assert!(matches!(closed, Err(Error::Unsaved { spans: 1, .. })), "{closed:?}");
            self.model.newest = self.model.durable.clone();
        }
        self.reopen(durability);
    }

    fn snapshot(&mut self, name: String) {
        self.store().store.snapshot(&name).unwrap();
        assert!(wait(self.store()));
        if self.model.durability == Durability::Snapshot {
            self.model.commits();
        }
        self.model.snapshots.insert(name, self.model.durable.clone());
    }

    /// Does what an operation says, if it can be done.
    fn act(&mut self, op: Op, seed: u64) {
        let name = |number: u8| number.to_string();
        let known = |work: &Work<'_>, number| work.model.snapshots.contains_key(&name(number));
        let may_keep =
            |work: &Work<'_>, number| work.model.durability != Durability::None && !known(work, number);
        match op {
            Op::Write((run, first, blocks)) => match self.write(blocks_from(run, first, blocks), seed) {
                Ok(()) | Err(Error::NoSpace { .. }) => {}
                Err(error) => panic!("{error}"),
            },
            Op::FailedWrite((run, first, blocks), place) => {
                let span = blocks_from(run, first, blocks);
                if self.write_fails(span, seed, place) && self.write(span, seed).is_err() {
                    self.lose(span, false);
                }
            }
            Op::LostWrite((run, first, blocks), ends) => {
                let span = blocks_from(run, first, blocks);
                if self.write_fails(span, seed, None) {
                    self.lose(span, ends);
                }
            }
            Op::Scratch => {
                let scratch = self.store().whole(RUNS.len() as u32);
                if self.store().write(scratch, seed).is_ok() {
                    self.store().assert_holds(scratch, seed);
                }
            }
            Op::Note => {
                self.store().store.set_note("seed", note(seed)).unwrap();
                self.model.newest.note = Some(seed);
            }
            Op::Commit => {
                self.store().store.commit(&Scalars::step(seed)).unwrap();
                self.model.newest.step = seed;
                if self.store().store.commits() {
                    assert!(wait(self.store()));
                    self.model.commits();
                }
            }
            Op::Snapshot(number) if may_keep(self, number) => self.snapshot(name(number)),
            Op::Snapshot(number) if self.model.durability == Durability::None => {
                assert!(matches!(self.store().store.snapshot(&name(number)), Err(Error::NoSnapshots)));
            }
            Op::FailedSnapshot(number, what) if may_keep(self, number) => {
                self.fails(what, |store| store.snapshot(&name(number)));
                self.rollback();
            }
            Op::Delete(number) if known(self, number) => {
                self.store().store.delete_snapshot(&name(number)).unwrap();
                assert!(wait(self.store()));
                self.model.snapshots.remove(&name(number));
            }
            Op::FailedDelete(number, what, only) if known(self, number) => {
                self.fails(what, |store| store.delete_snapshot(&name(number)));
                if only {
                    self.store().store.retract_record().unwrap();
                } else if self.model.is_in_place() {
                    // It cannot take back more.
                    self.store().store.rollback().unwrap();
                } else {
                    self.rollback();
                }
            }
            Op::Restore(number) if known(self, number) && self.cleaned() => self.restore(&name(number)),
            Op::FailedRestore(number, what) if known(self, number) && self.cleaned() => {
                self.fails(what, |store| store.rollback_to(&name(number)));
                self.rollback();
            }
            Op::Snapshot(_) | Op::FailedSnapshot(..) | Op::Delete(_) | Op::FailedDelete(..) => {}
            Op::Restore(_) | Op::FailedRestore(..) => {}
            Op::Rollback => self.rollback(),
            Op::Crash(next) => self.crash(next),
            Op::Close(next) => self.close(next),
        }
    }

    fn check(&mut self) {
        let Work { store: Some(store), model, .. } = self else { return };
        assert_eq!(store.store.epoch(), model.epoch);
        assert_eq!(store.store.newest().scalars.step, model.durable.step);
        let names: Vec<_> = store.store.snapshots().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names, model.snapshots.keys().cloned().collect::<Vec<_>>());
        check(store, &model.newest);
        // What is written in place takes the space of what it replaces, which no table tells of.
        if !model.is_in_place() && !store.store.has_bytes(&store.whole(RUNS.len() as u32)) {
            check_space(store, &model.snapshots, &[&model.newest, &model.durable]);
        }
    }
}

fn run(paths: &[&Path], (created, spare_bytes): (Durability, u64), ops: Vec<Op>) {
    let (config, slab) = (Config { durability: created, ..config(paths) }, slab());
    let mut specs = specs();
    specs.push(spec("scratch", 3 * BLOCK, Life::Scratch));
    // It is never written: its space is there for what snapshots keep.
    specs.push(spec("spare", spare_bytes, Life::Durable));
    Driver::create(&config, &slab, &specs).unwrap().store.close().unwrap();
    let faults = Faults::new(1);
    let open = |durability, snapshot: Option<&str>| {
        let config = Config { durability, snapshot: snapshot.map(str::to_owned), ..config.clone() };
        Driver::open_on(&config, &slab, &|_, deliver| fault::start(&faults, &slab, deliver)).unwrap()
    };
    let (newest, durable) = (Table::empty(), Table::empty());
    let model = Model { durability: Durability::Step, newest, durable, epoch: 0, snapshots: BTreeMap::new() };
    let store = Some(open(Durability::Step, None));
    let mut work = Work { open: &open, paths, faults: &faults, store, model };
    for (op, seed) in ops.into_iter().zip(1..) {
        work.act(op, seed);
        work.check();
    }
}

// Kills: notes that go with a snapshot whose deletion failed; writes in place, at "none", over what a snapshot has, as it
// was there before or as the store went back to it.
#[test]
fn what_snapshots_have_stays() {
    let (write, none) = (|| Op::Write((1, 0, 9)), || Op::Close(Durability::None));
    let kept = || vec![write(), Op::Note, Op::Commit, Op::Snapshot(0)];
    let failed = Op::FailedDelete(0, What::JournalWrites, true);
    for more in [
        vec![Op::Note, Op::Commit, failed, Op::Restore(0)],
        vec![none(), write(), none()],
        vec![write(), Op::Commit, none(), Op::Restore(0), write(), none()],
        vec![write(), Op::Commit, Op::Restore(0), none(), write(), none()],
    ] {
        let ops = kept().into_iter().chain(more).collect();
        run(&[tempdir().unwrap().path()], (Durability::Step, 8 << 20), ops);
    }
}

proptest! {
    // Each case makes a store: files, zeros, syncs.
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn durabilities_take_turns(
        ops in prop::collection::vec(op(), 1..60),
        directories in 1..3usize,
        created in prop_oneof![Just(Durability::None), Just(Durability::Step)],
        spare_mib in prop_oneof![Just(1u64), Just(2), Just(8)],
    ) {
        let folders: Vec<_> = (0..directories).map(|_| tempdir().unwrap()).collect();
        let paths: Vec<_> = folders.iter().map(|folder| folder.path()).collect();
        run(&paths, (created, spare_mib << 20), ops);
    }
}
