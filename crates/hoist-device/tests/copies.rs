//! Copies and events through the public API: contents, lateness, both links at once, and dropping a
//! device that is at work. Times are only ever checked to be "at least".
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use hoist_device::{Completion, Config, Device, DeviceSlot, open};
use hoist_memory::{Slab, Slot};
use proptest::prelude::*;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// A bandwidth at which the tests' copies take no time worth mentioning.
const FAST: u64 = 100_000_000_000;

/// A device whose completions arrive on the channel with the instant of their delivery.
fn device(h2d: u64, d2h: u64) -> (Box<dyn Device>, Receiver<(Instant, Completion)>) {
    let (sender, receiver) = unbounded();
    let config = Config { budget_bytes: 16 * MIB, h2d_bytes_per_second: h2d, d2h_bytes_per_second: d2h };
    // The receiver may be gone: nobody waits for the last completions of a test.
    let deliver = move |completion| drop(sender.send((Instant::now(), completion)));
    (open(&config, deliver).unwrap(), receiver)
}

/// The next completion. A minute is far more than any test needs: it only ends one that would hang.
fn next(done: &Receiver<(Instant, Completion)>) -> (Instant, Completion) {
    done.recv_timeout(Duration::from_secs(60)).unwrap()
}

/// A slab of small pages, so that a slot is many parts.
fn slab() -> Arc<Slab> {
    let config = hoist_memory::Config { budget_bytes: 8 * MIB, page_bytes: 4096, ..Default::default() };
    Slab::map(&config).unwrap()
}

/// A byte that depends on its place and on a seed.
fn pattern(place: u64, seed: u64) -> u8 {
    ((place ^ seed.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// A host slot of `bytes` bytes filled with the seed's pattern.
fn filled(slab: &Arc<Slab>, bytes: u64, seed: u64) -> Slot {
    let mut slot = slab.allocate(bytes).unwrap();
    let places = 0..;
    for (byte, place) in slot.parts_mut().flatten().zip(places) {
        *byte = pattern(place, seed);
    }
    slot
}

/// Asserts that the bytes are the head of the seed's pattern.
fn assert_pattern<'a>(bytes: impl Iterator<Item = &'a u8>, seed: u64, what: &str) {
    for (byte, place) in bytes.zip(0..) {
        assert_eq!(*byte, pattern(place, seed), "{what}, byte {place}");
    }
}

/// Asserts that a device slot holds the seed's pattern and gives it back.
fn expect_in(completion: Completion, expected_id: u64, seed: u64) -> DeviceSlot {
    let Completion::CopiedIn { id, from, to } = completion else { panic!("{completion:?}") };
    assert_eq!(id, expected_id);
    assert_pattern(from.parts().flatten(), seed, "the host's bytes");
    assert_pattern(to.as_slice().iter(), seed, "the device's bytes");
    to
}

#[test]
fn bytes_arrive_in_and_come_back_out() {
    let (mut device, done) = device(FAST, FAST);
    let slab = slab();
    let bytes = 100_001; // neither a multiple of the page nor even
    let to = device.claim(12_345, bytes);
    device.copy_in(1, filled(&slab, bytes, 1).share(), to);
    let mut on_device = expect_in(next(&done).1, 1, 1);
    for byte in on_device.as_mut_slice() {
        *byte = !*byte;
    }
    let reader = on_device.share();
    device.copy_out(2, reader.clone(), filled(&slab, bytes, 9));
    let Completion::CopiedOut { id: 2, from, to } = next(&done).1 else { panic!("no copy 2") };
    for (byte, place) in to.parts().flatten().zip(0..) {
        assert_eq!(*byte, !pattern(place, 1), "byte {place}");
    }
    assert!(from.try_into_slot().is_err(), "there is a second reader");
    assert!(reader.try_into_slot().is_ok());
}

#[test]
fn a_longer_host_slot_gives_its_head_and_keeps_its_tail() {
    let (mut device, done) = device(FAST, FAST);
    let slab = slab();
    let to = device.claim(0, 5000);
    device.copy_in(1, filled(&slab, 8192, 3).share(), to);
    let on_device = expect_in(next(&done).1, 1, 3);
    device.copy_out(2, on_device.share(), filled(&slab, 8192, 4));
    let Completion::CopiedOut { to, .. } = next(&done).1 else { panic!("no copy out") };
    for (byte, place) in to.parts().flatten().zip(0..) {
        assert_eq!(*byte, pattern(place, if place < 5000 { 3 } else { 4 }), "byte {place}");
    }
}

#[test]
#[should_panic(expected = "copy 7 fills 4097 bytes of device from a host slot of 4096")]
fn a_host_slot_that_is_too_short_asserts() {
    let (mut device, _done) = device(FAST, FAST);
    let to = device.claim(0, 4097);
    device.copy_in(7, filled(&slab(), 4096, 1).share(), to);
}

#[test]
fn copies_on_one_link_are_as_late_as_their_bytes() {
    let (mut device, done) = device(100 * MIB, FAST); // 1 MiB in 10 ms
    let slab = slab();
    let begun = Instant::now();
    for id in 0..3 {
        let to = device.claim(id * MIB, MIB);
        device.copy_in(id, filled(&slab, MIB, id).share(), to);
    }
    for id in 0..3 {
        let (at, completion) = next(&done);
        assert!(at - begun >= Duration::from_millis(10 * (id + 1)), "copy {id} after {:?}", at - begun);
        expect_in(completion, id, id);
    }
}

#[test]
fn a_link_does_not_wait_for_the_other() {
    // The copy in occupies its link for an hour: if the links were one, the copy out behind it would not come.
    let hour = 3600;
    let (device, done) = device(MIB / hour, FAST);
    // Dropping the device would wait for the hour; the process ends before that.
    let mut device = ManuallyDrop::new(device);
    let slab = slab();
    let mut from = device.claim(0, MIB);
    from.as_mut_slice().fill(0xA5);
    let to = device.claim(MIB, MIB);
    device.copy_in(1, filled(&slab, MIB, 1).share(), to);
    device.copy_out(2, from.share(), filled(&slab, MIB, 2));
    let (_, completion) = next(&done);
    let Completion::CopiedOut { id: 2, to, .. } = completion else { panic!("{completion:?}") };
    assert!(to.parts().flatten().all(|byte| *byte == 0xA5));
}

#[test]
fn compute_is_in_order_and_late() {
    let (mut device, done) = device(FAST, FAST);
    let begun = Instant::now();
    let first = device.launch(Duration::from_millis(20));
    let second = device.launch(Duration::from_millis(10));
    device.notify(2, second);
    device.notify(1, first);
    let (at_first, completion) = next(&done);
    assert!(matches!(completion, Completion::Event { id: 1 }), "{completion:?} came first");
    assert!(at_first - begun >= Duration::from_millis(20) && first.is_done());
    let (at_second, completion) = next(&done);
    assert!(matches!(completion, Completion::Event { id: 2 }), "{completion:?} came second");
    assert!(at_second - begun >= Duration::from_millis(30), "the second waits for the first");
    second.wait();
}

#[test]
fn a_dropped_device_delivers_what_was_in_flight() {
    let (mut device, done) = device(100 * MIB, 100 * MIB);
    let slab = slab();
    let mut from = device.claim(8 * MIB, MIB);
    from.as_mut_slice().fill(0x5A);
    for id in 0..3 {
        let to = device.claim(id * MIB, MIB);
        device.copy_in(id, filled(&slab, MIB, id).share(), to);
    }
    device.copy_out(3, from.share(), filled(&slab, MIB, 3));
    let event = device.launch(Duration::from_millis(5));
    device.notify(4, event);
    drop(device);
    let mut ids = Vec::new();
    for (_, completion) in done.try_iter() {
        ids.push(match completion {
            Completion::CopiedIn { id, .. } => {
                expect_in(completion, id, id);
                id
            }
            Completion::CopiedOut { id, to, .. } => {
                assert!(to.parts().flatten().all(|byte| *byte == 0x5A));
                id
            }
            Completion::Event { id } => id,
        });
    }
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2, 3, 4]);
    assert_eq!(slab.pages_free(), slab.pages());
}

#[test]
fn a_dropped_receiver_loses_news_and_no_memory() {
    let (mut device, done) = device(100 * MIB, FAST); // the copy ends 10 ms after the drop begins
    let slab = slab();
    let to = device.claim(0, MIB);
    device.copy_in(1, filled(&slab, MIB, 1).share(), to);
    drop(done);
    drop(device);
    assert_eq!(slab.pages_free(), slab.pages());
}

#[test]
fn a_config_that_cannot_work_is_refused_with_every_key() {
    let config = Config { budget_bytes: 0, h2d_bytes_per_second: 1, d2h_bytes_per_second: 0 };
    let error = open(&config, |_| {}).err().unwrap().to_string();
    assert!(error.contains("device.budget") && error.contains("device.d2h"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    /// Any copies in, kept or taken out again: every completion comes with its own bytes.
    #[test]
    fn every_copy_brings_its_own_bytes(copies in proptest::collection::vec((1..40_000_u64, any::<bool>()), 1..12)) {
        let (mut device, done) = device(FAST, FAST);
        let slab = slab();
        let mut offset = 0;
        for (id, (bytes, _)) in (0..).zip(&copies) {
            let to = device.claim(offset, *bytes);
            offset += bytes;
            device.copy_in(id, filled(&slab, *bytes, id + 100).share(), to);
        }
        let mut expected = copies.len() + copies.iter().filter(|(_, out)| *out).count();
        let mut kept = Vec::new();
        while expected > 0 {
            expected -= 1;
            match next(&done).1 {
                completion @ Completion::CopiedIn { id, .. } => {
                    let on_device = expect_in(completion, id, id + 100);
                    let (bytes, out) = copies[id as usize];
                    prop_assert_eq!(on_device.bytes(), bytes);
                    if out {
                        device.copy_out(id, on_device.share(), slab.allocate(bytes).unwrap());
                    } else {
                        kept.push((on_device, id + 100));
                    }
                }
                Completion::CopiedOut { id, to, .. } => {
                    assert_pattern(to.parts().flatten(), id + 100, "the bytes that came back");
                }
                Completion::Event { id } => prop_assert!(false, "event {} was not asked for", id),
            }
        }
        for (slot, seed) in kept {
            assert_pattern(slot.as_slice().iter(), seed, "the bytes that stayed");
        }
        drop(device);
        prop_assert_eq!(slab.pages_free(), slab.pages());
    }
}
