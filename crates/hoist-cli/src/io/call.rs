//! What `hoist io` was asked for, typed.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::drive::Memory;
use super::flags::{Given, Reader};
use super::order::Work;
use crate::config::Problem;

/// What is done.
#[derive(Clone, Debug)]
pub struct Call {
    /// A file in each of them.
    pub directories: Vec<PathBuf>,
    /// What is asked of each file.
    pub work: Work,
    /// How long: of no meaning when the work has an end of its own.
    pub duration: Duration,
    /// How it is done.
    pub io: hoist_io::Config,
    /// Memory for what is under way, of each directory.
    pub memory: Memory,
    /// Whether the files are left behind.
    pub keep: bool,
    /// The same for the report.
    pub settings: Settings,
}

/// `config`: what the run was asked for, defaults filled in.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    rw: &'static str,
    directories: usize,
    size: u64,
    request_size: u64,
    requests: Option<u64>,
    random: bool,
    block_size: u64,
    queue_depth: u32,
    backend: &'static str,
    seconds: Option<f64>,
    keep: bool,
}

impl Call {
    /// Reads what was given.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn read(directories: &[PathBuf], given: &Given, keep: bool) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::new(given);
        reader.check_directories(directories);
        let (rw, directions, random) = reader.mode();
        let backend = reader.backend();
        let (block_size, queue_depth) = (reader.block_size(), reader.queue_depth());
        let requests = reader.requests(directions);
        let (size_bytes, request_bytes) = reader.sizes(requests, block_size);
        let seconds = reader.seconds();
        let number = requests.map(|requests| requests.number);
        let memory = Memory::new(request_bytes, number, block_size, queue_depth);
        reader.check_memory(memory.budget_bytes().saturating_mul(directories.len() as u64));
        reader.finish()?;
        let random = random || requests.is_some_and(|requests| requests.random);
        Ok(Self {
            directories: directories.to_vec(),
            work: Work { directions, random, size_bytes, request_bytes, requests: number },
            duration: Duration::from_secs_f64(seconds),
            io: hoist_io::Config { backend, block_size, queue_depth },
            memory,
            keep,
            settings: Settings {
                rw,
                directories: directories.len(),
                size: size_bytes,
                request_size: request_bytes,
                requests: number,
                random,
                block_size,
                queue_depth,
                backend: backend.name(),
                seconds: number.is_none().then_some(seconds),
                keep,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::{Direction, Directions};
    use super::*;

    fn read(flags: &[(&str, &str)]) -> Call {
        Call::read(&[PathBuf::from(".")], &Given::of(flags), false).unwrap()
    }

    #[test]
    fn defaults_are_reads_of_a_block() {
        let call = read(&[]);
        assert_eq!(call.work.directions, Directions::Only(Direction::Read));
        assert_eq!((call.work.size_bytes, call.work.request_bytes), (1 << 30, 1 << 20));
        assert_eq!((call.work.requests, call.work.random), (None, false));
        assert_eq!(call.io, hoist_io::Config::default());
        assert_eq!(call.duration, Duration::from_secs(5));
    }

    #[test]
    fn sizes_follow_from_each_other() {
        let sizes = |flags: &[(&str, &str)]| {
            let call = read(flags);
            (call.work.size_bytes, call.work.request_bytes)
        };
        assert_eq!(sizes(&[("size", "512 KiB")]), (512 << 10, 512 << 10));
        assert_eq!(sizes(&[("block_size", "4 MiB")]), (1 << 30, 4 << 20));
        assert_eq!(sizes(&[("rw", "randread"), ("block_size", "4 KiB")]), (1 << 30, 4096));
        assert_eq!(sizes(&[("requests", "10:2 MiB")]), (20 << 20, 2 << 20));
        assert_eq!(sizes(&[("requests", "10:2 MiB"), ("size", "4 MiB")]), (4 << 20, 2 << 20));
    }

    #[test]
    fn random_is_said_in_either_place() {
        assert!(read(&[("rw", "randwrite")]).work.random);
        assert!(read(&[("rw", "randread"), ("requests", "4:4 KiB")]).work.random);
        assert!(read(&[("requests", "4:4 KiB:random")]).work.random);
        assert!(!read(&[("requests", "4:4 KiB")]).work.random);
    }
}
