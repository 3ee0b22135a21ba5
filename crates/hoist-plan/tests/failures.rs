//! What the plan makes of writes and commits that fail. `driver` asserts as it goes, see `properties.rs`.

mod driver;

use driver::models::{PAGE_BYTES, Shape, config, first_seed, run_steps, world, world_of};
use driver::{Random, World};
use hoist_plan::{
    AccessSpec, Action, Cause, ClientId, Event, Kind, LeaseId, Mode, Refusal, Tier, UnitId, UnitSpec, UnitUse,
};

/// Writes that fail while there is no epoch to fail with them: the bytes stay in memory, and a flush on a drive that is
/// well again writes them. (Kills: a flush that leaves out what failed once.)
#[test]
fn a_flush_writes_what_failed_before() {
    for seed in 0..300 {
        let Some(mut world) = world(seed, seed % 2 == 0, false) else { continue };
        world.failing_writes = 30;
        let order = world.order;
        world.event(Event::StepBegun(order));
        world.serve_clients(1, 40);
        world.commit();
        world.finish_commits();
        world.failing_writes = 0;
        world.flush();
        world.check_all_is_written();
    }
}

/// Writes and commits that fail take their epoch with them, and nothing else: after each the units are those of the
/// newest durable epoch (the driver checks that), and the next step is served. (Kills: a slot that keeps a dropped
/// version; a unit that is taken for stored though its epoch was dropped, or for lost though an older one was not; a
/// derived unit that is not made anew.) Seeds from `HOIST_SEEDS` on.
#[test]
fn a_failed_epoch_is_rolled_back() {
    let mut rollbacks = 0;
    for seed in first_seed()..first_seed() + 600 {
        let mut random = Random(seed);
        let (prefetch, clients) = (random.below(2) == 0, 1 + random.below(3) as u32);
        let Some(mut world) = world_of(Shape::Fresh, random.next(), prefetch, true) else { continue };
        println!("seed {seed}: prefetch {prefetch}, {clients} clients");
        (world.failing_writes, world.failing_commits) = (10 * random.below(3), 100 * random.below(4));
        for _ in 0..6 {
            let before = world.rollbacks;
            world.event(Event::StepBegun(world.order));
            world.serve_clients(clients, 40);
            world.finish_rollback();
            // A step that was rolled back is over; one that was not is committed, or given up.
            match world.random.below(8) {
                _ if world.rollbacks > before => {}
                0 => {
                    world.finish_commits();
                    world.roll_back();
                }
                _ => world.commit(),
            }
            world.finish_rollback();
        }
        (world.failing_writes, world.failing_commits) = (0, 0);
        world.finish_commits();
        rollbacks += world.rollbacks;
        run_steps(&mut world, 2, 0);
        world.flush();
        world.check_all_is_written();
    }
    assert!(rollbacks > 500, "only {rollbacks} rollbacks");
}

/// Clients that wait for each other's leases hear just that, though scratch that could not be written lies about. (Kills:
/// any unit that was not written, taken for what is in the way.)
#[test]
fn a_deadlock_of_leases_is_told_as_one() {
    let specs = vec![UnitSpec { bytes: PAGE_BYTES, kind: Kind::Scratch, stored: false }; 5];
    let mut world = World::new(config(2, 8 * PAGE_BYTES, false, true), specs, 1);
    let access = |tier, unit, mode| AccessSpec {
        tier,
        uses: vec![UnitUse { unit: UnitId(unit), mode }],
        compute_ns: 1,
    };
    let writes =
        (0..5).map(|unit| access(if unit < 3 { Tier::Host } else { Tier::Device }, unit, Mode::Overwrite));
    let reads = (0..5).map(|unit| access(Tier::Host, unit, Mode::Read));
    world.order = world.declare(writes.chain(reads).collect()).expect("it fits");
    world.event(Event::StepBegun(world.order));
    world.failing_writes = 1000;
    let granted = (0..3).filter(|unit| world.access(*unit)).count();
    assert_eq!(granted, 2, "the third waits for memory that the first keeps");
    while world.complete_one() {}
    let mut ask = |lease, client, access| {
        let mut actions = Vec::new();
        let (lease, client) = (LeaseId(lease), ClientId(client));
        world.plan.handle(Event::Demanded { lease, client, access }, world.now_ns, &mut actions);
        actions
    };
    for (lease, client, access) in [(100, 0, 3), (101, 1, 4)] {
        let actions = ask(lease, client, access);
        assert!(actions.contains(&Action::Grant { lease: LeaseId(lease) }), "{actions:?}");
    }
    assert!(ask(102, 0, 4).is_empty());
    let actions = ask(103, 1, 3);
    let refused = |action: &Action| {
        matches!(action, Action::Refuse { lease: LeaseId(103), refusal: Refusal::WouldDeadlock { .. } })
    };
    assert!(actions.iter().any(refused), "{actions:?}");
}

/// A client that holds a lease and asks for another hears of the scratch that fills the host, if that is what keeps it, and
/// not if the device is full of leases. (Kills: either taken for the other.)
#[test]
fn what_was_not_written_is_named_to_a_client_that_holds_a_lease() {
    for tier in [Tier::Host, Tier::Device] {
        let specs = vec![UnitSpec { bytes: PAGE_BYTES, kind: Kind::Scratch, stored: false }; 4];
        let device_bytes = if tier == Tier::Host { 8 } else { 1 } * PAGE_BYTES;
        let mut world = World::new(config(3, device_bytes, false, true), specs, 1);
        let access = |tier, unit, mode| AccessSpec {
            tier,
            uses: vec![UnitUse { unit: UnitId(unit), mode }],
            compute_ns: 1,
        };
        let first = (0..2).map(|unit| access(Tier::Host, unit, Mode::Overwrite));
        let then = (2..4).map(|unit| access(tier, unit, Mode::Overwrite));
        let reads = (0..4).map(|unit| access(Tier::Host, unit, Mode::Read));
        world.order = world.declare(first.chain(then).chain(reads).collect()).expect("it fits");
        world.event(Event::StepBegun(world.order));
        world.failing_writes = 1000;
        assert!((0..2).all(|unit| world.access(unit)));
        while world.complete_one() {}
        let mut ask = |lease, access| {
            let (lease, client) = (LeaseId(lease), ClientId(0));
            let mut actions = Vec::new();
            world.plan.handle(Event::Demanded { lease, client, access }, world.now_ns, &mut actions);
            actions
        };
        let actions = ask(100, 2);
        assert!(actions.contains(&Action::Grant { lease: LeaseId(100) }), "{actions:?}");
        let actions = ask(101, 3);
        let refusals = actions.iter().filter_map(|action| match action {
            Action::Refuse { lease: LeaseId(101), refusal } => Some(*refusal),
            _ => None,
        });
        let refusals: Vec<Refusal> = refusals.collect();
        match refusals[..] {
            [Refusal::NotWritten { .. }] => assert_eq!(tier, Tier::Host),
            [Refusal::WouldDeadlock { waiting_for: Cause::DeviceFull }] => assert_eq!(tier, Tier::Device),
            _ => panic!("{actions:?}"),
        }
    }
}

/// Scratch that fills the host, and that an epoch must pass, is written once more for it, and for the one that comes in its
/// place. (Kills: an epoch that tries for ever; one that is not tried, as the one before it had its number.)
#[test]
fn what_is_in_the_way_of_an_epoch_is_tried_once_for_each() {
    let spec = |kind, stored| UnitSpec { bytes: PAGE_BYTES, kind, stored };
    let specs = vec![spec(Kind::Scratch, false), spec(Kind::Scratch, false), spec(Kind::Durable, true)];
    let mut world = World::new(config(2, 8 * PAGE_BYTES, false, true), specs, 1);
    let access = |tier, unit, mode| AccessSpec {
        tier,
        uses: vec![UnitUse { unit: UnitId(unit), mode }],
        compute_ns: 1,
    };
    let order = vec![
        access(Tier::Host, 0, Mode::Overwrite),
        access(Tier::Host, 1, Mode::Overwrite),
        access(Tier::Device, 2, Mode::Overwrite),
        access(Tier::Host, 0, Mode::Read),
        access(Tier::Host, 1, Mode::Read),
    ];
    world.order = world.declare(order).expect("it fits");
    world.failing_writes = 1000;
    for rollbacks in 1..3 {
        world.event(Event::StepBegun(world.order));
        assert!((0..3).all(|access| world.access(access)));
        while world.complete_one() {}
        let before = world.log.len();
        world.commit();
        let ended = (0..100).any(|_| !world.complete_one());
        let writes = world.log[before..].iter().filter(|action| matches!(action, Action::Write { .. }));
        assert_eq!((writes.count(), world.rollbacks), (2, rollbacks), "{:?}", world.log);
        assert!(ended && world.epoch == 1);
    }
}

/// Kills: windows of what is read ahead that stay where they were before the slots went.
#[test]
fn what_a_rollback_dropped_is_read_ahead_again() {
    let specs = vec![UnitSpec { bytes: PAGE_BYTES, kind: Kind::Durable, stored: true }; 4];
    let mut world = World::new(config(8, 8 * PAGE_BYTES, true, true), specs, 1);
    let access = |unit| AccessSpec {
        tier: Tier::Host,
        uses: vec![UnitUse { unit: UnitId(unit), mode: Mode::Read }],
        compute_ns: 1,
    };
    world.order = world.declare((0..4).map(access).collect()).expect("it fits");
    run_steps(&mut world, 2, 0);
    world.roll_back();
    let actions = world.event(Event::StepBegun(world.order));
    let reads = actions.iter().filter(|action| matches!(action, Action::Read { .. })).count();
    assert_eq!(reads, 4, "{actions:?}");
}

/// What the sealed epoch has on the device fits the host, but for a lease of the next step that is held until the epoch is
/// durable. (Kills: host memory that is handed out before copies from the device have theirs.)
#[test]
fn an_epoch_does_not_wait_for_leases_of_the_next_step() {
    for prefetch in [false, true] {
        for mode in [Mode::Read, Mode::Overwrite] {
            epoch_beside_a_lease(prefetch, mode);
        }
    }
}

fn epoch_beside_a_lease(prefetch: bool, mode: Mode) {
    let unit = |pages, kind, stored| UnitSpec { bytes: pages * PAGE_BYTES, kind, stored };
    let mut specs = vec![unit(3, Kind::Scratch, false)];
    specs.extend((0..3).map(|_| unit(2, Kind::Durable, true)));
    let mut world = World::new(config(4, 8 * PAGE_BYTES, prefetch, true), specs, 1);
    let access = |tier, unit, mode| AccessSpec {
        tier,
        uses: vec![UnitUse { unit: UnitId(unit), mode }],
        compute_ns: 1,
    };
    let writes = (1..4).map(|unit| access(Tier::Device, unit, Mode::Overwrite));
    let reads = (1..4).map(|unit| access(Tier::Device, unit, Mode::Read));
    let scratch = [access(Tier::Host, 0, Mode::Overwrite), access(Tier::Host, 0, mode)];
    let order = scratch[..1].iter().cloned().chain(writes).chain(scratch[1..].iter().cloned()).chain(reads);
    world.order = world.declare(order.collect()).expect("it fits");
    world.event(Event::StepBegun(world.order));
    assert!((0..4).all(|access| world.access(access)));
    world.commit();
    world.event(Event::StepBegun(world.order));
    let lease = LeaseId(world.next_lease);
    world.next_lease += 1;
    world.leases.insert(lease, 4);
    world.event(Event::Demanded { lease, client: ClientId(0), access: 4 });
    world.finish_commits();
    while !world.held.contains(&lease) {
        assert!(world.complete_one(), "the lease is never granted");
    }
}
