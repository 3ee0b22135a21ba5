//! A drive that is full where a test says so.

use crate::drive::Will;
use hoist_io::{Completion, Error, FileId, FileOp, FileReply, Operation, Request, RequestId, Transfer};
use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::Path;

/// Up to where a segment may be allocated, and zeroed.
#[derive(Debug, Clone)]
pub struct Full {
    allocate_end: u64,
    write_end: u64,
    segments: HashSet<FileId>,
    /// Writes that have no room; their bytes are written all the same.
    refused: HashSet<RequestId>,
}

impl Full {
    pub fn new(allocate_end: u64, write_end: u64) -> Full {
        Full { allocate_end, write_end, segments: HashSet::new(), refused: HashSet::new() }
    }
}

impl Will for Full {
    fn pushed(&mut self, request: &Request) {
        let segments = request.ranges.iter().filter(|range| self.segments.contains(&range.file));
        let end = segments.map(|range| range.offset + range.bytes).max();
        if matches!(request.transfer, Transfer::WriteBuffer(_)) && end > Some(self.write_end) {
            self.refused.insert(request.id);
        }
    }

    fn done(&mut self, completion: &mut Completion) {
        if self.refused.remove(&completion.id) {
            let (operation, path) = (Operation::Write, Path::new("full").into());
            let (offset, bytes, source) = (self.write_end, 0, ErrorKind::StorageFull.into());
            completion.result = Err(Error::Transfer { operation, path, offset, bytes, attempts: 1, source });
        }
    }

    fn file(&mut self, op: &FileOp) -> Result<(), Error> {
        match op {
            FileOp::Allocate { offset, bytes, .. } if offset + bytes > self.allocate_end => {
                let source = ErrorKind::StorageFull.into();
                Err(Error::File { operation: "allocate", path: "full".into(), source })
            }
            _ => Ok(()),
        }
    }

    fn file_done(&mut self, op: &FileOp, reply: FileReply) {
        if let FileOp::Open { path, .. } = op
            && path.extension().is_some_and(|end| end == "seg")
        {
            self.segments.insert(reply.file());
        }
    }
}
