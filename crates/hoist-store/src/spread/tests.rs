use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const PLENTY: u64 = 1 << 50;

/// Has each drive move bytes at its rate for so many windows.
fn show(spread: &mut Spread, rates: &[f64], windows: u32) {
    let mut now = Instant::now();
    for _ in 0..windows {
        (0..rates.len()).for_each(|place| spread.started(place, now));
        now += WINDOW;
        for (place, rate) in rates.iter().enumerate() {
            spread.ended(place, (rate * WINDOW.as_secs_f64()) as u64, now);
        }
    }
}

/// What each of so many directories gets of `count` writes of `bytes`.
fn given(spread: &mut Spread, directories: usize, bytes: u64, count: u64) -> Vec<u64> {
    let mut sums = vec![0; directories];
    for _ in 0..count {
        let mut out = Vec::new();
        assert!(spread.divide(bytes, |_| PLENTY, &mut out));
        out.iter().for_each(|(place, bytes)| sums[*place as usize] += bytes);
    }
    sums
}

#[test]
fn drives_that_are_not_known_get_the_same() {
    assert_eq!(given(&mut Spread::new(4), 4, 64 * MIB, 1), [16 * MIB; 4]);
    assert_eq!(given(&mut Spread::new(4), 4, 5000, 400), [500_000; 4]);
}

#[test]
fn writes_follow_what_drives_move() {
    let mut spread = Spread::new(2);
    show(&mut spread, &[600e6, 200e6], 1);
    assert_eq!(given(&mut spread, 2, 64 * MIB, 1), [48 * MIB, 16 * MIB]);
    // The first slows down: after eight windows, a second and a half of being busy, its share has followed.
    show(&mut spread, &[100e6, 200e6], 8);
    let share = spread.shares().next().unwrap();
    assert!((share - 1.0 / 3.0).abs() < 0.03, "{share}");
    // One that does not move at all is still tried.
    show(&mut spread, &[0.0, 200e6], 20);
    let sums = given(&mut spread, 2, MIB, 1000);
    assert!((10 * MIB..30 * MIB).contains(&sums[0]), "{sums:?}");
}

#[test]
fn time_without_requests_does_not_count() {
    let mut spread = Spread::new(2);
    let mut now = Instant::now();
    for _ in 0..20 {
        for place in [0, 1] {
            spread.started(place, now);
            spread.started(place, now);
            now += WINDOW / 4;
            spread.ended(place, MIB, now);
            now += WINDOW / 4;
            spread.ended(place, MIB, now);
        }
    }
    let rates: Vec<_> = spread.drives.iter().map(|drive| drive.bytes_per_second.unwrap()).collect();
    let expected = 2.0 * MIB as f64 / (WINDOW / 2).as_secs_f64();
    assert!(rates.iter().all(|rate| (rate / expected - 1.0).abs() < 1e-9), "{rates:?}");
}

#[test]
fn a_quarantined_directory_gets_nothing_and_the_last_is_never_one() {
    let mut spread = Spread::new(2);
    assert!(spread.quarantine(0, "EIO"));
    assert!(spread.quarantine(0, "another"));
    assert_eq!(spread.quarantined(0), Some("EIO"));
    assert_eq!(given(&mut spread, 2, 64 * MIB, 3), [0, 192 * MIB]);
    assert!(!spread.quarantine(1, "EIO"));
    assert_eq!(spread.quarantined(1), None);
    assert!(!spread.divide(2, |place| if place == 0 { PLENTY } else { 0 }, &mut Vec::new()));
    assert!(!Spread::new(1).quarantine(0, "EIO"));
}

proptest! {
    /// All bytes find a place when there is one, in whole pages but at the end, and no directory gets more than it has.
    #[test]
    fn what_fits_is_placed(
        rates in prop::collection::vec(0.0..2e9f64, 1..6),
        writes in prop::collection::vec(1..200 * MIB, 1..30),
        pages in prop::collection::vec(0..60_000u64, 6),
        quarantined in prop::option::of(0..6usize),
    ) {
        let mut spread = Spread::new(rates.len());
        show(&mut spread, &rates, 2);
        let quarantined = quarantined.filter(|place| *place < rates.len() && spread.quarantine(*place, "EIO"));
        let mut free: Vec<u64> = pages[..rates.len()].iter().map(|pages| pages * 4096).collect();
        for bytes in writes {
            let mut out = vec![(9, 9)];
            let all: u64 = free.iter().enumerate().filter(|(place, _)| Some(*place) != quarantined).map(|(_, free)| free).sum();
            let fits = spread.divide(bytes, |place| free[place], &mut out);
            prop_assert_eq!(fits, bytes.next_multiple_of(4096) <= all);
            prop_assert_eq!(out.remove(0), (9, 9));
            prop_assert_eq!(out.iter().map(|(_, bytes)| bytes).sum::<u64>(), if fits { bytes } else { 0 });
            for (index, (place, bytes)) in out.iter().enumerate() {
                let occupied = bytes.next_multiple_of(4096);
                prop_assert!(*bytes > 0 && (occupied == *bytes || index + 1 == out.len()));
                prop_assert!(out[..index].iter().all(|(other, _)| other != place) && Some(*place as usize) != quarantined);
                prop_assert!(occupied <= free[*place as usize]);
                free[*place as usize] -= occupied;
            }
        }
    }
}
