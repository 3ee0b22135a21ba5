//! Calls that end or change much, beside clients that wait in `acquire` or hold leases: nobody waits for ever, and nothing
//! is lost.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hoist::{Access, Durability, Engine, Error, Lease, Life, Mode, Order, Phase, Scalars, TensorUse, Tier};
use hoist_io::{Fault, FaultKind, Operation};
use model::MIB;
use model::drive::{Drive, NO_PAUSE, assert_holds, at, reads, store, store_of};

/// Longer than anything here takes.
const EVER: Duration = Duration::from_secs(20);

/// A client that has asked for an access: what it got, and a sender that ends its lease when it goes.
fn client(engine: &Engine, access: usize) -> (Receiver<Result<(), Error>>, Sender<()>) {
    let other = engine.clone();
    let ((got, gets), (drops, dropped)) = (channel(), channel());
    std::thread::spawn(move || {
        let lease = other.acquire(access);
        got.send(lease.as_ref().map(drop).map_err(Error::clone)).unwrap();
        let _ = dropped.recv();
        lease.map(Lease::release)
    });
    // Time to ask. Should it take longer, it asks after what comes next, which is no error either.
    std::thread::sleep(Duration::from_millis(100));
    (gets, drops)
}

/// What a call that may never end comes to.
fn in_time<T: Send + 'static>(engine: &Engine, call: impl FnOnce(&Engine) -> T + Send + 'static) -> T {
    let engine = engine.clone();
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(call(&engine)));
    ended.recv_timeout(EVER).expect("the call never ends")
}

fn late(drive: &Drive, operation: Operation, millis: u64) {
    let kind = FaultKind::Latency(Duration::from_millis(millis));
    drive.0.add(Fault { place: at(operation, ".seg"), ..Fault::new(kind) });
}

/// Kills: a close that says all is well and has left out what is in memory, as a lease was granted while it waited for the
/// device.
#[test]
fn a_close_beside_a_client_that_waits_for_the_device_keeps_what_is_in_memory() {
    let (_dir, config, mut oracle) = store(Durability::None);
    let engine = Engine::open(config.clone()).unwrap();
    let mut order = oracle.write_all(&engine, |life| *life == Life::Durable);
    let mut read = order.accesses[0].clone();
    read.uses[0].mode = Mode::Read;
    order.accesses.insert(1, read);
    let id = engine.declare(order.clone()).unwrap();
    engine.begin_step(id).unwrap();
    let mut lease = engine.acquire(0).unwrap();
    oracle.fill(&mut lease, &order, 0);
    lease.release_after(engine.launch(Duration::from_millis(500)).unwrap());
    let (gets, drops) = client(&engine, 1);
    let closed = in_time(&engine, Engine::close);
    if gets.recv_timeout(EVER).unwrap().is_ok() {
        assert!(matches!(closed, Err(Error::LeasesHeld { call: "close", count: 1 })), "{closed:?}");
    }
    drop(drops);
    if closed.is_err() {
        in_time(&engine, |engine| while engine.close().is_err() {});
    }
    assert_holds(&Engine::open(config).unwrap(), &mut oracle);
}

/// A client gets a lease while this call waits for a commit. Kills: a call that waits for it all the same: the client may
/// wait for a call that comes later, and the commit for the memory of the lease.
fn is_refused_beside_a_lease_that_is_granted_meanwhile(call: fn(&Engine) -> Result<(), Error>) {
    let (_dir, config, oracle) = store(Durability::Step);
    let drive = Drive::new();
    let engine = drive.open(&config);
    let mut order = oracle.write_all(&engine, |life| *life == Life::Durable);
    order.accesses.truncate(2);
    order.accesses[1].uses[0].mode = Mode::Read;
    let id = engine.declare(order).unwrap();
    late(&drive, Operation::Read, 300);
    late(&drive, Operation::Sync, 3000);
    engine.begin_step(id).unwrap();
    drop(engine.acquire(0).unwrap());
    let commit = engine.commit_step(&Scalars::default()).unwrap();
    let (gets, drops) = client(&engine, 1);
    let called = in_time(&engine, call);
    assert!(matches!(called, Err(Error::LeasesHeld { count: 1, .. })), "{called:?}");
    gets.recv_timeout(EVER).unwrap().unwrap();
    let (sender, committed) = channel();
    std::thread::spawn(move || sender.send(commit.wait()));
    assert!(
        committed.recv_timeout(Duration::from_millis(100)).is_err(),
        "the call has waited for the commit"
    );
    drop(drops);
    assert!(matches!(committed.recv_timeout(EVER), Ok(Ok(2))));
    in_time(&engine, |engine| while engine.close().is_err() {});
}

#[test]
fn a_close_does_not_wait_beside_a_lease() {
    is_refused_beside_a_lease_that_is_granted_meanwhile(Engine::close);
}

#[test]
fn a_snapshot_does_not_wait_beside_a_lease() {
    is_refused_beside_a_lease_that_is_granted_meanwhile(|engine| engine.snapshot("one"));
}

#[test]
fn a_rollback_does_not_wait_beside_a_lease() {
    is_refused_beside_a_lease_that_is_granted_meanwhile(|engine| engine.rollback().map(drop));
}

/// Kills: a snapshot that cannot be recorded, and waits for a lease that was granted meanwhile before it says so.
#[test]
fn a_snapshot_that_fails_does_not_wait_for_a_lease() {
    let (_dir, mut config, oracle) = store(Durability::Step);
    config.prefetch = false;
    let drive = Drive::new();
    let engine = drive.open(&config);
    let order = reads(&engine, &oracle);
    let id = engine.declare(order).unwrap();
    engine.begin_step(id).unwrap();
    engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    drive.fail(FaultKind::Eio, Operation::Sync, ".journal");
    let slow = FaultKind::Latency(Duration::from_millis(1000));
    drive.0.add(Fault { place: at(Operation::Sync, ".journal"), ..Fault::new(slow) });
    late(&drive, Operation::Read, 300);
    let (gets, drops) = client(&engine, 1);
    let error = in_time(&engine, |engine| engine.snapshot("one")).unwrap_err();
    assert!(matches!(error, Error::Record { .. }), "{error}");
    gets.recv_timeout(EVER).unwrap().unwrap();
    drop(drops);
    drive.0.clear();
    in_time(&engine, move |engine| while engine.begin_step(id).is_err() {});
    engine.close().unwrap();
}

/// Calls that write everything out beside a client that waits in `acquire`, with a commit under way and without. Kills: one
/// that waits for ever; a lease that is granted in the middle of it.
fn is_refused_while_a_client_waits(durability: Durability, call: fn(&Engine) -> Result<(), Error>) {
    for commits in [false, true] {
        let (_dir, config, mut oracle) = store(durability);
        let drive = Drive::new();
        let engine = drive.open(&config);
        if durability == Durability::Snapshot {
            engine.snapshot("known").unwrap();
        }
        let mut order = oracle.write_all(&engine, |life| *life == Life::Durable);
        order.accesses.truncate(2);
        order.accesses[1].uses[0].mode = Mode::Read;
        let id = engine.declare(order.clone()).unwrap();
        late(&drive, Operation::Read, 500);
        if commits {
            late(&drive, Operation::Sync, 1000);
        }
        engine.begin_step(id).unwrap();
        oracle.access(&engine, &order, 0, NO_PAUSE);
        let mut commit = Some(engine.commit_step(&Scalars::default()).unwrap());
        if !commits {
            commit.take().unwrap().wait().unwrap();
        }
        let (gets, drops) = client(&engine, 1);
        let called = in_time(&engine, call);
        let rule = called.unwrap_err().to_string();
        assert!(rule.contains("when nobody waits in acquire"), "{rule}");
        gets.recv_timeout(EVER).unwrap().unwrap();
        drop(drops);
        drive.0.clear();
        in_time(&engine, move |engine| while call(engine).is_err() {});
        engine.close().unwrap();
    }
}

#[test]
fn declaring_an_order_that_cuts_anew_waits_for_nobody() {
    is_refused_while_a_client_waits(Durability::Step, |engine| {
        let whole = engine.whole(engine.tensor("1.weight").unwrap(), Mode::Read);
        let pieces = engine.pieces(whole.tensor, 256 << 10).into_iter();
        let uses = pieces.map(|bytes| TensorUse { bytes, ..whole.clone() });
        let accesses = uses.map(|one| Access::new("1", Phase::Forward, Tier::Host, vec![one])).collect();
        engine.declare(Order { accesses }).map(drop)
    });
}

#[test]
fn a_snapshot_of_what_is_in_memory_waits_for_nobody() {
    is_refused_while_a_client_waits(Durability::Snapshot, |engine| engine.snapshot("new"));
}

/// Nothing has to be written for it, and who waits hears that the state is another. Kills: a rollback that waits for a
/// client, or reads for one for ever; one that needs a drive to take what it drops.
#[test]
fn going_back_ends_what_clients_wait_for() {
    for durability in [Durability::Step, Durability::Snapshot] {
        let (_dir, config, mut oracle) = store(durability);
        let drive = Drive::new();
        let engine = drive.open(&config);
        engine.snapshot("known").unwrap();
        let known = oracle.versions.clone();
        let mut order = oracle.write_all(&engine, |life| *life == Life::Durable);
        order.accesses.truncate(2);
        order.accesses[1].uses[0].mode = Mode::Read;
        let id = engine.declare(order.clone()).unwrap();
        late(&drive, Operation::Read, 300);
        engine.begin_step(id).unwrap();
        oracle.access(&engine, &order, 0, NO_PAUSE);
        let (gets, _drops) = client(&engine, 1);
        drive.fail(FaultKind::Eio, Operation::Write, ".seg");
        in_time(&engine, |engine| engine.rollback_to("known").map(drop)).unwrap();
        assert!(matches!(gets.recv_timeout(EVER).unwrap(), Err(Error::Aborted)));
        drive.0.clear();
        oracle.versions = known;
        assert_holds(&engine, &mut oracle);
        engine.close().unwrap();
    }
}

/// Kills: a client that waits for ever; an overwritten slot that nobody has filled, written as if somebody had.
#[test]
fn who_waits_while_the_engine_closes_hears_so_and_changes_nothing() {
    let (_dir, config, mut oracle) = store(Durability::None);
    let drive = Drive::new();
    let engine = drive.open(&config);
    let mut order = oracle.write_all(&engine, |life| *life == Life::Durable);
    let mut read = order.accesses[2].uses[0].clone();
    read.mode = Mode::Read;
    order.accesses[1].uses.push(read);
    let id = engine.declare(order.clone()).unwrap();
    late(&drive, Operation::Read, 500);
    engine.begin_step(id).unwrap();
    oracle.access(&engine, &order, 0, NO_PAUSE);
    let (gets, _drops) = client(&engine, 1);
    in_time(&engine, Engine::close).unwrap();
    let got = gets.recv_timeout(EVER).unwrap();
    assert!(matches!(got, Err(Error::Closed)), "{got:?}");
    assert_holds(&Engine::open(config).unwrap(), &mut oracle);
}

/// What the device still works on when the last handle goes is written all the same.
#[test]
fn a_dropped_engine_waits_for_the_device() {
    let (_dir, config, mut oracle) = store(Durability::None);
    let engine = Engine::open(config.clone()).unwrap();
    let order = oracle.write_all(&engine, |life| *life == Life::Durable);
    let id = engine.declare(Order { accesses: order.accesses[..1].to_vec() }).unwrap();
    engine.begin_step(id).unwrap();
    let mut lease = engine.acquire(0).unwrap();
    oracle.fill(&mut lease, &order, 0);
    lease.release_after(engine.launch(Duration::from_millis(300)).unwrap());
    drop(engine);
    assert_holds(&Engine::open(config).unwrap(), &mut oracle);
}

/// A step changes eight tensors on the device, and the next one takes all of the host before they are saved through it.
/// Kills: host memory that is handed out first, and keeps a trainer for ever that waits for its commit with a lease in hand.
#[test]
fn a_commit_does_not_wait_for_a_lease_of_the_next_step() {
    let (_dir, mut config, _) = store_of(8, Durability::Step);
    (config.host.budget_bytes, config.device.budget_bytes) = (4 * MIB, 12 * MIB);
    let drive = Drive::new();
    let engine = drive.open(&config);
    let whole = |name: String, mode| engine.whole(engine.tensor(&name).unwrap(), mode);
    let weights = |mode| {
        let uses = (0..8).map(move |layer| whole(format!("{layer}.weight"), mode));
        uses.map(|one| Access::new("weight", Phase::Optimizer, Tier::Device, vec![one]))
    };
    let gradients = (0..4).map(|layer| whole(format!("{layer}.gradient"), Mode::Overwrite)).collect();
    let gradients = Access::new("gradients", Phase::Backward, Tier::Host, gradients);
    let accesses = weights(Mode::Overwrite).chain([gradients]).chain(weights(Mode::Read)).collect();
    let id = engine.declare(Order { accesses }).unwrap();
    late(&drive, Operation::Write, 300);
    engine.begin_step(id).unwrap();
    (0..8).for_each(|index| drop(engine.acquire(index).unwrap()));
    let commit = engine.commit_step(&Scalars::default()).unwrap();
    engine.begin_step(id).unwrap();
    let lease = engine.acquire(8).unwrap();
    drive.0.clear();
    assert_eq!(in_time(&engine, |_| commit.wait()).unwrap(), 2);
    drop(lease);
    engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    engine.close().unwrap();
}
