//! A thread with a tokio-uring runtime: the same blocks through the ring of a runtime, as a peer to compare with.

use crate::core::Part;
use crate::error::Operation;
use crate::faults::Faults;
use crate::workers::{HandOver, Results, Workers};
use crate::{Config, Error, Obtained};
use ::tokio_uring::buf::{IoBuf, IoBufMut};
use ::tokio_uring::fs::File;
use hoist_memory::Slab;
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A runtime of its own, on a thread of its own: its ring belongs to the thread, and it has no way to wait for a ring
/// and for another thread's message but its own. Memory and files are not registered: it registers only buffers that
/// it owns, and no files.
///
/// # Errors
/// [`Error::NoRing`] when the kernel refuses io_uring.
pub(crate) fn open(
    config: &Config,
    slab: &Arc<Slab>,
    mut obtained: Obtained,
    faults: Option<&Faults>,
) -> Result<Workers, Error> {
    let depth = config.queue_depth;
    let entries = depth.next_power_of_two();
    // The runtime panics where it gets no such ring, so one is tried before.
    crate::uring::check_ring(entries)?;
    obtained.backend = "tokio-uring";
    obtained.queue_depth = depth;
    Workers::open(config, slab, obtained, faults, |results| {
        let (parts, receiver) = unbounded_channel();
        let worker = std::thread::Builder::new()
            .name("hoist-tokio".to_owned())
            .spawn(move || {
                let mut builder = ::tokio_uring::builder();
                builder.entries(entries).start(run(receiver, results));
            })
            .map_err(|source| Error::Call { call: "starting the thread of a tokio-uring runtime", source })?;
        let hand_over: HandOver = Box::new(move |part| {
            // It fails only when the runtime has ended: then no result comes, and who waits for one hears of that.
            let _ = parts.send(part);
        });
        Ok((hand_over, vec![worker]))
    })
}

/// Does each part in a task of its own, until no more come: that is when none is in flight, or when the drive does not
/// answer.
async fn run(mut parts: UnboundedReceiver<Part>, results: Results) {
    // Files by descriptor. They belong to the backend's table, which closes them when no part uses them.
    let mut files: HashMap<RawFd, Rc<ManuallyDrop<File>>> = HashMap::new();
    while let Some(part) = parts.recv().await {
        let file = files.entry(part.fd).or_insert_with(|| {
            // SAFETY: the descriptor is open as long as a part that uses it is in flight, and is never closed from
            // here: the `File` is not dropped, and so keeps the count of its own handle above 0.
            Rc::new(ManuallyDrop::new(unsafe { File::from_raw_fd(part.fd) }))
        });
        let (file, results) = (Rc::clone(file), results.clone());
        ::tokio_uring::spawn(async move {
            let result = execute(&part, &file).await;
            // Whoever waited may have given up.
            let _ = results.send((part.block, result));
        });
    }
}

/// The bytes moved, or minus the errno.
async fn execute(part: &Part, file: &File) -> i32 {
    let memory = Memory { address: part.address, bytes: part.bytes as usize };
    let result = match part.operation {
        Operation::Read => file.read_at(memory, part.offset).await.0,
        Operation::Write => file.write_at(memory, part.offset).submit().await.0,
        Operation::Sync => file.sync_data().await.map(|()| 0),
    };
    match result {
        Ok(bytes) => bytes as i32,
        Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
    }
}

/// The memory of a part. The request in the backend's table owns it.
struct Memory {
    address: usize,
    bytes: usize,
}

// SAFETY: the memory stays where it is, and valid, until the part's result has been sent: the request table owns it, and
// is leaked rather than dropped before that. It is initialised: slots and buffers always are.
unsafe impl IoBuf for Memory {
    fn stable_ptr(&self) -> *const u8 {
        std::ptr::with_exposed_provenance(self.address)
    }

    fn bytes_init(&self) -> usize {
        self.bytes
    }

    fn bytes_total(&self) -> usize {
        self.bytes
    }
}

// SAFETY: as above; during a read nobody else touches the memory, as the table holds it by value.
unsafe impl IoBufMut for Memory {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.address)
    }

    unsafe fn set_init(&mut self, _bytes: usize) {}
}
