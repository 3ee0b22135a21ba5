//! A store under test, driven by hand.
#![allow(dead_code, reason = "each test file uses a part of it")]

use crossbeam_channel::Receiver;
use hoist_memory::Slab;
use hoist_store::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const BLOCK: u64 = CHECKSUM_BYTES;

pub fn slab() -> Arc<Slab> {
    Slab::map(&hoist_memory::Config { budget_bytes: 24 << 20, ..Default::default() }).unwrap()
}

/// Small segments: runs lie in several, and stores are made in milliseconds.
pub fn config(paths: &[&Path]) -> Config {
    let nvme_path = paths.iter().map(|path| path.to_path_buf()).collect();
    Config { nvme_path, segment_bytes: 1 << 20, ..Config::default() }
}

pub fn spec(name: &str, bytes: u64, life: Life) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        dtype: Dtype::U8,
        shape: vec![bytes],
        class: Class::Parameter,
        life,
        group: "layer.0".into(),
        shard: None,
    }
}

/// Bytes that follow from their place and a seed, so that bytes from elsewhere or from another time do not match.
pub fn pattern(run: u32, offset: u64, seed: u64, out: &mut [u8]) {
    let start = (u64::from(run) << 48 ^ seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for (place, byte) in out.iter_mut().enumerate() {
        let at = start ^ (offset + place as u64);
        *byte = (at.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8;
    }
}

pub struct Driver {
    pub store: Store,
    completions: Receiver<Completion>,
    pub slab: Arc<Slab>,
    last_id: u64,
    /// Commits that have ended since they were last taken.
    pub committed: Vec<u64>,
}

impl Driver {
    pub fn create(config: &Config, slab: &Arc<Slab>, tensors: &[TensorSpec]) -> Result<Driver, Error> {
        let (sender, completions) = crossbeam_channel::unbounded();
        let deliver = move |completion| drop(sender.send(completion));
        let store = Store::create(config, &hoist_io::Config::default(), slab, tensors, deliver)?;
        Ok(Driver { store, completions, slab: Arc::clone(slab), last_id: 0, committed: Vec::new() })
    }

    pub fn create_on(
        config: &Config,
        slab: &Arc<Slab>,
        start: &dyn Fn(usize, Deliver) -> Result<hoist_io::IoThread, hoist_io::Error>,
        tensors: &[TensorSpec],
    ) -> Result<Driver, Error> {
        let (sender, completions) = crossbeam_channel::unbounded();
        let deliver = move |completion| drop(sender.send(completion));
        let store = Store::create_on(config, start, tensors, deliver)?;
        Ok(Driver { store, completions, slab: Arc::clone(slab), last_id: 0, committed: Vec::new() })
    }

    pub fn open(config: &Config, slab: &Arc<Slab>) -> Result<Driver, Error> {
        let (sender, completions) = crossbeam_channel::unbounded();
        let deliver = move |completion| drop(sender.send(completion));
        let store = Store::open(config, &hoist_io::Config::default(), slab, deliver)?;
        Ok(Driver { store, completions, slab: Arc::clone(slab), last_id: 0, committed: Vec::new() })
    }

    /// To be read, beside others.
    pub fn open_shared(config: &Config, slab: &Arc<Slab>) -> Driver {
        let (sender, completions) = crossbeam_channel::unbounded();
        let deliver = move |completion| drop(sender.send(completion));
        let store = Store::open_shared(config, &hoist_io::Config::default(), slab, deliver).unwrap();
        Driver { store, completions, slab: Arc::clone(slab), last_id: 0, committed: Vec::new() }
    }

    pub fn open_on(
        config: &Config,
        slab: &Arc<Slab>,
        start: &dyn Fn(usize, Deliver) -> Result<hoist_io::IoThread, hoist_io::Error>,
    ) -> Result<Driver, Error> {
        let (sender, completions) = crossbeam_channel::unbounded();
        let deliver = move |completion| drop(sender.send(completion));
        let store = Store::open_on(config, start, deliver)?;
        Ok(Driver { store, completions, slab: Arc::clone(slab), last_id: 0, committed: Vec::new() })
    }

    /// The next completion that ends something.
    pub fn any_event(&mut self) -> StoreEvent {
        loop {
            let completion = self.completions.recv().unwrap();
            if let Some(event) = self.store.handle(completion) {
                return event;
            }
        }
    }

    /// The next event; ends of commits are noted on the way and not returned.
    pub fn event(&mut self) -> StoreEvent {
        loop {
            let completion = self.completions.recv().unwrap();
            match self.store.handle(completion) {
                None => {}
                Some(StoreEvent::Committed { epoch, result }) => {
                    result.unwrap();
                    self.committed.push(epoch);
                }
                Some(event) => return event,
            }
        }
    }

    pub fn wait_for_commit(&mut self) -> u64 {
        while self.committed.is_empty() {
            let completion = self.completions.recv().unwrap();
            if let Some(StoreEvent::Committed { epoch, result }) = self.store.handle(completion) {
                result.unwrap();
                self.committed.push(epoch);
            }
        }
        self.committed.pop().unwrap()
    }

    pub fn commit(&mut self) -> u64 {
        self.store.commit(&Scalars::default()).unwrap();
        self.wait_for_commit()
    }

    /// Starts writing the pattern of `seed`.
    pub fn start_write(&mut self, span: Span, seed: u64) -> Result<u64, Error> {
        let mut slot = self.slab.allocate(span.bytes).unwrap();
        let mut at = span.offset;
        for part in slot.parts_mut() {
            pattern(span.run.0, at, seed, part);
            at += part.len() as u64;
        }
        let mut checksums = Vec::new();
        checksum(slot.parts(), &mut checksums);
        self.last_id += 1;
        self.store.write(self.last_id, span, slot.share(), &checksums).map_err(|(_, error)| error)?;
        Ok(self.last_id)
    }

    pub fn write(&mut self, span: Span, seed: u64) -> Result<(), Error> {
        let started = self.start_write(span, seed)?;
        match self.event() {
            StoreEvent::Written { id, result, .. } => {
                assert_eq!(id, started);
                result
            }
            other => panic!("{other:?}"),
        }
    }

    /// The bytes of a span, verified.
    pub fn read(&mut self, span: Span) -> Result<Vec<u8>, Error> {
        let slot = self.slab.allocate(span.bytes).unwrap();
        self.last_id += 1;
        self.store.read(self.last_id, span, slot, Priority::Demand).map_err(|(_, error)| error)?;
        match self.event() {
            StoreEvent::Read { slot, result, .. } => {
                result?;
                let expected = self.store.checksums(&span).unwrap();
                let what = || Error::Corrupt { what: self.store.describe(&span) };
                verify_parts(expected, slot.parts()).map_err(|_| what())?;
                Ok(slot.parts().flatten().copied().collect())
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn assert_holds(&mut self, span: Span, seed: u64) {
        let bytes = self.read(span).unwrap();
        let mut expected = vec![0; span.bytes as usize];
        pattern(span.run.0, span.offset, seed, &mut expected);
        assert!(bytes == expected, "{span} does not hold what was written with seed {seed}");
    }

    pub fn whole(&self, run: u32) -> Span {
        Span { run: RunId(run), offset: 0, bytes: self.store.runs()[run as usize].bytes }
    }
}

pub fn span(run: u32, offset: u64, bytes: u64) -> Span {
    Span { run: RunId(run), offset, bytes }
}

/// The journal in use: the one that has a preamble.
pub fn journal(directory: &Path) -> PathBuf {
    let paths = ["0000", "0001"].map(|name| directory.join("manifest").join(name).with_extension("journal"));
    let used = |path: &&PathBuf| std::fs::read(path).unwrap().starts_with(b"hoistjnl");
    let all: Vec<_> = paths.iter().filter(used).cloned().collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &to)
        } else {
            drop(std::fs::copy(entry.path(), to))
        }
    }
}
