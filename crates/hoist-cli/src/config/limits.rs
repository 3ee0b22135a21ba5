//! What `io.*` keys and the flags of `hoist io` may be. What they are by default is hoist-io's.

use hoist_io::memory::{PIECE_BYTES_DEFAULT, SECTOR_BYTES};

/// Direct I/O moves multiples of this: hoist-io aligns everything to it.
pub const ALIGNMENT_BYTES: u64 = SECTOR_BYTES as u64;
/// No block crosses a piece of the slab.
const BLOCK_BYTES_MAX: u64 = PIECE_BYTES_DEFAULT as u64;

/// What to say of a block size that is none.
pub const RIGHT_BLOCK: &str = "would be right: a multiple of 4 KiB up to 64 MiB, such as \"1 MiB\"";

/// Whether blocks may have so many bytes.
pub fn is_block(bytes: u64) -> bool {
    (ALIGNMENT_BYTES..=BLOCK_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(ALIGNMENT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_sectors_of_one_piece() {
        let blocks = [4096, 12288, 1 << 20, 64 << 20];
        assert!(blocks.iter().all(|bytes| is_block(*bytes)));
        let others = [0, 512, 5000, (64 << 20) + 4096, u64::MAX];
        assert!(!others.iter().any(|bytes| is_block(*bytes)));
    }
}
