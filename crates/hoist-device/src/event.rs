//! A point on the device's stream.

use std::time::Instant;

use crate::pace::sleep_until;

/// A point in the device's work that passes once, and stays passed.
///
/// The emulated stream knows beforehand when its work ends, so its event is an instant: making and
/// asking one costs no thread and no system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event(Option<Instant>);

impl Event {
    /// An event that has passed.
    pub fn done() -> Event {
        Event(None)
    }

    /// An event that passes at `instant`.
    pub(crate) fn at(instant: Instant) -> Event {
        Event(Some(instant))
    }

    /// When it passes; `None` when it never had to.
    pub(crate) fn instant(&self) -> Option<Instant> {
        self.0
    }

    /// True once it has passed.
    pub fn is_done(&self) -> bool {
        self.0.is_none_or(|instant| Instant::now() >= instant)
    }

    /// Returns when it has passed; sleeps until then.
    pub fn wait(&self) {
        if let Some(instant) = self.0 {
            sleep_until(instant);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_event_passes_at_its_instant_and_stays_passed() {
        let instant = Instant::now() + Duration::from_millis(5);
        let event = Event::at(instant);
        let seen_done = event.is_done();
        assert!(!seen_done || Instant::now() >= instant);
        event.wait();
        assert!(Instant::now() >= instant);
        assert!(event.is_done() && Event::done().is_done());
        assert!(!Event::at(Instant::now() + Duration::from_secs(3600)).is_done());
    }
}
