//! A token bucket. Pure: the time is told to it.

use std::time::{Duration, Instant};

const NANOSECONDS: u128 = 1_000_000_000;

/// What an idle bucket saves up, as time at its rate: a sleep of the kernel may end a scheduler tick late (10 ms at
/// HZ=100), and what flowed meanwhile must not be lost. A measurement of a second is 1 % too fast by it at most.
const BURST: Duration = Duration::from_millis(10);

/// Bytes that may pass, filled at a rate. What is larger than the burst saves up for itself.
pub(super) struct Bucket {
    /// In bytes times nanoseconds, so that nothing is rounded: a second at 1 TB/s is 10^21.
    level: u128,
    bytes_per_second: u64,
    filled: Instant,
}

impl Bucket {
    /// An empty one.
    pub(super) fn new(bytes_per_second: u64, now: Instant) -> Bucket {
        Bucket { level: 0, bytes_per_second, filled: now }
    }

    /// Fills it at the rate that was told before; from now on this one holds. `largest_bytes` is the
    /// most that is to pass at once: the bucket is at least that large.
    pub(super) fn fill(&mut self, now: Instant, bytes_per_second: u64, largest_bytes: u64) {
        let rate = u128::from(self.bytes_per_second);
        let passed = now.saturating_duration_since(self.filled).as_nanos();
        let room = (rate * BURST.as_nanos()).max(u128::from(largest_bytes) * NANOSECONDS);
        self.level = (self.level + rate * passed).min(room);
        (self.filled, self.bytes_per_second) = (now, bytes_per_second);
    }

    /// Lets bytes pass, or not yet.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let left = self.level.checked_sub(u128::from(bytes) * NANOSECONDS);
        self.level = left.unwrap_or(self.level);
        left.is_some()
    }

    /// How long after it was filled so many bytes can pass; None when never, as the rate is 0.
    pub(super) fn time_until(&self, bytes: u64) -> Option<Duration> {
        let missing = (u128::from(bytes) * NANOSECONDS).saturating_sub(self.level);
        if missing == 0 {
            return Some(Duration::ZERO);
        }
        let rate = u128::from(self.bytes_per_second);
        let nanoseconds = if rate == 0 { return None } else { missing.div_ceil(rate) };
        Some(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_the_rate_and_a_burst_however_it_is_looked_at() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1_000_000, start);
        // Odd intervals: rounding at each look would lose bytes.
        let (mut passed_bytes, mut now) = (0, start);
        while now < start + Duration::from_secs(10) {
            now += Duration::from_nanos(333_333);
            bucket.fill(now, 1_000_000, 100);
            while bucket.take(100) {
                passed_bytes += 100;
            }
        }
        assert!((9_999_900..=10_000_400).contains(&passed_bytes), "{passed_bytes}");
        // Idle for long: no more than the burst.
        bucket.fill(now + Duration::from_secs(100), 1_000_000, 100);
        assert!(bucket.take(10_000) && !bucket.take(100));
    }

    #[test]
    fn more_than_the_burst_passes_in_its_time() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1000, start);
        bucket.fill(start, 1000, 5000);
        assert_eq!(bucket.time_until(5000), Some(Duration::from_secs(5)));
        bucket.fill(start + Duration::from_nanos(4_999_999_999), 1000, 5000);
        assert!(!bucket.take(5000));
        bucket.fill(start + Duration::from_secs(5), 0, 5000);
        assert!(bucket.take(5000));
        assert_eq!((bucket.time_until(0), bucket.time_until(1)), (Some(Duration::ZERO), None));
    }
}
