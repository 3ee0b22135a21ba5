//! What checksums would add: `hoist io` moves bytes that nobody verifies, a store verifies all of them.

use std::time::{Duration, Instant};

use hoist_store::checksum;

/// Bytes that are summed at a time: more than the caches that belong to one core, as what a drive has just written is in
/// none of them.
const SUMMED_BYTES: usize = 16 << 20;
/// Of the measurement: a dozen sums at the least, and nothing beside the seconds of a run.
const DURATION: Duration = Duration::from_millis(50);

/// Processor seconds that one thread takes for the checksums of a GiB.
pub fn seconds_per_gib() -> f64 {
    // Not zeros: pages that were never written would all be the one page of zeros.
    let bytes = vec![0xA5_u8; SUMMED_BYTES];
    let (begin, mut sums, mut summed) = (Instant::now(), Vec::new(), 0_u64);
    while summed == 0 || begin.elapsed() < DURATION {
        checksum(std::iter::once(std::hint::black_box(bytes.as_slice())), &mut sums);
        std::hint::black_box(&mut sums);
        summed += SUMMED_BYTES as u64;
    }
    begin.elapsed().as_secs_f64() * (1_u64 << 30) as f64 / summed as f64
}

#[cfg(test)]
mod tests {
    #[test]
    fn sums_take_time() {
        let seconds = super::seconds_per_gib();
        assert!(seconds > 0.0 && seconds.is_finite(), "{seconds}");
    }
}
