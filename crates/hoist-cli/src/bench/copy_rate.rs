//! How fast host memory is copied: no link of an emulated device is faster, whatever bandwidth its config gives it.

use std::time::{Duration, Instant};

/// Bytes of a copy: what a large access has, and more than the caches that belong to one core.
const COPY_BYTES: usize = 16 << 20;
/// Of the measurement: dozens of copies, and little beside the second that the drive's take.
const DURATION: Duration = Duration::from_millis(100);

/// Bytes per second that one thread copies. Either direction of an emulated link is such a copy.
pub fn measure() -> f64 {
    // Not zeros: pages that were never written would all be the one page of zeros.
    let (from, mut to) = (vec![0xA5_u8; COPY_BYTES], vec![0x5A_u8; COPY_BYTES]);
    let begin = Instant::now();
    let mut copies = 0_u32;
    while copies == 0 || begin.elapsed() < DURATION {
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
        copies += 1;
    }
    f64::from(copies) * COPY_BYTES as f64 / begin.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_has_a_rate() {
        let rate = super::measure();
        assert!(rate > 0.0 && rate.is_finite(), "{rate}");
    }
}
