//! The files that are measured: where they are, and that none is left behind.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The file in `directory` that is measured.
pub fn data(directory: &Path) -> PathBuf {
    directory.join("hoist-io.data")
}

/// The same while it is made.
pub fn part(directory: &Path) -> PathBuf {
    directory.join("hoist-io.part")
}

/// The files of a run. Dropping them removes them, unless they are kept.
pub struct Files {
    directories: Vec<PathBuf>,
    keep: bool,
}

impl Files {
    /// Those in these directories.
    pub fn new(directories: &[PathBuf], keep: bool) -> Self {
        Self { directories: directories.to_vec(), keep }
    }

    /// Removes what is not to stay: files that are not whole are not kept either.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self) -> Result<(), Failure> {
        let parts = self.directories.iter().map(|path| part(path));
        let whole = self.directories.iter().filter(|_| !self.keep).map(|path| data(path));
        for path in parts.chain(whole) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Failure::work(
                        format!("removing {}", path.display()),
                        error,
                        "remove it by hand",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // A run that failed has its own error to report; what a run that did not fail leaves, it said.
        let _ = self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_files_stay_when_kept_and_others_never_do() {
        let folder = tempfile::tempdir().unwrap();
        let directories = [folder.path().to_owned()];
        let left = |keep| {
            fs::write(data(folder.path()), "").unwrap();
            fs::write(part(folder.path()), "").unwrap();
            fs::write(folder.path().join("mine"), "").unwrap();
            drop(Files::new(&directories, keep));
            (data(folder.path()).exists(), part(folder.path()).exists(), folder.path().join("mine").exists())
        };
        assert_eq!(left(true), (true, false, true));
        assert_eq!(left(false), (false, false, true));
    }
}
