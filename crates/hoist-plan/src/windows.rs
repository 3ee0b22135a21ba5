//! The time that no schedule can beat: what each stretch of the order must move by itself.

use crate::bound::Bandwidths;
use crate::config::Config;
use crate::order::Order;
use crate::placement::{Placement, Traffic};
use crate::unit::{Kind, UnitSpec};

/// At most this many stretches of the order are compared with each other: the work is quadratic,
/// and joining accesses only lowers the bound, never raises it above the truth.
const STRETCHES_MAX: usize = 128;

/// Steps that are cut into windows, as many as make little of the head start that the first is given: it is worth less
/// than a tenth of a step (GPT-2-small), and so a hundredth of the bound.
const STEPS: usize = 10;

/// In how many parts the memory between two accesses is shared out between what is read ahead and
/// what is not written yet. Whatever the schedule does lies in one of them.
const SHARES: usize = 4;

/// Consecutive accesses that are taken as one.
struct Stretch {
    compute_seconds: f64,
    moved: Traffic,
    /// What the placement leaves of the host at its begin.
    slack_bytes: f64,
    /// What the placement keeps there that may still have to be written.
    unsaved_bytes: f64,
}

/// The least seconds of a step, over the placements, and the index of the placement it is for.
pub(crate) fn least_windows(
    order: &Order,
    units: &[UnitSpec],
    config: &Config,
    tried: &[(u64, Placement)],
) -> (f64, usize) {
    // Without shares it is far less work, and a bound too, if a lower one: it says where to look.
    let stretches: Vec<_> =
        tried.iter().map(|(_, placement)| join(order, units, placement, config)).collect();
    let mut coarse: Vec<_> = stretches.iter().map(|one| windows(one, config, 1)).enumerate().collect();
    coarse.sort_by(|one, other| one.1.total_cmp(&other.1));
    let mut least = (f64::INFINITY, 0);
    for (index, lower) in coarse {
        if lower >= least.0 {
            break;
        }
        let seconds = windows(&stretches[index], config, SHARES);
        if seconds < least.0 {
            least = (seconds, index);
        }
    }
    least
}

/// Cuts steps into windows so that the sum of what each window must take is largest.
///
/// A window of consecutive accesses takes at least its compute time, and at least the time for what
/// it must move itself: its reads less what had been fetched ahead when it began, its writes less
/// what is left to later ones when it ends, and likewise for the links with the device's memory.
/// What is ahead and what is behind share the memory that the placement leaves, at every begin of a
/// window: `least[w][s]` is the least time to come to `w` with a share of `s` to `s + 1` parts of
/// it ahead. Windows do not overlap in time, so the sum is a lower bound whatever the schedule.
fn windows(stretches: &[Stretch], config: &Config, shares: usize) -> f64 {
    let count = stretches.len();
    let mut least = vec![vec![0.0f64; shares]; STEPS * count + 1];
    for end in 1..=STEPS * count {
        let after = &stretches[end % count];
        let mut window = Window::default();
        let mut most = vec![0.0f64; shares];
        for begin in (end.saturating_sub(count)..end).rev() {
            let first = &stretches[begin % count];
            window.add(first);
            for (share, most) in most.iter_mut().enumerate() {
                let behind = after.slack_bytes * (1.0 - share as f64 / shares as f64) + after.unsaved_bytes;
                let to_here = least[begin].iter().enumerate().map(|(share, before)| {
                    let ahead = first.slack_bytes * (share + 1) as f64 / shares as f64;
                    before + window.seconds(ahead, behind, config)
                });
                *most = most.max(to_here.fold(f64::INFINITY, f64::min));
            }
        }
        least[end] = most;
    }
    // However many steps are done in a row, from whatever is in memory before, they take no less.
    let of = |steps: usize| least[steps * count].iter().copied().fold(f64::INFINITY, f64::min) / steps as f64;
    (1..=STEPS).map(of).fold(0.0, f64::max)
}

#[derive(Default)]
struct Window {
    compute_seconds: f64,
    moved: Traffic,
}

impl Window {
    fn add(&mut self, stretch: &Stretch) {
        self.compute_seconds += stretch.compute_seconds;
        self.moved = self.moved.plus(&stretch.moved);
    }

    fn seconds(&self, ahead_bytes: f64, behind_bytes: f64, config: &Config) -> f64 {
        let rates: &Bandwidths = &config.bandwidths;
        let beyond = |bytes: u64, slack: f64| (bytes as f64 - slack).max(0.0);
        let (read, write) = (self.moved.read_bytes, self.moved.write_bytes);
        let device = config.device_bytes as f64;
        self.compute_seconds
            .max(rates.drive_seconds(beyond(read, ahead_bytes), beyond(write, behind_bytes)))
            .max(beyond(self.moved.h2d_bytes, device) / rates.h2d)
            .max(beyond(self.moved.d2h_bytes, device) / rates.d2h)
    }
}

/// Joins neighbouring accesses until there are few enough.
fn join(order: &Order, units: &[UnitSpec], placement: &Placement, config: &Config) -> Vec<Stretch> {
    let each = order.len().div_ceil(STRETCHES_MAX);
    let unsaved_bytes = unsaved_bytes(order, units, placement, config);
    (0..order.len())
        .step_by(each)
        .map(|from| {
            let to = (from + each).min(order.len());
            let before = (from + order.len() - 1) % order.len();
            let free_pages = config.host_pages - placement.host_pages[before].min(config.host_pages);
            Stretch {
                compute_seconds: (from..to).map(|p| order.compute_ns(p) as f64 / 1e9).sum(),
                moved: placement.traffic[from..to].iter().fold(Traffic::default(), |sum, one| sum.plus(one)),
                slack_bytes: (free_pages * config.page_bytes) as f64,
                unsaved_bytes: unsaved_bytes[before] as f64,
            }
        })
        .collect()
}

/// Between each access and the next: bytes that are kept and are written once a step, at any time.
fn unsaved_bytes(order: &Order, units: &[UnitSpec], placement: &Placement, config: &Config) -> Vec<u64> {
    let mut sums = vec![0; order.len()];
    for (index, unit) in units.iter().enumerate() {
        let uses = order.uses_of(crate::contract::UnitId(index as u32));
        let written = uses.iter().any(|&i| order.uses[i as usize].mode.writes());
        if !config.write_each_step || !written || !matches!(unit.kind, Kind::Durable) {
            continue;
        }
        let kept = |i: usize| placement.keep_host[i] || placement.keep_device[i];
        for i in uses.iter().map(|&i| i as usize).filter(|&i| kept(i)) {
            let begin = order.position_of(i);
            for gap in begin..begin + order.uses[i].gap as usize {
                sums[gap % order.len()] += unit.bytes;
            }
        }
    }
    sums
}
