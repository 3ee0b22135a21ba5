//! Files that are made under temporary names and get their own when they are whole.

use crate::Error;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Writes the contents of a file.
pub(crate) type Fill<'a> = &'a mut dyn FnMut(&mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error>;

/// Removes its files when it is dropped, the newest first, unless they were kept.
#[derive(Default)]
pub(crate) struct NewFiles(Vec<PathBuf>);

impl NewFiles {
    /// Writes a file under a temporary name beside `path`, and syncs it.
    ///
    /// # Errors
    /// Those of `fill`, [`Error::File`].
    pub(crate) fn write(&mut self, path: &Path, fill: Fill<'_>) -> Result<(), Error> {
        let temporary = temporary(path);
        let failed = |doing| failed(doing, &temporary);
        let file = File::create_new(&temporary).map_err(failed("creating"))?;
        self.0.push(temporary.clone());
        let mut writer = BufWriter::new(file);
        fill(&mut |bytes| writer.write_all(bytes).map_err(failed("writing")))?;
        let file = writer.into_inner().map_err(|error| failed("writing")(error.into_error()))?;
        file.sync_all().map_err(failed("syncing"))
    }

    /// Gives the file that was written for `path` this name.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn rename(&mut self, path: &Path) -> Result<(), Error> {
        let temporary = temporary(path);
        std::fs::rename(&temporary, path).map_err(failed("renaming", &temporary))?;
        let made = self.0.iter_mut().filter(|made| **made == temporary);
        made.for_each(|made| *made = path.to_owned());
        Ok(())
    }

    /// Whatever happens, the files stay.
    pub(crate) fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // The error that led here is the one to report.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Makes the names in the folder of `path` durable.
///
/// # Errors
/// [`Error::File`].
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), Error> {
    let synced = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
    synced.map_err(failed("syncing the folder of", path))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// How a temporary name ends, behind the number of its process.
const TEMPORARY_END: &str = ".tmp";

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}{TEMPORARY_END}", std::process::id()));
    path.with_file_name(name)
}

/// The name for which a file with this temporary one was made, and the process that made it.
fn made_for(temporary: &OsStr) -> Option<(&OsStr, Pid)> {
    let name = temporary.as_bytes().strip_suffix(TEMPORARY_END.as_bytes())?;
    let dot = name.iter().rposition(|byte| *byte == b'.')?;
    let digits = std::str::from_utf8(&name[dot + 1..]).ok()?;
    let number = digits.parse::<i32>().ok().filter(|number| number.to_string() == digits)?;
    Some((OsStr::from_bytes(&name[..dot]), Pid::from_raw(number)?))
}

/// Removes the files beside `path` that processes which are no more have made for names that are `ours`: one that is
/// killed removes nothing itself. A failure costs no more than their space.
pub(crate) fn remove_leftovers(path: &Path, ours: impl Fn(&OsStr) -> bool) {
    // A process that is another user's is there, too.
    let is_gone = |process| test_kill_process(process) == Err(Errno::SRCH);
    for entry in folder_of(path).read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name();
        let left = made_for(&name).is_some_and(|(name, process)| ours(name) && is_gone(process));
        if left && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let (file, removed) = (entry.path(), std::fs::remove_file(entry.path()));
            match removed {
                Ok(()) => {
                    tracing::info!(file = %file.display(), "left behind by a process that is no more: removed")
                }
                Err(error) => tracing::warn!(file = %file.display(), %error, "left behind"),
            }
        }
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { doing, path, source }
}
