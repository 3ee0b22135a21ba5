//! A drive that is full where a test says so.

use hoist_io::{
    Backend, Completion, Config, Error, FileId, FileOp, FileReply, Obtained, Operation, Priority, Request,
    RequestId, Transfer, Wait, Waker,
};
use hoist_memory::Slab;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Up to where a segment may be allocated, and written.
#[derive(Debug, Clone, Copy)]
pub struct Full {
    pub allocate_end: u64,
    pub write_end: u64,
}

impl Full {
    pub fn over(self, slab: &Arc<Slab>) -> Result<FullDrive, Error> {
        let inner = hoist_io::open(&Config::default(), slab)?;
        Ok(FullDrive { inner, full: self, segments: HashSet::new(), refused: HashSet::new() })
    }
}

pub struct FullDrive {
    inner: Box<dyn Backend>,
    full: Full,
    segments: HashSet<FileId>,
    /// Writes that have no room; their bytes are written all the same.
    refused: HashSet<RequestId>,
}

fn no_space() -> std::io::Error {
    std::io::ErrorKind::StorageFull.into()
}

impl Backend for FullDrive {
    fn push(&mut self, request: Request) {
        let segments = request.ranges.iter().filter(|range| self.segments.contains(&range.file));
        let end = segments.map(|range| range.offset + range.bytes).max();
        if matches!(request.transfer, Transfer::WriteBuffer(_)) && end > Some(self.full.write_end) {
            self.refused.insert(request.id);
        }
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
        self.inner.reap(wait, done)?;
        for completion in done.iter_mut().filter(|completion| self.refused.remove(&completion.id)) {
            let (path, operation) = (Arc::from(Path::new("full")), Operation::Write);
            let (offset, bytes, source) = (self.full.write_end, 0, no_space());
            completion.result = Err(Error::Transfer { operation, path, offset, bytes, attempts: 1, source });
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn file(&mut self, op: FileOp) -> Result<FileReply, Error> {
        match op {
            FileOp::Allocate { offset, bytes, .. } if offset + bytes > self.full.allocate_end => {
                Err(Error::File { operation: "allocate", path: "full".into(), source: no_space() })
            }
            FileOp::Open { ref path, .. } if path.extension().is_some_and(|end| end == "seg") => {
                let reply = self.inner.file(op)?;
                self.segments.insert(reply.file());
                Ok(reply)
            }
            op => self.inner.file(op),
        }
    }

    fn drain(&mut self, deadline: Duration, done: &mut Vec<Completion>) -> Result<(), Error> {
        self.inner.drain(deadline, done)
    }

    fn obtained(&self) -> &Obtained {
        self.inner.obtained()
    }
}
