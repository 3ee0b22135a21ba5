//! The rate of a short turn, from when its requests came back.

use std::time::Instant;

/// The straight line through what had been moved at each return (least squares): its slope is the rate. Deep queues come
/// back in waves. From one return to another that lies elsewhere in its wave would count a wave too many or too few,
/// which is a fifth of a short turn, always in favour of the deepest queue; on a line, waves lie evenly.
pub struct Pace {
    begin: Instant,
    bytes: f64,
    returns: f64,
    seconds_sum: f64,
    bytes_sum: f64,
    squares_sum: f64,
    products_sum: f64,
}

impl Pace {
    /// Of a turn that begins then.
    pub fn begin(begin: Instant) -> Self {
        Self {
            begin,
            bytes: 0.0,
            returns: 0.0,
            seconds_sum: 0.0,
            bytes_sum: 0.0,
            squares_sum: 0.0,
            products_sum: 0.0,
        }
    }

    /// A request came back.
    pub fn add(&mut self, back: Instant, bytes: u64) {
        let seconds = back.saturating_duration_since(self.begin).as_secs_f64();
        self.bytes += bytes as f64;
        self.returns += 1.0;
        self.seconds_sum += seconds;
        self.bytes_sum += self.bytes;
        self.squares_sum += seconds * seconds;
        self.products_sum += seconds * self.bytes;
    }

    /// The slope; none where all came back at once.
    pub fn bytes_per_second(&self) -> Option<f64> {
        let spread = self.returns * self.squares_sum - self.seconds_sum * self.seconds_sum;
        let slope = (self.returns * self.products_sum - self.seconds_sum * self.bytes_sum) / spread;
        (spread > 0.0 && slope.is_finite() && slope > 0.0).then_some(slope)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The rate of requests of 1000 bytes that come back at these milliseconds, in requests per second.
    fn rate(returns: impl IntoIterator<Item = u64>) -> f64 {
        let begin = Instant::now();
        let mut pace = Pace::begin(begin);
        returns.into_iter().for_each(|at| pace.add(begin + Duration::from_millis(at), 1000));
        pace.bytes_per_second().unwrap() / 1000.0
    }

    #[test]
    fn waves_and_a_steady_stream_of_the_same_rate_are_alike() {
        let steady = rate((0..100).map(|number| 20 + number));
        assert!((steady / 1000.0 - 1.0).abs() < 1e-6, "{steady}");
        for waves in 3..8 {
            let waved = rate((1..=waves).flat_map(|wave| [wave * 10; 10]));
            assert!((waved / 1000.0 - 1.0).abs() < 1e-6, "{waved} in {waves} waves");
        }
        // One that is cut in its middle.
        let cut = rate((1..=6).flat_map(|wave| [wave * 10; 10]).take(55));
        assert!((cut / 1000.0 - 1.0).abs() < 0.06, "{cut}");
    }

    #[test]
    fn what_comes_back_at_once_has_no_rate() {
        let begin = Instant::now();
        let mut pace = Pace::begin(begin);
        assert!(pace.bytes_per_second().is_none());
        (0..9).for_each(|_| pace.add(begin, 1000));
        assert!(pace.bytes_per_second().is_none());
    }
}
