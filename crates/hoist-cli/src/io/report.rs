//! What a run reports: the keys of `--json`, described in `docs/io.md`.

use serde::Serialize;

use super::call::{Call, Settings};
use super::checksums;
use super::counts::{Counts, Moved};
use super::drive::Obtained;
use crate::report::{Machine, add_steps, peak_rss_bytes};

/// The version of the keys: a key that changes its meaning changes this.
const SCHEMA: &str = "hoist-io/1";

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    /// The run was interrupted: what is here is of the requests that were done.
    pub partial: bool,
    machine: Machine,
    /// What it ran with.
    pub config: Settings,
    /// What was read, where anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<Rates>,
    /// What was written, where anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<Rates>,
    /// Processor time for each GiB moved; none when nothing was.
    pub cpu_seconds_per_gib: Option<f64>,
    /// What the checksums of a GiB would take besides; none when nothing was measured.
    pub checksum_seconds_per_gib: Option<f64>,
    /// What moved the bytes; none when the run had not come so far.
    pub backend: Option<&'static str>,
    /// Each step down, with its cause.
    pub stepped_down: Vec<String>,
    /// Bytes of memory for requests under way, of all directories together.
    pub memory_bytes: u64,
    /// Most memory that the process ever had.
    pub peak_rss_bytes: u64,
}

/// `read` and `write`
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rates {
    /// Bytes of the requests that were done.
    pub bytes: u64,
    /// From the beginning of the measurement until the last of them was done.
    pub seconds: f64,
    /// The first by the second.
    pub bytes_per_second: f64,
    /// Requests done in a second.
    pub operations_per_second: f64,
    /// How long requests took.
    pub latency_seconds: Latency,
}

/// `latency_seconds`: from push to done.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Half of the requests took no longer.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// All of them.
    pub max: f64,
}

impl Rates {
    fn of(moved: &Moved) -> Option<Self> {
        (moved.requests > 0).then(|| Self {
            bytes: moved.bytes,
            seconds: moved.seconds,
            bytes_per_second: moved.bytes as f64 / moved.seconds,
            operations_per_second: moved.requests as f64 / moved.seconds,
            latency_seconds: Latency {
                p50: moved.latency_seconds(0.5),
                p99: moved.latency_seconds(0.99),
                p999: moved.latency_seconds(0.999),
                max: moved.latency_seconds_max(),
            },
        })
    }
}

impl Report {
    /// Of a run that was interrupted before it measured anything.
    pub fn blank(call: &Call) -> Self {
        Self {
            schema: SCHEMA,
            partial: true,
            machine: Machine::here(&call.directories[0]),
            config: call.settings.clone(),
            read: None,
            write: None,
            cpu_seconds_per_gib: None,
            checksum_seconds_per_gib: None,
            backend: None,
            stepped_down: Vec::new(),
            memory_bytes: call.memory.budget_bytes() * call.directories.len() as u64,
            peak_rss_bytes: 0,
        }
    }

    /// The same with what was measured.
    ///
    /// # Errors
    /// When the kernel does not say how much memory was used.
    pub fn with(
        mut self,
        counts: &Counts,
        cpu_seconds: f64,
        obtained: &[Obtained],
        partial: bool,
    ) -> std::io::Result<Self> {
        self.partial = partial;
        (self.read, self.write) = (Rates::of(&counts.read), Rates::of(&counts.write));
        self.cpu_seconds_per_gib = cpu_seconds_per_gib(cpu_seconds, counts.read.bytes + counts.write.bytes);
        self.checksum_seconds_per_gib = (!partial).then(checksums::seconds_per_gib);
        self.backend = obtained.first().map(|first| first.io.backend);
        for Obtained { io, memory } in obtained {
            add_steps(&mut self.stepped_down, &io.stepped_down);
            add_steps(&mut self.stepped_down, &memory.stepped_down);
            self.machine.obtained.extend([io.to_string(), memory.to_string()]);
        }
        self.peak_rss_bytes = peak_rss_bytes()?;
        Ok(self)
    }

    /// What the machine gave, of each directory.
    pub fn obtained(&self) -> &[String] {
        &self.machine.obtained
    }
}

fn cpu_seconds_per_gib(cpu_seconds: f64, bytes: u64) -> Option<f64> {
    (bytes > 0).then(|| cpu_seconds * (1_u64 << 30) as f64 / bytes as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::io::order::Direction;

    #[test]
    fn rates_are_of_what_was_moved() {
        let mut counts = Counts::new();
        assert!(Rates::of(&counts.read).is_none());
        counts.count(Direction::Read, 3000, 1000, Duration::from_secs(1));
        counts.count(Direction::Read, 3000, 1000, Duration::from_secs(2));
        let rates = Rates::of(&counts.read).unwrap();
        assert_eq!((rates.bytes, rates.seconds), (6000, 2.0));
        assert_eq!((rates.bytes_per_second, rates.operations_per_second), (3000.0, 1.0));
    }

    #[test]
    fn processor_time_is_by_gib() {
        assert_eq!(cpu_seconds_per_gib(1.0, 1 << 29), Some(2.0));
        assert_eq!(cpu_seconds_per_gib(1.0, 0), None);
    }
}
