//! A trainer that writes bytes which say whose they are, and checks every byte that it is given.

use crate::child::say;
use crate::history::{self, History};
use hoist::{
    Class, Commit, Config, Dtype, Engine, Lease, Life, Mode, Order, Scalars, TensorId, TensorSpec, TensorUse,
};
use hoist_testkit::Random;
use std::collections::HashMap;

const MIB: u64 = 1 << 20;

/// The note that each epoch sets.
const NOTE: &str = "epoch";

/// So little memory that every tensor comes and goes, and segments of which there are several.
fn config(history: &History) -> Config {
    let mut config = Config::new(&history.directories[0], 8 * MIB, 4 * MIB);
    config.host.page_bytes = 64 << 10;
    config.store.nvme_path.clone_from(&history.directories);
    config.store.segment_bytes = 4 * MIB;
    config.io.block_size = 128 << 10;
    config
}

/// A bundle, large shards and scratch.
fn tensors() -> Vec<TensorSpec> {
    let tensor = |name: &str, bytes, life| TensorSpec {
        name: name.into(),
        dtype: Dtype::U8,
        shape: vec![bytes],
        class: Class::Parameter,
        life,
        group: "layer".into(),
        shard: None,
    };
    vec![
        tensor("norm", 5000, Life::Durable),
        tensor("weight", MIB, Life::Durable),
        tensor("bias", 300, Life::Durable),
        tensor("state", 3 * MIB + 13, Life::Durable),
        tensor("gradient", MIB, Life::Scratch),
    ]
}

pub fn create(history: &History) {
    Engine::create(config(history), &tensors()).unwrap().close().unwrap();
}

/// The numbers that a piece's bytes are, from which on they are drawn.
fn seed(history: &History, piece: &TensorUse, epoch: u64) -> Random {
    let mut random = Random::new(epoch << 32 | history.run(epoch));
    let place = u64::from(piece.tensor.0) << 40 ^ piece.bytes.start;
    Random::new(random.draw() ^ place)
}

fn fill(lease: &mut Lease, history: &History, piece: &TensorUse, epoch: u64) {
    let mut random = seed(history, piece, epoch);
    for part in lease.parts_mut(0) {
        part.chunks_mut(8).for_each(|word| word.copy_from_slice(&random.draw().to_le_bytes()[..word.len()]));
    }
}

fn check(lease: &Lease, history: &History, piece: &TensorUse, epoch: u64) {
    let mut random = seed(history, piece, epoch);
    for word in lease.parts(0).flat_map(|part| part.chunks(8)) {
        assert!(
            *word == random.draw().to_le_bytes()[..word.len()],
            "{piece:?} does not hold the bytes of epoch {epoch}, run {}",
            history.run(epoch)
        );
    }
}

/// Opens the store as a run has left it, and checks all of it. The epoch.
pub fn open_and_check(history: &mut History) -> u64 {
    let engine = Engine::open(config(history)).unwrap();
    let epoch = engine.opened_at().number;
    history.push(epoch);
    assert_eq!(engine.opened_at().scalars, Scalars::step(epoch), "what epoch {epoch} says of itself");
    let notes = (epoch > 0).then(|| (NOTE.to_owned(), history.note(epoch)));
    assert_eq!(engine.notes(), notes.into_iter().collect::<Vec<_>>(), "the notes of epoch {epoch}");
    if epoch > 0 {
        let order = history::all(&engine, Mode::Read);
        engine.begin_step(engine.declare(order.clone()).unwrap()).unwrap();
        for (index, access) in order.accesses.iter().enumerate() {
            let piece = &access.uses[0];
            check(&engine.acquire(index).unwrap(), history, piece, History::version(&engine, piece, epoch));
        }
    }
    engine.close().unwrap();
    epoch
}

/// The newest epochs of pieces, by their tensors and starts.
type Versions = HashMap<(TensorId, u64), u64>;

/// Trains until it is killed.
pub fn train(history: &History) -> ! {
    let engine = Engine::open(config(history)).unwrap();
    say("opened", engine.opened_at().number);
    let (first, others) = history::orders(&engine);
    let declare = |order: &Order| (order.clone(), engine.declare(order.clone()).unwrap());
    let (first, others) = (declare(&first), others.iter().map(declare).collect::<Vec<_>>());
    let newest = |piece: &TensorUse| History::version(&engine, piece, engine.opened_at().number);
    let pieces = first.0.accesses.iter().map(|access| &access.uses[0]);
    let mut versions: Versions =
        pieces.map(|piece| ((piece.tensor, piece.bytes.start), newest(piece))).collect();
    let mut under_way: Option<Commit> = None;
    for epoch in engine.opened_at().number + 1.. {
        let (order, id) = if epoch == 1 { &first } else { &others[epoch as usize % others.len()] };
        engine.begin_step(*id).unwrap();
        step(&engine, history, order, epoch, &mut versions);
        engine.set_note(NOTE, history.note(epoch)).unwrap();
        if let Some(commit) = under_way.take() {
            say("durable", commit.wait().unwrap());
        }
        say("begun", epoch);
        let commit = engine.commit_step(&Scalars::step(epoch)).unwrap();
        // Every other commit runs beside the next step.
        if epoch.is_multiple_of(2) {
            say("durable", commit.wait().unwrap());
        } else {
            under_way = Some(commit);
        }
    }
    unreachable!("epochs do not end")
}

fn step(engine: &Engine, history: &History, order: &Order, epoch: u64, versions: &mut Versions) {
    for (index, access) in order.accesses.iter().enumerate() {
        let piece = &access.uses[0];
        let mut lease = engine.acquire(index).unwrap();
        let version = versions.entry((piece.tensor, piece.bytes.start)).or_insert(0);
        if piece.mode.reads() {
            check(&lease, history, piece, *version);
        }
        if piece.mode.writes() {
            fill(&mut lease, history, piece, epoch);
            *version = epoch;
        }
    }
}
