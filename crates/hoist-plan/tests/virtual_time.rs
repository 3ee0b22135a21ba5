//! The plan against a drive, two links and a trainer in virtual time: how near a step comes to the
//! bound, deterministically. What a real run loses to latency and noise is not in it.

use std::collections::{BTreeMap, VecDeque};

use hoist_plan::{
    AccessSpec, Action, Bandwidths, ClientId, Config, Event, Kind, LeaseId, Mode, Plan, RequestId, Tier,
    UnitId, UnitSpec, UnitUse,
};

const MIB: u64 = 1 << 20;
const RATES: Bandwidths =
    Bandwidths { read: 2.4e9, write: 4.8e9, mixed_read: 1.6e9, mixed_write: 1.6e9, h2d: 1e10, d2h: 1e10 };
/// Bytes per second of the worker that sums and casts.
const WORKER: f64 = 1e10;

/// Resources that serve one request at a time, the most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Server {
    Drive,
    H2d,
    D2h,
    Worker,
}

struct World {
    plan: Plan,
    units: Vec<UnitSpec>,
    now: f64,
    queues: BTreeMap<Server, VecDeque<(RequestId, f64, u8)>>,
    busy: BTreeMap<Server, (f64, RequestId)>,
    commit: Option<(f64, u64)>,
    granted: bool,
}

impl World {
    fn event(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.plan.handle(event, (self.now * 1e9) as u64, &mut actions);
        for action in actions {
            let seconds = |unit: UnitId, rate: f64| self.units[unit.0 as usize].bytes as f64 / rate;
            let (server, request, seconds, urgency) = match action {
                Action::Read { request, unit, priority } => {
                    (Server::Drive, request, seconds(unit, RATES.read), priority as u8)
                }
                Action::Write { request, unit } => (Server::Drive, request, seconds(unit, RATES.write), 2),
                Action::Checksum { request, unit, .. } | Action::Derive { request, unit } => {
                    (Server::Worker, request, seconds(unit, WORKER), 0)
                }
                Action::CopyIn { request, unit, .. } => (Server::H2d, request, seconds(unit, RATES.h2d), 0),
                Action::CopyOut { request, unit } => (Server::D2h, request, seconds(unit, RATES.d2h), 0),
                Action::Promote { request } => {
                    let queue = self.queues.entry(Server::Drive).or_default();
                    queue.iter_mut().filter(|job| job.0 == request).for_each(|job| job.2 = 0);
                    continue;
                }
                Action::Grant { .. } => {
                    self.granted = true;
                    continue;
                }
                Action::Publish { epoch } => {
                    self.commit = Some((self.now + 0.005, epoch));
                    continue;
                }
                Action::Refuse { refusal, .. } => panic!("{refusal:?}"),
                _ => continue,
            };
            self.queues.entry(server).or_default().push_back((request, seconds, urgency));
        }
        self.serve();
    }

    fn serve(&mut self) {
        for (server, queue) in &mut self.queues {
            let best = (0..queue.len()).min_by_key(|&i| (queue[i].2, i));
            if let (false, Some(best)) = (self.busy.contains_key(server), best) {
                let (request, seconds, _) = queue.remove(best).expect("it was just found");
                self.busy.insert(*server, (self.now + seconds, request));
            }
        }
    }

    /// Goes on to the next end of anything, at most to `limit`. `false`: nothing ends before.
    fn advance(&mut self, limit: f64) -> bool {
        let first =
            self.busy.iter().min_by(|a, b| a.1.0.total_cmp(&b.1.0)).map(|(server, job)| (*server, *job));
        let commit = self.commit.filter(|(at, _)| first.is_none_or(|(_, (end, _))| *at <= end));
        match (commit, first) {
            (Some((at, epoch)), _) if at <= limit => {
                (self.now, self.commit) = (at.max(self.now), None);
                self.event(Event::CommitDone(epoch));
            }
            (None, Some((server, (end, request)))) if end <= limit => {
                self.now = end.max(self.now);
                self.busy.remove(&server);
                self.event(Event::Done(request));
            }
            _ => {
                assert!(limit.is_finite(), "nothing moves and the trainer waits");
                self.now = limit;
                return false;
            }
        }
        true
    }
}

/// `layers` layers of `bytes` of bf16 parameters each, trained with Adam: forward and backward on the
/// device, the optimizer on the host.
fn training(layers: u32, bytes: u64) -> (Vec<UnitSpec>, Vec<AccessSpec>) {
    let unit = |bytes, kind: Kind| UnitSpec { bytes, stored: kind == Kind::Durable, kind };
    let mut units = Vec::new();
    for layer in 0..layers {
        let master = UnitId(5 * layer);
        (0..3).for_each(|_| units.push(unit(2 * bytes, Kind::Durable)));
        units.push(unit(bytes, Kind::Derived { sources: vec![master] }));
        units.push(unit(bytes, Kind::Scratch));
    }
    let access = |tier, layer: u32, uses: &[(u32, Mode)]| {
        let uses: Vec<UnitUse> =
            uses.iter().map(|&(one, mode)| UnitUse { unit: UnitId(5 * layer + one), mode }).collect();
        let moved: u64 = uses.iter().map(|one| units[one.unit.0 as usize].bytes).sum();
        AccessSpec { tier, uses, compute_ns: moved }
    };
    let (read, update, overwrite) = (Mode::Read, Mode::Update, Mode::Overwrite);
    let mut order: Vec<AccessSpec> = Vec::new();
    order.extend((0..layers).map(|layer| access(Tier::Device, layer, &[(3, read)])));
    order.extend((0..layers).rev().map(|layer| access(Tier::Device, layer, &[(3, read), (4, overwrite)])));
    let optimizer = [(0, update), (1, update), (2, update), (4, read), (3, overwrite)];
    order.extend((0..layers).map(|layer| access(Tier::Host, layer, &optimizer)));
    (units, order)
}

/// Runs steps and gives the last one's seconds and its bound.
fn run(
    units: Vec<UnitSpec>,
    mut order: Vec<AccessSpec>,
    host: u64,
    device: u64,
    io_ratio: f64,
    prefetch: bool,
) -> (f64, f64) {
    let config = Config {
        host_pages: host / MIB,
        page_bytes: MIB,
        device_bytes: device,
        credit_bytes: 64 * MIB,
        prefetch,
        write_each_step: true,
        bandwidths: RATES,
    };
    // Compute in sum equal to the I/O of the least bytes, spread by bytes.
    let mut probe = Plan::new(config.clone(), units.clone(), 1);
    let id = probe.declare(&order).expect("the order fits the budgets");
    let least = probe.bound(id, RATES, None);
    let io = RATES.drive_seconds(least.min_read_bytes as f64, least.min_write_bytes as f64);
    let all: u64 = order.iter().map(|access| access.compute_ns).sum();
    for access in &mut order {
        access.compute_ns = (access.compute_ns as f64 / all as f64 * io * io_ratio * 1e9) as u64;
    }
    let mut plan = Plan::new(config, units.clone(), 1);
    let id = plan.declare(&order).expect("the order fits the budgets");
    let bound = plan.bound(id, RATES, None);
    assert!(bound.bound_seconds >= bound.roofline_seconds);
    let (queues, busy) = (BTreeMap::new(), BTreeMap::new());
    let mut world = World { plan, units, now: 0.0, queues, busy, commit: None, granted: false };
    let (mut begin, mut lease) = (0.0, 0);
    for step in 1..=5 {
        begin = world.now;
        world.event(Event::StepBegun(id));
        for (index, access) in order.iter().enumerate() {
            lease += 1;
            world.granted = false;
            world.event(Event::Demanded { lease: LeaseId(lease), client: ClientId(0), access: index as u32 });
            while !world.granted {
                world.advance(f64::INFINITY);
            }
            let end = world.now + access.compute_ns as f64 / 1e9;
            while world.advance(end) {}
            world.event(Event::Released(LeaseId(lease)));
        }
        world.event(Event::CommitBegun(step));
        // The next commit waits for this one; here it is over long before.
    }
    (world.now - begin, bound.bound_seconds)
}

/// The bound is a bound, and prefetch comes near it; serial reads and writes do not.
#[test]
fn steps_come_near_the_bound_and_never_pass_it() {
    for (layers, mib, host, device) in
        [(24, 10, 512, 128), (12, 8, 256, 64), (40, 6, 512, 96), (16, 16, 768, 128)]
    {
        for io_ratio in [0.5, 1.0, 2.0] {
            let (units, order) = training(layers, mib * MIB);
            let (on, bound) = run(units.clone(), order.clone(), host * MIB, device * MIB, io_ratio, true);
            let (off, _) = run(units, order, host * MIB, device * MIB, io_ratio, false);
            let what =
                format!("{layers} x {mib} MiB, host {host}, device {device}, compute / I/O {io_ratio}");
            println!(
                "{what}: {on:.3} s, bound {bound:.3} s, efficiency {:.3}, without prefetch {off:.3} s",
                bound / on
            );
            assert!(on >= bound * 0.999, "{what}: {on} s is less than the bound of {bound} s");
            assert!(bound / on >= 0.8, "{what}: {on} s, bound {bound} s");
            let serial = if io_ratio == 1.0 { 1.4 } else { 1.15 };
            assert!(off / on >= serial, "{what}: {on} s with prefetch, {off} s without");
        }
    }
}

/// What stays on the device may be written while something else computes. (Kills: a bound that takes it for written at
/// once.)
#[test]
fn what_the_device_keeps_may_be_written_late() {
    let unit = UnitSpec { bytes: 8 * MIB, kind: Kind::Durable, stored: true };
    let units = vec![unit; 17];
    let access = |unit: u32, mode: Mode, compute_ns: u64| AccessSpec {
        tier: Tier::Device,
        uses: vec![UnitUse { unit: UnitId(unit), mode }],
        compute_ns,
    };
    for (host, device) in [(32, 160), (64, 256)] {
        let mut order: Vec<AccessSpec> = (0..16).map(|unit| access(unit, Mode::Update, 1_000)).collect();
        order.push(access(16, Mode::Read, 30_000_000));
        let (step, bound) = run(units.clone(), order, host * MIB, device * MIB, 1.0, true);
        assert!(step >= bound * 0.999, "host {host}, device {device}: {step} s is less than {bound} s");
    }
}
