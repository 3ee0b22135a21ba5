//! Which tensors go into which shard.

use std::ops::Range;

/// The most bytes of tensors in one shard where nobody says otherwise: what the tools of the Hugging Face hub take
/// (`MAX_SHARD_SIZE` of huggingface_hub).
pub const SHARD_BYTES_DEFAULT: u64 = 5_000_000_000;

/// Cuts a row of tensors with these lengths into shards of `shard_bytes_max` at most, each as long as it can be; a
/// longer tensor gets one of its own. There is one shard at least.
pub(crate) fn split(lengths: &[u64], shard_bytes_max: u64) -> Vec<Range<usize>> {
    let mut shards = Vec::new();
    let (mut start, mut bytes) = (0, 0_u64);
    for (place, length) in lengths.iter().enumerate() {
        match bytes.checked_add(*length) {
            Some(sum) if sum <= shard_bytes_max || place == start => bytes = sum,
            _ => {
                shards.push(start..place);
                (start, bytes) = (place, *length);
            }
        }
    }
    shards.push(start..lengths.len());
    shards
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Where each shard ends.
    fn ends(lengths: &[u64], shard_bytes_max: u64) -> Vec<usize> {
        split(lengths, shard_bytes_max).iter().map(|shard| shard.end).collect()
    }

    #[test]
    fn shards_are_as_long_as_they_can_be() {
        assert_eq!(ends(&[], 5), [0]);
        assert_eq!(ends(&[9], 5), [1]);
        assert_eq!(ends(&[2, 3, 1, 4], 5), [2, 4]);
        // huggingface_hub's example, in the order of the tensors.
        assert_eq!(ends(&[6, 6, 2, 6, 2, 2], 10), [1, 3, 6]);
        assert_eq!(ends(&[1, 9, 0, 1], 5), [1, 2, 4]);
        assert_eq!(ends(&[0, 0, 1, 0], 0), [2, 3, 4]);
        assert_eq!(ends(&[u64::MAX, u64::MAX], u64::MAX), [1, 2]);
    }

    proptest! {
        #[test]
        fn every_tensor_is_in_one_shard(
            lengths in prop::collection::vec(0_u64..50, 1..40),
            shard_bytes_max in 0_u64..120,
        ) {
            let shards = split(&lengths, shard_bytes_max);
            let mut end = 0;
            for shard in &shards {
                prop_assert_eq!(shard.start, end);
                prop_assert!(!shard.is_empty());
                end = shard.end;
                let bytes: u64 = lengths[shard.clone()].iter().sum();
                prop_assert!(bytes <= shard_bytes_max || shard.len() == 1);
                // The next one did not fit.
                prop_assert!(end == lengths.len() || bytes + lengths[end] > shard_bytes_max);
            }
            prop_assert_eq!(end, lengths.len());
        }
    }
}
