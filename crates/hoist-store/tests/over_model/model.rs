//! A model's files, a store over them, and what tests do with both.

use crate::common::*;
use hoist_store::*;
use std::path::{Path, PathBuf};
use tempfile::{TempDir, tempdir_in};

pub const MIB: usize = 1 << 20;

/// What a file holds: names with their bytes, and how much longer than it must be its header is.
pub struct Model {
    pub folder: TempDir,
    pub tensors: Vec<(String, Vec<u8>)>,
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
    pub fn new(files: &[&[usize]], blanks: usize) -> Model {
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

    pub fn file(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("m-{number}.safetensors"))
    }

    pub fn open(&self) -> ModelFiles {
        let index = self.folder.path().join("m.safetensors.index.json");
        ModelFiles::open(&if index.exists() { index } else { self.file(0) }).unwrap()
    }

    pub fn config(&self) -> Config {
        config(&[&self.folder.path().join("store")])
    }

    pub fn create(&self, config: &Config) -> BlockingStore {
        BlockingStore::create_over(config, &IoConfig::default(), &slab(), &self.open()).unwrap()
    }

    pub fn check(&self, store: &mut BlockingStore) {
        for (name, bytes) in &self.tensors {
            let id = store.store().tensor(name).unwrap();
            assert!(store.tensor_bytes(id).unwrap() == *bytes, "{name}");
        }
    }
}

pub fn reopen(config: &Config) -> Result<BlockingStore, Error> {
    BlockingStore::open(config, &IoConfig::default(), &slab())
}

/// How many blocks of a store have no checksum yet.
pub fn unknown(store: &BlockingStore) -> usize {
    let spans = store.store().runs().iter().zip(0..).map(|(run, id)| Span {
        run: RunId(id),
        offset: 0,
        bytes: run.bytes,
    });
    spans.map(|span| store.store().expected(&span, &mut Vec::new()).unwrap().len()).sum()
}

pub fn disk_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|one| if one.path().is_dir() { disk_bytes(&one.path()) } else { one.metadata().unwrap().len() })
        .sum()
}

/// Writes the block that begins at `offset` of a run.
pub fn write_block(store: &mut BlockingStore, run: u32, offset: u64, seed: u64) -> Result<Vec<u8>, Error> {
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
