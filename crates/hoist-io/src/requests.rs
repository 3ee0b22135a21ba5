//! The requests that have not come back: which block is next, and which request is done. Pure, but for the clock.

use crate::cut::{Cursor, Cut};
use crate::{Completion, Error, FileId, Priority, Request, RequestId, Transfer};
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// Where a request lies in the table. Used again when the request has come back.
pub(crate) type Key = usize;

struct Entry {
    request: Request,
    cursor: Cursor,
    /// Whether blocks are left that may be started: then its key is in the lane of its priority.
    queued: bool,
    in_flight: u32,
    error: Option<Error>,
    pushed: Instant,
}

/// A queue per priority, over one table. Nothing is allocated once the table and the queues have grown.
pub(crate) struct Requests {
    table: Vec<Option<Entry>>,
    free: Vec<Key>,
    keys: HashMap<RequestId, Key>,
    lanes: [VecDeque<Key>; 3],
    finished: Vec<Completion>,
    block_bytes: u64,
}

impl Requests {
    pub(crate) fn new(block_bytes: u64) -> Requests {
        let (table, free, keys, finished) = (Vec::new(), Vec::new(), HashMap::new(), Vec::new());
        Requests { table, free, keys, lanes: [const { VecDeque::new() }; 3], finished, block_bytes }
    }

    /// Queues a request whose ranges are known to be good, or one that `refused` says cannot be done.
    pub(crate) fn push(&mut self, request: Request, refused: Option<Error>) {
        let pushed = Instant::now();
        let refused = match self.keys.contains_key(&request.id) {
            true => Some(Error::DuplicateId { id: request.id }),
            false => refused,
        };
        let cursor = Cursor::default();
        let empty = cursor.at_end(&request.ranges, &request.transfer);
        let queued = refused.is_none() && !empty;
        let (id, priority) = (request.id, request.priority);
        let entry = Entry { request, cursor, queued, in_flight: 0, error: refused, pushed };
        if !queued {
            return self.finished.push(entry.completion());
        }
        let key = self.free.pop().unwrap_or_else(|| {
            self.table.push(None);
            self.table.len() - 1
        });
        self.table[key] = Some(entry);
        self.keys.insert(id, key);
        self.lanes[priority as usize].push_back(key);
    }

    pub(crate) fn promote(&mut self, id: RequestId, priority: Priority) {
        let Some(&key) = self.keys.get(&id) else { return };
        let entry = entry(&mut self.table, key);
        let before = std::mem::replace(&mut entry.request.priority, priority);
        if entry.queued && before != priority {
            remove(&mut self.lanes[before as usize], key);
            self.lanes[priority as usize].push_back(key);
        }
    }

    pub(crate) fn abandon(&mut self, id: RequestId) {
        if let Some(&key) = self.keys.get(&id) {
            self.unqueue(key);
            self.finish_if_idle(key);
        }
    }

    /// Abandons everything, so that nothing but what is in flight is left.
    pub(crate) fn abandon_all(&mut self) {
        for key in 0..self.table.len() {
            if self.table[key].is_some() {
                self.unqueue(key);
                self.finish_if_idle(key);
            }
        }
    }

    /// The next block: of the first request of the best priority that has one.
    pub(crate) fn next_block(&mut self) -> Option<(Key, Cut)> {
        for lane in &mut self.lanes {
            let Some(&key) = lane.front() else { continue };
            let entry = entry(&mut self.table, key);
            let (ranges, transfer) = (&entry.request.ranges, &entry.request.transfer);
            let cut = entry.cursor.next(ranges, transfer, self.block_bytes);
            let cut =
                cut.unwrap_or_else(|| panic!("request {} was queued with no block left", entry.request.id));
            entry.in_flight += 1;
            if entry.cursor.at_end(ranges, transfer) {
                entry.queued = false;
                lane.pop_front();
            }
            return Some((key, cut));
        }
        None
    }

    /// A block has ended. After the first error no further block of its request is started.
    pub(crate) fn block_done(&mut self, key: Key, result: Result<(), Error>) {
        let entry = entry(&mut self.table, key);
        assert!(entry.in_flight > 0, "request {} has no block in flight", entry.request.id);
        entry.in_flight -= 1;
        if let Err(error) = result {
            entry.error.get_or_insert(error);
            self.unqueue(key);
        }
        self.finish_if_idle(key);
    }

    fn unqueue(&mut self, key: Key) {
        let entry = entry(&mut self.table, key);
        if std::mem::take(&mut entry.queued) {
            remove(&mut self.lanes[entry.request.priority as usize], key);
        }
    }

    fn finish_if_idle(&mut self, key: Key) {
        let entry = entry(&mut self.table, key);
        if entry.queued || entry.in_flight > 0 {
            return;
        }
        if let Some(entry) = self.table[key].take() {
            self.keys.remove(&entry.request.id);
            self.free.push(key);
            self.finished.push(entry.completion());
        }
    }

    /// Whether requests wait to be taken by [`Requests::take_finished`].
    pub(crate) fn any_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// Appends the requests that are done, in that order.
    pub(crate) fn take_finished(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.finished);
    }

    /// How many requests that have not ended use a file.
    pub(crate) fn using(&self, file: FileId) -> u32 {
        let uses = |entry: &&Entry| {
            matches!(entry.request.transfer, Transfer::Sync(synced) if synced == file)
                || entry.request.ranges.iter().any(|range| range.file == file)
        };
        self.table.iter().flatten().filter(uses).count() as u32
    }

    /// Whether every request is done.
    pub(crate) fn all_done(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Entry {
    fn completion(self) -> Completion {
        let Request { id, ranges, transfer, .. } = self.request;
        let result = match self.error {
            Some(error) => Err(error),
            None if self.cursor.at_end(&ranges, &transfer) => Ok(()),
            None => Err(Error::Abandoned { id }),
        };
        let seconds_ns = self.pushed.elapsed().as_nanos() as u64;
        Completion { id, transfer, ranges, result, seconds_ns }
    }
}

fn entry(table: &mut [Option<Entry>], key: Key) -> &mut Entry {
    table[key].as_mut().unwrap_or_else(|| panic!("no request has key {key}"))
}

fn remove(lane: &mut VecDeque<Key>, key: Key) {
    let place = lane.iter().position(|queued| *queued == key);
    let place = place.unwrap_or_else(|| panic!("the queued request {key} is not in its lane"));
    lane.remove(place);
}
