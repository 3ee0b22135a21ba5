//! A model that is read where it lies: how soon its first lease is granted, and how fast all of it goes by, in pairs with
//! fio on the same file. `just bench-in-place DIR`; needs fio (Debian's package of that name).

use hoist::{Access, Config, Engine, Mode, Order, OrderId, Phase, Scalars, Tier};
use hoist_memory::Slab;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

/// As in a model of 1 GiB: large matrices, and vectors that travel in bundles.
const LARGE_BYTES: usize = 32 << 20;
const SMALL_BYTES: usize = 4096;
/// A quarter of the model: most of it must pass through.
const HOST_BYTES: u64 = 256 << 20;
const DEVICE_BYTES: u64 = 16 << 20;
/// Times that the file is read in one measurement, so that it takes a second.
const PASSES: usize = 3;

/// A safetensors file with contents that follow from the place; its data begins off every alignment but that of a float.
fn write_model(path: &Path, layers: usize) -> Result<u64, Failure> {
    let (mut header, mut at) = (String::from("{"), 0);
    for layer in 0..layers {
        for (name, bytes) in [("norm", SMALL_BYTES), ("weight", LARGE_BYTES)] {
            let (comma, end) = (if at == 0 { "" } else { "," }, at + bytes);
            header += &format!(
                "{comma}\"layer.{layer}.{name}\":{{\"dtype\":\"F32\",\"shape\":[{}],\"data_offsets\":[{at},{end}]}}",
                bytes / 4
            );
            at = end;
        }
    }
    header.push('}');
    while header.len() % 8 != 4 {
        header.push(' ');
    }
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for place in 0..(at / 8) as u64 {
        file.write_all(&place.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())?;
    }
    file.into_inner()?.sync_all()?;
    Ok((8 + header.len() + at) as u64)
}

/// All tensors in order, each an access of its own.
fn declare(engine: &Engine) -> Result<(OrderId, usize), Failure> {
    let access = |tensor: &hoist::TensorInfo| {
        let id = engine.tensor(&tensor.spec.name).ok_or("no such tensor")?;
        let whole = vec![engine.whole(id, Mode::Read)];
        Ok::<_, Failure>(Access::new("layer", Phase::Forward, Tier::Host, whole))
    };
    let accesses: Vec<Access> = engine.tensors().iter().map(access).collect::<Result<_, _>>()?;
    let count = accesses.len();
    Ok((engine.declare(Order { accesses })?, count))
}

/// From the call that opens to the first lease, its slab included.
fn first_lease(open: impl FnOnce() -> Result<Engine, Failure>) -> Result<Duration, Failure> {
    let start = Instant::now();
    let engine = open()?;
    let (order, _) = declare(&engine)?;
    engine.begin_step(order)?;
    drop(engine.acquire(0)?);
    let took = start.elapsed();
    engine.abort_step()?;
    engine.close()?;
    Ok(took)
}

/// All of the model, so many times: bytes a second, of those that came from the file. What the host kept from one pass to
/// the next is leased as well, and not counted.
fn stream(engine: &Engine, (order, count): (OrderId, usize)) -> Result<f64, Failure> {
    let (start, before) = (Instant::now(), engine.stats()?.nvme_read_bytes);
    for _ in 0..PASSES {
        engine.begin_step(order)?;
        for access in 0..count {
            drop(engine.acquire(access)?);
        }
        engine.commit_step(&Scalars::default())?.wait()?;
    }
    Ok((engine.stats()?.nvme_read_bytes - before) as f64 / start.elapsed().as_secs_f64())
}

/// The same by fio, as it is best on such a file: transparent huge pages, registered. Bytes a second.
fn fio(file: &Path, bytes: u64) -> Result<f64, Failure> {
    let whole = bytes - bytes % (1 << 20);
    let given =
        [format!("--filename={}", file.display()), format!("--size={whole}"), format!("--loops={PASSES}")];
    let words = "--name=read --rw=read --bs=1M --iodepth=32 --direct=1 --ioengine=io_uring --registerfiles=1 --nonvectored=1 \
                 --fixedbufs=1 --iomem=malloc --allow_file_create=0 --output-format=terse --terse-version=3";
    let mut command = Command::new("fio");
    command.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1").args(given).args(words.split_whitespace());
    let output = command.output()?;
    // Terse output, version 3: the sixth field is KiB read, the ninth milliseconds.
    let text = String::from_utf8(output.stdout)?;
    let field = |number: usize| text.split(';').nth(number).and_then(|field| field.parse::<f64>().ok());
    let (Some(kib), Some(milliseconds)) = (field(5), field(8)) else {
        return Err(format!("fio says: {text}{}", String::from_utf8_lossy(&output.stderr)).into());
    };
    Ok(kib * 1024.0 / (milliseconds / 1e3))
}

/// The median, the interval in which it lies with 95 % by order statistics, and all.
fn say(name: &str, unit: &str, mut found: Vec<f64>) -> Result<(), Failure> {
    found.sort_by(f64::total_cmp);
    let count = found.len() as f64;
    let at = |place: f64| found[place.clamp(0.0, count - 1.0) as usize];
    let spread = 0.98 * count.sqrt();
    let (low, high) = (at((count / 2.0 - spread).floor()), at((count / 2.0 + spread).ceil()));
    let (first, median, last) = (at(0.0), at(count / 2.0), at(count));
    writeln!(
        std::io::stdout(),
        "{name}: median {median:.3}{unit} (95 %: {low:.3} to {high:.3}; all: {first:.3} to {last:.3})"
    )?;
    Ok(())
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let directory = PathBuf::from(arguments.next().ok_or("give the directory, on the drive to measure")?);
    let pairs: usize = arguments.next().map_or(Ok(15), |count| count.parse())?;
    let layers: usize = arguments.next().map_or(Ok(32), |count| count.parse())?;
    let folder = tempfile::tempdir_in(&directory)?;
    let model = folder.path().join("model.safetensors");
    let bytes = write_model(&model, layers)?;
    let config = || Config::new(folder.path().join("store"), HOST_BYTES, DEVICE_BYTES);
    let (mut slabs, mut new, mut again) = (Vec::new(), Vec::new(), Vec::new());
    let milliseconds = |took: Duration| took.as_secs_f64() * 1e3;
    for _ in 0..pairs {
        let start = Instant::now();
        drop(Slab::map(&config().host)?);
        slabs.push(milliseconds(start.elapsed()));
        let _ = std::fs::remove_dir_all(folder.path().join("store"));
        new.push(milliseconds(first_lease(|| Ok(Engine::create_over(config(), &model, &[])?))?));
        again.push(milliseconds(first_lease(|| Ok(Engine::open(config())?))?));
    }
    say("mapping a slab", " ms", slabs)?;
    say("first lease, of a new store, slab included", " ms", new)?;
    say("first lease, of one that is opened, slab included", " ms", again)?;
    let engine = Engine::open(config())?;
    let order = declare(&engine)?;
    stream(&engine, order)?;
    let mut ratios = Vec::new();
    for pair in 0..pairs {
        let (hoist, fio) = match pair % 2 {
            0 => (stream(&engine, order)?, fio(&model, bytes)?),
            _ => {
                let fio = fio(&model, bytes)?;
                (stream(&engine, order)?, fio)
            }
        };
        writeln!(
            std::io::stdout(),
            "  pair {pair}: hoist {:.3} GB/s, fio {:.3} GB/s",
            hoist / 1e9,
            fio / 1e9
        )?;
        ratios.push(hoist / fio);
    }
    say("all of it, hoist / fio", "", ratios)?;
    engine.close()?;
    Ok(())
}
