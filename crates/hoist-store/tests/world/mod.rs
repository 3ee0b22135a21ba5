//! Ranks that hold shards of the same tensors, whose bytes follow from tensor, place and step.

use crate::common::{config, pattern, slab};
use hoist_memory::Slab;
use hoist_store::*;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::{TempDir, tempdir};

/// Which ranks hold a tensor.
#[derive(Debug, Clone, Copy)]
pub enum Held {
    Sharded,
    Replicated,
    /// Alone; counted on from 0 again where there are fewer.
    By(u32),
}

#[derive(Debug, Clone)]
pub struct Tensor {
    pub dtype: Dtype,
    /// A multiple of four.
    pub elements: u64,
    pub held: Held,
    pub group: u32,
}

pub struct World {
    folders: Vec<TempDir>,
    tensors: Vec<Tensor>,
    seed: u64,
    pub slab: Arc<Slab>,
    /// The newest that all have.
    pub epoch: u64,
}

/// What a tensor has from a byte on at a step.
pub fn content(tensor: u32, from: u64, bytes: u64, step: u64) -> Vec<u8> {
    let mut out = vec![0; bytes as usize];
    pattern(tensor, from, step, &mut out);
    out
}

fn io() -> hoist_io::Config {
    hoist_io::Config::default()
}

impl World {
    pub fn new(tensors: &[Tensor], world_size: u32, seed: u64) -> World {
        let world = World::planned(tensors, world_size, seed);
        for rank in 0..world_size as usize {
            let store = BlockingStore::create(&world.config(rank), &io(), &world.slab, &world.specs(rank));
            store.unwrap().close().unwrap();
        }
        world
    }

    fn planned(tensors: &[Tensor], world_size: u32, seed: u64) -> World {
        let folders = (0..world_size).map(|_| tempdir().unwrap()).collect();
        World { folders, tensors: tensors.to_vec(), seed, slab: slab(), epoch: 0 }
    }

    pub fn config(&self, rank: usize) -> Config {
        let world_size = self.folders.len() as u32;
        Config { rank: rank as u32, world_size, ..config(&[self.folders[rank].path()]) }
    }

    pub fn paths(&self) -> Vec<Vec<PathBuf>> {
        self.folders.iter().map(|folder| vec![folder.path().to_path_buf()]).collect()
    }

    /// Where each rank's shard of a tensor ends, uneven, and some of them empty.
    fn cuts(&self, tensor: usize) -> Vec<u64> {
        let (elements, ranks) = (self.tensors[tensor].elements, self.folders.len() as u64);
        let mut cuts: Vec<_> = (1..ranks)
            .map(|rank| {
                let random =
                    (self.seed ^ rank << 8 ^ tensor as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                random % (elements / 4 + 1) * 4
            })
            .collect();
        cuts.sort_unstable();
        cuts.push(elements);
        cuts
    }

    /// The elements of a tensor that a rank holds, if it does.
    fn range(&self, tensor: usize, rank: usize) -> Option<(u64, u64)> {
        let Tensor { elements, held, .. } = self.tensors[tensor];
        match held {
            Held::Replicated => Some((0, elements)),
            Held::By(owner) => (owner as usize % self.folders.len() == rank).then_some((0, elements)),
            Held::Sharded => {
                let cuts = self.cuts(tensor);
                Some((if rank == 0 { 0 } else { cuts[rank - 1] }, cuts[rank]))
            }
        }
    }

    pub fn specs(&self, rank: usize) -> Vec<TensorSpec> {
        let spec = |tensor: usize| {
            let Tensor { dtype, elements, held, group } = self.tensors[tensor];
            let (from, to) = self.range(tensor, rank)?;
            let shard = || Some(Box::new(Shard { shape: vec![elements], start: from }));
            Some(TensorSpec {
                name: format!("t{tensor}"),
                dtype,
                shape: vec![to - from],
                class: Class::Parameter,
                life: Life::Durable,
                group: group.to_string(),
                shard: if matches!(held, Held::Sharded) { shard() } else { None },
            })
        };
        (0..self.tensors.len()).filter_map(spec).collect()
    }

    pub fn open(&self) -> Result<RankStores, Error> {
        RankStores::open(&self.paths(), &io(), &self.slab)
    }

    pub fn open_rank(&self, rank: usize) -> BlockingStore {
        BlockingStore::open_shared(&self.config(rank), &io(), &self.slab).unwrap()
    }

    fn open_to_write(&self, rank: usize) -> BlockingStore {
        BlockingStore::open(&self.config(rank), &io(), &self.slab).unwrap()
    }

    /// Writes all of a rank, and commits.
    pub fn write_rank(&self, rank: usize, step: u64) {
        let mut store = self.open_to_write(rank);
        let infos = store.store().tensors().to_vec();
        for run in 0..store.store().runs().len() as u32 {
            let span = Span { run: RunId(run), offset: 0, bytes: store.store().runs()[run as usize].bytes };
            let fill = |offset: u64, slot: &mut hoist_memory::Slot| {
                slot.parts_mut().for_each(|part| part.fill(0));
                for info in infos.iter().filter(|info| info.run.0 == run) {
                    let (from, to) =
                        (info.offset.max(offset), (info.offset + info.bytes).min(offset + slot.bytes()));
                    if from < to {
                        let number = info.spec.name[1..].parse().unwrap();
                        let start = info.spec.start() * info.spec.dtype.bits() / 8 + from - info.offset;
                        slot.put(from - offset, &content(number, start, to - from, step));
                    }
                }
                Ok(())
            };
            store.write(span, fill).unwrap();
        }
        store.set_note("of rank", rank.to_string().into_bytes()).unwrap();
        store.commit_with(&Scalars::step(step).with("rng", [rank as u8])).unwrap();
    }

    /// A step that the first `committed` ranks commit before they die; all of them have it when all do.
    pub fn step(&mut self, committed: usize) {
        let ranks = self.folders.len();
        for rank in 0..committed.min(ranks) {
            self.write_rank(rank, 10 * (self.epoch + 1));
        }
        if committed >= ranks {
            self.epoch += 1;
            self.finalize(self.epoch);
        }
    }

    pub fn finalize(&self, epoch: u64) {
        (0..self.folders.len()).for_each(|rank| self.finalize_rank(rank, epoch));
    }

    pub fn finalize_rank(&self, rank: usize, epoch: u64) {
        self.open_to_write(rank).finalize(epoch).unwrap();
    }

    /// The same tensors, of as many ranks as are wanted.
    pub fn reshard(&self, world_size: u32, seed: u64, step: u64) -> World {
        let next = World::planned(&self.tensors, world_size, seed);
        for rank in 0..world_size as usize {
            // Each by itself, as each would be a process.
            let mut old = self.open().unwrap();
            let specs = next.specs(rank);
            let mut store = old.reshard(&next.config(rank), &io(), &next.slab, &specs).unwrap();
            assert_eq!((store.store().epoch(), store.store().newest().scalars.step), (1, step));
            if step > 0 {
                let own: u64 = specs.iter().map(|spec| spec.bytes().unwrap()).sum();
                // Every shard may lie in one of each old rank, and begin and end in the middle of a block of each.
                let edges = 2 * (specs.len() * self.folders.len()) as u64 * CHECKSUM_BYTES;
                assert!(old.read_bytes() <= own + edges, "{} of {own}", old.read_bytes());
                for (spec, id) in specs.iter().zip(0..) {
                    let number = spec.name[1..].parse().unwrap();
                    let start = spec.start() * spec.dtype.bits() / 8;
                    let expected = content(number, start, spec.bytes().unwrap(), step);
                    assert!(store.tensor_bytes(TensorId(id)).unwrap() == expected, "{}", spec.name);
                    assert_eq!(store.store().tensors()[id as usize].spec, *spec);
                }
            }
            store.close().unwrap();
            old.close().unwrap();
        }
        next
    }

    /// All bytes of all tensors, and some parts.
    pub fn check_wholes(&self, stores: &mut RankStores, step: u64) {
        for (number, tensor) in self.tensors.iter().enumerate() {
            let name = format!("t{number}");
            let spec = stores.tensor(&name).unwrap().clone();
            assert_eq!((spec.dtype, &spec.shape, spec.shard), (tensor.dtype, &vec![tensor.elements], None));
            let quarter = tensor.elements / 16 * 4;
            for (first, end) in
                [(0, tensor.elements), (quarter, tensor.elements - quarter), (quarter, quarter)]
            {
                let (from, to) = (first * tensor.dtype.bits() / 8, end * tensor.dtype.bits() / 8);
                let mut into = vec![0; (to - from) as usize];
                let read = stores.read(&name, first, end - first, &mut into);
                if step == 0 && from < to {
                    assert!(matches!(read, Err(Error::NoBytes { .. })), "{read:?}");
                    continue;
                }
                read.unwrap();
                assert!(into == content(number as u32, from, to - from, step), "{name} {first}..{end}");
            }
        }
    }
}
