//! Stores over a model's files, which are read where they lie.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;

use common::*;
use hoist_store::*;
use proptest::prelude::*;
use std::fs::{File, FileTimes};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::{TempDir, tempdir_in};

/// What a file holds: names with their bytes, and how much longer than it must be its header is.
struct Model {
    folder: TempDir,
    tensors: Vec<(String, Vec<u8>)>,
}

/// Types of which tensors of this many bytes can be made.
fn dtype(bytes: usize) -> (&'static str, usize) {
    match bytes % 4 {
        0 => ("F32", bytes / 4),
        2 => ("BF16", bytes / 2),
        _ => ("U8", bytes),
    }
}

impl Model {
    /// In as many files as there are lists of sizes; with more than one they have an index. A header is padded by one
    /// blank at a time, so that the data begins anywhere.
    fn new(files: &[&[usize]], blanks: usize) -> Model {
        let folder = tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (mut tensors, mut weights) = (Vec::new(), serde_json::Map::new());
        for (number, sizes) in files.iter().enumerate() {
            let file = format!("m-{number}.safetensors");
            let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
            header.insert("__metadata__".into(), serde_json::json!({"format": "pt"}));
            for (place, bytes) in sizes.iter().enumerate() {
                let name = format!("layer.{}.{number}-{place}", place % 2);
                let mut contents = vec![0; *bytes];
                pattern(place as u32, 0, number as u64 + 1, &mut contents);
                let (dtype, elements) = dtype(*bytes);
                let offsets = [data.len(), data.len() + bytes];
                header.insert(
                    name.clone(),
                    serde_json::json!({"dtype": dtype, "shape": [elements], "data_offsets": offsets}),
                );
                data.extend_from_slice(&contents);
                weights.insert(name.clone(), file.clone().into());
                tensors.push((name, contents));
            }
            let mut text = serde_json::to_vec(&header).unwrap();
            text.resize(text.len() + blanks, b' ');
            let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
            bytes.extend(text);
            bytes.extend(data);
            std::fs::write(folder.path().join(file), bytes).unwrap();
        }
        if files.len() > 1 {
            let index = serde_json::json!({ "weight_map": weights });
            std::fs::write(folder.path().join("m.safetensors.index.json"), index.to_string()).unwrap();
        }
        Model { folder, tensors }
    }

    fn file(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("m-{number}.safetensors"))
    }

    fn open(&self) -> ModelFiles {
        let index = self.folder.path().join("m.safetensors.index.json");
        ModelFiles::open(&if index.exists() { index } else { self.file(0) }).unwrap()
    }

    fn config(&self) -> Config {
        config(&[&self.folder.path().join("store")])
    }

    fn create(&self, config: &Config) -> BlockingStore {
        BlockingStore::create_over(config, &IoConfig::default(), &slab(), &self.open()).unwrap()
    }

    fn check(&self, store: &mut BlockingStore) {
        for (name, bytes) in &self.tensors {
            let id = store.store().tensor(name).unwrap();
            assert!(store.tensor_bytes(id).unwrap() == *bytes, "{name}");
        }
    }
}

fn reopen(config: &Config) -> Result<BlockingStore, Error> {
    BlockingStore::open(config, &IoConfig::default(), &slab())
}

/// How many blocks of a store have no checksum yet.
fn unknown(store: &BlockingStore) -> usize {
    let spans = store.store().runs().iter().zip(0..).map(|(run, id)| Span {
        run: RunId(id),
        offset: 0,
        bytes: run.bytes,
    });
    spans.map(|span| store.store().expected(&span, &mut Vec::new()).unwrap().len()).sum()
}

fn disk_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|one| if one.path().is_dir() { disk_bytes(&one.path()) } else { one.metadata().unwrap().len() })
        .sum()
}

const MIB: usize = 1 << 20;

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

#[test]
fn a_file_that_is_not_the_same_is_refused_and_a_byte_that_is_not_is_found() {
    let model = Model::new(&[&[MIB, 300, 2 * MIB]], 3);
    let config = model.config();
    let mut store = model.create(&config);
    model.check(&mut store);
    store.close().unwrap();
    // Somebody changes a byte and hides it.
    let file = File::options().write(true).open(model.file(0)).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let bytes = file.metadata().unwrap().len();
    let byte = model.tensors[2].1[2 * MIB - 5];
    file.write_all_at(&[!byte], bytes - 5).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    let mut store = reopen(&config).unwrap();
    let id = store.store().tensor(&model.tensors[2].0).unwrap();
    let error = store.tensor_bytes(id).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Corrupt { .. }) && text.contains("m-0.safetensors"), "{text}");
    let bad = verify(&mut store).unwrap().bad;
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0].tensors, [model.tensors[2].0.clone()]);
    assert!(bad[0].places[0].0.ends_with("m-0.safetensors"), "{bad:?}");
    store.close().unwrap();
    // Not hidden: not read, and said so; all else is.
    file.write_all_at(&[byte], bytes - 5).unwrap();
    let first = |what: &str| {
        let mut store = reopen(&config).unwrap();
        let id = store.store().tensor(&model.tensors[0].0).unwrap();
        let error = store.tensor_bytes(id).unwrap_err();
        assert!(error.to_string().contains(what) && matches!(error, Error::SourceChanged { .. }), "{error}");
        let bad = verify(&mut store).unwrap().bad;
        assert!(bad.len() == 13 && bad[0].unreadable.as_ref().unwrap().contains(what), "{bad:?}");
        store.close().unwrap();
    };
    first("written to");
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    let mut store = reopen(&config).unwrap();
    model.check(&mut store);
    store.close().unwrap();
    file.set_len(bytes - 1).unwrap();
    first("bytes, and had");
    std::fs::remove_file(model.file(0)).unwrap();
    first("No such file");
}

#[test]
fn what_is_read_of_a_file_that_was_changed_is_not_believed() {
    let model = Model::new(&[&[3 * MIB]], 1);
    let config = model.config();
    let mut store = model.create(&config);
    let id = TensorId(0);
    let file = File::options().write(true).open(model.file(0)).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let end = file.metadata().unwrap().len();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let byte = model.tensors[0].1[3 * MIB - 9];
    file.write_all_at(&[!byte], end - 9).unwrap();
    let error = store.tensor_bytes(id).unwrap_err();
    assert!(matches!(error, Error::SourceChanged { .. }), "{error}");
    store.close().unwrap();
    // The file is put back: nothing wrong was learned.
    file.write_all_at(&[byte], end - 9).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    let mut store = reopen(&config).unwrap();
    assert!(unknown(&store) > 0);
    model.check(&mut store);
    store.close().unwrap();
}

#[test]
fn what_was_read_is_known_at_every_durability_and_a_snapshots_part_is_verified() {
    for durability in [Durability::Step, Durability::Snapshot, Durability::None] {
        let model = Model::new(&[&[2 * MIB, 77]], 5);
        let config = Config { durability, ..model.config() };
        let mut store = model.create(&config);
        model.check(&mut store);
        let refused = write_block(&mut store, 0, 0, 9).err().unwrap();
        match durability {
            Durability::None => assert!(matches!(refused, Error::InModel { .. }), "{refused}"),
            _ => assert!(matches!(refused, Error::NoSpace { .. }), "{refused}"),
        }
        store.close().unwrap();
        let store = reopen(&config).unwrap();
        assert_eq!(unknown(&store), 0, "{durability:?}");
        store.close().unwrap();
    }
    let model = Model::new(&[&[2 * MIB]], 5);
    let config = Config { in_place_room_bytes: 2 << 20, ..model.config() };
    let mut store = model.create(&config);
    model.check(&mut store);
    store.snapshot("before").unwrap();
    write_block(&mut store, 0, 0, 9).unwrap();
    store.commit().unwrap();
    let file = File::options().write(true).open(model.file(0)).unwrap();
    let end = file.metadata().unwrap().len();
    file.write_all_at(&[!model.tensors[0].1[5]], end - 2 * MIB as u64 + 5).unwrap();
    let bad = verify(&mut store).unwrap().bad;
    assert_eq!(bad.len(), 1);
    assert_eq!((bad[0].snapshots.as_slice(), bad[0].span.offset), (&["before".to_owned()][..], 0));
    store.close().unwrap();
}

/// Writes the block that begins at `offset` of a run.
fn write_block(store: &mut BlockingStore, run: u32, offset: u64, seed: u64) -> Result<Vec<u8>, Error> {
    let bytes = (store.store().runs()[run as usize].bytes - offset).min(BLOCK);
    let mut contents = vec![0; bytes as usize];
    pattern(run, offset, seed, &mut contents);
    let span = Span { run: RunId(run), offset, bytes };
    store.write(span, |at, slot| {
        let mut at = (at - offset) as usize;
        for part in slot.parts_mut() {
            part.copy_from_slice(&contents[at..at + part.len()]);
            at += part.len();
        }
        Ok(())
    })?;
    Ok(contents)
}

#[test]
fn without_room_a_write_says_what_it_needs_and_all_stays_as_it_was() {
    let model = Model::new(&[&[MIB]], 0);
    let mut store = model.create(&model.config());
    let error = write_block(&mut store, 0, 0, 9).err().unwrap();
    assert!(matches!(error, Error::NoSpace { need_bytes: BLOCK, free_bytes: 0, .. }), "{error}");
    model.check(&mut store);
    store.close().unwrap();
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
