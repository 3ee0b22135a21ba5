//! Steps that are aborted, snapshots, and the way back to them, in a running engine.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use std::collections::BTreeMap;

use hoist::{
    Access, Class, Dtype, Durability, Engine, Error, Life, Mode, Order, OrderId, Phase, Scalars, TensorSpec,
    Tier,
};
use model::drive::{LAYERS, NO_PAUSE, assert_holds, reads, store};
use model::{MIB, Oracle, Random, config, training};

/// The versions of all tensors' pieces.
type Versions = Vec<Vec<(std::ops::Range<u64>, u64)>>;

/// A trainer that goes back now and then.
struct Trainer {
    config: hoist::Config,
    engine: Engine,
    order: Order,
    id: OrderId,
    /// Reads all that is durable.
    look: (Order, OrderId),
    oracle: Oracle,
    committed: Versions,
    snapshots: BTreeMap<String, (Versions, u64)>,
    step: u64,
}

impl Trainer {
    fn open(config: &hoist::Config, oracle: Oracle) -> Trainer {
        let engine = Engine::open(config.clone()).unwrap();
        let order = training(&engine, &oracle, LAYERS);
        let id = engine.declare(order.clone()).unwrap();
        let look = reads(&engine, &oracle);
        let look = (look.clone(), engine.declare(look).unwrap());
        let (committed, step) = (oracle.versions.clone(), engine.opened_at().scalars.step);
        let (config, snapshots) = (config.clone(), BTreeMap::new());
        Trainer { config, engine, order, id, look, oracle, committed, snapshots, step }
    }

    fn again(self) -> Trainer {
        self.engine.close().unwrap();
        Trainer { snapshots: self.snapshots, ..Trainer::open(&self.config, self.oracle) }
    }

    /// Durable tensors have these versions again; scratch is as it was left.
    fn went_back(&mut self, to: Versions) {
        for (tensor, pieces) in to.into_iter().enumerate() {
            if self.engine.tensors()[tensor].spec.life == Life::Durable {
                self.oracle.versions[tensor] = pieces;
            }
        }
        self.committed = self.oracle.versions.clone();
    }

    /// A part of a step; the rest is as if it had been killed.
    fn begin(&mut self, accesses: usize) {
        self.engine.begin_step(self.id).unwrap();
        for index in 0..accesses {
            self.oracle.access(&self.engine, &self.order, index, NO_PAUSE);
        }
    }

    fn train(&mut self, wait: bool) {
        self.step = self.oracle.next;
        self.begin(self.order.accesses.len());
        let scalars = Scalars::step(self.step).with("rate", self.step.to_le_bytes());
        let commit = self.engine.commit_step(&scalars).unwrap();
        self.committed = self.oracle.versions.clone();
        if wait {
            commit.wait().unwrap();
        }
    }

    fn abort(&mut self, accesses: usize) {
        self.begin(accesses);
        self.engine.abort_step().unwrap();
        assert!(matches!(self.engine.acquire(0), Err(Error::Aborted)));
        let committed = self.committed.clone();
        self.went_back(committed);
    }

    /// A step that writes nothing, and of which nothing is said.
    fn look(&mut self) {
        self.step = 0;
        self.oracle.step(&self.engine, self.look.1, &self.look.0, NO_PAUSE).wait().unwrap();
    }

    fn act(&mut self, random: &mut Random) {
        let name = format!("snapshot {}", random.below(3));
        let (versions, step) = self.snapshots.get(&name).cloned().unwrap_or_default();
        let known = self.snapshots.contains_key(&name);
        match random.below(8) {
            0 | 1 => self.train(random.below(2) == 0),
            2 => {
                let accesses = random.below(self.order.accesses.len() as u64 + 1) as usize;
                self.abort(accesses);
            }
            3 | 4 if !known => {
                self.engine.snapshot(&name).unwrap();
                self.snapshots.insert(name, (self.committed.clone(), self.step));
            }
            3 | 4 => assert!(self.engine.snapshot(&name).unwrap_err().to_string().contains("there is one")),
            5 if known => {
                self.engine.delete_snapshot(&name).unwrap();
                self.snapshots.remove(&name);
            }
            6 if known => {
                // In the middle of a step, too.
                if random.below(2) == 0 {
                    self.begin(5);
                }
                let epoch = self.engine.rollback_to(&name).unwrap();
                assert_eq!(epoch.scalars.step, step);
                if step > 0 {
                    assert_eq!(epoch.scalars.values["rate"], step.to_le_bytes());
                }
                self.step = step;
                self.went_back(versions);
            }
            7 => {
                self.engine.rollback().unwrap();
                let committed = self.committed.clone();
                self.went_back(committed);
            }
            _ => assert!(self.engine.rollback_to("none").unwrap_err().to_string().contains("no snapshot")),
        }
        let names: Vec<_> = self.engine.snapshots().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, self.snapshots.keys().cloned().collect::<Vec<_>>());
    }
}

/// Kills: bytes of a dropped step, or of an epoch that the engine went back from, that are read or written later; space
/// that is lost on the way.
#[test]
fn whatever_a_trainer_goes_back_to_is_what_it_was() {
    let seeds = std::env::var("HOIST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3);
    for seed in 0..seeds {
        println!("seed {seed}");
        let (_dir, mut config, oracle) = store(Durability::Step);
        config.store.segment_bytes = 64 << 20;
        let mut random = Random(seed);
        let mut trainer = Trainer::open(&config, oracle);
        for act in 0..24 {
            trainer.act(&mut random);
            if act % 5 == 0 {
                trainer.look();
            }
            if act % 11 == 10 {
                trainer = trainer.again();
            }
        }
        // What snapshots held is free again: steps go on for ever.
        for name in std::mem::take(&mut trainer.snapshots).into_keys() {
            trainer.engine.delete_snapshot(&name).unwrap();
        }
        for _ in 0..3 {
            trainer.train(true);
        }
        trainer = trainer.again();
        trainer.look();
        trainer.engine.close().unwrap();
    }
}

#[test]
fn a_store_opened_at_a_snapshot_is_read_and_not_written() {
    let (_dir, mut config, oracle) = store(Durability::Step);
    let mut trainer = Trainer::open(&config, oracle);
    trainer.engine.snapshot("first").unwrap();
    let mut first = Oracle { versions: trainer.oracle.versions.clone(), next: trainer.oracle.next };
    trainer.train(true);
    trainer.engine.close().unwrap();
    config.store.snapshot = Some("first".into());
    let engine = Engine::open(config.clone()).unwrap();
    assert_eq!(engine.opened_at().number, 1);
    for _ in 0..2 {
        assert_holds(&engine, &mut first);
    }
    let write = first.write_all(&engine, |life| *life == Life::Durable);
    let id = engine.declare(write).unwrap();
    engine.begin_step(id).unwrap();
    let refused = engine.acquire(0).err().unwrap().to_string();
    assert!(refused.contains("open at snapshot \"first\""), "{refused}");
    engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    let refused = engine.snapshot("second").unwrap_err().to_string();
    assert!(refused.contains("open at snapshot"), "{refused}");
    engine.close().unwrap();
    config.store.snapshot = None;
    assert_holds(&Engine::open(config).unwrap(), &mut trainer.oracle);
}

/// Each snapshot is what a crash leaves; nothing else is, and steps cannot be taken back.
#[test]
fn at_durability_snapshot_a_crash_leaves_the_last_one() {
    let (_dir, config, oracle) = store(Durability::Snapshot);
    let mut trainer = Trainer::open(&config, oracle);
    trainer.train(true);
    trainer.engine.snapshot("first").unwrap();
    let (first, said) = (trainer.committed.clone(), trainer.step);
    for _ in 0..2 {
        trainer.train(true);
    }
    trainer.begin(trainer.order.accesses.len());
    assert!(matches!(trainer.engine.abort_step(), Err(Error::NotTaken { .. })));
    assert!(matches!(trainer.engine.rollback(), Err(Error::NotTaken { .. })));
    trainer.engine.commit_step(&Scalars::step(9)).unwrap().wait().unwrap();
    let Trainer { engine, mut oracle, config, .. } = trainer;
    // A copy of the directory is what a power cut would leave, at best.
    let copy = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp")
        .args(["-a", "--sparse=never"])
        .arg(_dir.path().join("."))
        .arg(copy.path())
        .status();
    assert!(status.unwrap().success());
    let now = oracle.versions.clone();
    let mut crashed = config.clone();
    crashed.store.nvme_path = vec![copy.path().to_owned()];
    oracle.versions.clone_from(&first);
    let opened = Engine::open(crashed).unwrap();
    assert_eq!(opened.opened_at().scalars.step, said);
    assert_holds(&opened, &mut oracle);
    opened.close().unwrap();
    // The engine that was not killed goes back by itself, and a close keeps what was committed.
    oracle.versions.clone_from(&now);
    assert_holds(&engine, &mut oracle);
    let back = engine.rollback_to("first").unwrap();
    assert_eq!(back.scalars.step, said);
    oracle.versions.clone_from(&first);
    assert_holds(&engine, &mut oracle);
    let order = oracle.write_all(&engine, |life| *life == Life::Durable);
    let id = engine.declare(order.clone()).unwrap();
    oracle.step(&engine, id, &order, NO_PAUSE).wait().unwrap();
    engine.close().unwrap();
    let engine = Engine::open(config).unwrap();
    assert_holds(&engine, &mut oracle);
    oracle.versions = first;
    engine.rollback_to("first").unwrap();
    assert_holds(&engine, &mut oracle);
}

/// Kills: a cast that was written to NVMe, and is read again after its source went back.
#[test]
fn derived_tensors_follow_their_sources_back() {
    const ELEMENTS: u64 = 3 << 20;
    let spec = |name: &str, dtype, life| TensorSpec {
        name: name.into(),
        dtype,
        shape: vec![ELEMENTS],
        class: Class::Parameter,
        life,
        group: "layer.0".into(),
        shard: None,
    };
    let dir = tempfile::tempdir().unwrap();
    let specs = [
        spec("master", Dtype::F32, Life::Durable),
        spec("weight", Dtype::BF16, Life::Derived { from: "master".into() }),
        spec("other", Dtype::F32, Life::Durable),
    ];
    // So little memory that nothing stays there.
    let mut config = config(dir.path(), 20 * MIB, 16 * MIB, 65536);
    config.store.snapshots = 1;
    let engine = Engine::create(config, &specs).unwrap();
    let access = |name: &str, mode| {
        let whole = engine.whole(engine.tensor(name).unwrap(), mode);
        Access::new("layer.0", Phase::Optimizer, Tier::Host, vec![whole])
    };
    let order = Order {
        accesses: vec![
            access("master", Mode::Overwrite),
            access("weight", Mode::Overwrite),
            access("weight", Mode::Read),
            access("other", Mode::Overwrite),
        ],
    };
    let id = engine.declare(order).unwrap();
    // As another order reads it first, the weight is worth writing to NVMe when it has to leave.
    engine.declare(Order { accesses: vec![access("weight", Mode::Read)] }).unwrap();
    // The trainer writes both; what it has not written is made from what is there.
    let step = |value: Option<f32>, expected: f32| {
        engine.begin_step(id).unwrap();
        let bf16 = ((expected.to_bits() >> 16) as u16).to_le_bytes();
        if let Some(value) = value {
            let mut master = engine.acquire(0).unwrap();
            for part in master.parts_mut(0) {
                part.chunks_exact_mut(4).for_each(|four| four.copy_from_slice(&value.to_le_bytes()));
            }
        }
        if value.is_some() {
            let mut weight = engine.acquire(1).unwrap();
            weight
                .parts_mut(0)
                .for_each(|part| part.chunks_exact_mut(2).for_each(|two| two.copy_from_slice(&bf16)));
        }
        let weight = engine.acquire(2).unwrap();
        for part in weight.parts(0) {
            let wrong = part.chunks_exact(2).find(|two| **two != bf16);
            assert_eq!(wrong, None, "the weight is not {expected}");
        }
        drop(weight);
        if value.is_some() {
            engine.acquire(3).unwrap().parts_mut(0).for_each(|part| part.fill(7));
        }
    };
    let commit = || engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    step(Some(1.0), 1.0);
    commit();
    engine.snapshot("one").unwrap();
    step(Some(2.0), 2.0);
    commit();
    step(Some(3.0), 3.0);
    engine.abort_step().unwrap();
    step(None, 2.0);
    commit();
    engine.rollback_to("one").unwrap();
    step(None, 1.0);
    commit();
    step(Some(4.0), 4.0);
    commit();
    engine.rollback().unwrap();
    step(None, 4.0);
    commit();
    engine.close().unwrap();
}
