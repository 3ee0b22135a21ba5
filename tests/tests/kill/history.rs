//! What every epoch of a store that was killed again and again has written, and where.

use hoist::{Access, Engine, Life, Mode, Order, Phase, TensorId, TensorUse, Tier};
use hoist_testkit::Random;
use std::ops::Range;
use std::path::PathBuf;

/// Different steps.
const ORDERS: u64 = 8;

/// Largest piece of a tensor that is used by itself: two to a megabyte, so that there are some.
const PIECE_BYTES: u64 = 512 << 10;

/// Runs of a trainer, by the epochs that they have found. The bytes of an epoch are those of the run that made it.
pub struct History {
    pub directories: Vec<PathBuf>,
    found: Vec<u64>,
}

impl History {
    /// A new store in these directories.
    pub fn new(directories: Vec<PathBuf>) -> History {
        History { directories, found: vec![0] }
    }

    /// As one line.
    pub fn text(&self) -> String {
        let found = self.found.iter().map(u64::to_string);
        let directories = self.directories.iter().map(|path| path.display().to_string());
        format!("{};{}", directories.collect::<Vec<_>>().join(","), found.collect::<Vec<_>>().join(","))
    }

    pub fn read(text: &str) -> History {
        let (directories, found) = text.split_once(';').unwrap();
        let found = found.split(',').map(|epoch| epoch.parse().unwrap()).collect();
        History { directories: directories.split(',').map(PathBuf::from).collect(), found }
    }

    /// Where the newest run has begun.
    pub fn epoch(&self) -> u64 {
        self.found[self.found.len() - 1]
    }

    /// A run has ended, and the next finds this epoch.
    pub fn push(&mut self, epoch: u64) {
        self.found.push(epoch);
    }

    /// The newest run that has begun before this epoch: it made it.
    pub fn run(&self, epoch: u64) -> u64 {
        self.found.iter().rposition(|found| *found < epoch).unwrap() as u64
    }

    /// The note of an epoch, which has its run, too.
    pub fn note(&self, epoch: u64) -> Vec<u8> {
        [epoch, self.run(epoch)].map(u64::to_le_bytes).concat()
    }

    /// The epoch up to `epoch` whose bytes a piece has.
    pub fn version(engine: &Engine, piece: &TensorUse, epoch: u64) -> u64 {
        let writes = |order: &Order| {
            let mut uses = order.accesses.iter().map(|access| &access.uses[0]);
            uses.any(|one| one.tensor == piece.tensor && one.bytes == piece.bytes && one.mode.writes())
        };
        let orders: Vec<_> = (0..ORDERS).map(|number| writes(&order(engine, number))).collect();
        (2..=epoch).rev().find(|epoch| orders[(epoch % ORDERS) as usize]).unwrap_or(1)
    }
}

/// All pieces of the tensors of a kind.
fn pieces(engine: &Engine, keep: impl Fn(&Life) -> bool) -> Vec<(TensorId, Range<u64>)> {
    let tensors = engine.tensors().iter().enumerate().filter(|(_, tensor)| keep(&tensor.spec.life));
    let pieces = |(id, _)| {
        let id = TensorId(id as u32);
        engine.pieces(id, PIECE_BYTES).into_iter().map(move |bytes| (id, bytes))
    };
    tensors.flat_map(pieces).collect()
}

/// Every durable piece, in one mode.
pub fn all(engine: &Engine, mode: Mode) -> Order {
    let pieces = pieces(engine, |life| *life == Life::Durable).into_iter().enumerate();
    let accesses = pieces.map(|(place, (tensor, bytes))| {
        let tier = if place % 2 == 0 { Tier::Host } else { Tier::Device };
        Access::new("all", Phase::Optimizer, tier, vec![TensorUse { tensor, bytes, mode }])
    });
    Order { accesses: accesses.collect() }
}

/// What the steps do whose epoch is `number` in a row of [`ORDERS`]: each piece once at most.
fn order(engine: &Engine, number: u64) -> Order {
    let mut random = Random::new(number);
    let mut accesses = Vec::new();
    for (tensor, bytes) in pieces(engine, |_| true) {
        let scratch = engine.tensors()[tensor.0 as usize].spec.life == Life::Scratch;
        let mode = match random.below(4) {
            0 => continue,
            _ if scratch => Mode::Overwrite,
            1 => Mode::Read,
            2 => Mode::Overwrite,
            _ => Mode::Update,
        };
        let tier = if random.one_in(2) { Tier::Host } else { Tier::Device };
        let access = Access::new("some", Phase::Optimizer, tier, vec![TensorUse { tensor, bytes, mode }]);
        accesses.insert(random.below(accesses.len() as u64 + 1) as usize, access);
    }
    Order { accesses }
}

/// The orders of the first epoch, and of those after it by their remainders.
pub fn orders(engine: &Engine) -> (Order, Vec<Order>) {
    (all(engine, Mode::Overwrite), (0..ORDERS).map(|number| order(engine, number)).collect())
}
