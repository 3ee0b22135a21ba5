//! The requests that have not come back: which block is next, and which request is done. Pure, but for the clock.

use crate::config::REQUESTS_MANY;
use crate::cut::{Cursor, Cut};
use crate::{Completion, Error, FileId, Priority, Request, RequestId, Transfer};
use foldhash::fast::RandomState;
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
    keys: HashMap<RequestId, Key, RandomState>,
    lanes: [VecDeque<Key>; 3],
    finished: Vec<Completion>,
    block_bytes: u64,
}

impl Requests {
    pub(crate) fn new(block_bytes: u64) -> Requests {
        let (table, free, finished) = (Vec::new(), Vec::new(), Vec::new());
        let keys = HashMap::with_capacity_and_hasher(REQUESTS_MANY, RandomState::default());
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
        let finished_max = self.table.len() + 1;
        self.finished.reserve(finished_max.saturating_sub(self.finished.len()));
        if !queued {
            return self.finished.push(entry.completion(pushed));
        }
        let key = self.free.pop().unwrap_or_else(|| {
            self.table.push(None);
            // Each of them has room for all that may come to lie in it, so that they grow with the table alone.
            let entries = self.table.len();
            self.free.reserve(entries - self.free.len());
            self.lanes.iter_mut().for_each(|lane| lane.reserve(entries - lane.len()));
            entries - 1
        });
        self.table[key] = Some(entry);
        self.keys.insert(id, key);
        self.lanes[priority as usize].push_back(key);
    }

    /// Bytes of a block at most.
    pub(crate) fn block_bytes(&self) -> u64 {
        self.block_bytes
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
            self.finish_if_idle(key, Instant::now());
        }
    }

    /// Abandons everything, so that nothing but what is in flight is left.
    pub(crate) fn abandon_all(&mut self) {
        let now = Instant::now();
        for key in 0..self.table.len() {
            if self.table[key].is_some() {
                self.unqueue(key);
                self.finish_if_idle(key, now);
            }
        }
    }

    /// The next block: of the first request of the best priority that has one. `bounce_bytes`: see [`Cursor::next`].
    pub(crate) fn next_block(&mut self, bounce_bytes: impl Fn(FileId) -> Option<u64>) -> Option<(Key, Cut)> {
        for lane in &mut self.lanes {
            let Some(&key) = lane.front() else { continue };
            let entry = entry(&mut self.table, key);
            let (ranges, transfer) = (&entry.request.ranges, &entry.request.transfer);
            let cut = entry.cursor.next(ranges, transfer, self.block_bytes, bounce_bytes);
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

    /// Puts bytes that were read into a request's memory.
    pub(crate) fn put(&mut self, key: Key, buffer_offset: u64, bytes: &[u8]) {
        entry(&mut self.table, key).request.transfer.put(buffer_offset, bytes);
    }

    /// A block has ended `now`. After the first error no further block of its request is started.
    pub(crate) fn block_done(&mut self, key: Key, result: Result<(), Error>, now: Instant) {
        let entry = entry(&mut self.table, key);
        assert!(entry.in_flight > 0, "request {} has no block in flight", entry.request.id);
        entry.in_flight -= 1;
        if let Err(error) = result {
            entry.error.get_or_insert(error);
            self.unqueue(key);
        }
        self.finish_if_idle(key, now);
    }

    fn unqueue(&mut self, key: Key) {
        let entry = entry(&mut self.table, key);
        if std::mem::take(&mut entry.queued) {
            remove(&mut self.lanes[entry.request.priority as usize], key);
        }
    }

    fn finish_if_idle(&mut self, key: Key, now: Instant) {
        let entry = entry(&mut self.table, key);
        if entry.queued || entry.in_flight > 0 {
            return;
        }
        if let Some(entry) = self.table[key].take() {
            self.keys.remove(&entry.request.id);
            self.free.push(key);
            self.finished.push(entry.completion(now));
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
    fn completion(self, now: Instant) -> Completion {
        let Request { id, ranges, transfer, .. } = self.request;
        let result = match self.error {
            Some(error) => Err(error),
            None if self.cursor.at_end(&ranges, &transfer) => Ok(()),
            None => Err(Error::Abandoned { id }),
        };
        let seconds_ns = now.saturating_duration_since(self.pushed).as_nanos() as u64;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileRange;
    use hoist_memory::AlignedBuffer;
    use proptest::prelude::*;

    const BLOCK_BYTES: u64 = 8192;

    /// A request whose blocks name it: block n of it is at `id << 32` plus n blocks.
    fn request(id: RequestId, priority: Priority, blocks: u64) -> Request {
        let bytes = blocks * BLOCK_BYTES;
        let ranges = vec![FileRange { file: FileId(0), offset: id << 32, bytes, buffer_offset: 0 }];
        let transfer = Transfer::ReadBuffer(AlignedBuffer::new(bytes as usize).unwrap());
        Request { id, priority, ranges, transfer }
    }

    fn priority(number: u8) -> Priority {
        [Priority::Demand, Priority::Prefetch, Priority::WriteBack][usize::from(number % 3)]
    }

    #[derive(Clone, Debug)]
    enum Op {
        Push(u8, u64),
        Promote(u64, u8),
        Abandon(u64),
        Start,
        End(usize, bool),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (any::<u8>(), 0..5u64).prop_map(|(priority, blocks)| Op::Push(priority, blocks)),
            1 => (0..20u64, any::<u8>()).prop_map(|(id, priority)| Op::Promote(id, priority)),
            1 => (0..20u64).prop_map(Op::Abandon),
            5 => Just(Op::Start),
            5 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(pick, good)| Op::End(pick, good)),
        ]
    }

    /// What is known of one request.
    #[derive(Clone, Debug)]
    struct Model {
        id: u64,
        priority: Priority,
        blocks_left: u64,
        in_flight: u64,
        failed: bool,
        stopped: bool,
    }

    /// The requests in the order in which they queue inside their priority.
    fn next(models: &[Model]) -> Option<usize> {
        let waiting = models.iter().enumerate().filter(|(_, model)| model.blocks_left > 0 && !model.stopped);
        waiting.min_by_key(|(place, model)| (model.priority, *place)).map(|(place, _)| place)
    }

    proptest! {
        /// Strictly by priority, first in first out inside, each request back exactly once with the right result.
        #[test]
        fn blocks_come_in_order_and_requests_come_back_once(ops in proptest::collection::vec(op(), 1..150)) {
            let mut requests = Requests::new(BLOCK_BYTES);
            let mut models: Vec<Model> = Vec::new();
            let mut in_flight: Vec<(Key, u64)> = Vec::new();
            let mut back = Vec::new();
            let mut pushed = 0;
            // At the end all that is left is started and ended.
            let rest = std::iter::repeat_n([Op::Start, Op::End(0, true)], 1000).flatten();
            for op in ops.into_iter().chain(rest) {
                match op {
                    Op::Push(number, blocks) => {
                        let priority = priority(number);
                        requests.push(request(pushed, priority, blocks), None);
                        let model = Model {
                            id: pushed, priority, blocks_left: blocks, in_flight: 0, failed: false, stopped: false,
                        };
                        models.push(model);
                        pushed += 1;
                    }
                    Op::Promote(id, number) => {
                        let priority = priority(number);
                        requests.promote(id, priority);
                        if let Some(place) = models.iter().position(|model| model.id == id && model.priority != priority) {
                            let model = models.remove(place);
                            models.push(Model { priority, ..model });
                        }
                    }
                    Op::Abandon(id) => {
                        requests.abandon(id);
                        models.iter_mut().filter(|model| model.id == id).for_each(|model| model.stopped = true);
                    }
                    Op::Start => {
                        let expected = next(&models);
                        let found = requests.next_block(|_| None);
                        prop_assert_eq!(found.map(|(_, cut)| cut.offset >> 32), expected.map(|place| models[place].id));
                        if let (Some((key, _)), Some(place)) = (found, expected) {
                            models[place].blocks_left -= 1;
                            models[place].in_flight += 1;
                            in_flight.push((key, models[place].id));
                        }
                    }
                    Op::End(pick, good) => {
                        if in_flight.is_empty() {
                            continue;
                        }
                        let (key, id) = in_flight.swap_remove(pick % in_flight.len());
                        requests.block_done(key, if good { Ok(()) } else { Err(Error::UnknownFile { file: 9 }) }, Instant::now());
                        let model = models.iter_mut().find(|model| model.id == id).unwrap();
                        model.in_flight -= 1;
                        model.failed |= !good;
                        model.stopped |= !good;
                    }
                }
                let mut done = Vec::new();
                requests.take_finished(&mut done);
                for completion in done {
                    let place = models.iter().position(|model| model.id == completion.id).unwrap();
                    let model = models.remove(place);
                    prop_assert_eq!(model.in_flight, 0);
                    match completion.result {
                        Ok(()) => prop_assert!(model.blocks_left == 0 && !model.failed),
                        Err(Error::Abandoned { .. }) => prop_assert!(model.blocks_left > 0 && !model.failed),
                        Err(_) => prop_assert!(model.failed),
                    }
                    back.push(completion.id);
                }
                let left = models.iter().filter(|model| model.in_flight > 0 || (model.blocks_left > 0 && !model.stopped));
                prop_assert_eq!(left.count(), models.len(), "a request that is done has not come back");
            }
            back.sort_unstable();
            prop_assert_eq!(back, (0..pushed).collect::<Vec<_>>());
            prop_assert!(requests.all_done());
        }
    }

    #[test]
    fn a_second_request_of_the_same_id_is_refused() {
        let mut requests = Requests::new(BLOCK_BYTES);
        requests.push(request(7, Priority::Demand, 1), None);
        requests.push(request(7, Priority::Demand, 1), None);
        let mut done = Vec::new();
        requests.take_finished(&mut done);
        assert!(matches!(done[..], [Completion { id: 7, result: Err(Error::DuplicateId { id: 7 }), .. }]));
        assert!(requests.next_block(|_| None).is_some(), "the first is still queued");
    }
}
