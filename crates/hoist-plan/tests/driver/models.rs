//! Random models, orders over them, and steps.

use hoist_plan::{AccessSpec, Bandwidths, Config, Event, Kind, Mode, Tier, UnitId, UnitSpec, UnitUse};

use super::{Random, World};

pub const PAGE_BYTES: u64 = 4096;

pub fn config(host_pages: u64, device_bytes: u64, prefetch: bool, write_each_step: bool) -> Config {
    let bandwidths =
        Bandwidths { read: 2e9, write: 2e9, mixed_read: 1e9, mixed_write: 1e9, h2d: 1e10, d2h: 1e10 };
    Config {
        host_pages,
        page_bytes: PAGE_BYTES,
        device_bytes,
        credit_bytes: 16 * PAGE_BYTES,
        prefetch,
        write_each_step,
        bandwidths,
    }
}

/// What random models are like.
#[derive(Clone, Copy)]
pub enum Shape {
    /// A derived unit has one source, and the host holds four of the largest units at least.
    Usual,
    /// The same, and half of the durable units were never written.
    Fresh,
    /// A derived unit has up to three sources, of which another may be made, too.
    ManySources,
    /// The same, and the host holds little more than one of the largest units.
    TightHost,
}

/// A random model: durable units of 1 to `pages` pages, some with derived copies, and scratch.
fn units(random: &mut Random, count: u64, pages: u64, shape: Shape) -> Vec<UnitSpec> {
    let mut specs = Vec::new();
    for _ in 0..count {
        let bytes = 1 + random.below(pages * PAGE_BYTES);
        let stored = random.below(2) > 0 || !matches!(shape, Shape::Fresh);
        match random.below(3) {
            0 => specs.push(UnitSpec { bytes, kind: Kind::Scratch, stored: false }),
            1 => specs.push(UnitSpec { bytes, kind: Kind::Durable, stored }),
            _ => {
                let first = specs.len() as u32;
                let (sources, copies) = match shape {
                    Shape::Usual | Shape::Fresh => (vec![bytes], 1),
                    Shape::ManySources | Shape::TightHost => {
                        let sources = 0..1 + random.below(3);
                        (sources.map(|_| 1 + random.below(pages * PAGE_BYTES)).collect(), 1 + random.below(2))
                    }
                };
                let ids: Vec<UnitId> = (first..first + sources.len() as u32).map(UnitId).collect();
                for bytes in sources {
                    specs.push(UnitSpec { bytes, kind: Kind::Durable, stored });
                }
                for _ in 0..copies {
                    let kind = Kind::Derived { sources: ids.clone() };
                    specs.push(UnitSpec { bytes: bytes.div_ceil(2), kind, stored: false });
                }
            }
        }
    }
    specs
}

fn accesses(random: &mut Random, specs: &[UnitSpec], count: u64) -> Vec<AccessSpec> {
    let mut written = vec![false; specs.len()];
    (0..count)
        .map(|_| {
            let tier = if random.below(2) == 0 { Tier::Device } else { Tier::Host };
            let mut uses: Vec<UnitUse> = Vec::new();
            for _ in 0..1 + random.below(3) {
                let index = random.below(specs.len() as u64) as usize;
                if uses.iter().any(|one| one.unit.0 as usize == index) {
                    continue;
                }
                let scratch = specs[index].kind == Kind::Scratch;
                let mode = match random.below(3) {
                    _ if scratch && !written[index] => Mode::Overwrite,
                    0 => Mode::Update,
                    1 => Mode::Overwrite,
                    _ => Mode::Read,
                };
                written[index] |= mode.writes();
                uses.push(UnitUse { unit: UnitId(index as u32), mode });
            }
            AccessSpec { tier, uses, compute_ns: random.below(1000) }
        })
        .collect()
}

pub fn world(seed: u64, prefetch: bool, each_step: bool) -> Option<World> {
    world_of(Shape::Usual, seed, prefetch, each_step)
}

pub fn world_of(shape: Shape, seed: u64, prefetch: bool, each_step: bool) -> Option<World> {
    let mut random = Random(seed);
    let count = 2 + random.below(12);
    let pages = 1 + random.below(6);
    let specs = units(&mut random, count, pages, shape);
    let host_units = if matches!(shape, Shape::TightHost) { 1 } else { 4 };
    let host_pages = host_units * pages + random.below(3 * pages * count + 1);
    let device_bytes = (4 * pages + random.below(2 * pages * count + 1)) * PAGE_BYTES;
    let mut world =
        World::new(config(host_pages, device_bytes, prefetch, each_step), specs.clone(), seed ^ 0xA5);
    let length = 1 + random.below(25);
    let order = accesses(&mut random, &specs, length);
    world.order = world.declare(order)?;
    Some(world)
}

pub fn run_steps(world: &mut World, steps: u64, departures: u64) {
    world.one_at_a_time = true;
    for _ in 0..steps {
        let order = world.order;
        world.event(Event::StepBegun(order));
        let length = world.accesses[&order].len();
        let mut access = 0;
        while access < length {
            let departs = departures > 0 && world.random.below(100) < departures;
            let target = if departs { world.random.below(length as u64) as usize } else { access };
            world.access(target);
            access = target + 1;
        }
        world.commit();
    }
    world.finish_commits();
}

/// Where a search for seeds begins: `HOIST_SEEDS`, else 0.
pub fn first_seed() -> u64 {
    std::env::var("HOIST_SEEDS").map_or(0, |text| text.parse().expect("HOIST_SEEDS is a number"))
}
