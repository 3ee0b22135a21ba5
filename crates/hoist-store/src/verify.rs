//! Finds bytes that are not those written: of the newest epoch, and of all snapshots.

use crate::location::Locations;
use crate::verify_in_place;
use crate::{BlockingStore, Error, Span, Store, StoreEvent};
use crossbeam_channel::{Receiver, Sender};
use hoist_format::{CHECKSUM_BYTES, Extent, checksum};
use hoist_memory::Slot;
use std::collections::HashMap;
use std::path::PathBuf;

/// Threads that compute checksums, at most: each does 8 GB/s (CRC-64/NVME, measured on an AMD EPYC), so four keep up with
/// as many drives of the fastest kind.
const WORKERS_MAX: usize = 4;

/// The most that is read by one request: four blocks of the default size, so that a slab of 64 MiB has sixteen of them,
/// enough for a drive and for all workers.
const READ_BYTES_MAX: u64 = 4 << 20;

/// Compares the checksums of `parts` with `expected`.
///
/// # Errors
/// The numbers of the blocks of 256 KiB that differ, or that are on one side only; at least one.
pub fn verify_parts<'a>(expected: &[u64], parts: impl Iterator<Item = &'a [u8]>) -> Result<(), Vec<usize>> {
    let mut found = Vec::with_capacity(expected.len());
    checksum(parts, &mut found);
    let blocks = 0..expected.len().max(found.len());
    let bad: Vec<_> = blocks.filter(|block| expected.get(*block) != found.get(*block)).collect();
    if bad.is_empty() { Ok(()) } else { Err(bad) }
}

/// Like [`verify_parts`], where the blocks with these numbers have no checksum yet: theirs are put into `expected`.
///
/// # Errors
/// Those of [`verify_parts`], of the others.
pub fn verify_touched<'a>(
    expected: &mut [u64],
    unknown: &[usize],
    parts: impl Iterator<Item = &'a [u8]>,
) -> Result<(), Vec<usize>> {
    if unknown.is_empty() {
        return verify_parts(expected, parts);
    }
    let mut found = Vec::with_capacity(expected.len());
    checksum(parts, &mut found);
    for block in unknown {
        expected[*block] = found[*block];
    }
    let bad: Vec<_> = (0..expected.len()).filter(|block| expected[*block] != found[*block]).collect();
    if bad.is_empty() { Ok(()) } else { Err(bad) }
}

/// A block of 256 KiB that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBlock {
    /// The names of the tensors with bytes in it.
    pub tensors: Vec<String>,
    /// The snapshots that alone have it; none: the newest epoch has it.
    pub snapshots: Vec<String>,
    /// The block in its run.
    pub span: Span,
    /// Where it is: file, offset, length. One, unless the space was fragmented; for bytes in a file outside the store, one
    /// for each tensor.
    pub places: Vec<(PathBuf, u64, u64)>,
    /// The error of reading it; none when it was read and its checksum does not match.
    pub unreadable: Option<String>,
}

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Blocks that were looked at.
    pub blocks: u64,
    /// Bytes that were looked at.
    pub bytes: u64,
    /// All bad blocks, by run and offset.
    pub bad: Vec<BadBlock>,
}

/// Bytes that are looked at by one request.
struct Item {
    span: Span,
    extents: Vec<Extent>,
    checksums: Vec<u64>,
    snapshots: Vec<String>,
}

impl Item {
    /// The part of it that is `bytes` from `from` of it on, or what there is of that: whole blocks.
    fn part(&self, from: u64, bytes: u64) -> Item {
        let Span { run, offset, bytes: all } = self.span;
        let span = Span { run, offset: offset + from, bytes: bytes.min(all - from) };
        let mut places = Locations::default();
        places.replace(offset, &self.extents, (true, 0), &mut Vec::new());
        let first = (from / CHECKSUM_BYTES) as usize;
        let checksums = self.checksums[first..first + hoist_format::blocks(span.bytes)].to_vec();
        let extents = places.extents(span.offset, span.end()).collect();
        Item { span, extents, checksums, snapshots: self.snapshots.clone() }
    }

    /// Its parts of at most `bytes` each.
    fn parts(&self, bytes: u64) -> impl Iterator<Item = Item> + '_ {
        (0..self.span.bytes).step_by(bytes as usize).map(move |from| self.part(from, bytes))
    }
}

/// Reads every durable byte of the newest epoch and of all snapshots and compares it with its checksum, on several threads;
/// then what lies in files outside the store, of which what was never read before has its checksum from then on.
/// A bad block does not end it.
///
/// # Errors
/// [`Error::NoMemory`], or when the I/O thread has stopped; bad bytes are in the report.
pub fn verify(store: &mut BlockingStore) -> Result<VerifyReport, Error> {
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get().min(WORKERS_MAX));
    let bytes = store.chunk_bytes()?.min(READ_BYTES_MAX);
    let all = items(store.store());
    let mut scrub = Scrub { store, report: VerifyReport::default(), unreadable: Vec::new() };
    scrub.run(workers, all.iter().flat_map(|item| item.parts(bytes)))?;
    // What could not be read as a whole is looked at block by block.
    let again = std::mem::take(&mut scrub.unreadable);
    scrub.run(workers, again.iter().flat_map(|(item, _)| item.parts(CHECKSUM_BYTES)))?;
    let blocks = std::mem::take(&mut scrub.unreadable);
    let Scrub { store, mut report, .. } = scrub;
    for (item, error) in blocks {
        report.bad.push(bad_block(store.store(), &item, Some(error)));
    }
    verify_in_place::verify(store, &mut report)?;
    report.bad.sort_by(|one, other| (one.span, &one.snapshots).cmp(&(other.span, &other.snapshots)));
    Ok(report)
}

/// All durable bytes.
fn items(store: &Store) -> Vec<Item> {
    let mut items = Vec::new();
    for (run, info) in store.contents.durable_runs() {
        let bytes = &store.contents.bytes[run.0 as usize];
        for (from, to, _) in bytes.locations.stretches(0, info.bytes) {
            let span = Span { run, offset: from, bytes: to - from };
            let extents = bytes.locations.extents(from, to).collect();
            let checksums = bytes.checksums[crate::contents::blocks_of(&span)].to_vec();
            items.push(Item { span, extents, checksums, snapshots: Vec::new() });
        }
    }
    items.extend(store.history.spans.iter().map(|past| Item {
        span: past.span,
        extents: past.extents.clone(),
        checksums: past.checksums.clone(),
        snapshots: store.history.holders(past).map(str::to_owned).collect(),
    }));
    items
}

fn bad_block(store: &Store, item: &Item, unreadable: Option<String>) -> BadBlock {
    let name = |id: crate::TensorId| store.tensors()[id.0 as usize].spec.name.clone();
    let tensors = store.tensors_in(&item.span).map(name).collect();
    let places =
        item.extents.iter().map(|extent| (store.path_of(extent), extent.offset, extent.bytes)).collect();
    BadBlock { tensors, snapshots: item.snapshots.clone(), span: item.span, places, unreadable }
}

/// What a worker looks at, and what it finds.
type Job = (Item, Slot);
type Found = (Item, Vec<usize>);

struct Scrub<'a> {
    store: &'a mut BlockingStore,
    report: VerifyReport,
    /// What could not be read, and why.
    unreadable: Vec<(Item, String)>,
}

impl Scrub<'_> {
    fn run(&mut self, workers: usize, items: impl Iterator<Item = Item>) -> Result<(), Error> {
        // Unbounded in type only: what they hold has a slot each.
        let (jobs, todo) = crossbeam_channel::unbounded::<Job>();
        let (done, found) = crossbeam_channel::unbounded::<Found>();
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let (todo, done) = (todo.clone(), done.clone());
                scope.spawn(move || look(&todo, &done));
            }
            drop(done);
            self.drive(items, jobs, &found)
        })
    }

    /// Reads as far as there is memory, hands what came to the workers, and takes what they found.
    fn drive(
        &mut self,
        items: impl Iterator<Item = Item>,
        jobs: Sender<Job>,
        found: &Receiver<Found>,
    ) -> Result<(), Error> {
        let mut items = items.peekable();
        let mut reading: HashMap<hoist_io::RequestId, Item> = HashMap::new();
        let mut looked_at = 0;
        loop {
            while let Some(item) = items.peek() {
                let Some(slot) = self.store.free_slot(item.span.bytes) else { break };
                let Some(item) = items.next() else { break };
                reading.insert(self.store.read_extents(&item.span, &item.extents, slot), item);
            }
            if !reading.is_empty() {
                let StoreEvent::Read { id, slot, result } = self.store.event()? else { continue };
                let Some(item) = reading.remove(&id) else { unreachable!("request {id} reads nothing") };
                match result {
                    Ok(()) => {
                        looked_at += 1;
                        // The workers end after this loop only.
                        let _ = jobs.send((item, slot));
                    }
                    Err(error) => self.unreadable.push((item, error.to_string())),
                }
            } else if looked_at > 0 {
                let Ok(one) = found.recv() else { unreachable!("a worker has ended before its work") };
                looked_at -= 1;
                self.take(&one);
            } else if let Some(item) = items.peek() {
                return Err(self.store.no_memory(item.span.bytes));
            } else {
                return Ok(());
            }
            while let Ok(one) = found.try_recv() {
                looked_at -= 1;
                self.take(&one);
            }
        }
    }

    fn take(&mut self, (item, bad): &Found) {
        self.report.blocks += item.checksums.len() as u64;
        self.report.bytes += item.span.bytes;
        for block in bad {
            let part = item.part(*block as u64 * CHECKSUM_BYTES, CHECKSUM_BYTES);
            self.report.bad.push(bad_block(self.store.store(), &part, None));
        }
    }
}

/// A worker: ends when there is nothing more to do.
fn look(todo: &Receiver<Job>, done: &Sender<Found>) {
    for (item, slot) in todo {
        let bad = verify_parts(&item.checksums, slot.parts()).err().unwrap_or_default();
        drop(slot);
        let _ = done.send((item, bad));
    }
}
