//! A backend on which things go wrong.

use super::{FaultKind, Faults};
use crate::backend::{Backend, FileOp, FileReply, Wait, open_with};
use crate::{
    Completion, Config, Error, FileId, Obtained, Operation, Priority, Request, RequestId, Transfer, Waker,
};
use hoist_memory::Slab;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A real backend whose blocks meet [`Faults`] on their way to the kernel, and whose requests may come back late.
pub struct Faulty {
    inner: Box<dyn Backend>,
    faults: Faults,
    paths: HashMap<FileId, PathBuf>,
    /// What is done and comes back later, with the time when.
    late: Vec<(Instant, Completion)>,
    fresh: Vec<Completion>,
}

impl Faulty {
    /// Opens a backend as [`crate::open`] does.
    ///
    /// # Errors
    /// Those of [`crate::open`].
    pub fn open(config: &Config, slab: &Arc<Slab>, faults: &Faults) -> Result<Faulty, Error> {
        let inner = open_with(config, slab, Some(faults))?;
        let faults = faults.clone();
        Ok(Faulty { inner, faults, paths: HashMap::new(), late: Vec::new(), fresh: Vec::new() })
    }

    /// How much later a request comes back.
    fn delay(&self, completion: &Completion) -> Option<Duration> {
        let (operation, file) = match &completion.transfer {
            Transfer::Read(_) | Transfer::Fill(_) | Transfer::ReadBuffer(_) => (Operation::Read, None),
            Transfer::Write(_) | Transfer::WriteBuffer(_) => (Operation::Write, None),
            Transfer::Sync(file) => (Operation::Sync, Some(*file)),
        };
        let first = completion.ranges.first();
        let path = self.paths.get(&file.or(first.map(|range| range.file))?)?;
        let bytes = first.map_or(0..0, |range| range.offset..range.offset + range.bytes);
        let of_request = |kind: &FaultKind| matches!(kind, FaultKind::Latency(_));
        match self.faults.lock().strike(of_request, operation, path, &bytes) {
            Some(FaultKind::Latency(delay)) => Some(delay),
            _ => None,
        }
    }

    /// Gives out what is done, but for what is late.
    fn sort(&mut self, done: &mut Vec<Completion>) {
        let now = Instant::now();
        for mut completion in std::mem::take(&mut self.fresh) {
            match self.delay(&completion) {
                Some(delay) => {
                    completion.seconds_ns += delay.as_nanos() as u64;
                    self.late.push((now + delay, completion));
                }
                None => done.push(completion),
            }
        }
        done.extend(self.late.extract_if(.., |(due, _)| *due <= now).map(|(_, completion)| completion));
    }
}

impl Backend for Faulty {
    fn push(&mut self, request: Request) {
        self.inner.push(request);
    }

    fn promote(&mut self, id: RequestId, priority: Priority) {
        self.inner.promote(id, priority);
    }

    fn abandon(&mut self, id: RequestId) {
        self.inner.abandon(id);
    }

    fn submit(&mut self) -> Result<(), Error> {
        self.inner.submit()
    }

    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>) -> Result<(), Error> {
        let now = Instant::now();
        let due = self.late.iter().map(|(due, _)| due.saturating_duration_since(now)).min();
        let result = self.inner.reap(wait.limited(due), &mut self.fresh);
        self.sort(done);
        result
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    /// With the requests that are late: whoever asks must believe that the drive has them.
    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.late.len()
    }

    fn file(&mut self, op: FileOp) -> Result<FileReply, Error> {
        let path = match &op {
            FileOp::Open { path, .. } | FileOp::OpenRead { path } | FileOp::OpenSource { path } => {
                Some(path.clone())
            }
            _ => None,
        };
        if let FileOp::Allocate { file, bytes, .. } = op
            && let Some(path) = self.paths.get(&file)
            && !self.faults.has_space(bytes)
        {
            let source = io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(Error::File { operation: "allocate", path: path.clone(), source });
        }
        let reply = self.inner.file(op)?;
        if let (FileReply::Opened { file, .. }, Some(path)) = (reply, path) {
            self.paths.insert(file, path);
        }
        Ok(reply)
    }

    /// Waits for nothing that is only late.
    fn drain(&mut self, deadline: Duration, done: &mut Vec<Completion>) -> Result<(), Error> {
        done.extend(self.late.drain(..).map(|(_, completion)| completion));
        done.append(&mut self.fresh);
        self.inner.drain(deadline, done)
    }

    fn obtained(&self) -> &Obtained {
        self.inner.obtained()
    }
}
