//! How long a link is occupied: pure arithmetic over instants, and the sleep that keeps to it.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// The timer slack of the device's threads. The kernel may wake a sleeper late by its slack, 50 us by
/// default (PR_SET_TIMERSLACK(2const)), which is the time of a 1.2 MB copy at 24 GB/s; 1 ns is the least.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::MIN;

/// When one link is free, given what passed over it.
pub(crate) struct Pace {
    bytes_per_second: u64,
    free_at: Option<Instant>,
}

impl Pace {
    /// A free link of this bandwidth (above 0).
    pub fn new(bytes_per_second: u64) -> Self {
        assert!(bytes_per_second > 0, "a link needs a bandwidth");
        Self { bytes_per_second, free_at: None }
    }

    /// The time that `bytes` occupy the link, rounded up to a nanosecond.
    fn link_time(&self, bytes: u64) -> Duration {
        let ns = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(self.bytes_per_second));
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// Occupies the link with a copy that was pushed at `pushed` and whose memcpy took `memcpy`;
    /// returns when the copy ends.
    ///
    /// The end counts from when the link was free by this arithmetic, not from when its thread woke
    /// up: a late wake-up would otherwise add to every copy and small copies would see a slower link.
    pub fn occupy(&mut self, pushed: Instant, bytes: u64, memcpy: Duration) -> Instant {
        let start = self.free_at.map_or(pushed, |free_at| free_at.max(pushed));
        let end = start + self.link_time(bytes).max(memcpy);
        self.free_at = Some(end);
        end
    }
}

/// Lets the calling thread's sleeps end on time. It belongs to the thread, so only the device's own
/// threads call it; without it sleeps end later, which is slower and still right.
pub(crate) fn sleep_finely() {
    if let Err(errno) = rustix::thread::set_current_timer_slack(Some(TIMER_SLACK_NS)) {
        tracing::warn!("device times are coarser: prctl(PR_SET_TIMERSLACK): {errno}");
    }
}

/// Sleeps until `deadline` has passed, without using the processor.
pub(crate) fn sleep_until(deadline: Instant) {
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::sleep(left);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn copies_follow_each_other_on_the_link() {
        let t0 = Instant::now();
        let mut pace = Pace::new(1_000_000); // 1000 bytes a millisecond
        assert_eq!(pace.occupy(t0, 3000, Duration::ZERO), t0 + 3 * MS);
        assert_eq!(pace.occupy(t0 + MS, 1000, Duration::ZERO), t0 + 4 * MS, "waits for the first");
        assert_eq!(pace.occupy(t0 + 9 * MS, 1000, Duration::ZERO), t0 + 10 * MS, "finds the link free");
        assert_eq!(pace.occupy(t0 + 9 * MS, 1000, 5 * MS), t0 + 15 * MS, "a slow memcpy is the link");
    }

    #[test]
    fn a_part_of_a_nanosecond_counts_as_one() {
        assert_eq!(Pace::new(3_000_000_000).link_time(1), Duration::from_nanos(1));
        assert_eq!(Pace::new(1).link_time(u64::MAX), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn sleep_until_ends_after_the_deadline() {
        sleep_finely();
        let deadline = Instant::now() + 3 * MS;
        sleep_until(deadline);
        assert!(Instant::now() >= deadline);
    }

    proptest! {
        /// Whatever is pushed when: no copy ends before its own time, and the link is never faster
        /// than its bandwidth over any run of copies.
        #[test]
        fn a_link_never_beats_its_bandwidth(copies in proptest::collection::vec((0..5_000_u64, 0..10_000_u64), 1..50)) {
            let t0 = Instant::now();
            let mut pace = Pace::new(1_000_000_000); // a byte a nanosecond
            let (mut pushed, mut ends) = (t0, Vec::new());
            for (gap_ns, bytes) in &copies {
                pushed += Duration::from_nanos(*gap_ns);
                let end = pace.occupy(pushed, *bytes, Duration::ZERO);
                prop_assert!(end >= pushed + Duration::from_nanos(*bytes));
                ends.push(end);
            }
            for first in 0..ends.len() {
                let bytes: u64 = copies[first + 1..].iter().map(|(_, bytes)| bytes).sum();
                prop_assert!(ends[ends.len() - 1] - ends[first] >= Duration::from_nanos(bytes));
            }
        }
    }
}
