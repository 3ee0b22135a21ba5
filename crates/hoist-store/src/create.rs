//! Creating a store.

use crate::batch::{Image, random};
use crate::blocking_io::Switch;
use crate::bundle::Layout;
use crate::contents::{Contents, NoteValue};
use crate::directory::{Directory, JOURNAL_NAMES, data, make_folder, manifest, segment_path};
use crate::free_space::{EXTENT_ALIGN_BYTES, FreeSpace, occupied};
use crate::growth::{Growth, Rooms};
use crate::history::History;
use crate::journal;
use crate::lock::Holders;
use crate::open::{Threads, check};
use crate::safetensors::METADATA_NOTE;
use crate::segments::{self, Segments};
use crate::shares::Shares;
use crate::sources::open_sources;
use crate::spread::Spread;
use crate::store::{Drives, Durable};
use crate::{Config, Durability, Error, ModelFiles, RunId, SEGMENT_GRAIN_BYTES, Store, TensorSpec};
use hoist_format::{EpochRecord, Header, LifeKind, StoreId};
use hoist_io::{Completion, FileOp};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// See [`Store::create`]. When it fails, what it has made so far is removed.
pub(crate) fn create<D>(
    config: &Config,
    model: Option<&ModelFiles>,
    tensors: &[TensorSpec],
    threads: &Threads<'_, D>,
) -> Result<Store, Error>
where
    D: Fn(Completion) + Send + Clone + 'static,
{
    check(config)?;
    let layout = match model {
        None => Layout::new(tensors),
        Some(model) => Layout::over(model.sources()?, (model.specs(), &model.places()), tensors),
    };
    let layout = layout.map_err(|wrong| Error::BadTensor { tensor: wrong.tensor, what: wrong.what })?;
    let mut switch = Switch::new();
    let mut directories = Vec::new();
    for (place, path) in config.nvme_path.iter().enumerate() {
        let made: Vec<_> = path.ancestors().take_while(|folder| !folder.exists()).collect();
        [manifest(path), data(path)].iter().try_for_each(|folder| make_folder(folder))?;
        let directory = threads.open((path, Holders::One), place, &switch)?;
        sync_names(&directory, &made)?;
        let written = |name| std::fs::metadata(manifest(path).join(name)).is_ok_and(|file| file.len() > 0);
        if JOURNAL_NAMES.iter().any(written) {
            return Err(Error::Exists { directory: path.clone() });
        }
        directories.push(directory);
    }
    let need_bytes = need_bytes(&layout, config);
    let mut spread = Spread::new(directories.len());
    let mut contents = Contents::new(Arc::new(layout));
    let mut make = || {
        let rooms = rooms(&config.nvme_path, need_bytes)?;
        let growth = Growth::new(need_bytes, segment_bytes(need_bytes, config.segment_bytes), rooms);
        let sources = open_sources(&contents.layout.sources.files, threads, directories.len(), &switch)?;
        if let Some(sources) = &sources {
            sources.check_all(&contents.layout.sources.files)?;
        }
        if let Some(bytes) = model.map(ModelFiles::metadata_note).transpose()?.flatten() {
            contents.notes.insert(METADATA_NOTE.to_owned(), NoteValue { bytes, born: 0 });
        }
        let (segments, sizes) = segments::make(&directories, &mut spread, growth, &mut switch)?;
        Ok((segments, fill(config, &mut directories, sizes, &contents, &mut switch)?, sources))
    };
    let made = make();
    match made {
        Ok((segments, header, sources)) => {
            let (history, shares, epoch) = (History::default(), Shares::default(), EpochRecord::default());
            let durable = Durable { contents, history, shares, epoch, batch: 0 };
            let (segments, missing) = (Segments::new(segments), Vec::new());
            let drives = Drives { directories, segments, spread, sources, missing };
            Ok(Store::new(config, header, durable, drives, switch))
        }
        Err(error) => {
            discard(&directories);
            Err(error)
        }
    }
}

/// Makes the names of folders durable, or a power cut takes them with all that is in them.
fn sync_names(directory: &Directory, folders: &[&Path]) -> Result<(), Error> {
    for parent in folders.iter().filter_map(|folder| folder.parent()) {
        // A relative path begins in "", which is where the process is.
        let path = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        directory.io.file(FileOp::SyncDir { path: path.to_owned() })?;
    }
    Ok(())
}

/// Takes up segments of these sizes, and writes the journals.
fn fill(
    config: &Config,
    directories: &mut [Directory],
    sizes: Vec<Vec<u64>>,
    contents: &Contents,
    switch: &mut Switch,
) -> Result<Header, Error> {
    let mut first = 0;
    for (directory, sizes) in directories.iter_mut().zip(&sizes) {
        directory.free = FreeSpace::new(first, sizes);
        first += sizes.len() as u32;
        directory.io.file(FileOp::SyncDir { path: data(&directory.path) })?;
        journal::open_files(directory)?;
        directory.io.file(FileOp::SyncDir { path: directory.path.clone() })?;
    }
    let header = Header {
        store: StoreId(u128::from_le_bytes(random()?)),
        directories: config.nvme_path.iter().map(|path| path.display().to_string()).collect(),
        directory: 0,
        segments: sizes,
        rank: config.rank,
        world_size: config.world_size.max(1),
    };
    let (history, epoch) = (History::default(), EpochRecord::default());
    let image = Image { contents, history: &history, epoch: &epoch, batch: 0 };
    // The journals come last: before them there is no store.
    for (place, directory) in directories.iter_mut().enumerate() {
        let header = Header { directory: place as u32, ..header.clone() };
        journal::rewrite(directory, switch, header, &image)?;
    }
    Ok(header)
}

/// Removes the files of a store that did not come to be, journals first, so that its space is not lost; nothing else
/// that lies in its folders. The error that led here is the one to report, so others are only logged.
pub(crate) fn discard(directories: &[Directory]) {
    for Directory { path, .. } in directories {
        let journals = JOURNAL_NAMES.iter().map(|name| manifest(path).join(name));
        let segments = (0..).map(|number| segment_path(path, number)).take_while(|file| file.exists());
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

/// The space that each directory has, on a device of its own or not.
///
/// # Errors
/// [`Error::NoRoom`] when it is not enough together: told before it is filled up.
fn rooms(paths: &[PathBuf], need_bytes: u64) -> Result<Rooms, Error> {
    let mut found = Vec::new();
    for path in paths {
        let wrong =
            |source| Error::File { doing: "asking for the free space of", path: path.clone(), source };
        let space = rustix::fs::statvfs(path).map_err(|errno| wrong(errno.into()))?;
        let device = Path::metadata(path).map_err(wrong)?.dev();
        found.push((device, space.f_bavail.saturating_mul(space.f_frsize)));
    }
    let rooms = Rooms::new(found);
    let free_bytes = rooms.free_bytes();
    if need_bytes > free_bytes {
        return Err(Error::NoRoom { directory: paths[0].clone(), need_bytes, free_bytes });
    }
    Ok(rooms)
}

/// Segments of a directory, more or less: half of the files that hoist-io keeps open at a time.
const SEGMENTS_MANY: u64 = 256;

/// How large segments may be, so that there are not too many of them.
fn segment_bytes(need_bytes: u64, configured_bytes: u64) -> u64 {
    let least_bytes = need_bytes / SEGMENTS_MANY;
    if least_bytes > configured_bytes {
        least_bytes.next_multiple_of(SEGMENT_GRAIN_BYTES)
    } else {
        configured_bytes
    }
}

/// Of what is needed, the part that several directories have besides: without it the first drive to be full, because it
/// is a little faster than it was when the store was made, leaves the rest of a step's writes to the others.
const SLACK: u64 = 8;

/// What a store of these runs takes: durable ones once for each version of them that there may be.
fn need_bytes(layout: &Layout, config: &Config) -> u64 {
    let snapshots = u64::from(config.snapshots);
    let versions = match config.durability {
        // The newest epoch, and the one under construction.
        Durability::Step => 2 + snapshots,
        // The one under construction, over which steps write, and the last snapshot.
        Durability::Snapshot => 1 + snapshots.max(1),
        Durability::None => 1,
    };
    let copies = |life| if life == LifeKind::Durable { versions } else { 1 };
    let own = (0..).map(RunId).zip(&layout.runs).filter(|(id, _)| !layout.is_sourced(*id));
    let own_bytes: u64 = own.map(|(_, run)| copies(run.life) * occupied(run.bytes)).sum();
    // Whatever was asked for: what is more than there is anywhere is told as that.
    let room_bytes = match layout.sources.files.is_empty() {
        true => 0,
        false => versions.saturating_mul(
            config.in_place_room_bytes.div_ceil(EXTENT_ALIGN_BYTES).saturating_mul(EXTENT_ALIGN_BYTES),
        ),
    };
    let bytes = own_bytes.saturating_add(room_bytes);
    if config.nvme_path.len() > 1 { bytes.saturating_add(bytes / SLACK) } else { bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_few_and_large_in_large_stores() {
        let (mib, gib) = (1 << 20, 1 << 30);
        assert_eq!(segment_bytes(0, mib), mib);
        assert_eq!(segment_bytes(5 * mib, mib), mib);
        assert_eq!(segment_bytes(200 * gib, gib), gib);
        let bytes = segment_bytes(3000 * gib, gib);
        assert!(
            bytes.is_multiple_of(SEGMENT_GRAIN_BYTES) && (3000 * gib).div_ceil(bytes) <= SEGMENTS_MANY,
            "{bytes}"
        );
    }
}
