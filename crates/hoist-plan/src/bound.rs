use crate::config::Config;
use crate::order::Order;
use crate::pace::pace;
use crate::placement::{Placement, Traffic, place};
use crate::unit::{Unit, UnitSpec};

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

/// At most this many stretches of the order are compared with each other: the work is quadratic,
/// and joining accesses only lowers the bound, never raises it above the truth.
const STRETCHES_MAX: usize = 512;

/// Splits of the host between residence and transit that are tried.
const SPLITS: u64 = 16;

/// Computes the bound for an order: the least over the splits of the host's pages between what
/// stays and what is in transit.
pub fn bound(order: &Order, units: &[UnitSpec], config: &Config) -> Bound {
    let (least, device) = least_transit(order, units, config);
    let fewest = place(order, units, config, least, device);
    let (roofline_seconds, limit) = roofline(order, &fewest, &config.bandwidths);
    let splits = (0..=SPLITS).map(|split| least.max(config.host_pages * split / SPLITS));
    let tried: Vec<(u64, Placement)> =
        splits.map(|transit| (transit, place(order, units, config, transit, device))).collect();
    let mut bound_seconds = f64::INFINITY;
    let mut resource = limit;
    for (transit, placement) in &tried {
        let seconds = windows(order, placement, config, transit * config.page_bytes);
        if seconds < bound_seconds {
            bound_seconds = seconds;
            resource = roofline(order, placement, &config.bandwidths).1;
        }
    }
    // Of nearly equal times the fewer bytes: the first, which keeps most.
    let paces: Vec<f64> = tried.iter().map(|(_, placement)| pace(order, placement, config)).collect();
    let fastest = paces.iter().copied().fold(f64::INFINITY, f64::min);
    let chosen = paces.iter().position(|&seconds| seconds <= fastest * PACE_TOLERANCE).unwrap_or(0);
    let step = fewest.step_traffic();
    Bound {
        roofline_seconds,
        bound_seconds: bound_seconds.max(roofline_seconds),
        resource: if bound_seconds > roofline_seconds { resource } else { limit },
        min_read_bytes: step.read_bytes,
        min_write_bytes: step.write_bytes,
        transit_pages: tried[chosen].0,
    }
}

/// Splits whose modelled times differ by less are taken for equal, and the one with the fewest bytes
/// is chosen: against the same plan in virtual time the model was within 3 % (GPT-2-small, host
/// budgets of 256 MiB to 1 GiB), and a real drive makes bytes dearer than a fluid one.
const PACE_TOLERANCE: f64 = 1.03;

/// The least pages and device bytes that must be left for what comes and goes: the largest access
/// and, beside it, the largest unit on the host; two of the largest accesses on the device.
pub(crate) fn least_transit(order: &Order, units: &[UnitSpec], config: &Config) -> (u64, u64) {
    let pages = |i: usize| Unit::new(units[order.uses[i].unit.0 as usize].clone(), config.page_bytes).pages;
    let largest_unit = (0..order.uses.len()).map(pages).max().unwrap_or(1);
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

/// Cuts four steps into windows so that the sum of what each window must take is largest.
///
/// A window of consecutive accesses takes at least its compute time, and at least the time for
/// what it must move itself: its reads less what can have been fetched ahead (the transit memory),
/// its writes less what may lag behind (the same), and likewise for the links with the device's
/// memory. Windows do not overlap in time, so the sum is a lower bound whatever the schedule.
fn windows(order: &Order, placement: &Placement, config: &Config, transit_bytes: u64) -> f64 {
    const STEPS: usize = 4;
    let stretches = join(order, placement);
    let count = stretches.len();
    let mut most = vec![0.0f64; STEPS * count + 1];
    for end in 1..=STEPS * count {
        let mut compute = 0.0;
        let mut sum = Traffic::default();
        for begin in (end.saturating_sub(count)..end).rev() {
            let (seconds, moved) = &stretches[begin % count];
            compute += seconds;
            sum.read_bytes += moved.read_bytes;
            sum.write_bytes += moved.write_bytes;
            sum.h2d_bytes += moved.h2d_bytes;
            sum.d2h_bytes += moved.d2h_bytes;
            let beyond = |bytes: u64, slack: u64| bytes.saturating_sub(slack) as f64;
            let rates = &config.bandwidths;
            let least = compute
                .max(rates.drive_seconds(
                    beyond(sum.read_bytes, transit_bytes),
                    beyond(sum.write_bytes, transit_bytes),
                ))
                .max(beyond(sum.h2d_bytes, config.device_bytes) / rates.h2d)
                .max(beyond(sum.d2h_bytes, config.device_bytes) / rates.d2h);
            most[end] = most[end].max(most[begin] + least);
        }
    }
    // The steady state: what the later steps add, without the head start of the first.
    (most[STEPS * count] - most[count]) / (STEPS - 1) as f64
}

/// Joins neighbouring accesses until there are few enough.
fn join(order: &Order, placement: &Placement) -> Vec<(f64, Traffic)> {
    let each = order.len().div_ceil(STRETCHES_MAX);
    (0..order.len())
        .step_by(each)
        .map(|from| {
            let to = (from + each).min(order.len());
            let seconds = (from..to).map(|p| order.compute_ns(p) as f64 / 1e9).sum();
            let moved = placement.traffic[from..to].iter().fold(Traffic::default(), |sum, one| Traffic {
                read_bytes: sum.read_bytes + one.read_bytes,
                write_bytes: sum.write_bytes + one.write_bytes,
                h2d_bytes: sum.h2d_bytes + one.h2d_bytes,
                d2h_bytes: sum.d2h_bytes + one.d2h_bytes,
            });
            (seconds, moved)
        })
        .collect()
}
