//! Writing images of the journal and reading journals back.

use crate::Error;
use crate::batch::Image;
use crate::blocking_io::Switch;
use crate::directory::{Directory, JOURNAL_NAMES, JOURNAL_ROOM_BYTES_MIN, manifest};
use crate::loader::Loader;
use hoist_format::{Header, JOURNAL_ALIGN_BYTES, Tail, read_journal};
use hoist_io::{FileId, FileOp};
use hoist_memory::AlignedBuffer;

/// What one journal says.
pub(crate) struct Found {
    pub header: Header,
    /// The last batch.
    pub batch: u64,
    pub loader: Loader,
    pub tail: Tail,
    /// Which of the directory's journals it is.
    pub place: usize,
    pub bytes: u64,
}

/// What the journals of one directory say.
pub(crate) struct Copy {
    /// The newest.
    pub found: Option<Found>,
    /// The highest batch of any valid frame in any of them.
    pub newest_seen: Option<u64>,
}

/// The image as it is written: with room for what is appended, all zeros, so that no append makes the file grow.
pub(crate) fn image_buffer(header: Header, image: &Image<'_>) -> Result<(AlignedBuffer, u64), Error> {
    let bytes = image.encode(header)?;
    let tail = bytes.len() as u64;
    let capacity = tail + tail.max(JOURNAL_ROOM_BYTES_MIN);
    let mut buffer = AlignedBuffer::new(capacity as usize)?;
    buffer[..bytes.len()].copy_from_slice(&bytes);
    Ok((buffer, tail))
}

/// A block of zeros: over a journal's preamble it makes it none.
pub(crate) fn no_preamble() -> Result<AlignedBuffer, Error> {
    Ok(AlignedBuffer::new(JOURNAL_ALIGN_BYTES)?)
}

/// Opens both journals of a directory, made where they are missing.
pub(crate) fn open_files(directory: &mut Directory) -> Result<(), Error> {
    for (place, name) in JOURNAL_NAMES.iter().enumerate() {
        let (file, _) = directory.open_file(manifest(&directory.path).join(name), true)?;
        directory.journals.files[place] = Some(file);
    }
    directory.io.file(FileOp::SyncDir { path: manifest(&directory.path) })?;
    Ok(())
}

/// Writes a whole new journal, waits until it is on the drive, and retires the old one.
pub(crate) fn rewrite(
    directory: &mut Directory,
    switch: &mut Switch,
    header: Header,
    image: &Image<'_>,
) -> Result<(), Error> {
    let (buffer, tail) = image_buffer(header, image)?;
    let capacity = buffer.len() as u64;
    let old = directory.journals.active;
    let new = 1 - old;
    let [old_file, new_file] = [directory.journals.file(old), directory.journals.file(new)];
    switch.write(directory, new_file, buffer)?;
    switch.sync(directory, new_file)?;
    retire(directory, switch, old_file)?;
    directory.journals.active = new;
    (directory.journals.tail, directory.journals.capacity) = (tail, capacity);
    Ok(())
}

/// Makes a journal none, on the drive, too. A process that has ended may have tried to write it for an epoch that is lost:
/// what a drive has of that must not come to light, by a power cut, when the epoch's extents have other bytes.
pub(crate) fn retire(directory: &Directory, switch: &mut Switch, file: FileId) -> Result<(), Error> {
    switch.write(directory, file, no_preamble()?)?;
    switch.sync(directory, file)
}

/// Reads both journals of a directory; the newer one is what it says.
pub(crate) fn read(directory: &Directory, switch: &mut Switch) -> Result<Copy, Error> {
    let mut copy = Copy { found: None, newest_seen: None };
    let mut other_version = None;
    for (place, name) in JOURNAL_NAMES.iter().enumerate() {
        let path = manifest(&directory.path).join(name);
        if !path.exists() {
            continue;
        }
        let (file, length) = directory.open_file(path.clone(), false)?;
        // A last part of a block holds no batch: batches are whole blocks.
        let bytes = length - length % JOURNAL_ALIGN_BYTES as u64;
        let buffer = switch.read(directory, file, bytes)?;
        directory.io.file(FileOp::Close(file))?;
        let mut loader = Loader::default();
        let mut wrong = None;
        let (checked, tail) = read_journal(&buffer[..bytes as usize], |batch| {
            if wrong.is_none() {
                wrong = loader.apply(batch).err();
            }
        });
        if let Some(what) = wrong {
            return Err(Error::Damaged { directory: directory.path.clone(), what });
        }
        match checked {
            Err(hoist_format::Error::OtherVersion { found, supported }) => {
                other_version = Some(Error::OtherVersion { path, found, supported });
            }
            Err(error) => tracing::debug!(path = %path.display(), %error, "no journal here"),
            Ok(()) => {}
        }
        copy.newest_seen = copy.newest_seen.max(tail.newest_seen);
        let newer = copy.found.as_ref().is_none_or(|found| found.batch < loader.batch);
        if let Some(header) = loader.header.clone().filter(|_| newer) {
            copy.found = Some(Found { header, batch: loader.batch, loader, tail, place, bytes });
        }
    }
    other_version.map_or(Ok(copy), Err)
}
