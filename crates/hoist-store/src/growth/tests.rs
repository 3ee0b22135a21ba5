use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const PLENTY: u64 = 1 << 50;

/// The sizes that directories get of which the first one writes all that it may before the next one begins.
fn grown(need_bytes: u64, segment_bytes_max: u64, rooms: &[(u64, u64)]) -> Vec<Vec<u64>> {
    let mut growth = Growth::new(need_bytes, segment_bytes_max, Rooms::new(rooms.iter().copied()));
    (0..rooms.len()).for_each(|directory| while growth.next(directory).is_some() {});
    growth.into_sizes()
}

#[test]
fn segments_fit_the_need() {
    let one = |need_bytes, max| grown(need_bytes, max, &[(1, PLENTY)]).remove(0);
    assert_eq!(one(0, GIB), [0u64; 0]);
    assert_eq!(one(1, GIB), [64 * MIB]);
    assert_eq!(one(2 * GIB + 65 * MIB, GIB), [GIB, GIB, 128 * MIB]);
    assert_eq!(one(3 * MIB + 1, MIB), [MIB; 4]);
    // The first writes all of it before the second begins, which gets its even part all the same.
    assert_eq!(grown(GIB, GIB, &[(1, PLENTY), (2, PLENTY)]), [vec![GIB], vec![GIB / 2]]);
}

/// Kills: a directory that is left out as soon as it has no room for a whole step.
#[test]
fn a_directory_gives_all_the_room_that_it_has() {
    // Steps of 32 MiB, and less than one in each.
    let rooms = [(1, 20 * MIB), (2, 20 * MIB), (3, 20 * MIB), (4, 20 * MIB)];
    assert_eq!(grown(80 * MIB, GIB, &rooms), [[20 * MIB]; 4]);
    assert_eq!(grown(256 * MIB, GIB, &[(1, 31 * MIB + 5), (2, PLENTY)]), [[31 * MIB], [256 * MIB]]);
}

/// Kills: rooms that are counted by directory.
#[test]
fn directories_of_one_device_share_its_room() {
    let rooms = || Rooms::new([(7, 100 * MIB), (8, 30 * MIB), (7, 99 * MIB)]);
    assert_eq!(rooms().free_bytes(), 130 * MIB);
    let mut growth = Growth::new(120 * MIB, GIB, rooms());
    // By turns, as drives do that are equally fast.
    while (0..3).filter(|directory| growth.next(*directory).is_some()).count() > 0 {}
    let sums: Vec<u64> = growth.into_sizes().iter().map(|sizes| sizes.iter().sum()).collect();
    assert!(sums[0] + sums[2] <= 100 * MIB && sums[1] <= 30 * MIB, "{sums:?}");
    assert_eq!(sums.iter().sum::<u64>(), 120 * MIB);
}

/// Kills: growth that the store can do without, where the room is scarce.
#[test]
fn half_of_the_room_stays_free_of_what_is_optional() {
    // Not even what fits is rounded up to 64 MiB.
    assert_eq!(grown(40 * MIB, GIB, &[(1, 79 * MIB)]), [[40 * MIB]]);
    assert_eq!(grown(40 * MIB, GIB, &[(1, 100 * MIB)]), [[50 * MIB]]);
    assert_eq!(grown(40 * MIB, GIB, &[(1, 128 * MIB)]), [[64 * MIB]]);
    assert_eq!(grown(GIB, GIB, &[(1, PLENTY), (2, GIB / 2)]), [[GIB], [GIB / 4]]);
}

/// Kills: a step that stays counted when it was taken back, and more of what a device has said it has no room for.
#[test]
fn a_device_that_is_full_gets_no_more_than_it_must() {
    let mut growth = Growth::new(64 * MIB, 64 * MIB, Rooms::new([(1, PLENTY), (2, PLENTY), (1, PLENTY)]));
    while growth.next(0).is_some() {}
    let step = growth.next(2).unwrap();
    assert!(step.is_optional && step.start == 0, "{step:?}");
    growth.undo(2, step);
    assert_eq!(growth.next(2), None);
    let step = growth.next(1).unwrap();
    let next = growth.next(1).unwrap();
    assert_eq!((step.segment, next.segment, next.start), (0, 0, step.bytes));
    growth.undo(1, next);
    assert_eq!(growth.next(1), None);
    assert_eq!(growth.all_bytes, 64 * MIB + step.bytes);
    assert_eq!(growth.rooms.rooms[1].left_bytes, PLENTY - step.bytes);
    assert_eq!(growth.into_sizes(), [vec![64 * MIB], vec![step.bytes], vec![]]);
}

proptest! {
    /// What fits in all rooms together is found, in whatever order drives write, and no room is passed.
    #[test]
    fn what_fits_finds_room(
        rooms in prop::collection::vec((0..4u64, 0..2048u64), 1..6),
        need in 0.0..=1.0f64,
        segment_max in 1..400u64,
        turns in prop::collection::vec(0..6usize, 0..200),
    ) {
        let rooms: Vec<_> = rooms.iter().map(|(device, grains)| (*device, grains * ROOM_GRAIN_BYTES)).collect();
        let free_bytes = Rooms::new(rooms.iter().copied()).free_bytes();
        let need_bytes = (need * free_bytes as f64) as u64;
        let max = segment_max * ROOM_GRAIN_BYTES;
        let mut growth = Growth::new(need_bytes, max, Rooms::new(rooms.iter().copied()));
        for directory in turns.into_iter().filter(|directory| *directory < rooms.len()).chain(0..rooms.len()) {
            growth.next(directory);
        }
        (0..rooms.len()).for_each(|directory| while growth.next(directory).is_some() {});
        let sizes = growth.into_sizes();
        prop_assert!(sizes.iter().flatten().sum::<u64>() >= need_bytes);
        for (device, _) in &rooms {
            let on_it = rooms.iter().zip(&sizes).filter(|((other, _), _)| other == device);
            let free_bytes = rooms.iter().find(|(other, _)| other == device).map_or(0, |(_, free)| *free);
            prop_assert!(on_it.map(|(_, sizes)| sizes.iter().sum::<u64>()).sum::<u64>() <= free_bytes);
        }
        for sizes in &sizes {
            prop_assert!(sizes.iter().all(|size| (1..=max).contains(size) && size.is_multiple_of(ROOM_GRAIN_BYTES)));
            prop_assert!(sizes.iter().rev().skip(1).all(|size| *size == max));
        }
    }
}
