//! Files that are made under temporary names and get their own when they are whole.

use crate::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
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
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(failed("syncing the folder of", path))
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { doing, path, source }
}
