//! The engine on drives that fail: what can be made good does not show, and what cannot is one error that says where.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use std::time::Duration;

use hoist::{Access, Durability, Engine, Error, IoError, Life, Mode, Phase, Scalars, Tier};
use hoist_io::{Fault, FaultKind, Operation, Place, Short};
use model::drive::{Drive, EIO, LAYERS, NO_PAUSE, assert_holds, drive_error, errno, reads, store, store_of};
use model::{MIB, find, training};

/// Kills: an error of a prefetch that hits another acquire, or ends the engine; one that is remembered for good; one
/// that does not say what, where and why.
#[test]
fn a_bad_block_is_the_error_of_what_lies_there_until_it_can_be_read() {
    let (dir, config, mut oracle) = store(Durability::Step);
    let drive = Drive::new();
    // The second of three pieces of a tensor, somewhere in its middle.
    let (tensor, at) = (1, MIB + 300 * 1024);
    let (path, offset) = find(dir.path(), tensor, oracle.versions[1][1].1, at);
    let place = Place {
        operation: Some(Operation::Read),
        path_part: path.to_str().unwrap().into(),
        bytes: offset..offset + 1,
    };
    let engine = drive.open(&config);
    let order = reads(&engine, &oracle);
    let id = engine.declare(order.clone()).unwrap();
    drive.0.add(Fault { place, ..Fault::new(FaultKind::Eio) });
    for _ in 0..2 {
        engine.begin_step(id).unwrap();
        for (index, access) in order.accesses.iter().enumerate() {
            let one = &access.uses[0];
            if one.tensor.0 != tensor || !one.bytes.contains(&at) {
                oracle.access(&engine, &order, index, NO_PAUSE);
                continue;
            }
            let error = engine.acquire(index).err().unwrap();
            let Error::Transfer { tensor, .. } = &error else { panic!("{error}") };
            assert_eq!(tensor, "0.state");
            let IoError::Transfer { offset: start, bytes, .. } = drive_error(&error) else {
                panic!("{error}")
            };
            assert!((*start..start + bytes).contains(&offset), "{offset} is not in {error}");
            let said = error.to_string();
            let whole = format!(
                "tensor 0.state: cannot read {bytes} bytes at {start} of {}: Input/output error (os error {EIO})",
                path.display()
            );
            assert!(said.starts_with(&whole), "{said}");
        }
        engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    }
    engine.begin_step(id).unwrap();
    let bad =
        order.accesses.iter().position(|a| a.uses[0].tensor.0 == tensor && a.uses[0].bytes.contains(&at));
    assert!(engine.acquire(bad.unwrap()).is_err());
    drive.0.clear();
    // The same step, and the same engine.
    for index in 0..order.accesses.len() {
        oracle.access(&engine, &order, index, NO_PAUSE);
    }
    engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    engine.close().unwrap();
}

/// Kills: any byte that a transfer which was cut short, refused for a moment or late leaves out, anywhere between the
/// drive and the lease.
#[test]
fn under_storms_every_byte_is_the_same() {
    for durability in [Durability::Step, Durability::None] {
        let (_dir, config, mut oracle) = store(durability);
        let drive = Drive::new();
        let often = |kind| Fault { rate: 0.15, ..Fault::new(kind) };
        for kind in [
            FaultKind::Eintr,
            FaultKind::Eagain,
            FaultKind::Short(Short::First),
            FaultKind::Short(Short::Odd),
            FaultKind::Latency(Duration::from_micros(300)),
        ] {
            drive.0.add(often(kind));
        }
        let nothing = Place { operation: Some(Operation::Write), ..Place::default() };
        drive.0.add(Fault { place: nothing, ..often(FaultKind::Short(Short::None)) });
        let engine = drive.open(&config);
        let order = training(&engine, &oracle, LAYERS);
        let id = engine.declare(order.clone()).unwrap();
        for _ in 0..3 {
            oracle.step(&engine, id, &order, NO_PAUSE);
        }
        engine.close().unwrap();
        assert!(drive.0.hits() > 100, "{}", drive.0);
        let engine = Engine::open(config).unwrap();
        assert_holds(&engine, &mut oracle);
        engine.close().unwrap();
    }
}

/// Scratch that cannot be written takes memory until nothing more fits, which is an error that names it; when the drive
/// is well again, or has space, the same step goes on, or the next one. (Kills: a write that failed and is never tried
/// again.)
#[test]
fn scratch_that_could_not_be_written_is_written_when_it_can_be() {
    for same_step in [true, false] {
        scratch_is_written_again(same_step);
    }
}

fn scratch_is_written_again(same_step: bool) {
    // Eight times as much as the host holds.
    let (_dir, config, oracle) = store_of(16, Durability::Step);
    let drive = Drive::new();
    let engine = drive.open(&config);
    let mut order = oracle.write_all(&engine, |life| *life == Life::Scratch);
    let mut reads = order.accesses.clone();
    reads.iter_mut().for_each(|access| access.uses[0].mode = Mode::Read);
    order.accesses.extend(reads);
    let id = engine.declare(order.clone()).unwrap();
    engine.begin_step(id).unwrap();
    drive.fail(FaultKind::Eio, Operation::Write, ".seg");
    let acquired = (0..order.accesses.len()).map(|index| (index, engine.acquire(index)));
    let (refused, error) = acquired
        .filter_map(|(index, lease)| Some((index, lease.err()?)))
        .next()
        .expect("all of it fits the host");
    assert!(error.to_string().contains(".gradient: cannot write"), "{error}");
    assert_eq!(errno(&error), Some(EIO), "{error}");
    drive.0.clear();
    if !same_step {
        engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
        engine.begin_step(id).unwrap();
    }
    // First what found no room, before anything else makes some by overwriting what had failed.
    for index in std::iter::once(refused).chain(0..order.accesses.len()) {
        engine.acquire(index).unwrap_or_else(|error| panic!("access {index}: {error}"));
    }
    engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
    engine.close().unwrap();
}

/// Scratch that cannot be written fills the host when the step ends, and what it has on the device must be saved through
/// it. On a drive that is well again the commit gets its room; on one that is not it ends, and says what is in the way.
/// (Kills: a commit that waits for ever.)
#[test]
fn a_commit_does_not_wait_for_scratch_that_cannot_be_written() {
    for is_well in [true, false] {
        let (_dir, config, oracle) = store_of(16, Durability::Step);
        let drive = Drive::new();
        let engine = drive.open(&config);
        let mut order = oracle.write_all(&engine, |life| *life == Life::Scratch);
        let scratch = order.accesses.len();
        let mut reads = order.accesses.clone();
        reads.iter_mut().for_each(|access| access.uses[0].mode = Mode::Read);
        let weight = engine.whole(engine.tensor("0.weight").unwrap(), Mode::Overwrite);
        order.accesses.push(Access::new("0", Phase::Optimizer, Tier::Device, vec![weight]));
        order.accesses.extend(reads);
        let id = engine.declare(order).unwrap();
        engine.begin_step(id).unwrap();
        drive.fail(FaultKind::Eio, Operation::Write, ".seg");
        let full = (0..scratch).any(|index| engine.acquire(index).is_err());
        assert!(full, "all of it fits the host");
        drop(engine.acquire(scratch).unwrap_or_else(|error| panic!("{error}")));
        if is_well {
            // When what was tried again has failed again.
            std::thread::sleep(Duration::from_millis(300));
            drive.0.clear();
        }
        let commit = engine.commit_step(&Scalars::default()).unwrap();
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(commit.wait()));
        let ended = ended.recv_timeout(Duration::from_secs(20)).expect("the commit never ends");
        match ended {
            Ok(epoch) => assert!(is_well && epoch == 2),
            Err(error) => assert!(!is_well && error.to_string().contains("cannot write"), "{error}"),
        }
        drive.0.clear();
        engine.begin_step(id).unwrap();
        drop(engine.acquire(scratch).unwrap());
        engine.commit_step(&Scalars::default()).unwrap().wait().unwrap();
        engine.close().unwrap();
    }
}
