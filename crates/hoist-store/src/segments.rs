//! The data segments of all directories, numbered through: extents name them by that number. Making them.

use crate::Error;
use crate::SEGMENT_GRAIN_BYTES;
use crate::blocking_io::Switch;
use crate::directory::{Directory, segment_path};
use crate::ids;
use crate::spread::Spread;
use hoist_io::{FileId, FileOp, FileRange, Priority, Request, Transfer};
use hoist_memory::AlignedBuffer;
use std::time::Instant;

/// Segments grow, and are zeroed, by as much at a time: requests that keep a drive busy, and small enough that the last
/// one of a slow drive does not keep the others waiting for long.
const GROWN_AT_ONCE_BYTES: u64 = 64 << 20;

/// They are zeroed from one buffer of this size over and over: one block of I/O by default.
const ZEROS_BYTES: u64 = 1 << 20;

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

/// The segments of one directory while they are made.
#[derive(Default)]
struct Growing {
    files: Vec<FileId>,
    sizes: Vec<u64>,
}

impl Growing {
    fn bytes(&self) -> u64 {
        self.sizes.iter().sum()
    }
}

/// How large segments are to be.
struct Wish {
    /// Of all directories together.
    need_bytes: u64,
    /// Of each, if it has the room: so much can go over to it when others slow down.
    even_bytes: u64,
    segment_bytes_max: u64,
    step_bytes: u64,
}

impl Wish {
    /// By how much a directory's segments grow next, all of them together having `all_bytes`. 0: they are done.
    fn next_bytes(&self, growing: &Growing, all_bytes: u64) -> u64 {
        let last = growing.sizes.last().copied().unwrap_or(0);
        let missing = self.need_bytes.saturating_sub(all_bytes);
        let missing = missing.max(self.even_bytes.saturating_sub(growing.bytes()));
        if missing == 0 {
            // A small store stays small, and a large one has room between runs.
            return last.next_multiple_of(SEGMENT_GRAIN_BYTES).min(self.segment_bytes_max) - last;
        }
        let room = if last == self.segment_bytes_max { last } else { self.segment_bytes_max - last };
        missing.next_multiple_of(ZEROS_BYTES).min(self.step_bytes).min(room)
    }
}

/// Makes segments for `need_bytes`, with every block written: unwritten ext4 extents cost a transaction each at their
/// first write. All drives write at once, and each gets as much as it has written when all is done: its part of the
/// space is its part of the bandwidth. Returns the segments, and their sizes by directory.
pub(crate) fn make(
    directories: &[Directory],
    spread: &mut Spread,
    (need_bytes, segment_bytes_max): (u64, u64),
    room_bytes: &[u64],
    switch: &mut Switch,
) -> Result<(Vec<Segment>, Vec<Vec<u64>>), Error> {
    let count = directories.len() as u64;
    let step_bytes =
        (need_bytes / (4 * count)).next_multiple_of(ZEROS_BYTES).clamp(ZEROS_BYTES, GROWN_AT_ONCE_BYTES);
    let wish = Wish { need_bytes, even_bytes: need_bytes / count, segment_bytes_max, step_bytes };
    let mut growing: Vec<Growing> = directories.iter().map(|_| Growing::default()).collect();
    let (mut all_bytes, mut busy) = (0, 0);
    let mut next = Vec::new();
    for place in 0..directories.len() {
        next.push((place, AlignedBuffer::new(ZEROS_BYTES as usize)?));
    }
    loop {
        for (place, zeros) in next.drain(..) {
            let one = &mut growing[place];
            let bytes = wish.next_bytes(one, all_bytes);
            if bytes > 0 && one.bytes() + bytes <= room_bytes[place] {
                grow(&directories[place], one, bytes, &wish, (place, zeros), switch)?;
                spread.started(place, Instant::now());
                (all_bytes, busy) = (all_bytes + bytes, busy + 1);
            }
        }
        if busy == 0 {
            break;
        }
        let completion = switch.wait()?;
        let (place, _) = ids::split(completion.id);
        completion.result?;
        busy -= 1;
        let bytes = completion.ranges.iter().map(|range| range.bytes).sum();
        spread.ended(place, bytes, Instant::now());
        let Transfer::WriteBuffer(zeros) = completion.transfer else {
            unreachable!("{:?} came back for zeros", completion.transfer)
        };
        next.push((place, zeros));
    }
    if all_bytes < need_bytes {
        let directory = directories[0].path.clone();
        return Err(Error::NoRoom { directory, need_bytes, free_bytes: room_bytes.iter().sum() });
    }
    finish(directories, growing, switch)
}

/// Has a directory's last segment, or a new one, grow by `bytes`, and its new part be zeroed.
fn grow(
    directory: &Directory,
    growing: &mut Growing,
    bytes: u64,
    wish: &Wish,
    (place, zeros): (usize, AlignedBuffer),
    switch: &mut Switch,
) -> Result<(), Error> {
    if growing.sizes.last().is_none_or(|last| *last == wish.segment_bytes_max) {
        let path = segment_path(&directory.path, growing.sizes.len() as u32);
        growing.files.push(directory.open_file(path, true)?.0);
        growing.sizes.push(0);
    }
    let (Some(file), Some(size)) = (growing.files.last().copied(), growing.sizes.last_mut()) else {
        unreachable!("a segment was opened above")
    };
    let start = *size;
    *size += bytes;
    // What an earlier attempt left behind must not stay beyond it.
    directory.io.file(FileOp::Truncate { file, bytes: *size })?;
    directory.io.file(FileOp::Allocate { file, offset: start, bytes })?;
    let blocks = (start..*size).step_by(ZEROS_BYTES as usize);
    let range = |offset| FileRange { file, offset, bytes: ZEROS_BYTES.min(*size - offset), buffer_offset: 0 };
    let (id, ranges) = (switch.next_id(place), blocks.map(range).collect());
    let transfer = Transfer::WriteBuffer(zeros);
    directory.push(Request { id, priority: Priority::Demand, ranges, transfer });
    Ok(())
}

/// Syncs what was made and numbers it.
fn finish(
    directories: &[Directory],
    growing: Vec<Growing>,
    switch: &mut Switch,
) -> Result<(Vec<Segment>, Vec<Vec<u64>>), Error> {
    let mut segments = Vec::new();
    for (directory, (place, one)) in directories.iter().zip(growing.iter().enumerate()) {
        for (number, file) in one.files.iter().enumerate() {
            switch.sync(directory, *file)?;
            segments.push(Segment { directory: place, number: number as u32, file: *file });
        }
    }
    Ok((segments, growing.into_iter().map(|one| one.sizes).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes that directories get which write in turn.
    fn sizes(need_bytes: u64, segment_bytes_max: u64, directories: usize) -> Vec<Vec<u64>> {
        let even_bytes = need_bytes / directories as u64;
        let wish = Wish { need_bytes, even_bytes, segment_bytes_max, step_bytes: 16 << 20 };
        let mut growing: Vec<Growing> = (0..directories).map(|_| Growing::default()).collect();
        loop {
            let all_bytes = growing.iter().map(Growing::bytes).sum();
            let next = growing
                .iter_mut()
                .find_map(|one| Some((wish.next_bytes(one, all_bytes), one)).filter(|next| next.0 > 0));
            let Some((bytes, one)) = next else { break };
            match one.sizes.last_mut().filter(|last| **last < segment_bytes_max) {
                Some(last) => *last += bytes,
                None => one.sizes.push(bytes),
            }
        }
        growing.into_iter().map(|one| one.sizes).collect()
    }

    #[test]
    fn segments_fit_the_need() {
        let (mib, gib) = (1 << 20, 1 << 30);
        assert_eq!(sizes(0, gib, 1), [[0u64; 0]]);
        assert_eq!(sizes(1, gib, 1), [[64 * mib]]);
        assert_eq!(sizes(2 * gib + 65 * mib, gib, 1), [[gib, gib, 128 * mib]]);
        assert_eq!(sizes(3 * mib + 1, mib, 1), [[mib; 4]]);
        // The first writes all of it before the second begins, which gets its even part all the same.
        assert_eq!(sizes(gib, gib, 2), [vec![gib], vec![gib / 2]]);
    }
}
