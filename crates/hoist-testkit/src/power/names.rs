//! What of folders a power cut may take.

use crate::Random;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Names whose folders were not synced since, in the order in which they changed.
#[derive(Default)]
pub(super) struct Names {
    changes: Vec<Change>,
}

enum Change {
    Made(PathBuf),
    Removed { path: PathBuf, bytes: Vec<u8> },
    Renamed { from: PathBuf, to: PathBuf, replaced: Option<Vec<u8>> },
}

impl Names {
    pub fn made(&mut self, path: PathBuf) {
        self.changes.push(Change::Made(path));
    }

    /// A file is about to be removed.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        let bytes = fs::read(path)?;
        self.changes.push(Change::Removed { path: path.to_owned(), bytes });
        Ok(())
    }

    /// A file is about to be renamed.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let replaced = if to.exists() { Some(fs::read(to)?) } else { None };
        self.changes.push(Change::Renamed { from: from.to_owned(), to: to.to_owned(), replaced });
        Ok(())
    }

    /// A folder was synced.
    pub fn synced(&mut self, folder: &Path) {
        self.changes.retain(|change| change.path().parent() != Some(folder));
    }

    /// Takes back all changes from a random one on.
    pub fn lose(mut self, random: &mut Random) -> io::Result<()> {
        let kept = random.below(self.changes.len() as u64 + 1) as usize;
        self.changes.drain(kept..).rev().try_for_each(Change::undo)
    }
}

impl Change {
    /// The name that a sync makes durable.
    fn path(&self) -> &Path {
        match self {
            Change::Made(path) | Change::Removed { path, .. } | Change::Renamed { to: path, .. } => path,
        }
    }

    fn undo(self) -> io::Result<()> {
        match self {
            Change::Made(path) => match fs::remove_file(path) {
                // Removed by other means.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            },
            Change::Removed { path, bytes } => write(&path, &bytes),
            Change::Renamed { from, to, replaced } => {
                fs::rename(&to, from)?;
                replaced.map_or(Ok(()), |bytes| write(&to, &bytes))
            }
        }
    }
}

/// A file that was removed, again.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, bytes)
}
