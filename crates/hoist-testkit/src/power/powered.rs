//! A backend on drives whose power can be cut.

use super::{Power, State};
use hoist_io::{
    Backend, Completion, Error, FileId, FileOp, FileRange, FileReply, Obtained, Operation, Priority, Request,
    RequestId, Transfer, Wait, Waker,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A backend whose drives keep what is written in a cache until it is synced, and lose some of it when the [`Power`] is
/// cut. Its files are opened without direct I/O, as they are read from outside, too; they are never synced really.
pub struct Powered {
    inner: Box<dyn Backend>,
    power: Power,
    paths: HashMap<FileId, PathBuf>,
    begun: HashMap<RequestId, Begun>,
    /// What the backend inside never had, to be given back.
    finished: Vec<Completion>,
}

/// What a request under way does.
enum Begun {
    Read,
    /// Changes of files by their numbers.
    Write(Vec<(PathBuf, u64)>),
    /// A file, and what of its changes is covered.
    Sync(PathBuf, u64),
}

impl Powered {
    /// Puts a backend on drives with this power.
    #[must_use]
    pub fn new(inner: Box<dyn Backend>, power: &Power) -> Powered {
        let power = power.clone();
        Powered { inner, power, paths: HashMap::new(), begun: HashMap::new(), finished: Vec::new() }
    }

    /// Remembers what a request is about to do. `Ok(false)`: it is refused; what it writes may come to light all the same.
    fn begin(&mut self, request: &Request) -> io::Result<bool> {
        let mut state = self.power.lock();
        if state.is_cut {
            return Ok(false);
        }
        let has_power = state.has_power();
        let paths = request.ranges.iter().filter_map(|range| self.paths.get(&range.file));
        let (begun, fails) = match &request.transfer {
            Transfer::Sync(file) => {
                // An unknown file is for the backend inside to refuse.
                let Some(path) = self.paths.get(file) else { return Ok(true) };
                (Begun::Sync(path.clone(), state.changes(path).done()), state.fails(Operation::Sync, path))
            }
            Transfer::Read(_) | Transfer::Fill(_) | Transfer::ReadBuffer(_) => {
                (Begun::Read, paths.into_iter().any(|path| state.fails(Operation::Read, path)))
            }
            Transfer::Write(_) | Transfer::WriteBuffer(_) => {
                let fails = paths.into_iter().any(|path| state.fails(Operation::Write, path));
                (Begun::Write(self.begin_write(&mut state, request)?), fails)
            }
        };
        if has_power && !fails {
            self.begun.insert(request.id, begun);
        } else if let Begun::Write(changes) = begun {
            state.end(&changes);
        }
        Ok(has_power && !fails)
    }

    fn begin_write(&self, state: &mut State, request: &Request) -> io::Result<Vec<(PathBuf, u64)>> {
        let slot_bytes;
        let memory: &[u8] = match &request.transfer {
            Transfer::Write(reader) => {
                slot_bytes = reader.parts().collect::<Vec<_>>().concat();
                &slot_bytes
            }
            Transfer::WriteBuffer(buffer) => buffer,
            _ => &[],
        };
        let mut changes = Vec::with_capacity(request.ranges.len());
        for range in &request.ranges {
            let Some(path) = self.paths.get(&range.file) else { continue };
            let rest = memory.get(range.buffer_offset as usize..).unwrap_or_default();
            let mut after = rest[..rest.len().min(range.bytes as usize)].to_vec();
            // What lies behind a slot's bytes is its padding, which is zeros.
            after.resize(range.bytes as usize, 0);
            let number = state.changes(path).write(path, range.offset, after)?;
            changes.push((path.clone(), number));
        }
        Ok(changes)
    }

    /// Requests end when they are given back.
    fn end(&mut self, done: &mut [Completion]) {
        let mut state = self.power.lock();
        for completion in done {
            let Some(begun) = self.begun.remove(&completion.id) else { continue };
            let has_power = state.has_power();
            match begun {
                _ if !has_power => {
                    completion.result = Err(self.refusal(&completion.transfer, &completion.ranges))
                }
                Begun::Read => {}
                Begun::Write(changes) => state.end(&changes),
                Begun::Sync(path, covered) => state.changes(&path).synced(covered),
            }
        }
    }

    /// What a drive without power says.
    fn refusal(&self, transfer: &Transfer, ranges: &[FileRange]) -> Error {
        let first = ranges.first();
        let (operation, file) = match transfer {
            Transfer::Sync(file) => (Operation::Sync, Some(*file)),
            Transfer::Write(_) | Transfer::WriteBuffer(_) => {
                (Operation::Write, first.map(|range| range.file))
            }
            Transfer::Read(_) | Transfer::Fill(_) | Transfer::ReadBuffer(_) => {
                (Operation::Read, first.map(|range| range.file))
            }
        };
        let path = file.and_then(|file| self.paths.get(&file)).cloned().unwrap_or_default();
        let (offset, bytes) = first.map_or((0, 0), |range| (range.offset, range.bytes));
        let (path, source) = (path.into(), Errno::IO.into());
        Error::Transfer { operation, path, offset, bytes, attempts: 1, source }
    }

    fn finish(&mut self, request: Request, result: Result<(), Error>) {
        let Request { id, transfer, ranges, .. } = request;
        self.finished.push(Completion { id, transfer, ranges, result, seconds_ns: 0 });
    }

    /// What an operation is called, and what it is done to.
    fn name(&self, op: &FileOp) -> (&'static str, PathBuf) {
        let path = |file: &FileId| self.paths.get(file).cloned().unwrap_or_default();
        match op {
            FileOp::Open { path, .. } | FileOp::OpenRead { path } | FileOp::OpenSource { path } => {
                ("open", path.clone())
            }
            FileOp::Close(file) => ("close", path(file)),
            FileOp::Allocate { file, .. } => ("allocate", path(file)),
            FileOp::Truncate { file, .. } => ("truncate", path(file)),
            FileOp::Rename { from, .. } => ("rename", from.clone()),
            FileOp::Remove { path } => ("remove", path.clone()),
            FileOp::SyncDir { path } => ("sync the folder", path.clone()),
            FileOp::Length { file } => ("stat", path(file)),
        }
    }

    /// Remembers what an operation is about to change.
    fn begin_file(&self, state: &mut State, op: &FileOp) -> io::Result<()> {
        let (_, path) = self.name(op);
        match op {
            FileOp::Truncate { bytes, .. } => state.changes(&path).set_length(&path, |_| *bytes),
            FileOp::Allocate { offset, bytes, .. } => {
                state.changes(&path).set_length(&path, |before| before.max(offset + bytes))
            }
            FileOp::Rename { to, .. } => {
                let changes = state.files.remove(&path).unwrap_or_default();
                state.files.insert(to.clone(), changes);
                state.names.rename(&path, to)
            }
            FileOp::Remove { .. } => {
                state.files.remove(&path);
                state.names.remove(&path)
            }
            FileOp::Open { .. }
            | FileOp::OpenRead { .. }
            | FileOp::OpenSource { .. }
            | FileOp::Close(_)
            | FileOp::SyncDir { .. }
            | FileOp::Length { .. } => Ok(()),
        }
    }
}

impl State {
    fn end(&mut self, changes: &[(PathBuf, u64)]) {
        changes.iter().for_each(|(path, number)| self.changes(path).end(*number));
    }
}

impl Backend for Powered {
    fn push(&mut self, request: Request) {
        match self.begin(&request) {
            // The files have its bytes, and what a real sync adds is not what is modelled.
            Ok(true) if matches!(self.begun.get(&request.id), Some(Begun::Sync(..))) => {
                self.finish(request, Ok(()));
            }
            Ok(true) => self.inner.push(request),
            Ok(false) => {
                let refusal = self.refusal(&request.transfer, &request.ranges);
                self.finish(request, Err(refusal));
            }
            Err(source) => self.finish(request, Err(Error::Call { call: "remembering a write", source })),
        }
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
        let wait = if self.finished.is_empty() { wait } else { Wait::No };
        let first = done.len();
        done.append(&mut self.finished);
        let reaped = self.inner.reap(wait, done);
        self.end(&mut done[first..]);
        reaped
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn file(&mut self, op: FileOp) -> Result<FileReply, Error> {
        let power = self.power.clone();
        let mut state = power.lock();
        let (operation, path) = self.name(&op);
        let failed = |source| Error::File { operation, path: path.clone(), source };
        if !state.has_power() {
            return Err(failed(Errno::IO.into()));
        }
        self.begin_file(&mut state, &op).map_err(failed)?;
        match op {
            FileOp::Open { path, create, .. } => {
                let is_new = create && !path.exists();
                let reply = self.inner.file(FileOp::Open { path: path.clone(), create, direct: false })?;
                self.paths.insert(reply.file(), path.clone());
                if is_new {
                    state.names.made(path);
                }
                Ok(reply)
            }
            FileOp::SyncDir { path } => {
                state.names.synced(&path);
                Ok(FileReply::Done)
            }
            op => self.inner.file(op),
        }
    }

    fn drain(&mut self, deadline: Duration, done: &mut Vec<Completion>) -> Result<(), Error> {
        let first = done.len();
        done.append(&mut self.finished);
        let drained = self.inner.drain(deadline, done);
        self.end(&mut done[first..]);
        drained
    }

    fn obtained(&self) -> &Obtained {
        self.inner.obtained()
    }
}
