//! Stores over a model's files, which are read where they lie.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod changed;
#[path = "../common/mod.rs"]
mod common;
mod failing;
mod model;

use common::*;
use hoist_store::*;
use model::*;
use proptest::prelude::*;

/// Bundled and not, empty, off every alignment, longer than a chunk, and of the sizes around a block.
const SIZES: &[usize] = &[
    3 * MIB + 20,
    4,
    0,
    1023,
    262_144,
    262_143,
    MIB,
    17 * MIB + 2,
    1,
    700_000,
    0,
    4096,
    2 * MIB - 1,
    12,
    12,
];

#[test]
fn everything_is_read_where_it_lies_and_known_from_then_on() {
    for blanks in [0, 1, 511, 4090] {
        let model = Model::new(&[SIZES, &[8, MIB + 8]], blanks);
        let config = model.config();
        let mut store = model.create(&config);
        assert!(store.store().space().total_bytes == 0 && unknown(&store) > 100);
        model.check(&mut store);
        assert_eq!(unknown(&store), 0);
        model.check(&mut store);
        store.close().unwrap();
        assert!(disk_bytes(&model.folder.path().join("store")) < 3 * MIB as u64, "there is no second copy");
        // Kept: what was read once is verified from then on.
        let mut store = reopen(&config).unwrap();
        assert_eq!(unknown(&store), 0);
        model.check(&mut store);
        let report = verify(&mut store).unwrap();
        assert!(report.bad.is_empty() && report.blocks > 100, "{report:?}");
        let out = model.folder.path().join("out.safetensors");
        export_safetensors(&mut store, &out, SHARD_BYTES_DEFAULT).unwrap();
        let bytes = std::fs::read(&out).unwrap();
        let exported = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (name, bytes) in &model.tensors {
            assert!(exported.tensor(name).unwrap().data() == bytes, "{name}");
        }
        assert!(safetensors::SafeTensors::read_metadata(&bytes).unwrap().1.metadata().is_some());
        store.close().unwrap();
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Write(u8, u8),
    Commit,
    Snapshot,
    Back,
    Reopen,
    Check,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (any::<u8>(), any::<u8>()).prop_map(|(run, block)| Op::Write(run, block)),
        2 => Just(Op::Commit),
        1 => Just(Op::Snapshot),
        1 => Just(Op::Back),
        1 => Just(Op::Reopen),
        1 => Just(Op::Check),
    ]
}

/// The bytes of each run.
type Runs = Vec<Vec<u8>>;

fn check_runs(store: &mut BlockingStore, runs: &Runs) {
    for id in 0..store.store().tensors().len() {
        let info = store.store().tensors()[id].clone();
        let found = store.tensor_bytes(TensorId(id as u32)).unwrap();
        let run = &runs[info.run.0 as usize];
        assert!(found == run[info.offset as usize..][..found.len()], "{}", info.spec.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever is written, kept and taken back: each block is what it was last, and what never was is the model's.
    #[test]
    fn what_is_written_goes_to_the_store(ops in proptest::collection::vec(op(), 1..40), step in any::<bool>(), blanks in 0..9usize, directories in 1..4u32) {
        let model = Model::new(&[&[MIB + 3, 5000, 2, 600_000, 700_001]], blanks);
        let durability = if step { Durability::Step } else { Durability::Snapshot };
        let nvme_path = (0..directories).map(|number| model.folder.path().join(format!("store-{number}"))).collect();
        let config = Config { nvme_path, in_place_room_bytes: 8 << 20, durability, ..model.config() };
        let mut store = model.create(&config);
        let mut now: Runs = store.store().runs().iter().map(|run| vec![0; run.bytes as usize]).collect();
        for (name, bytes) in &model.tensors {
            let info = &store.store().tensors()[store.store().tensor(name).unwrap().0 as usize];
            now[info.run.0 as usize][info.offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        // What the newest epoch has, and what it surely has at `snapshot`, where a commit makes none.
        let (mut committed, mut saved, mut kept) = (now.clone(), now.clone(), None);
        for (seed, op) in ops.into_iter().enumerate() {
            match op {
                Op::Write(run, block) => {
                    let run = usize::from(run) % now.len();
                    let offset = u64::from(block) % (now[run].len() as u64).div_ceil(BLOCK) * BLOCK;
                    let written = write_block(&mut store, run as u32, offset, seed as u64 + 50).unwrap();
                    now[run][offset as usize..][..written.len()].copy_from_slice(&written);
                    store.finish_writes().unwrap();
                }
                Op::Commit => {
                    store.commit().unwrap();
                    committed = now.clone();
                }
                Op::Snapshot => {
                    if kept.is_none() {
                        if step {
                            store.commit().unwrap();
                        }
                        store.snapshot("kept").unwrap();
                        committed = now.clone();
                        saved = now.clone();
                        kept = Some(now.clone());
                    }
                }
                Op::Back => {
                    // What was written since must be committed or gone.
                    if step {
                        store.commit().unwrap();
                        committed = now.clone();
                    }
                    if let Some(then) = kept.as_ref().filter(|_| step || now == saved) {
                        store.rollback_to("kept").unwrap();
                        now = then.clone();
                        committed = then.clone();
                        saved = then.clone();
                    }
                }
                Op::Reopen => {
                    store.close().unwrap();
                    store = reopen(&config).unwrap();
                    // At `snapshot` closing keeps what was written.
                    if step {
                        now = committed.clone();
                    }
                    saved = now.clone();
                }
                Op::Check => check_runs(&mut store, &now),
            }
        }
        check_runs(&mut store, &now);
        prop_assert!(verify(&mut store).unwrap().bad.is_empty());
        store.close().unwrap();
    }
}
