//! What was moved, and how long each request took.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::order::Direction;

/// Latencies are told apart to a thousandth, between 1 ns and an hour: finer than a drive repeats itself, and longer
/// than one may be silent. 3 digits over this range take about 250 KiB.
const LATENCY_DIGITS: u8 = 3;
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// One direction.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Bytes of the requests that were done.
    pub bytes: u64,
    /// How many requests.
    pub requests: u64,
    /// From the beginning of the measurement until the last of them was done.
    pub seconds: f64,
    latencies_ns: Histogram<u64>,
}

impl Moved {
    fn new() -> Self {
        let latencies_ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
            .expect("1 ns to an hour with 3 digits is a range that hdrhistogram takes");
        Self { bytes: 0, requests: 0, seconds: 0.0, latencies_ns }
    }

    fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.requests += other.requests;
        self.seconds = self.seconds.max(other.seconds);
        self.latencies_ns.add(&other.latencies_ns).expect("both histograms have the same bounds");
    }

    /// The latency that this part of the requests kept below, in seconds.
    pub fn latency_seconds(&self, part: f64) -> f64 {
        self.latencies_ns.value_at_quantile(part) as f64 / 1e9
    }

    /// The longest latency, in seconds.
    pub fn latency_seconds_max(&self) -> f64 {
        self.latencies_ns.max() as f64 / 1e9
    }
}

/// Both directions.
#[derive(Clone, Debug)]
pub struct Counts {
    /// What was read.
    pub read: Moved,
    /// What was written.
    pub write: Moved,
}

impl Counts {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { read: Moved::new(), write: Moved::new() }
    }

    /// A request is done, this long after the beginning of the measurement.
    pub fn count(&mut self, direction: Direction, bytes: u64, latency_ns: u64, since_begin: Duration) {
        let moved = match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        };
        moved.bytes += bytes;
        moved.requests += 1;
        moved.seconds = moved.seconds.max(since_begin.as_secs_f64());
        moved.latencies_ns.saturating_record(latency_ns);
    }

    /// Adds what another directory moved in the same time.
    pub fn add(&mut self, other: &Self) {
        self.read.add(&other.read);
        self.write.add(&other.write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_add_up_over_the_same_time() {
        let (mut one, mut other) = (Counts::new(), Counts::new());
        for number in 1..=1000 {
            one.count(Direction::Read, 4096, number * 1000, Duration::from_millis(number));
        }
        other.count(Direction::Read, 8192, 5_000_000, Duration::from_secs(2));
        other.count(Direction::Write, 100, 7, Duration::from_secs(3));
        one.add(&other);
        assert_eq!((one.read.bytes, one.read.requests), (1000 * 4096 + 8192, 1001));
        assert_eq!((one.write.bytes, one.write.requests), (100, 1));
        assert_eq!((one.read.seconds, one.write.seconds), (2.0, 3.0));
        let near = |found: f64, right: f64| (found / right - 1.0).abs() < 0.002;
        assert!(near(one.read.latency_seconds(0.5), 0.000_501), "{}", one.read.latency_seconds(0.5));
        assert!(near(one.read.latency_seconds(0.99), 0.000_991), "{}", one.read.latency_seconds(0.99));
        assert!(near(one.read.latency_seconds_max(), 0.005), "{}", one.read.latency_seconds_max());
    }

    #[test]
    fn a_drive_that_is_silent_for_a_day_is_counted_as_an_hour() {
        let mut counts = Counts::new();
        counts.count(Direction::Write, 1, u64::MAX, Duration::from_secs(1));
        assert!((counts.write.latency_seconds_max() / 3600.0 - 1.0).abs() < 0.002);
    }
}
