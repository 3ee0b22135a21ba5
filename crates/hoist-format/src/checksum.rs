//! Checksums of data: CRC-64/NVME over each 256 KiB of a run, counted from the run's start.

use crc_fast::{CrcAlgorithm, Digest};

/// The bytes that one checksum covers. DESIGN.md, rule 4: small enough that a piece or a tile is verified by itself,
/// large enough that a checksum per block is 3·10⁻⁵ of the data.
pub const CHECKSUM_BYTES: u64 = 256 * 1024;

/// The number of checksums over `bytes` bytes that start at a multiple of [`CHECKSUM_BYTES`].
pub fn blocks(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(CHECKSUM_BYTES)).unwrap_or(usize::MAX)
}

/// Puts the checksums of the bytes of `parts`, one after the other, into `out` (cleared first): one per
/// [`CHECKSUM_BYTES`], the last over what is left. A block may cross parts; no bytes give no checksum.
pub fn checksum<'a>(parts: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u64>) {
    out.clear();
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    let mut missing = CHECKSUM_BYTES as usize;
    for mut part in parts {
        while !part.is_empty() {
            let (now, later) = part.split_at(missing.min(part.len()));
            digest.update(now);
            missing -= now.len();
            part = later;
            if missing == 0 {
                out.push(digest.finalize_reset());
                missing = CHECKSUM_BYTES as usize;
            }
        }
    }
    if missing < CHECKSUM_BYTES as usize {
        out.push(digest.finalize());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn checks_as_the_catalogue_says() {
        // The check value of CRC-64/NVME in the CRC RevEng catalogue, over "123456789".
        let mut out = vec![7];
        checksum([b"12345".as_slice(), b"6789"].into_iter(), &mut out);
        assert_eq!(out, [0xae8b_1486_0a79_9888]);
        checksum(std::iter::empty(), &mut out);
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn parts_do_not_matter(bytes in 0..3 * CHECKSUM_BYTES as usize, mut cuts in prop::collection::vec(0..3 * CHECKSUM_BYTES as usize, 0..6)) {
            let data: Vec<u8> = (0..bytes).map(|place| (place * 31 + place / 251) as u8).collect();
            cuts.push(0);
            cuts.push(bytes);
            cuts.sort_unstable();
            let parts = cuts.windows(2).map(|cut| &data[cut[0].min(bytes)..cut[1].min(bytes)]);
            let mut out = Vec::new();
            checksum(parts, &mut out);
            let whole: Vec<u64> = data.chunks(CHECKSUM_BYTES as usize)
                .map(|block| crc_fast::checksum(CrcAlgorithm::Crc64Nvme, block)).collect();
            prop_assert_eq!(out.len(), blocks(bytes as u64));
            prop_assert_eq!(out, whole);
        }
    }
}
