//! The emulated device: host memory, links that take the time of a real one, compute that only waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hoist_memory::{Slot, SlotReader};

use crate::arena::Arena;
use crate::copy::Copy;
use crate::link::Link;
use crate::ranges::Ranges;
use crate::timer::Timer;
use crate::{Completion, Config, Device, DeviceReader, DeviceSlot, Error, Event};

/// The longest compute that one launch stands for. No kernel of a GPU runs for a day, and the stream's end stays an
/// `Instant` (its range is some 10^11 years) however many such are launched.
const COMPUTE_MAX: Duration = Duration::from_secs(24 * 3600);

/// An emulated device. Its links and its stream work at the same time, as a GPU's copy engines and
/// compute do; within one link or the stream, work is done in order.
pub(crate) struct Emulated {
    config: Config,
    stepped_down: Vec<String>,
    ranges: Ranges,
    h2d: Link,
    d2h: Link,
    timer: Timer,
    /// When the last compute launched ends.
    stream_free_at: Option<Instant>,
}

impl Emulated {
    /// Maps the arena and starts the threads: one for each link, one for events.
    pub fn open(
        config: &Config,
        deliver: impl FnMut(Completion) + Clone + Send + 'static,
    ) -> Result<Self, Error> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(Error::Config(problems));
        }
        let mut stepped_down = Vec::new();
        let arena = Arena::map(config.budget_bytes, &mut stepped_down)?;
        Ok(Self {
            config: config.clone(),
            stepped_down,
            ranges: Ranges::new(Arc::new(arena)),
            h2d: Link::spawn("hoist-h2d", config.h2d_bytes_per_second, deliver.clone())?,
            d2h: Link::spawn("hoist-d2h", config.d2h_bytes_per_second, deliver.clone())?,
            timer: Timer::spawn(deliver)?,
            stream_free_at: None,
        })
    }
}

impl Device for Emulated {
    fn name(&self) -> String {
        "emulated".into()
    }

    fn budget_bytes(&self) -> u64 {
        self.config.budget_bytes
    }

    fn stepped_down(&self) -> &[String] {
        &self.stepped_down
    }

    fn claim(&mut self, offset: u64, bytes: u64) -> DeviceSlot {
        self.ranges.claim(offset, bytes)
    }

    fn copy_in(&mut self, id: u64, from: SlotReader, to: DeviceSlot) {
        self.h2d.push(Copy::into_device(id, from, to));
    }

    fn copy_out(&mut self, id: u64, from: DeviceReader, to: Slot) {
        self.d2h.push(Copy::into_host(id, from, to));
    }

    fn launch(&mut self, compute: Duration) -> Event {
        let now = Instant::now();
        let start = self.stream_free_at.map_or(now, |free_at| free_at.max(now));
        let end = start + compute.min(COMPUTE_MAX);
        self.stream_free_at = Some(end);
        Event::at(end)
    }

    fn notify(&mut self, id: u64, event: Event) {
        self.timer.push(id, event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compute_without_end_is_a_day() {
        let config = Config { budget_bytes: 4096, h2d_bytes_per_second: 1, d2h_bytes_per_second: 1 };
        let mut device = Emulated::open(&config, |_| {}).unwrap();
        let before = Instant::now();
        let first = device.launch(Duration::MAX).instant().unwrap();
        let second = device.launch(Duration::MAX).instant().unwrap();
        assert!(first >= before + COMPUTE_MAX && first <= Instant::now() + COMPUTE_MAX);
        assert_eq!(second, first + COMPUTE_MAX, "in order, and as long");
        assert_eq!(
            device.launch(Duration::from_nanos(7)).instant().unwrap(),
            second + Duration::from_nanos(7)
        );
    }
}
