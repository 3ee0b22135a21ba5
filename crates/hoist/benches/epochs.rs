//! What epochs cost, in pairs of steps by turns: steps that are durable beside steps that are not, and steps while a
//! snapshot is kept beside steps while none is. `just bench-epochs DIR`.

use hoist::{
    Access, Class, Config, Dtype, Durability, Engine, Life, Mode, Order, OrderId, Phase, Scalars, TensorSpec,
    Tier,
};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

/// What one access writes, a tensor of its own.
const TENSOR_BYTES: u64 = 16 << 20;
/// Small beside the tensors, so that both kinds of steps have to write nearly all bytes.
const HOST_BYTES: u64 = 64 << 20;
const DEVICE_BYTES: u64 = 32 << 20;

/// Steps of one side of a pair.
const STEPS: usize = 3;

struct Trainer {
    engine: Engine,
    order: OrderId,
    tensors: usize,
    step: u64,
}

impl Trainer {
    fn new(path: &Path, durability: Durability, bytes: u64, snapshots: u32) -> Result<Trainer, Failure> {
        let tensors = (bytes / TENSOR_BYTES) as usize;
        let spec = |number: usize| TensorSpec {
            name: format!("{number}"),
            dtype: Dtype::U8,
            shape: vec![TENSOR_BYTES],
            class: Class::OptimizerState,
            life: Life::Durable,
            group: format!("{number}"),
            shard: None,
        };
        let mut config = Config::new(path, HOST_BYTES, DEVICE_BYTES);
        (config.store.durability, config.store.snapshots) = (durability, snapshots);
        let engine = Engine::create(config, &(0..tensors).map(spec).collect::<Vec<_>>())?;
        let mut trainer = Trainer { engine, order: OrderId(0), tensors, step: 0 };
        trainer.order = trainer.declare(Mode::Overwrite)?;
        let update = trainer.declare(Mode::Update)?;
        trainer.step()?;
        trainer.order = update;
        Ok(trainer)
    }

    /// All tensors, one after the other.
    fn declare(&self, mode: Mode) -> Result<OrderId, Failure> {
        let access = |number: usize| {
            let tensor = self.engine.tensor(&number.to_string()).ok_or("no such tensor")?;
            Ok(Access::new("layer", Phase::Optimizer, Tier::Host, vec![self.engine.whole(tensor, mode)]))
        };
        let accesses: Result<Vec<_>, Failure> = (0..self.tensors).map(access).collect();
        Ok(self.engine.declare(Order { accesses: accesses? })?)
    }

    /// A step, and its commit.
    fn step(&mut self) -> Result<Duration, Failure> {
        self.steps(1)
    }

    /// Steps as trainers run them: each begins while the one before is committed; the last one is waited for.
    fn steps(&mut self, count: usize) -> Result<Duration, Failure> {
        let start = Instant::now();
        let mut commit = None;
        for _ in 0..count {
            commit = Some(self.begin()?);
        }
        commit.map(hoist::Commit::wait).transpose()?;
        Ok(start.elapsed())
    }

    /// One byte of each page is changed: the bytes to move are all, the work on them is none.
    fn begin(&mut self) -> Result<hoist::Commit, Failure> {
        self.engine.begin_step(self.order)?;
        for access in 0..self.tensors {
            let mut lease = self.engine.acquire(access)?;
            for part in lease.parts_mut(0) {
                part.iter_mut().step_by(4096).for_each(|byte| *byte = self.step as u8 ^ access as u8);
            }
        }
        self.step += 1;
        Ok(self.engine.commit_step(&Scalars::step(self.step))?)
    }

    /// Whether all tensors are as step `step` has left them.
    fn check(&self, step: u64) -> Result<(), Failure> {
        let order = self.declare(Mode::Read)?;
        self.engine.begin_step(order)?;
        for access in 0..self.tensors {
            let lease = self.engine.acquire(access)?;
            let expected = step as u8 ^ access as u8;
            if !lease.parts(0).all(|part| part.iter().step_by(4096).all(|byte| *byte == expected)) {
                return Err(format!("tensor {access} is not as step {step} has left it").into());
            }
        }
        self.engine.commit_step(&Scalars::default())?.wait()?;
        Ok(())
    }

    fn written_bytes(&self) -> Result<u64, Failure> {
        Ok(self.engine.stats()?.nvme_write_bytes)
    }
}

/// The median of some ratios, the interval in which it lies with 95 % by order statistics, and all of them.
fn say(name: &str, mut ratios: Vec<f64>) -> Result<(), Failure> {
    ratios.sort_by(f64::total_cmp);
    let count = ratios.len() as f64;
    let spread = 0.98 * count.sqrt();
    let at = |place: f64| ratios[place.clamp(0.0, count - 1.0) as usize];
    let (low, high) = (at((count / 2.0 - spread).floor()), at((count / 2.0 + spread).ceil()));
    let (first, last) = (at(0.0), at(count));
    let median = at(count / 2.0);
    writeln!(
        std::io::stdout(),
        "{name}: median {median:.3} (95 %: {low:.3} to {high:.3}; all: {first:.3} to {last:.3})"
    )?;
    Ok(())
}

/// Steps at durability "step" by steps at "none", both of which write the same.
fn commits(directory: &Path, pairs: usize, bytes: u64) -> Result<(), Failure> {
    let mut durable = Trainer::new(&directory.join("step"), Durability::Step, bytes, 0)?;
    let mut in_place = Trainer::new(&directory.join("none"), Durability::None, bytes, 0)?;
    let (mut ratios, mut written) = (Vec::new(), (0, 0));
    for pair in 0..pairs + 1 {
        let before = (durable.written_bytes()?, in_place.written_bytes()?);
        // Each comes first as often as the other.
        let (first, second) = if pair % 2 == 0 {
            let first = durable.steps(STEPS)?;
            (first, in_place.steps(STEPS)?)
        } else {
            let second = in_place.steps(STEPS)?;
            (durable.steps(STEPS)?, second)
        };
        // The first pair warms up.
        if pair > 0 {
            ratios.push(first.as_secs_f64() / second.as_secs_f64());
            written.0 += durable.written_bytes()? - before.0;
            written.1 += in_place.written_bytes()? - before.1;
        }
    }
    writeln!(std::io::stdout(), "bytes written, step / none: {:.3}", written.0 as f64 / written.1 as f64)?;
    say("step time, durability step / none", ratios)?;
    durable.engine.close()?;
    Ok(in_place.engine.close()?)
}

/// How long a snapshot takes, that it is what it was, and steps beside it by steps without one.
fn snapshots(directory: &Path, pairs: usize, bytes: u64) -> Result<(), Failure> {
    let mut trainer = Trainer::new(&directory.join("snapshots"), Durability::Step, bytes, 1)?;
    let (mut ratios, mut times) = (Vec::new(), Vec::new());
    trainer.step()?;
    for pair in 0..pairs {
        let mut both = [Duration::ZERO; 2];
        for kept in if pair % 2 == 0 { [true, false] } else { [false, true] } {
            trainer.step()?;
            if kept {
                let (start, before) = (Instant::now(), trainer.written_bytes()?);
                trainer.engine.snapshot("kept")?;
                times.push(start.elapsed().as_secs_f64() * 1000.0);
                if trainer.written_bytes()? != before {
                    return Err("a snapshot wrote data".into());
                }
            }
            both[usize::from(kept)] = trainer.step()?;
            if kept {
                trainer.engine.delete_snapshot("kept")?;
            }
        }
        ratios.push(both[1].as_secs_f64() / both[0].as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
    let mib = bytes >> 20;
    writeln!(
        std::io::stdout(),
        "a snapshot of {mib} MiB: median {median:.2} ms, at most {last:.2} ms, 0 bytes of data"
    )?;
    say("step time, with a snapshot / without", ratios)?;
    trainer.engine.snapshot("back")?;
    let step = trainer.step - 1;
    trainer.step()?;
    let start = Instant::now();
    trainer.engine.rollback_to("back")?;
    writeln!(std::io::stdout(), "back to it: {:.2} ms", start.elapsed().as_secs_f64() * 1000.0)?;
    trainer.check(step)?;
    Ok(trainer.engine.close()?)
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [path, others @ ..] = arguments.as_slice() else {
        return Err("name a directory on the drive".into());
    };
    let number = |place: usize, default: u64| others.get(place).map_or(Ok(default), |text| text.parse());
    let (pairs, mib) = (number(0, 15)? as usize, number(1, 4096)?);
    let directory = tempfile::tempdir_in(path)?;
    commits(directory.path(), pairs, (mib / 4) << 20)?;
    snapshots(directory.path(), pairs, mib << 20)
}
