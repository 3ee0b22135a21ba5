//! The data segments of all directories, numbered through: extents name them by that number. Making them.

use crate::Error;
use crate::blocking_io::Switch;
use crate::directory::{Directory, segment_path};
use crate::growth::{Growth, Step, ZEROS_BYTES};
use crate::ids;
use crate::spread::Spread;
use hoist_format::Extent;
use hoist_io::{Completion, FileId, FileOp, FileRange, Priority, Request, RequestId, Transfer};
use hoist_memory::AlignedBuffer;
use std::io::ErrorKind;
use std::time::Instant;

/// A file of data.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The directory that it lies in.
    pub directory: usize,
    /// Its number among those of its directory: its file is named for it.
    pub number: u32,
    /// The file, for that directory's thread.
    pub file: FileId,
}

/// All segments by number, but for those of directories that are not there.
#[derive(Debug)]
pub(crate) struct Segments(Vec<Option<Segment>>);

impl Segments {
    pub fn new(all: Vec<Segment>) -> Segments {
        Segments(all.into_iter().map(Some).collect())
    }

    /// How many there are, with those that are not there.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The next one.
    pub fn push(&mut self, segment: Segment) {
        self.0.push(Some(segment));
    }

    /// The next ones are not there.
    pub fn push_missing(&mut self, count: usize) {
        self.0.extend((0..count).map(|_| None));
    }

    /// The segment of an extent, if it is there.
    pub fn get(&self, extent: &Extent) -> Option<&Segment> {
        self.0.get(extent.segment as usize)?.as_ref()
    }
}

impl std::ops::Index<usize> for Segments {
    type Output = Segment;

    fn index(&self, number: usize) -> &Segment {
        let segment = self.0.get(number).and_then(Option::as_ref);
        segment.unwrap_or_else(|| panic!("segment {number} of {} is used, and is not there", self.0.len()))
    }
}

/// Makes segments for what the store needs, with every block written: unwritten ext4 extents cost a transaction each at
/// their first write. All drives write at once, and each gets as much as it has written when all is done: its part of
/// the space is its part of the bandwidth. Returns the segments, and their sizes by directory.
pub(crate) fn make(
    directories: &[Directory],
    spread: &mut Spread,
    growth: Growth,
    switch: &mut Switch,
) -> Result<(Vec<Segment>, Vec<Vec<u64>>), Error> {
    let (files, steps) = (vec![Vec::new(); directories.len()], vec![None; directories.len()]);
    let mut making = Making { directories, growth, files, steps, spread };
    for place in 0..directories.len() {
        // It is zeroed from one buffer over and over.
        making.start(place, AlignedBuffer::new(ZEROS_BYTES as usize)?, switch)?;
    }
    while making.steps.iter().any(Option::is_some) {
        let completion = switch.wait()?;
        if let Some((place, zeros)) = making.ended(completion)? {
            making.start(place, zeros, switch)?;
        }
    }
    let Making { growth, files, .. } = making;
    finish(directories, &files, switch).map(|segments| (segments, growth.into_sizes()))
}

/// Segments that are being made.
struct Making<'a> {
    directories: &'a [Directory],
    growth: Growth,
    /// By directory, as all that follows.
    files: Vec<Vec<FileId>>,
    /// What is being zeroed.
    steps: Vec<Option<Step>>,
    spread: &'a mut Spread,
}

impl Making<'_> {
    /// Has a directory's segments grow by what is next, if anything is.
    fn start(&mut self, place: usize, zeros: AlignedBuffer, switch: &mut Switch) -> Result<(), Error> {
        let Some(step) = self.growth.next(place) else { return Ok(()) };
        match grow(&self.directories[place], &mut self.files[place], step) {
            Ok(file) => {
                self.directories[place].push(zero(file, step, switch.next_id(place), zeros));
                self.spread.started(place, Instant::now());
                self.steps[place] = Some(step);
                Ok(())
            }
            Err(error) => self.undo(place, step, error),
        }
    }

    /// Takes back the directory whose step it was and its buffer, if it may go on.
    fn ended(&mut self, completion: Completion) -> Result<Option<(usize, AlignedBuffer)>, Error> {
        let Completion { id, transfer, ranges, result, .. } = completion;
        let (place, _) = ids::split(id);
        let Some(step) = self.steps[place].take() else { unreachable!("directory {place} zeroes nothing") };
        let moved = if result.is_ok() { ranges.iter().map(|range| range.bytes).sum() } else { 0 };
        self.spread.ended(place, moved, Instant::now());
        match (result, transfer) {
            (Ok(()), Transfer::WriteBuffer(zeros)) => Ok(Some((place, zeros))),
            (Ok(()), other) => unreachable!("{other:?} came back for zeros"),
            (Err(error), _) => self.undo(place, step, error.into()).map(|()| None),
        }
    }

    /// Takes back a step that the store can do without and that its file system has no room for. Any other error stays.
    fn undo(&mut self, place: usize, step: Step, error: Error) -> Result<(), Error> {
        if !step.is_optional || !is_full(&error) {
            return Err(error);
        }
        tracing::info!(%error, "the store gets no more than it needs here");
        shrink(&self.directories[place], &mut self.files[place], step)?;
        self.growth.undo(place, step);
        Ok(())
    }
}

/// Whether a file system, or its owner's part of it, has no room.
fn is_full(error: &Error) -> bool {
    use hoist_io::Error as Io;
    let Error::Io(Io::File { source, .. } | Io::Transfer { source, .. }) = error else { return false };
    matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Has a directory's last segment, or a new one, grow by a step whose bytes are still to be zeroed.
fn grow(directory: &Directory, files: &mut Vec<FileId>, step: Step) -> Result<FileId, Error> {
    if files.len() == step.segment {
        let path = segment_path(&directory.path, step.segment as u32);
        files.push(directory.open_file(path, true)?.0);
    }
    let (file, Step { start, bytes, .. }) = (files[step.segment], step);
    // What an earlier attempt left behind must not stay beyond it.
    directory.io.file(FileOp::Truncate { file, bytes: start + bytes })?;
    directory.io.file(FileOp::Allocate { file, offset: start, bytes })?;
    Ok(file)
}

/// The request that zeroes a step.
fn zero(file: FileId, step: Step, id: RequestId, zeros: AlignedBuffer) -> Request {
    let end = step.start + step.bytes;
    let blocks = (step.start..end).step_by(ZEROS_BYTES as usize);
    let range = |offset| FileRange { file, offset, bytes: ZEROS_BYTES.min(end - offset), buffer_offset: 0 };
    let (ranges, transfer) = (blocks.map(range).collect(), Transfer::WriteBuffer(zeros));
    Request { id, priority: Priority::Demand, ranges, transfer }
}

/// Gives back the space of a step, and the file where it was a new one.
fn shrink(directory: &Directory, files: &mut Vec<FileId>, step: Step) -> Result<(), Error> {
    let Some(file) = files.get(step.segment).copied() else { return Ok(()) };
    directory.io.file(FileOp::Truncate { file, bytes: step.start })?;
    if step.start == 0 {
        files.pop();
        directory.io.file(FileOp::Close(file))?;
        directory.io.file(FileOp::Remove { path: segment_path(&directory.path, step.segment as u32) })?;
    }
    Ok(())
}

/// Syncs what was made and numbers it.
fn finish(
    directories: &[Directory],
    files: &[Vec<FileId>],
    switch: &mut Switch,
) -> Result<Vec<Segment>, Error> {
    let mut segments = Vec::new();
    for (place, (directory, files)) in directories.iter().zip(files).enumerate() {
        for (number, file) in files.iter().enumerate() {
            switch.sync(directory, *file)?;
            segments.push(Segment { directory: place, number: number as u32, file: *file });
        }
    }
    Ok(segments)
}
