//! Threads that call pread and pwrite: for where there is no io_uring.

use crate::core::Part;
use crate::error::Operation;
use crate::faults::Faults;
use crate::workers::{HandOver, Results, Workers};
use crate::{Config, Error, Obtained};
use crossbeam_channel::{Receiver, bounded};
use hoist_memory::Slab;
use std::sync::Arc;

/// Threads at most. A thread is a stack and a context switch per block; past this many, more of them cost more than
/// the drive gains by a deeper queue of 1 MiB blocks.
const WORKERS_MAX: u32 = 64;

/// A backend of worker threads, each with one block at a time.
pub(crate) fn open(
    config: &Config,
    slab: &Arc<Slab>,
    mut obtained: Obtained,
    faults: Option<&Faults>,
) -> Result<Workers, Error> {
    let depth = config.queue_depth.min(WORKERS_MAX);
    if depth < config.queue_depth {
        let asked = config.queue_depth;
        obtained.step_down(format!("queue depth {depth} instead of {asked}: pread takes a thread per block"));
    }
    obtained.backend = "pread";
    obtained.queue_depth = depth;
    Workers::open(config, slab, obtained, faults, |results| {
        let (parts, receiver) = bounded::<Part>(depth as usize);
        let mut workers = Vec::with_capacity(depth as usize);
        for index in 0..depth {
            let (receiver, results) = (receiver.clone(), results.clone());
            let worker = std::thread::Builder::new()
                .name(format!("hoist-pread-{index}"))
                .spawn(move || work(&receiver, &results))
                .map_err(|source| Error::Call { call: "starting a pread thread", source })?;
            workers.push(worker);
        }
        let hand_over: HandOver = Box::new(move |part| {
            // The channel holds the whole depth, and its receivers live until the last sender is dropped.
            assert!(parts.try_send(part).is_ok(), "no room for {part:?}");
        });
        Ok((hand_over, workers))
    })
}

fn work(parts: &Receiver<Part>, results: &Results) {
    for part in parts {
        if results.send((part.block, execute(&part))).is_err() {
            return;
        }
    }
}

/// The bytes moved, or minus the errno.
fn execute(part: &Part) -> i32 {
    let Part { fd, offset, bytes, .. } = *part;
    let memory = std::ptr::with_exposed_provenance_mut::<libc::c_void>(part.address);
    let (offset, bytes) = (offset as libc::off64_t, bytes as usize);
    // SAFETY: the request table owns the memory behind `part`, and keeps the file open, until this part's result is
    // returned; the table is leaked rather than dropped before that. Nobody else touches the memory of a read; a
    // write's is only read. The bytes fit an i32, as a block is 1 GiB at most.
    let result = unsafe {
        match part.operation {
            Operation::Read => libc::pread64(fd, memory, bytes, offset) as i32,
            Operation::Write => libc::pwrite64(fd, memory.cast_const(), bytes, offset) as i32,
            Operation::Sync => libc::fdatasync(fd),
        }
    };
    if result < 0 { -std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) } else { result }
}
