//! Creating a store.

use crate::blocking_io::Switch;
use crate::bundle::Layout;
use crate::contents::Contents;
use crate::directory::{
    Directory, JOURNAL_NAMES, Segment, data, make_folder, manifest, segment_path, segment_sizes,
};
use crate::free_space::{FreeSpace, occupied};
use crate::journal;
use crate::open::{Threads, check};
use crate::{Config, Durability, Error, Store, TensorSpec};
use hoist_format::{Header, LifeKind, StoreId};
use hoist_io::{Completion, FileId, FileOp, FileRange, Transfer};
use hoist_memory::AlignedBuffer;
use std::path::Path;

/// Segments are zeroed in requests of this size, from one buffer of [`ZEROS_BYTES`] over and over.
const ZEROED_AT_ONCE_BYTES: u64 = 64 << 20;

/// One block of I/O by default.
const ZEROS_BYTES: u64 = 1 << 20;

/// See [`Store::create`]. When it fails, what it has made so far is removed.
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
        check_room(path, needs[place])?;
        directories.push(directory);
    }
    let sizes = needs.iter().map(|bytes| segment_sizes(*bytes, config.segment_bytes)).collect();
    let contents = Contents::new(layout);
    match fill(config, &mut directories, sizes, &contents, &mut switch) {
        Ok(header) => Ok(Store::new(config, header, contents, 0, directories, switch)),
        Err(error) => {
            discard(&directories);
            Err(error)
        }
    }
}

/// Makes all files of a store, in empty directories.
fn fill(
    config: &Config,
    directories: &mut [Directory],
    sizes: Vec<Vec<u64>>,
    contents: &Contents,
    switch: &mut Switch,
) -> Result<Header, Error> {
    for (directory, sizes) in directories.iter_mut().zip(&sizes) {
        make_segments(directory, sizes, switch)?;
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
    // The journals come last: before them there is no store.
    for (place, directory) in directories.iter_mut().enumerate() {
        let header = Header { directory: place as u32, ..header.clone() };
        journal::rewrite(directory, switch, header, contents, 0)?;
    }
    Ok(header)
}

/// Removes the files of a store that did not come to be, journals first, so that its space is not lost; nothing else
/// that lies in its folders. The error that led here is the one to report, so others are only logged.
pub(crate) fn discard(directories: &[Directory]) {
    for Directory { path, segments, .. } in directories {
        let journals = JOURNAL_NAMES.iter().map(|name| manifest(path).join(name));
        // One more than there are: the one that could not be made.
        let segments = (0..=segments.len() as u32).map(|segment| segment_path(path, segment));
        for file in journals.chain(segments).filter(|file| file.exists()) {
            if let Err(error) = std::fs::remove_file(&file) {
                tracing::warn!(file = %file.display(), %error, "left behind");
            }
        }
        for folder in [manifest(path), data(path)] {
            // Not empty when something else lies in it: then it stays.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Refuses what the file system has no room for, before it is filled up.
fn check_room(path: &Path, need_bytes: u64) -> Result<(), Error> {
    let found = rustix::fs::statvfs(path).map_err(|errno| Error::File {
        doing: "asking for the free space of",
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
    if need_bytes > free_bytes {
        return Err(Error::NoRoom { directory: path.to_owned(), need_bytes, free_bytes });
    }
    Ok(())
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
