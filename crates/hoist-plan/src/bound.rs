use crate::config::Config;
use crate::order::Order;
use crate::pace::pace;
use crate::placement::{Placement, place};
use crate::unit::{Unit, UnitSpec};
use crate::windows::least_windows;

/// What the tiers can move, in bytes per second, as measured in the same run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidths {
    /// NVMe, reading alone.
    pub read: f64,
    /// NVMe, writing alone.
    pub write: f64,
    /// NVMe, what reading gets while it also writes.
    pub mixed_read: f64,
    /// NVMe, what writing gets while it also reads.
    pub mixed_write: f64,
    /// Host to device.
    pub h2d: f64,
    /// Device to host.
    pub d2h: f64,
}

impl Bandwidths {
    /// Least seconds to read and write this much: a drive is not two independent resources, so
    /// both at once pays only when the mixed point lies beyond taking turns.
    pub fn drive_seconds(&self, read_bytes: f64, write_bytes: f64) -> f64 {
        let turns = read_bytes / self.read + write_bytes / self.write;
        let both = (read_bytes / self.mixed_read).min(write_bytes / self.mixed_write);
        let read_left = read_bytes - both * self.mixed_read;
        let write_left = write_bytes - both * self.mixed_write;
        turns.min(both + read_left / self.read + write_left / self.write)
    }
}

/// The resource that a step cannot be faster than.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The NVMe drives.
    Nvme,
    /// The link to the device.
    H2d,
    /// The link from the device.
    D2h,
    /// The trainer's own work.
    Compute,
}

impl Resource {
    /// The word for reports.
    pub fn name(self) -> &'static str {
        match self {
            Resource::Nvme => "nvme",
            Resource::H2d => "h2d",
            Resource::D2h => "d2h",
            Resource::Compute => "compute",
        }
    }
}

/// The least time a step could take, and the least it must move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Largest of bytes / bandwidth over the resources, and compute time: no order respected.
    pub roofline_seconds: f64,
    /// The least time that respects the order of accesses and the memory there is to run ahead
    /// and to lag behind. Never less than the roofline.
    pub bound_seconds: f64,
    /// What binds.
    pub resource: Resource,
    /// Fewest bytes that a step reads from NVMe with these budgets and this durability.
    pub min_read_bytes: u64,
    /// Fewest bytes that it writes.
    pub min_write_bytes: u64,
    /// Host pages left for transit in the split that gives the least time.
    pub transit_pages: u64,
}

/// Splits of the host between residence and transit that are tried.
const SPLITS: u64 = 32;

/// Computes the bound for an order: the least over the splits of the host's pages between what
/// stays and what is in transit.
pub fn bound(order: &Order, units: &[UnitSpec], config: &Config) -> Bound {
    let (least, device) = least_transit(order, units, config);
    let fewest = place(order, units, config, least, device);
    let (roofline_seconds, limit) = roofline(order, &fewest, &config.bandwidths);
    let splits = (0..=SPLITS).map(|split| least.max(config.host_pages * split / SPLITS));
    let tried: Vec<(u64, Placement)> =
        splits.map(|transit| (transit, place(order, units, config, transit, device))).collect();
    let (bound_seconds, best) = least_windows(order, units, config, &tried);
    let resource = roofline(order, &tried[best].1, &config.bandwidths).1;
    let step = fewest.step_traffic();
    Bound {
        roofline_seconds,
        bound_seconds: bound_seconds.max(roofline_seconds),
        resource: if bound_seconds > roofline_seconds { resource } else { limit },
        min_read_bytes: step.read_bytes,
        min_write_bytes: step.write_bytes,
        transit_pages: choose(order, units, config, &tried),
    }
}

/// Splits whose modelled times differ by less are taken for equal, and the one with the fewest bytes
/// is chosen: a real drive makes bytes dearer than a fluid one. (Against the same plan in virtual
/// time, with GPT-2-small and host budgets of 256 MiB to 1 GiB, steps were within 2 % of the
/// fastest split's with 1.5 %, and up to 8 % slower with 3 %.)
const PACE_TOLERANCE: f64 = 1.015;

/// The split to plan with, in pages of transit: nearly the fastest, and of these the one that keeps
/// most. Beside an access and the unit that is to be read next there must be room for one more, or
/// nothing overlaps, which a fluid model does not see.
fn choose(order: &Order, units: &[UnitSpec], config: &Config, tried: &[(u64, Placement)]) -> u64 {
    let reserve = largest_unit_pages(order, units, config);
    let roomy = tried.iter().position(|(transit, _)| *transit >= tried[0].0 + reserve);
    let tried = &tried[roomy.unwrap_or(tried.len() - 1)..];
    let paces: Vec<f64> =
        tried.iter().map(|(_, placement)| pace(order, placement, config, reserve)).collect();
    let fastest = paces.iter().copied().fold(f64::INFINITY, f64::min);
    let chosen = paces.iter().position(|&seconds| seconds <= fastest * PACE_TOLERANCE).unwrap_or(0);
    tried[chosen].0
}

pub(crate) fn largest_unit_pages(order: &Order, units: &[UnitSpec], config: &Config) -> u64 {
    let bytes = order.uses.iter().map(|one| units[one.unit.0 as usize].bytes);
    bytes.max().unwrap_or(0).div_ceil(config.page_bytes).max(1)
}

/// The least pages and device bytes that must be left for what comes and goes: the largest access
/// and, beside it, the largest unit on the host; two of the largest accesses on the device.
pub(crate) fn least_transit(order: &Order, units: &[UnitSpec], config: &Config) -> (u64, u64) {
    let pages = |i: usize| Unit::new(units[order.uses[i].unit.0 as usize].clone(), config.page_bytes).pages;
    let largest_unit = largest_unit_pages(order, units, config);
    let (mut host, mut device) = (2 * largest_unit, 0);
    for position in 0..order.len() {
        let uses = order.uses_at(position);
        match order.tier(position) {
            crate::contract::Tier::Host => host = host.max(uses.map(pages).sum::<u64>() + largest_unit),
            crate::contract::Tier::Device => {
                let bytes = uses.map(|i| units[order.uses[i].unit.0 as usize].bytes).sum::<u64>();
                device = device.max(2 * bytes);
            }
        }
    }
    (host.min(config.host_pages), device.min(config.device_bytes))
}

fn roofline(order: &Order, placement: &Placement, rates: &Bandwidths) -> (f64, Resource) {
    let step = placement.step_traffic();
    let compute = (0..order.len()).map(|p| order.compute_ns(p) as f64 / 1e9).sum();
    [
        (compute, Resource::Compute),
        (rates.drive_seconds(step.read_bytes as f64, step.write_bytes as f64), Resource::Nvme),
        (step.h2d_bytes as f64 / rates.h2d, Resource::H2d),
        (step.d2h_bytes as f64 / rates.d2h, Resource::D2h),
    ]
    .into_iter()
    .fold((0.0, Resource::Compute), |most, one| if one.0 > most.0 { one } else { most })
}
