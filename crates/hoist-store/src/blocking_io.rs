//! Waiting for I/O: while a store is created, opened or closed, when nobody hands completions back.

use crate::Error;
use crate::directory::Directory;
use crate::ids::{self, OWN_ID};
use crossbeam_channel::{Receiver, Sender};
use hoist_io::{Completion, FileId, FileRange, Priority, Request, RequestId, Transfer};
use hoist_memory::AlignedBuffer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Directs completions: the store's own go to `receiver` while it waits for them, all others to `deliver`.
pub(crate) struct Switch {
    waits: Arc<AtomicBool>,
    sender: Sender<Completion>,
    receiver: Receiver<Completion>,
    last_id: RequestId,
}

impl Switch {
    pub fn new() -> Switch {
        // Unbounded in type only: what it holds is what one caller of `run` has in flight.
        let (sender, receiver) = crossbeam_channel::unbounded();
        Switch { waits: Arc::new(AtomicBool::new(true)), sender, receiver, last_id: OWN_ID }
    }

    /// What a directory's thread delivers to.
    pub fn deliver_to(
        &self,
        deliver: impl Fn(Completion) + Send + 'static,
    ) -> impl FnMut(Completion) + Send + 'static {
        let (waits, sender) = (Arc::clone(&self.waits), self.sender.clone());
        move |completion| {
            if completion.id >= OWN_ID && waits.load(Ordering::Acquire) {
                // The receiver lives as long as the store; after it nobody wants the completion.
                let _ = sender.send(completion);
            } else {
                deliver(completion);
            }
        }
    }

    /// Whether the store waits for its own requests itself. Changed only while none is in flight.
    pub fn set_waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Release);
    }

    /// An id for one of the store's own requests to a directory.
    pub fn next_id(&mut self, directory: usize) -> RequestId {
        self.last_id += 1;
        ids::in_directory(self.last_id, directory)
    }

    /// The next completion of an own request.
    pub fn wait(&self) -> Result<Completion, Error> {
        let stopped = |_| hoist_io::Error::Stopped { cause: "its completions have ended".to_owned() };
        Ok(self.receiver.recv().map_err(stopped)?)
    }

    /// One request, done.
    pub fn run(
        &mut self,
        directory: &Directory,
        transfer: Transfer,
        ranges: Vec<FileRange>,
    ) -> Result<Transfer, Error> {
        // Who waits for one request knows where it went.
        let id = self.next_id(0);
        directory.push(Request { id, priority: Priority::Demand, ranges, transfer });
        let completion = self.wait()?;
        completion.result?;
        Ok(completion.transfer)
    }

    /// fdatasync.
    pub fn sync(&mut self, directory: &Directory, file: FileId) -> Result<(), Error> {
        self.run(directory, Transfer::Sync(file), Vec::new()).map(drop)
    }

    /// Writes a buffer to the start of a file.
    pub fn write(&mut self, directory: &Directory, file: FileId, buffer: AlignedBuffer) -> Result<(), Error> {
        let ranges = vec![FileRange { file, offset: 0, bytes: buffer.len() as u64, buffer_offset: 0 }];
        self.run(directory, Transfer::WriteBuffer(buffer), ranges).map(drop)
    }

    /// The first `bytes` bytes of a file.
    pub fn read(&mut self, directory: &Directory, file: FileId, bytes: u64) -> Result<AlignedBuffer, Error> {
        let buffer = AlignedBuffer::new(bytes as usize)?;
        if bytes == 0 {
            return Ok(buffer);
        }
        let ranges = vec![FileRange { file, offset: 0, bytes, buffer_offset: 0 }];
        match self.run(directory, Transfer::ReadBuffer(buffer), ranges)? {
            Transfer::ReadBuffer(buffer) => Ok(buffer),
            other => unreachable!("a buffer went in and {other:?} came back"),
        }
    }
}
