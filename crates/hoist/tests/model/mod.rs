//! A small trainer with an oracle: it writes bytes derived from tensor, version and place, and
//! checks every byte that it is given.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod drive;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hoist::{
    Access, Class, Config, Dtype, Engine, Lease, Life, Mode, Order, OrderId, Phase, Scalars, TensorId,
    TensorSpec, TensorUse, Tier,
};

pub const MIB: u64 = 1 << 20;

/// A small generator of its own (SplitMix64), so that a seed means the same for ever.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// The byte of a tensor's version at a place: none is like its neighbours, or like any version's.
pub fn byte(tensor: u32, version: u64, at: u64) -> u8 {
    let word = Random((at / 8) ^ (u64::from(tensor) << 40) ^ (version << 52)).next();
    word.to_le_bytes()[(at % 8) as usize]
}

pub fn fill<'a>(parts: impl Iterator<Item = &'a mut [u8]>, tensor: u32, version: u64, start: u64) {
    let mut at = start;
    for part in parts {
        for one in part.iter_mut() {
            *one = byte(tensor, version, at);
            at += 1;
        }
    }
}

pub fn check<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    tensor: u32,
    version: u64,
    range: std::ops::Range<u64>,
) {
    let mut at = range.start;
    for part in parts {
        for one in part {
            assert_eq!(*one, byte(tensor, version, at), "byte {at} of tensor {tensor}, version {version}");
            at += 1;
        }
    }
    assert_eq!(at, range.end, "tensor {tensor} came short");
}

pub fn config(dir: &Path, host_bytes: u64, device_bytes: u64, page_bytes: usize) -> Config {
    let mut config = Config::new(dir, host_bytes, device_bytes);
    config.host.page_bytes = page_bytes;
    config.store.segment_bytes = 64 << 20;
    config
}

pub fn tensor(name: &str, bytes: u64, life: Life, group: &str) -> TensorSpec {
    let class = if life == Life::Scratch { Class::Gradient } else { Class::Parameter };
    TensorSpec {
        name: name.into(),
        dtype: Dtype::U8,
        shape: vec![bytes],
        class,
        life,
        group: group.into(),
        shard: None,
    }
}

/// A training step over `layers` layers: forward and backward on the device, the optimizer on the
/// host; three arrays a layer, cut in pieces of `piece` bytes.
pub fn training(engine: &Engine, oracle: &Oracle, layers: usize) -> Order {
    let id = |name: String| engine.tensor(&name).unwrap();
    let pieces = |tensor: TensorId, mode: Mode| {
        let ranges = &oracle.versions[tensor.0 as usize];
        ranges
            .iter()
            .map(move |(bytes, _)| TensorUse { tensor, bytes: bytes.clone(), mode })
            .collect::<Vec<_>>()
    };
    let mut accesses = Vec::new();
    let mut each = |phase, tier, parts: &[(TensorId, Mode)]| {
        for one in parts.iter().flat_map(|&(tensor, mode)| pieces(tensor, mode)) {
            accesses.push(Access::new("layer", phase, tier, vec![one]));
        }
    };
    for layer in 0..layers {
        each(Phase::Forward, Tier::Device, &[(id(format!("{layer}.weight")), Mode::Read)]);
    }
    for layer in (0..layers).rev() {
        let (weight, gradient) = (id(format!("{layer}.weight")), id(format!("{layer}.gradient")));
        each(Phase::Backward, Tier::Device, &[(weight, Mode::Read), (gradient, Mode::Overwrite)]);
    }
    for layer in 0..layers {
        let state = id(format!("{layer}.state"));
        let (weight, gradient) = (id(format!("{layer}.weight")), id(format!("{layer}.gradient")));
        each(
            Phase::Optimizer,
            Tier::Host,
            &[(state, Mode::Update), (gradient, Mode::Read), (weight, Mode::Update)],
        );
    }
    Order { accesses }
}

pub fn specs(layers: usize, bytes: u64) -> Vec<TensorSpec> {
    (0..layers)
        .flat_map(|layer| {
            let group = format!("layer.{layer}");
            [
                tensor(&format!("{layer}.weight"), bytes, Life::Durable, &group),
                tensor(&format!("{layer}.state"), 2 * bytes + 13, Life::Durable, &group),
                tensor(&format!("{layer}.gradient"), bytes, Life::Scratch, &group),
            ]
        })
        .collect()
}

/// Where 4096 bytes of a tensor's version lie: the segment, and the place in it.
pub fn find(dir: &Path, tensor: u32, version: u64, at: u64) -> (PathBuf, u64) {
    let wanted: Vec<u8> = (at..at + 4096).map(|at| byte(tensor, version, at)).collect();
    for entry in std::fs::read_dir(dir.join("data")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        if let Some(block) = bytes.chunks(4096).position(|block| block == wanted) {
            return (path, block as u64 * 4096);
        }
    }
    panic!("the bytes of tensor {tensor} are in no segment");
}

/// The newest version of each tensor's pieces, as the trainer knows it.
pub struct Oracle {
    pub versions: Vec<Vec<(std::ops::Range<u64>, u64)>>,
    pub next: u64,
}

impl Oracle {
    pub fn new(engine: &Engine, piece_bytes: u64) -> Oracle {
        let pieces = |id: usize| {
            let ranges = engine.pieces(TensorId(id as u32), piece_bytes);
            ranges.into_iter().map(|range| (range, 0)).collect()
        };
        Oracle { versions: (0..engine.tensors().len()).map(pieces).collect(), next: 0 }
    }

    /// An order that overwrites every tensor that this filter lets through, a piece an access.
    pub fn write_all(&self, engine: &Engine, keep: impl Fn(&Life) -> bool) -> Order {
        let mut accesses = Vec::new();
        for (id, pieces) in self.versions.iter().enumerate() {
            if !keep(&engine.tensors()[id].spec.life) {
                continue;
            }
            for (range, _) in pieces {
                let one =
                    TensorUse { tensor: TensorId(id as u32), bytes: range.clone(), mode: Mode::Overwrite };
                accesses.push(Access::new("init", Phase::Optimizer, Tier::Host, vec![one]));
            }
        }
        Order { accesses }
    }

    /// Runs one step over an order: checks what is read, writes new versions of what is written.
    pub fn step(&mut self, engine: &Engine, id: OrderId, order: &Order, pause: Duration) -> hoist::Commit {
        engine.begin_step(id).unwrap();
        for index in 0..order.accesses.len() {
            self.access(engine, order, index, pause);
        }
        engine.commit_step(&Scalars::default()).unwrap()
    }

    /// Checks what a lease reads, and writes new versions of what it writes.
    pub fn fill(&mut self, lease: &mut Lease, order: &Order, index: usize) {
        for (place, one) in order.accesses[index].uses.iter().enumerate() {
            let tensor = one.tensor.0;
            let pieces = &mut self.versions[tensor as usize];
            let piece = pieces.iter_mut().find(|(range, _)| *range == one.bytes).expect("a piece of ours");
            if one.mode.reads() {
                check(lease.parts(place), tensor, piece.1, one.bytes.clone());
            }
            if one.mode.writes() {
                self.next += 1;
                piece.1 = self.next;
                fill(lease.parts_mut(place), tensor, piece.1, one.bytes.start);
            }
        }
    }

    pub fn access(&mut self, engine: &Engine, order: &Order, index: usize, pause: Duration) {
        let mut lease = engine.acquire(index).unwrap_or_else(|error| panic!("access {index}: {error}"));
        self.fill(&mut lease, order, index);
        std::thread::sleep(pause);
        if index.is_multiple_of(2) {
            lease.release();
        } else {
            lease.release_after(engine.launch(pause).unwrap());
        }
    }
}
