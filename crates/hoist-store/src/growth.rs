//! How segments grow while a store is made: which directory writes how much next. Pure.

use crate::SEGMENT_GRAIN_BYTES;
use hoist_format::CHECKSUM_BYTES;

/// Segments grow, and are zeroed, by as much at a time: requests that keep a drive busy, and small enough that the last
/// one of a slow drive does not keep the others waiting for long.
const GROWN_AT_ONCE_BYTES: u64 = 64 << 20;

/// What is missing is rounded up to this: one block of I/O by default.
pub(crate) const ZEROS_BYTES: u64 = 1 << 20;

/// Space is used up in multiples of this, which segments are multiples of: extents are cut there.
const ROOM_GRAIN_BYTES: u64 = CHECKSUM_BYTES;

/// The free space of one device.
#[derive(Debug)]
struct Room {
    device: u64,
    free_bytes: u64,
    left_bytes: u64,
    /// It said that it is full, whatever is left: it gets no more than it must.
    is_full: bool,
}

impl Room {
    /// What may be taken that the store can do without. Half of the space stays free: the file system's own blocks come
    /// out of it, the journals do, and what others write meanwhile.
    fn spare_bytes(&self) -> u64 {
        let spare = self.left_bytes.saturating_sub(self.free_bytes / 2);
        if self.is_full { 0 } else { spare - spare % ROOM_GRAIN_BYTES }
    }
}

/// The free space of each directory: those on one device share it.
#[derive(Debug)]
pub(crate) struct Rooms {
    rooms: Vec<Room>,
    /// By directory, which of them it has.
    places: Vec<usize>,
}

impl Rooms {
    /// From each directory's device and the bytes that are free there.
    pub fn new(found: impl IntoIterator<Item = (u64, u64)>) -> Rooms {
        let (mut rooms, mut places) = (Vec::<Room>::new(), Vec::new());
        for (device, free) in found {
            let free_bytes = free - free % ROOM_GRAIN_BYTES;
            let known = rooms.iter().position(|room| room.device == device);
            places.push(known.unwrap_or(rooms.len()));
            if known.is_none() {
                rooms.push(Room { device, free_bytes, left_bytes: free_bytes, is_full: false });
            }
        }
        Rooms { rooms, places }
    }

    /// Of all devices together, each counted once.
    pub fn free_bytes(&self) -> u64 {
        self.rooms.iter().fold(0, |sum, room| sum.saturating_add(room.free_bytes))
    }

    fn of(&mut self, directory: usize) -> &mut Room {
        &mut self.rooms[self.places[directory]]
    }
}

/// By how much the last segment of a directory grows, or a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its number among those of its directory.
    pub segment: usize,
    /// Its size before; 0: it is new.
    pub start: u64,
    pub bytes: u64,
    /// The store has the space that it needs without it.
    pub is_optional: bool,
}

/// The segments of all directories while they are made.
pub(crate) struct Growth {
    /// Of all directories together.
    need_bytes: u64,
    /// Of each, if it has plenty of room: so much can go over to it when others slow down.
    even_bytes: u64,
    segment_bytes_max: u64,
    step_bytes: u64,
    all_bytes: u64,
    rooms: Rooms,
    sizes: Vec<Vec<u64>>,
}

impl Growth {
    /// `need_bytes` of the directories together, which is no more than they have free.
    pub fn new(need_bytes: u64, segment_bytes_max: u64, rooms: Rooms) -> Growth {
        let count = rooms.places.len() as u64;
        let step_bytes =
            (need_bytes / (4 * count)).next_multiple_of(ZEROS_BYTES).clamp(ZEROS_BYTES, GROWN_AT_ONCE_BYTES);
        let (even_bytes, sizes) = (need_bytes / count, vec![Vec::new(); rooms.places.len()]);
        Growth { need_bytes, even_bytes, segment_bytes_max, step_bytes, all_bytes: 0, rooms, sizes }
    }

    /// What a directory writes next, which it has from now on. `None`: it is done.
    pub fn next(&mut self, directory: usize) -> Option<Step> {
        let missing = self.need_bytes.saturating_sub(self.all_bytes);
        let is_optional = missing == 0;
        let (wished, limit) = match is_optional {
            false => (missing.min(self.step_bytes), self.rooms.of(directory).left_bytes),
            true => (self.wished_bytes(directory), self.rooms.of(directory).spare_bytes()),
        };
        let max = self.segment_bytes_max;
        let sizes = &mut self.sizes[directory];
        let start = sizes.last().copied().filter(|last| *last < max).unwrap_or(0);
        let bytes = wished.next_multiple_of(ZEROS_BYTES).min(max - start).min(limit);
        if bytes == 0 {
            return None;
        }
        if start == 0 {
            sizes.push(0);
        }
        let segment = sizes.len() - 1;
        sizes[segment] += bytes;
        self.all_bytes += bytes;
        self.rooms.of(directory).left_bytes -= bytes;
        Some(Step { segment, start, bytes, is_optional })
    }

    /// By how much a directory's segments would grow next although there is enough.
    fn wished_bytes(&self, directory: usize) -> u64 {
        let sizes = &self.sizes[directory];
        let uneven = self.even_bytes.saturating_sub(sizes.iter().sum());
        if uneven > 0 {
            return uneven.min(self.step_bytes);
        }
        // A small store stays small, and a large one has room between runs.
        let last = sizes.last().copied().unwrap_or(0);
        last.next_multiple_of(SEGMENT_GRAIN_BYTES).min(self.segment_bytes_max) - last
    }

    /// Takes a directory's last step back, for which its device had no room: it gets no more than it must.
    pub fn undo(&mut self, directory: usize, step: Step) {
        let sizes = &mut self.sizes[directory];
        match step.start {
            0 => sizes.truncate(step.segment),
            start => sizes[step.segment] = start,
        }
        self.all_bytes -= step.bytes;
        let room = self.rooms.of(directory);
        room.left_bytes += step.bytes;
        room.is_full = true;
    }

    /// The sizes of the segments, by directory.
    pub fn into_sizes(self) -> Vec<Vec<u64>> {
        self.sizes
    }
}

#[cfg(test)]
mod tests;
