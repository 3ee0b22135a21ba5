//! What of one file a power cut may take.

use crate::Random;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a drive writes whole or not at all: the smallest sector of drives in use.
const SECTOR_BYTES: usize = 512;

/// Changes that were not synced, in the order in which they began.
#[derive(Default)]
pub(super) struct Changes {
    changes: Vec<Change>,
    /// Changes that have begun, and those that were done, in all: each has its number.
    begun: u64,
    done: u64,
}

struct Change {
    number: u64,
    /// Its number among those that were done.
    done: Option<u64>,
    length_before: u64,
    what: What,
}

enum What {
    Bytes { offset: u64, before: Vec<u8>, after: Vec<u8> },
    Length { after: u64, cut: Vec<u8> },
}

impl Changes {
    /// Bytes are about to be written. The number of this change. Changes of the same bytes follow each other: one is
    /// done before the next begins.
    pub fn write(&mut self, path: &Path, offset: u64, after: Vec<u8>) -> io::Result<u64> {
        let file = File::open(path)?;
        let before = read(&file, offset, after.len() as u64)?;
        self.begin(file.metadata()?.len(), What::Bytes { offset, before, after })
    }

    /// The length is about to be changed, at once.
    pub fn set_length(&mut self, path: &Path, change: impl FnOnce(u64) -> u64) -> io::Result<()> {
        let file = File::open(path)?;
        let before = file.metadata()?.len();
        let after = change(before);
        let cut = read(&file, after, before.saturating_sub(after))?;
        let number = self.begin(before, What::Length { after, cut })?;
        self.end(number);
        Ok(())
    }

    fn begin(&mut self, length_before: u64, what: What) -> io::Result<u64> {
        self.begun += 1;
        self.changes.push(Change { number: self.begun, done: None, length_before, what });
        Ok(self.begun)
    }

    /// A change is done.
    pub fn end(&mut self, number: u64) {
        if let Some(change) = self.changes.iter_mut().find(|change| change.number == number) {
            self.done += 1;
            change.done = Some(self.done);
        }
    }

    /// A sync begins: what it covers.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// A sync that covers this much is done.
    pub fn synced(&mut self, covered: u64) {
        self.changes.retain(|change| change.done.is_none_or(|done| done > covered));
    }

    /// Decides what is left of the changes.
    pub fn lose(self, path: &Path, random: &mut Random) -> io::Result<()> {
        let file = match OpenOptions::new().write(true).open(path) {
            // Removed by other means: those do not come back.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        for change in self.changes.iter().rev() {
            match &change.what {
                What::Bytes { offset, before, .. } => file.write_all_at(before, *offset)?,
                What::Length { after, cut } => file.write_all_at(cut, *after)?,
            }
            file.set_len(change.length_before)?;
        }
        for change in &self.changes {
            match &change.what {
                What::Bytes { offset, after, .. } => keep(&file, *offset, after, random)?,
                What::Length { after, .. } if random.one_in(2) => file.set_len(*after)?,
                What::Length { .. } => {}
            }
        }
        Ok(())
    }
}

/// Writes what is kept of a write.
fn keep(file: &File, offset: u64, bytes: &[u8], random: &mut Random) -> io::Result<()> {
    match random.below(4) {
        0 => Ok(()),
        1 => file.write_all_at(bytes, offset),
        2 => {
            let sectors = random.below(bytes.len().div_ceil(SECTOR_BYTES) as u64 + 1) as usize;
            file.write_all_at(&bytes[..bytes.len().min(sectors * SECTOR_BYTES)], offset)
        }
        _ => {
            // From one of many lost to one of many kept.
            let lost_eighths = 1 + random.below(7);
            let mut sectors = bytes.chunks(SECTOR_BYTES).zip((offset..).step_by(SECTOR_BYTES));
            sectors.try_for_each(|(sector, at)| match random.below(8) < lost_eighths {
                true => Ok(()),
                false => file.write_all_at(sector, at),
            })
        }
    }
}

/// Bytes of a file; those behind its end are zeros.
fn read(file: &File, offset: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut found = vec![0; bytes as usize];
    let mut filled = 0;
    while filled < found.len() {
        match file.read_at(&mut found[filled..], offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(found)
}
