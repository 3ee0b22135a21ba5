//! How tensors are cut into pieces, and pieces packed into accesses.

use std::ops::Range;

use super::Budgets;

/// Elements of a tile: 256 KiB, one checksum, of a 2-byte array. Cuts are at multiples of it.
pub const TILE_ELEMENTS: u64 = 131_072;
/// Tensors below this travel in bundles, and are never cut (the store's rule, in bytes).
pub const SMALL_BYTES: u64 = 1 << 20;
/// An access is at most this large, however large the budget: the middle of what a tile may be (2 to 64 MiB).
/// Larger ones would fill the drive's queue no better, and the first read and the last write of a step, which
/// nothing hides, would take longer.
const ACCESS_BYTES_MAX: u64 = 32 << 20;

/// The most bytes of one access: a quarter of its tier's budget, so that the next ones are on their way while one
/// is held. What the device gets passes through the host, so its accesses obey both budgets.
#[derive(Debug, Clone, Copy)]
pub struct AccessLimits {
    /// Of accesses on the device tier.
    pub device_bytes: u64,
    /// Of accesses on the host tier.
    pub host_bytes: u64,
}

impl AccessLimits {
    /// The limits for these budgets.
    pub fn new(budgets: Budgets) -> Self {
        let host_bytes = (budgets.host_bytes / 4).min(ACCESS_BYTES_MAX);
        Self { device_bytes: (budgets.device_bytes / 4).min(host_bytes), host_bytes }
    }
}

/// Cuts `length` into equal ranges of whole `grain`s (the last may be shorter), none longer than `length_max`
/// unless a single grain is. Nothing is cut of an empty tensor: it is one empty range.
pub fn ranges(length: u64, length_max: u64, grain: u64) -> Vec<Range<u64>> {
    let piece_max = (length_max / grain).max(1) * grain;
    let pieces = length.div_ceil(piece_max).max(1);
    let piece = length.div_ceil(pieces).next_multiple_of(grain);
    if length <= piece {
        return std::iter::once(0..length).collect();
    }
    (0..length.div_ceil(piece)).map(|i| i * piece..((i + 1) * piece).min(length)).collect()
}

/// Packs neighbours together while they fit into `bytes_max`; what is larger by itself stays alone.
pub fn pack<T>(items: impl IntoIterator<Item = (u64, T)>, bytes_max: u64) -> Vec<Vec<T>> {
    let mut packs: Vec<Vec<T>> = Vec::new();
    let mut room = 0;
    for (bytes, item) in items {
        match packs.last_mut().filter(|_| bytes <= room) {
            Some(pack) => {
                room -= bytes;
                pack.push(item);
            }
            None => {
                room = bytes_max.saturating_sub(bytes);
                packs.push(vec![item]);
            }
        }
    }
    packs
}

/// The group of the `index`th bundle of a layer: bundles never cross a group, and a group no access.
pub fn group_name(layer: &str, index: usize) -> String {
    if index == 0 { layer.to_owned() } else { format!("{layer}+{index}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packs_keep_the_order() {
        let packs = pack([(3, 'a'), (4, 'b'), (9, 'c'), (1, 'd'), (7, 'e'), (0, 'f')], 8);
        assert_eq!(packs, [vec!['a', 'b'], vec!['c'], vec!['d', 'e', 'f']]);
    }

    proptest! {
        #[test]
        fn ranges_cover_everything_once(length in 0u64..1_000_000, max in 1u64..200_000, grain in 1u64..5000) {
            let ranges = ranges(length, max, grain);
            prop_assert_eq!(ranges[0].start, 0);
            prop_assert_eq!(ranges.last().unwrap().end, length);
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].end, pair[1].start);
            }
            for range in &ranges {
                prop_assert_eq!(range.start % grain, 0);
                prop_assert!(range.end - range.start <= max.max(grain));
                prop_assert!(range.start < range.end || length == 0);
            }
        }
    }
}
