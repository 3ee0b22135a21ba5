//! Settings that may turn out to be the best.

use std::cmp::Reverse;
use std::fmt;

use hoist_io::{BackendChoice, Config};

use crate::config::units::format_exact_bytes;

/// From where a drive's commands cost more than they move, to the most that common drives take as one command
/// (max_sectors_kb of NVMe drives is 128 KiB to 4 MiB).
const BLOCK_BYTES: [u64; 5] = [256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];
/// One block under way leaves a drive idle between any two.
const QUEUE_DEPTH_MIN: u64 = 2;
/// Bytes under way: the most, each half of the one before. More than 64 MiB are no use to a drive of 14 GB/s whose
/// blocks take 4 ms; less than 4 MiB leave one of 1 GB/s idle when they take as long.
const IN_FLIGHT_BYTES_MAX: u64 = 64 << 20;
const IN_FLIGHT_BYTES_MIN: u64 = 4 << 20;
/// How many such halves.
const IN_FLIGHT_STEPS: u32 = 5;
/// What is under way is to go through the drive in this time: what is asked for next waits as long, and so does each
/// turn of a measurement, several times. Ten times what blocks take on an NVMe drive with a full queue.
const IN_FLIGHT_SECONDS_MAX: f64 = 0.05;
/// Requests that the kernel works on at a time, where there are so many blocks: a drive is measured with requests of
/// several blocks, as units of a store are, and their ends come often enough to count them.
const REQUESTS_DEEP: u32 = 8;
/// The blocks of backends that are only compared with: where drives reach their peak.
const COMPARED_BLOCK_BYTES: u64 = 1 << 20;

/// One setting of `io.backend`, `io.block_size` and `io.queue_depth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// `io.backend`
    pub backend: BackendChoice,
    /// `io.block_size`
    pub block_size: u64,
    /// `io.queue_depth`
    pub queue_depth: u32,
}

impl Candidate {
    /// Bytes that the kernel has at a time.
    pub fn in_flight_bytes(self) -> u64 {
        self.block_size * u64::from(self.queue_depth)
    }

    /// Less is cheaper: tokio-uring does without registered memory and pread takes a thread for each block; memory under
    /// way holds no tensors; and of two that take as much of it, larger blocks take fewer commands.
    pub fn cost(self) -> (u8, u64, Reverse<u64>) {
        let backend = match self.backend {
            BackendChoice::Auto | BackendChoice::Uring => 0,
            BackendChoice::TokioUring => 1,
            BackendChoice::Pread => 2,
        };
        (backend, self.in_flight_bytes(), Reverse(self.block_size))
    }

    /// How it is measured.
    pub fn config(self) -> Config {
        Config { backend: self.backend, block_size: self.block_size, queue_depth: self.queue_depth }
    }

    /// Bytes of the requests that it is measured with.
    pub fn request_bytes(self) -> u64 {
        self.block_size * u64::from(self.queue_depth.div_ceil(REQUESTS_DEEP))
    }

    /// Requests under way: half as many again as the kernel works on, so that its queue never runs dry.
    pub fn requests(self) -> usize {
        let deep = self.queue_depth.min(REQUESTS_DEEP);
        (deep + (deep / 2).max(2)) as usize
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} x {}", self.backend.name(), format_exact_bytes(self.block_size), self.queue_depth)
    }
}

/// All candidates for drives that were seen to write `bytes_per_second`, with queues of at most `depth_max`. `own` is what
/// `io.backend = "auto"` obtains; what else there is comes with a few settings, to compare with.
pub fn candidates(own: BackendChoice, depth_max: u32, bytes_per_second: f64) -> Vec<Candidate> {
    let limit = (bytes_per_second * IN_FLIGHT_SECONDS_MAX) as u64;
    let most = limit.clamp(IN_FLIGHT_BYTES_MIN, IN_FLIGHT_BYTES_MAX).next_power_of_two();
    let most = if most > limit.max(IN_FLIGHT_BYTES_MIN) { most / 2 } else { most };
    let at = |backend, block_size, in_flight_bytes: u64| {
        let depth = in_flight_bytes / block_size;
        let queue_depth = u32::try_from(depth).ok().filter(|depth| *depth <= depth_max)?;
        (depth >= QUEUE_DEPTH_MIN).then_some(Candidate { backend, block_size, queue_depth })
    };
    let sizes = || (0..IN_FLIGHT_STEPS).map(move |step| most >> step);
    let mut all: Vec<Candidate> = sizes()
        .flat_map(|size| BLOCK_BYTES.into_iter().filter_map(move |block| at(own, block, size)))
        .collect();
    // Where there is no io_uring, neither of the others has one.
    if own == BackendChoice::Uring {
        for other in [BackendChoice::TokioUring, BackendChoice::Pread] {
            all.extend(sizes().skip(1).take(2).filter_map(|size| at(other, COMPARED_BLOCK_BYTES, size)));
        }
    }
    all
}

/// Which of them the others are compared with: the setting that is there without a config, or what is nearest to it.
pub fn reference(candidates: &[Candidate], own: BackendChoice) -> usize {
    let default = Config::default();
    let near = |candidate: &Candidate| {
        candidate.backend == own
            && candidate.block_size == default.block_size
            && candidate.queue_depth <= default.queue_depth
    };
    let found = candidates.iter().enumerate().filter(|(_, candidate)| near(candidate));
    found.max_by_key(|(_, candidate)| candidate.queue_depth).map_or(0, |(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_drive_is_tried_with_more_under_way() {
        let most = |rate| {
            let all = candidates(BackendChoice::Uring, 4096, rate);
            all.into_iter().map(Candidate::in_flight_bytes).max().unwrap() >> 20
        };
        assert_eq!((most(7e9), most(1e9), most(3e8), most(1e7)), (64, 32, 8, 4));
    }

    #[test]
    fn every_candidate_is_a_config_with_its_requests() {
        for (own, depth_max) in [(BackendChoice::Uring, 4096), (BackendChoice::Pread, 64)] {
            for rate in [1e6, 1e8, 1e9, 1e10] {
                let all = candidates(own, depth_max, rate);
                assert!(all.len() >= 6, "{} at {rate}", all.len());
                for candidate in &all {
                    assert!(candidate.config().problems().is_empty(), "{candidate}");
                    assert!(crate::config::limits::is_block(candidate.block_size), "{candidate}");
                    assert!((2..=depth_max).contains(&candidate.queue_depth), "{candidate}");
                    let under_way = candidate.request_bytes() * candidate.requests() as u64;
                    assert!(under_way > candidate.in_flight_bytes(), "{candidate}: the queue runs dry");
                }
                assert!(all[reference(&all, own)].backend == own);
            }
        }
        let fast = candidates(BackendChoice::Uring, 4096, 1e10);
        assert_eq!(fast[reference(&fast, BackendChoice::Uring)].queue_depth, 32, "the default");
    }
}
