//! A store over two drives of 600 and 200 MB/s (token buckets over one disk): what both give together, and how soon new
//! writes follow when the first slows down to 100 MB/s. `just bench-spread DIR`.

use crossbeam_channel::Receiver;
use hoist_io::{IoThread, Rate, Throttled};
use hoist_memory::Slab;
use hoist_store::*;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a trainer moves at a time.
const UNIT_BYTES: u64 = 32 << 20;
/// Enough that the whole takes about a second at 800 MB/s.
const UNITS: u64 = 24;
/// In flight at once: the drives never wait for the program.
const IN_FLIGHT: usize = 4;
const RATES: [u64; 2] = [600_000_000, 200_000_000];
const SLOWED: u64 = 100_000_000;
const SLOWED_SHARE: f64 = 1.0 / 3.0;

type Failure = Box<dyn std::error::Error>;

struct Bench {
    store: Store,
    completions: Receiver<Completion>,
    slab: Arc<Slab>,
    checksums: Vec<u64>,
    id: u64,
    /// When the first drive slowed down, and how much later its share had followed.
    slowed: Option<Instant>,
    followed: Option<Duration>,
}

impl Bench {
    fn new(directory: &std::path::Path, rates: &[Rate]) -> Result<Bench, Failure> {
        let nvme_path = (0..rates.len()).map(|place| directory.join(format!("drive-{place}"))).collect();
        let config = Config { nvme_path, ..Config::default() };
        let budget_bytes = UNIT_BYTES * (IN_FLIGHT as u64 + 1);
        let slab = Slab::map(&hoist_memory::Config { budget_bytes, ..Default::default() })?;
        let (sender, completions) = crossbeam_channel::unbounded();
        let deliver = move |completion| drop(sender.send(completion));
        let start = |place: usize, deliver| {
            let (slab, rate) = (Arc::clone(&slab), rates[place].clone());
            let open = move || {
                let backend = hoist_io::open(&hoist_io::Config::default(), &slab)?;
                Ok(Box::new(Throttled::new(backend, &rate)) as _)
            };
            IoThread::spawn_with("drive", open, deliver)
        };
        let spec = |unit: u64| TensorSpec {
            name: format!("unit.{unit}"),
            dtype: Dtype::U8,
            shape: vec![UNIT_BYTES],
            class: Class::Parameter,
            life: Life::Durable,
            group: format!("{unit}"),
            shard: None,
        };
        let specs: Vec<_> = (0..UNITS).map(spec).collect();
        let store = Store::create_on(&config, &start, &specs, deliver)?;
        let mut checksums = Vec::new();
        checksum(slab.allocate(UNIT_BYTES).ok_or("no room in the slab")?.parts(), &mut checksums);
        Ok(Bench { store, completions, slab, checksums, id: 0, slowed: None, followed: None })
    }

    /// Moves all units once; a pass that writes is an epoch. Bytes per second.
    fn pass(&mut self, writes: bool) -> Result<f64, Failure> {
        let start = Instant::now();
        let (mut started, mut ended) = (0, 0);
        while ended < UNITS {
            while started < UNITS && started - ended < IN_FLIGHT as u64 {
                let span = Span { run: RunId(started as u32), offset: 0, bytes: UNIT_BYTES };
                let slot = self.slab.allocate(UNIT_BYTES).ok_or("no room in the slab")?;
                self.id += 1;
                self.look();
                if writes {
                    let written = self.store.write(self.id, span, slot.share(), &self.checksums);
                    written.map_err(|(_, error)| error)?;
                } else {
                    let started = self.store.read(self.id, span, slot, Priority::Demand);
                    started.map_err(|(_, error)| error)?;
                }
                started += 1;
            }
            match self.event()? {
                StoreEvent::Read { result, .. } | StoreEvent::Written { result, .. } => result?,
                StoreEvent::Committed { result, .. } | StoreEvent::Recorded { result } => {
                    result?;
                    continue;
                }
            }
            ended += 1;
        }
        let rate = (UNITS * UNIT_BYTES) as f64 / start.elapsed().as_secs_f64();
        if writes {
            self.store.commit(&Scalars::default())?;
            while !matches!(self.event()?, StoreEvent::Committed { .. }) {}
        }
        Ok(rate)
    }

    fn event(&mut self) -> Result<StoreEvent, Failure> {
        loop {
            let completion = self.completions.recv()?;
            if let Some(event) = self.store.handle(completion) {
                return Ok(event);
            }
        }
    }

    /// Whether new writes are divided as the drives are now.
    fn look(&mut self) {
        let follows = (self.share() / SLOWED_SHARE - 1.0).abs() < 0.1;
        if let Some(slowed) = self.slowed.filter(|_| follows && self.followed.is_none()) {
            self.followed = Some(slowed.elapsed());
        }
    }

    fn share(&self) -> f64 {
        self.store.directories().next().map_or(0.0, |first| first.write_share)
    }
}

fn main() -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let directory =
        std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or(".".into());
    let folder = tempfile::tempdir_in(directory)?;
    let rates: Vec<Rate> = RATES.iter().map(|rate| Rate::new(*rate)).collect();
    let mut bench = Bench::new(folder.path(), &rates)?;
    writeln!(out, "created: the first drive gets {:.2} of new writes (0.75 is its part)", bench.share())?;
    bench.pass(true)?;
    for (name, writes) in [("write", true), ("read", false)] {
        let mut ratios = Vec::new();
        for _ in 0..15 {
            ratios.push(bench.pass(writes)? / RATES.iter().sum::<u64>() as f64);
        }
        ratios.sort_by(f64::total_cmp);
        writeln!(
            out,
            "{name}: {:.3} of 800 MB/s (median of 15; {:.3} to {:.3})",
            ratios[7], ratios[0], ratios[14]
        )?;
    }
    rates[0].set(SLOWED);
    let slowed = Instant::now();
    bench.slowed = Some(slowed);
    while slowed.elapsed() < Duration::from_secs(15) {
        let (share, rate) = (bench.share(), bench.pass(true)?);
        writeln!(
            out,
            "{:5.2} s after the first slowed to 100 MB/s: its part {share:.2}, {:.0} MB/s",
            slowed.elapsed().as_secs_f64(),
            rate / 1e6
        )?;
    }
    writeln!(out, "within 10 % of its new part ({SLOWED_SHARE:.2}) after {:?}", bench.followed)?;
    bench.store.close()?;
    Ok(())
}
