//! A store of a million small tensors: how long it takes to create, commit, close and open it, and how much memory each
//! tensor takes. `just bench-tensors DIR`.

use hoist_memory::Slab;
use hoist_store::*;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

/// As many small tensors share a layer, unless the call says another number: a mixture of experts has some hundreds. With
/// one, each tensor has a run of its own, as large ones do.
const LAYER_TENSORS: usize = 200;

/// Names as models have them, elements as biases have them.
fn specs(count: usize, layer_tensors: usize) -> Vec<TensorSpec> {
    let spec = |number: usize| TensorSpec {
        name: format!("model.layers.{}.experts.{}.bias", number / layer_tensors, number % layer_tensors),
        dtype: Dtype::BF16,
        shape: vec![128],
        class: Class::Parameter,
        life: Life::Durable,
        group: format!("model.layers.{}", number / layer_tensors),
        shard: None,
    };
    (0..count).map(spec).collect()
}

/// Resident bytes of this process.
fn resident_bytes() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib << 10)
}

/// What a name says, done and timed.
fn timed<T>(name: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    let start = Instant::now();
    let done = work()?;
    writeln!(std::io::stdout(), "{name}: {:.2} s", start.elapsed().as_secs_f64())?;
    Ok(done)
}

/// Writes every byte of every run.
fn fill(store: &mut BlockingStore, seed: u8) -> Result<(), Error> {
    for run in 0..store.store().runs().len() as u32 {
        let span = Span { run: RunId(run), offset: 0, bytes: store.store().runs()[run as usize].bytes };
        store.write(span, |offset, slot| {
            slot.parts_mut().for_each(|part| part.fill(seed ^ (offset >> 18) as u8 ^ run as u8));
            Ok(())
        })?;
    }
    store.finish_writes()
}

/// Makes the store.
fn create(config: &Config, specs: &[TensorSpec]) -> Result<(), Failure> {
    let (io, slab) = (hoist_io::Config::default(), slab()?);
    let mut store = timed("create", || BlockingStore::create(config, &io, &slab, specs))?;
    timed("write", || fill(&mut store, 1))?;
    timed("commit", || store.commit())?;
    timed("close", || store.close())
}

/// Opens it, in a process in which nothing else has taken memory.
fn open(config: &Config) -> Result<(), Failure> {
    let (io, slab) = (hoist_io::Config::default(), slab()?);
    let before = resident_bytes()?;
    let mut store = timed("open", || BlockingStore::open(config, &io, &slab))?;
    let count = store.store().tensors().len();
    let bytes = resident_bytes()?.saturating_sub(before) as f64 / count as f64;
    writeln!(std::io::stdout(), "{bytes:.0} bytes of memory for each of {count} tensors")?;
    timed("write", || fill(&mut store, 2))?;
    timed("commit", || store.commit())?;
    timed("close", || store.close())
}

fn slab() -> Result<Arc<Slab>, Failure> {
    Ok(Slab::map(&hoist_memory::Config { budget_bytes: 64 << 20, ..Default::default() })?)
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let config = |path: &Path| Config { nvme_path: vec![path.join("store")], ..Config::default() };
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [path, "open"] => open(&config(Path::new(path))),
        [path, ref numbers @ ..] => {
            let number = |at: usize, or| numbers.get(at).map_or(Ok(or), |number: &&str| number.parse());
            let (count, layer_tensors) = (number(0, 1_000_000)?, number(1, LAYER_TENSORS)?);
            let directory = tempfile::tempdir_in(path)?;
            create(&config(directory.path()), &specs(count, layer_tensors))?;
            let mut again = std::process::Command::new(std::env::current_exe()?);
            let ended = again.arg(directory.path()).arg("open").status()?;
            if ended.success() { Ok(()) } else { Err(format!("opening it ended with {ended}").into()) }
        }
        [] => Err("name a directory on the drive".into()),
    }
}
