//! How long a step takes with a given placement: which split of the host's memory to choose.
//!
//! A fluid model of one drive and one trainer. Unlike the bound it is meant to be met: reads run
//! ahead and writes lag behind only in the memory that the placement leaves at that moment, and
//! what is read ahead stays until its access.

use crate::bound::Bandwidths;
use crate::config::Config;
use crate::order::Order;
use crate::placement::Placement;

/// Steps that are modelled: the last counts, those before bring it to its steady state.
const STEPS: usize = 3;

/// Into how many portions a step's bytes are cut: the model turns from reading to writing and back
/// after one. A thousandth is far below what a step's time is wanted to.
const PORTIONS: f64 = 1000.0;

struct Fluid<'a> {
    rates: &'a Bandwidths,
    placement: &'a Placement,
    length: usize,
    host_bytes: f64,
    page_bytes: f64,
    portion: f64,
    /// The access whose bytes are read next, and how many of them are.
    front: usize,
    front_read: f64,
    /// Read, and not used yet.
    ahead: f64,
    /// Written by the trainer, and not to NVMe yet.
    behind: f64,
}

/// Seconds of one step in steady state. Nothing is read ahead into the last `reserve_pages`.
pub(crate) fn pace(order: &Order, placement: &Placement, config: &Config, reserve_pages: u64) -> f64 {
    let step = placement.step_traffic();
    let page_bytes = config.page_bytes as f64;
    let mut fluid = Fluid {
        rates: &config.bandwidths,
        placement,
        length: order.len(),
        host_bytes: config.host_pages.saturating_sub(reserve_pages) as f64 * page_bytes,
        page_bytes,
        portion: ((step.read_bytes + step.write_bytes) as f64 / PORTIONS).max(page_bytes),
        front: 0,
        front_read: 0.0,
        ahead: 0.0,
        behind: 0.0,
    };
    let (mut now, mut last_step) = (0.0, 0.0);
    for seq in 0..STEPS * order.len() {
        if seq % order.len() == 0 {
            last_step = now;
        }
        now += fluid.arrive(seq);
        let compute = order.compute_ns(seq % order.len()) as f64 / 1e9;
        // What the access holds is in use while it computes.
        let moved = placement.traffic[seq % order.len()];
        let held = moved.read_bytes.max(moved.write_bytes) as f64;
        fluid.work(seq, held, compute);
        now += compute;
        fluid.behind += moved.write_bytes as f64;
        now += fluid.make_room(seq);
    }
    now - last_step
}

impl Fluid<'_> {
    /// Bytes that the access with this index in the endless sequence reads.
    fn reads(&self, seq: usize) -> f64 {
        self.placement.traffic[seq % self.length].read_bytes as f64
    }

    /// Memory that the placement does not keep between an access and the next.
    fn free(&self, seq: usize) -> f64 {
        self.host_bytes - self.placement.host_pages[seq % self.length] as f64 * self.page_bytes
    }

    /// Waits until the access has its bytes, and before that until there is room for them; they are
    /// then no longer ahead but in use.
    fn arrive(&mut self, seq: usize) -> f64 {
        let mut waited = 0.0;
        while self.front <= seq {
            let missing = self.reads(self.front) - self.front_read;
            let free = self.free(seq + self.length - 1);
            let excess = (self.ahead + missing + self.behind - free).clamp(0.0, self.behind);
            self.behind -= excess;
            waited += excess / self.rates.write + missing / self.rates.read;
            self.ahead += missing;
            (self.front, self.front_read) = (self.front + 1, 0.0);
        }
        self.ahead -= self.reads(seq);
        waited
    }

    /// What the drive does while the trainer computes: reads ahead as far as there is room until
    /// the access that it is for, else writes. (Less than a byte, or a nanosecond, is nothing: the
    /// amounts are sums of fractions.)
    fn work(&mut self, seq: usize, held: f64, mut seconds: f64) {
        let mut least_free = (seq..=self.front).map(|at| self.free(at)).fold(f64::INFINITY, f64::min);
        while seconds > 1e-9 {
            let end = self.front >= seq + self.length;
            let missing = self.reads(self.front) - self.front_read;
            if !end && missing < 1.0 {
                (self.front, self.front_read) = (self.front + 1, 0.0);
                least_free = least_free.min(self.free(self.front));
                continue;
            }
            let room = least_free - held - self.ahead - self.behind;
            if !end && room >= 1.0 {
                let bytes = missing.min(room).min(self.portion).min(seconds * self.rates.read);
                self.front_read += bytes;
                self.ahead += bytes;
                seconds -= bytes / self.rates.read;
            } else if self.behind >= 1.0 {
                let bytes = self.behind.min(self.portion).min(seconds * self.rates.write);
                self.behind -= bytes;
                seconds -= bytes / self.rates.write;
            } else {
                return;
            }
        }
    }

    /// Waits until what is read ahead and what is not written yet fit beside what is kept.
    fn make_room(&mut self, seq: usize) -> f64 {
        let excess = (self.ahead + self.behind - self.free(seq)).clamp(0.0, self.behind);
        self.behind -= excess;
        excess / self.rates.write
    }
}
