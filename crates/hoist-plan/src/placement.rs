use std::collections::BTreeSet;

use crate::arena::Arena;
use crate::config::Config;
use crate::contract::{Mode, Tier, UnitId};
use crate::order::Order;
use crate::unit::{Kind, Unit, UnitSpec};

/// Bytes that one access moves because of the placement, in steady state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Read from NVMe before it.
    pub read_bytes: u64,
    /// Written to NVMe after it.
    pub write_bytes: u64,
    /// Copied to the device before it.
    pub h2d_bytes: u64,
    /// Copied from the device after it.
    pub d2h_bytes: u64,
}

impl Traffic {
    pub(crate) fn plus(&self, other: &Traffic) -> Traffic {
        Traffic {
            read_bytes: self.read_bytes + other.read_bytes,
            write_bytes: self.write_bytes + other.write_bytes,
            h2d_bytes: self.h2d_bytes + other.h2d_bytes,
            d2h_bytes: self.d2h_bytes + other.d2h_bytes,
        }
    }
}

/// What stays where between two uses of a unit, and what must move therefore.
///
/// Computed by Belady's rule (MIN, L. A. Belady 1966: give up what is needed farthest in the
/// future) on the cyclic order, first for the device and then for the host, over the part of each
/// tier that is not transit.
#[derive(Clone, Debug)]
pub struct Placement {
    /// For each use of the order: the unit stays on the host until its next use.
    pub(crate) keep_host: Vec<bool>,
    /// For each use of the order: the unit stays on the device until its next use.
    pub(crate) keep_device: Vec<bool>,
    /// For each use: its unit is kept for it by the use before, on the host or on the device.
    pub(crate) kept_until: Vec<bool>,
    /// For each use: its unit is kept for it on the device.
    pub(crate) kept_on_device_until: Vec<bool>,
    /// Pages kept on the host between each access and the next.
    pub(crate) host_pages: Vec<u64>,
    /// Bytes kept on the device between each access and the next.
    pub(crate) device_bytes: Vec<u64>,
    /// What each access moves.
    pub traffic: Vec<Traffic>,
}

impl Placement {
    /// Sum over one step.
    pub fn step_traffic(&self) -> Traffic {
        self.traffic.iter().fold(Traffic::default(), |sum, one| sum.plus(one))
    }
}

/// A unit that could stay in a tier from one use to the next.
struct Stay {
    use_index: usize,
    begin: usize,
    gaps: usize,
    size: u64,
}

/// Places all units of the order: `transit_pages` of the host and `transit_device_bytes` of the
/// device are left for what comes and goes.
pub fn place(
    order: &Order,
    units: &[UnitSpec],
    config: &Config,
    transit_pages: u64,
    transit_device_bytes: u64,
) -> Placement {
    let length = order.len();
    let stay = |use_index: usize, size: u64| Stay {
        use_index,
        begin: order.position_of(use_index),
        gaps: order.uses[use_index].gap as usize,
        size,
    };
    let tier_of = |use_index: usize| order.tier(order.position_of(use_index));

    let mut keep_device = vec![false; order.uses.len()];
    let mut device_bytes = vec![0; length];
    let on_device = (0..order.uses.len())
        .filter(|&i| tier_of(i) == Tier::Device)
        .filter(|&i| order.uses[i].next_tier == Tier::Device && order.uses[i].next_reads)
        .map(|i| stay(i, Arena::rounded(units[order.uses[i].unit.0 as usize].bytes)))
        .collect::<Vec<_>>();
    let room = config.device_bytes.saturating_sub(transit_device_bytes);
    pack(&on_device, room, &mut device_bytes, &mut keep_device);

    let mut keep_host = vec![false; order.uses.len()];
    let mut host_pages = vec![0; length];
    let room = config.host_pages.saturating_sub(transit_pages);
    // A stay that saves a write as well as a read goes before one that saves a read alone.
    for saves_write in [true, false] {
        let on_host = (0..order.uses.len())
            .filter(|&i| order.uses[i].next_reads && !keep_device[i])
            .filter(|&i| saves_write == stay_saves_write(order, units, config, order.uses[i].unit))
            .map(|i| {
                stay(i, Unit::new(units[order.uses[i].unit.0 as usize].clone(), config.page_bytes).pages)
            })
            .collect::<Vec<_>>();
        pack(&on_host, room, &mut host_pages, &mut keep_host);
    }
    let traffic = count(order, units, config, &keep_host, &keep_device);
    let mut kept_until = vec![false; order.uses.len()];
    let mut kept_on_device_until = vec![false; order.uses.len()];
    for unit in 0..units.len() as u32 {
        let uses = order.uses_of(UnitId(unit));
        for (i, &this) in uses.iter().enumerate() {
            let next = uses[(i + 1) % uses.len()] as usize;
            kept_until[next] = keep_host[this as usize] || keep_device[this as usize];
            kept_on_device_until[next] = keep_device[this as usize];
        }
    }
    Placement { keep_host, keep_device, kept_until, kept_on_device_until, host_pages, device_bytes, traffic }
}

/// Whether giving a unit up costs a write that no epoch asks for.
fn stay_saves_write(order: &Order, units: &[UnitSpec], config: &Config, unit: UnitId) -> bool {
    let durable = matches!(units[unit.0 as usize].kind, Kind::Durable);
    let written = order.uses_of(unit).iter().any(|&i| order.uses[i as usize].mode.writes());
    written && !(durable && config.write_each_step)
}

/// Chooses among stays: sweeps the cycle and, where more would stay than there is room for, gives
/// up the one that ends last. Three rounds bring the cycle to its steady state; the second
/// round's choice is taken, mended where a cycle of another period was found, and filled up.
fn pack(stays: &[Stay], room: u64, used: &mut [u64], keep: &mut [bool]) {
    let length = used.len();
    let mut by_begin: Vec<Vec<usize>> = vec![Vec::new(); length];
    for (index, stay) in stays.iter().enumerate() {
        by_begin[stay.begin].push(index);
    }
    let mut active: BTreeSet<(usize, usize, usize)> = BTreeSet::new();
    let mut sum = 0;
    let mut chosen = vec![true; stays.len()];
    for gap in 0..3 * length {
        while let Some(&(end, index, round)) = active.first().filter(|first| first.0 <= gap) {
            active.remove(&(end, index, round));
            sum -= stays[index].size;
        }
        for &index in &by_begin[gap % length] {
            active.insert((gap + stays[index].gaps, index, gap / length));
            sum += stays[index].size;
        }
        while sum > room.saturating_sub(used[gap % length]) {
            let Some((_, index, round)) = active.pop_last() else { break };
            sum -= stays[index].size;
            if round == 1 {
                chosen[index] = false;
            }
        }
    }
    let fits = |stay: &Stay, used: &[u64]| {
        (stay.begin..stay.begin + stay.gaps).all(|gap| used[gap % length] + stay.size <= room)
    };
    // Chosen ones first, then any that still fits: the shorter a stay, the more of them do.
    let mut by_worth: Vec<usize> = (0..stays.len()).collect();
    by_worth.sort_by_key(|&index| (!chosen[index], stays[index].gaps, index));
    for index in by_worth {
        let stay = &stays[index];
        if stay.size > 0 && fits(stay, used) {
            (stay.begin..stay.begin + stay.gaps).for_each(|gap| used[gap % length] += stay.size);
            keep[stay.use_index] = true;
        }
    }
}

/// Walks each unit through two rounds of the order and counts the second.
fn count(
    order: &Order,
    units: &[UnitSpec],
    config: &Config,
    keep_host: &[bool],
    keep_device: &[bool],
) -> Vec<Traffic> {
    let mut traffic = vec![Traffic::default(); order.len()];
    for (index, unit) in units.iter().enumerate() {
        let uses = order.uses_of(UnitId(index as u32));
        let saved_each_step = config.write_each_step && matches!(unit.kind, Kind::Durable);
        let written = uses.iter().any(|&i| order.uses[i as usize].mode.writes());
        // Where the newest version is; what is never written is on NVMe sooner or later.
        let (mut stored, mut on_host, mut on_device) = (!written, false, false);
        for round in 0..2 {
            for &i in uses {
                let i = i as usize;
                let (one, position) = (&order.uses[i], order.position_of(i));
                let at = &mut traffic[position];
                let mut moved = Traffic::default();
                let tier = order.tier(position);
                arrive(one.mode, tier, unit.bytes, &mut moved, stored, &mut on_host, &mut on_device);
                if one.mode.writes() {
                    (stored, on_host, on_device) = (false, tier == Tier::Host, tier == Tier::Device);
                }
                let save_now = saved_each_step && one.mode.writes() && !one.written_again;
                let spill = one.next_reads && !keep_host[i] && !keep_device[i] && !stored;
                if save_now || spill {
                    moved.d2h_bytes += if on_host { 0 } else { unit.bytes };
                    moved.write_bytes += unit.bytes;
                    (stored, on_host) = (true, true);
                }
                if keep_host[i] && !on_host {
                    moved.d2h_bytes += unit.bytes;
                    on_host = true;
                }
                on_host &= keep_host[i];
                on_device &= keep_device[i];
                if round == 1 {
                    at.read_bytes += moved.read_bytes;
                    at.write_bytes += moved.write_bytes;
                    at.h2d_bytes += moved.h2d_bytes;
                    at.d2h_bytes += moved.d2h_bytes;
                }
            }
        }
    }
    traffic
}

/// Brings the bytes to the tier where the use wants them.
fn arrive(
    mode: Mode,
    tier: Tier,
    bytes: u64,
    moved: &mut Traffic,
    stored: bool,
    on_host: &mut bool,
    on_device: &mut bool,
) {
    let there = if tier == Tier::Host { *on_host } else { *on_device };
    if !mode.reads() || there {
        return;
    }
    if !*on_host {
        match (*on_device, stored) {
            (true, _) => moved.d2h_bytes += bytes,
            (false, true) => moved.read_bytes += bytes,
            // Nowhere: the first round of a derived or blank unit; steady state never comes here.
            (false, false) => {}
        }
        *on_host = true;
    }
    if tier == Tier::Device {
        moved.h2d_bytes += bytes;
        *on_device = true;
    }
}
