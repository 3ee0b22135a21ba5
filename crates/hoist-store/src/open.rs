//! Creating a store, and finding one.

use crate::blocking_io::Switch;
use crate::bundle::Layout;
use crate::contents::Contents;
use crate::directory::{
    Directory, JOURNAL_NAMES, Journals, Segment, data, make_folder, manifest, segment_path, segment_sizes,
};
use crate::free_space::{FreeSpace, occupied};
use crate::journal::{self, Copy};
use crate::lock::Lock;
use crate::records::{Loader, live_extents};
use crate::{Config, Durability, Error, Store, TensorSpec};
use hoist_format::{Header, LifeKind, StoreId};
use hoist_io::{Completion, FileId, FileOp, FileRange, IoThread, Transfer};
use hoist_memory::{AlignedBuffer, Slab};
use std::path::Path;
use std::sync::Arc;

/// Segments are zeroed in requests of this size, from one buffer of [`ZEROS_BYTES`] over and over.
const ZEROED_AT_ONCE_BYTES: u64 = 64 << 20;

/// One block of I/O by default.
const ZEROS_BYTES: u64 = 1 << 20;

/// What a directory's thread calls with every completion.
pub type Deliver = Box<dyn FnMut(Completion) + Send>;

/// How the threads of a store are started.
pub(crate) struct Threads<'a, D> {
    /// Starts the thread of the directory with this number among those given.
    pub start: &'a dyn Fn(usize, Deliver) -> Result<IoThread, hoist_io::Error>,
    pub deliver: D,
}

/// Starts threads as the config has it.
pub(crate) fn starter(
    io: &hoist_io::Config,
    slab: &Arc<Slab>,
) -> impl Fn(usize, Deliver) -> Result<IoThread, hoist_io::Error> {
    move |place, deliver| IoThread::spawn(&format!("hoist-io-{place}"), io, Arc::clone(slab), deliver)
}

impl<D: Fn(Completion) + Send + Clone + 'static> Threads<'_, D> {
    fn open(&self, path: &Path, place: usize, switch: &Switch) -> Result<Directory, Error> {
        let lock = Lock::take(path)?;
        let io = (self.start)(place, Box::new(switch.deliver_to(self.deliver.clone())))?;
        Ok(Directory {
            path: path.to_owned(),
            io,
            segments: Vec::new(),
            free: FreeSpace::default(),
            journals: Journals::default(),
            _lock: lock,
        })
    }
}

fn check(config: &Config) -> Result<(), Error> {
    let problems = config.problems();
    if problems.is_empty() { Ok(()) } else { Err(Error::Config(problems)) }
}

/// See [`Store::create`].
pub(crate) fn create<D>(
    config: &Config,
    tensors: &[TensorSpec],
    threads: &Threads<'_, D>,
) -> Result<Store, Error>
where
    D: Fn(Completion) + Send + Clone + 'static,
{
    check(config)?;
    let mut layout =
        Layout::new(tensors).map_err(|wrong| Error::BadTensor { tensor: wrong.tensor, what: wrong.what })?;
    let needs = place_runs(&mut layout, config);
    let mut switch = Switch::new();
    let mut directories = Vec::new();
    for (place, path) in config.nvme_path.iter().enumerate() {
        [manifest(path), data(path)].iter().try_for_each(|folder| make_folder(folder))?;
        let directory = threads.open(path, place, &switch)?;
        let written = |name| std::fs::metadata(manifest(path).join(name)).is_ok_and(|file| file.len() > 0);
        if JOURNAL_NAMES.iter().any(written) {
            return Err(Error::Exists { directory: path.clone() });
        }
        directories.push(directory);
    }
    let sizes: Vec<_> = needs.iter().map(|bytes| segment_sizes(*bytes, config.segment_bytes)).collect();
    for (directory, sizes) in directories.iter_mut().zip(&sizes) {
        make_segments(directory, sizes, &mut switch)?;
        directory.io.file(FileOp::SyncDir { path: data(&directory.path) })?;
        journal::open_files(directory)?;
        directory.io.file(FileOp::SyncDir { path: directory.path.clone() })?;
    }
    let mut id = [0; 16];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()).map_err(|errno| Error::File {
        doing: "reading",
        path: "/dev/urandom".into(),
        source: errno.into(),
    })?;
    let header = Header {
        store: StoreId(u128::from_le_bytes(id)),
        directories: config.nvme_path.iter().map(|path| path.display().to_string()).collect(),
        directory: 0,
        segments: sizes,
    };
    let contents = Contents::new(layout);
    // The journals come last: before them there is no store.
    for (place, directory) in directories.iter_mut().enumerate() {
        let header = Header { directory: place as u32, ..header.clone() };
        journal::rewrite(directory, &mut switch, header, &contents, 0)?;
    }
    Ok(Store::new(config, header, contents, 0, directories, switch))
}

/// Gives every run its directory, the one with the least so far, and says what each directory must hold.
fn place_runs(layout: &mut Layout, config: &Config) -> Vec<u64> {
    let mut needs = vec![0; config.nvme_path.len()];
    for run in &mut layout.runs {
        let copies = match (run.life, config.durability) {
            (LifeKind::Durable, Durability::Step) => 2,
            _ => 1,
        };
        let least = needs.iter().enumerate().min_by_key(|(_, bytes)| **bytes).map_or(0, |(place, _)| place);
        run.directory = least as u32;
        needs[least] += copies * occupied(run.bytes);
    }
    needs
}

/// Makes the segments, with every block written: unwritten ext4 extents cost a transaction each at their first write.
fn make_segments(directory: &mut Directory, sizes: &[u64], switch: &mut Switch) -> Result<(), Error> {
    for (segment, bytes) in sizes.iter().enumerate() {
        let (file, _) = directory.open_file(segment_path(&directory.path, segment as u32), true)?;
        directory.io.file(FileOp::Truncate { file, bytes: *bytes })?;
        directory.io.file(FileOp::Allocate { file, offset: 0, bytes: *bytes })?;
        zero(directory, file, *bytes, switch)?;
        switch.sync(directory, file)?;
        directory.segments.push(Segment { file, dirty: false });
    }
    directory.free = FreeSpace::new(sizes);
    Ok(())
}

fn zero(directory: &Directory, file: FileId, bytes: u64, switch: &mut Switch) -> Result<(), Error> {
    for start in (0..bytes).step_by(ZEROED_AT_ONCE_BYTES as usize) {
        let end = bytes.min(start + ZEROED_AT_ONCE_BYTES);
        let blocks = (start..end).step_by(ZEROS_BYTES as usize);
        let range =
            |offset| FileRange { file, offset, bytes: ZEROS_BYTES.min(end - offset), buffer_offset: 0 };
        let zeros = Transfer::WriteBuffer(AlignedBuffer::new(ZEROS_BYTES as usize)?);
        switch.run(directory, zeros, blocks.map(range).collect())?;
    }
    Ok(())
}

/// See [`Store::open`].
pub(crate) fn open<D>(config: &Config, threads: &Threads<'_, D>) -> Result<Store, Error>
where
    D: Fn(Completion) + Send + Clone + 'static,
{
    check(config)?;
    let mut switch = Switch::new();
    let mut copies = Vec::new();
    for (place, path) in config.nvme_path.iter().enumerate() {
        if !manifest(path).is_dir() {
            return Err(Error::NoStore {
                directory: path.clone(),
                what: "it has no folder \"manifest\"".into(),
            });
        }
        let directory = threads.open(path, place, &switch)?;
        let copy = journal::read(&directory, &mut switch)?;
        copies.push((directory, copy));
    }
    let (header, best) = agree(&mut copies)?;
    let epoch = best.epoch;
    let damaged = |directory: &Directory, what| Error::Damaged { directory: directory.path.clone(), what };
    let contents = best.finish().map_err(|what| damaged(&copies[0].0, what))?;
    let mut directories = Vec::new();
    for (place, (mut directory, copy)) in copies.into_iter().enumerate() {
        let sizes = header.segments.get(place).map_or(&[][..], Vec::as_slice);
        open_segments(&mut directory, sizes)?;
        for extent in live_extents(&contents, place as u32) {
            if !directory.free.take(extent) {
                return Err(damaged(
                    &directory,
                    format!("{extent:?} is claimed twice, or lies in no segment"),
                ));
            }
        }
        take_up_journal(&mut directory, &copy, &contents, &header, (place, epoch), &mut switch)?;
        directories.push(directory);
    }
    Ok(Store::new(config, header, contents, epoch, directories, switch))
}

/// Puts the directories in the store's order and finds the newest of what they say.
fn agree(copies: &mut Vec<(Directory, Copy)>) -> Result<(Header, Loader), Error> {
    let newest_seen = copies.iter().filter_map(|(_, copy)| copy.newest_seen).max();
    let epoch = |copy: &Copy| copy.found.as_ref().map(|found| found.epoch);
    let best = copies.iter().enumerate().filter_map(|(place, (_, copy))| Some((epoch(copy)?, place))).max();
    let first = copies[0].0.path.clone();
    let Some((epoch, best)) = best else {
        return Err(match newest_seen {
            None => Error::NoStore { directory: first, what: "its journals hold no records".into() },
            Some(seen) => {
                let what = format!("there are records of epoch {seen}, and no journal has a valid start");
                Error::Damaged { directory: first, what }
            }
        });
    };
    // A commit that was cut off leaves records of one epoch more, never of two.
    if let Some(seen) = newest_seen.filter(|seen| *seen > epoch + 1) {
        let what = format!("there are records of epoch {seen}, and the valid ones end at {epoch}");
        return Err(Error::Damaged { directory: copies[best].0.path.clone(), what });
    }
    let Some(header) = copies[best].1.found.as_ref().map(|found| found.header.clone()) else {
        unreachable!("the newest copy has a journal")
    };
    order(copies, &header)?;
    // `order` has moved the copies; the newest one is where its header says.
    let Some(found) = &mut copies[header.directory as usize].1.found else {
        unreachable!("the newest copy is in directory {}", header.directory)
    };
    Ok((header, std::mem::take(&mut found.loader)))
}

/// Sorts the copies by their number in the store; each number must be there once.
fn order(copies: &mut Vec<(Directory, Copy)>, header: &Header) -> Result<(), Error> {
    let wrong = |what| Err(Error::Directories { what });
    let mut places: Vec<Option<(Directory, Copy)>> = header.directories.iter().map(|_| None).collect();
    let mut unnumbered = Vec::new();
    for (directory, copy) in copies.drain(..) {
        let Some(found) = &copy.found else {
            unnumbered.push((directory, copy));
            continue;
        };
        let (store, number) = (found.header.store, found.header.directory);
        if store != header.store {
            return wrong(format!(
                "{} is part of store {store}, not of {}",
                directory.path.display(),
                header.store
            ));
        }
        match places.get_mut(number as usize) {
            Some(place) if place.is_none() => *place = Some((directory, copy)),
            _ => return wrong(format!("{} is a second copy of number {number}", directory.path.display())),
        }
    }
    // A directory without any journal is known by elimination, so there can be one at most.
    let empty: Vec<usize> = (0..places.len()).filter(|place| places[*place].is_none()).collect();
    match (empty.as_slice(), unnumbered.len()) {
        (_, 0) => {}
        ([place], 1) => places[*place] = unnumbered.pop(),
        _ => {
            let paths: Vec<_> = unnumbered.iter().map(|(d, _)| d.path.display().to_string()).collect();
            return wrong(format!("{} hold no journal of store {}", paths.join(", "), header.store));
        }
    }
    let missing: Vec<_> = (0..places.len()).filter(|place| places[*place].is_none()).collect();
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|place| header.directories[*place].as_str()).collect();
        return wrong(format!("missing are those created as {}", names.join(", ")));
    }
    copies.extend(places.into_iter().flatten());
    Ok(())
}

fn open_segments(directory: &mut Directory, sizes: &[u64]) -> Result<(), Error> {
    for (segment, bytes) in sizes.iter().enumerate() {
        let path = segment_path(&directory.path, segment as u32);
        let (file, length) = directory.open_file(path.clone(), false)?;
        if length < *bytes {
            let what = format!("{} has {length} bytes of {bytes}", path.display());
            return Err(Error::Damaged { directory: directory.path.clone(), what });
        }
        directory.segments.push(Segment { file, dirty: false });
    }
    directory.free = FreeSpace::new(sizes);
    Ok(())
}

/// Goes on with the directory's journal, or writes a new one where it is not at the newest epoch or ends in a torn
/// batch.
fn take_up_journal(
    directory: &mut Directory,
    copy: &Copy,
    contents: &Contents,
    header: &Header,
    (place, epoch): (usize, u64),
    switch: &mut Switch,
) -> Result<(), Error> {
    journal::open_files(directory)?;
    let current = copy.found.as_ref().filter(|found| found.epoch == epoch);
    if let Some(found) = current {
        directory.journals.active = found.place;
        (directory.journals.tail, directory.journals.capacity) = (found.tail.bytes as u64, found.bytes);
        if copy.newest_seen == Some(epoch) {
            // The record may be in the drive's cache only, and the extents that it drops are about to be used.
            return switch.sync(directory, directory.journals.file(found.place));
        }
    } else if let Some(found) = &copy.found {
        directory.journals.active = found.place;
    }
    tracing::warn!(directory = %directory.path.display(), epoch, "the journal is behind or torn: written anew");
    journal::rewrite(directory, switch, Header { directory: place as u32, ..header.clone() }, contents, epoch)
}
