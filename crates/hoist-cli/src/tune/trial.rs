//! The files that are read and written: where they are, and that none is left behind.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::failure::Failure;

/// Always the same, so that a run removes what one left that was killed.
const NAME: &str = "hoist-tune.part";

/// The trial file of one directory. Locked while it is there: two runs in one directory would measure each other.
pub struct Trial {
    /// Where it is.
    pub path: PathBuf,
    /// Opened for the page cache, to ask whether the file lies there.
    pub file: File,
}

/// The trial files of a run. Dropping them removes them.
pub struct Trials(Vec<Trial>);

impl Trials {
    /// One in each directory, empty.
    ///
    /// # Errors
    /// When one cannot be made, or another run has it.
    pub fn make(directories: &[PathBuf]) -> Result<Self, Failure> {
        // Filled as it goes: what was made is removed when a later one cannot be.
        let mut trials = Self(Vec::new());
        for directory in directories {
            trials.0.push(make(directory)?);
        }
        Ok(trials)
    }

    /// Each of them, in the order of the directories.
    pub fn iter(&self) -> impl Iterator<Item = &Trial> {
        self.0.iter()
    }

    /// Removes them. Those that are gone stay so: what has the name of one by now is another run's.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self) -> Result<(), Failure> {
        let is_there = |trial: &&Trial| trial.file.metadata().is_ok_and(|found| found.nlink() > 0);
        for Trial { path, .. } in self.0.iter().filter(is_there) {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    let doing = format!("removing {}", path.display());
                    return Err(Failure::work(doing, error, "remove it by hand"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Trials {
    fn drop(&mut self) {
        // A run that failed has its own error to report; what a run that did not fail leaves, it said.
        let _ = self.remove();
    }
}

fn make(directory: &Path) -> Result<Trial, Failure> {
    let path = directory.join(NAME);
    let failed = |why: std::io::Error| {
        let remedy = "name a directory that can be written, and see what hoist doctor says about it";
        Failure::work(format!("making {}", path.display()), why, remedy)
    };
    // What a link of this name points to is not ours to overwrite.
    let flags = OFlags::NOFOLLOW.bits() as i32;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let file = options.open(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let why = "another hoist tune measures this directory";
            return Err(Failure::work(format!("making {}", path.display()), why, "wait for it"));
        }
        Err(error) => return Err(failed(error.into())),
    }
    file.set_len(0).map_err(failed)?;
    Ok(Trial { path, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_is_made_anew_and_what_was_made_goes() {
        let folder = tempfile::tempdir().unwrap();
        let directories = [folder.path().to_owned()];
        std::fs::write(folder.path().join(NAME), "left by one that was killed").unwrap();
        std::fs::write(folder.path().join("mine"), "mine").unwrap();
        let trials = Trials::make(&directories).unwrap();
        assert_eq!(folder.path().join(NAME).metadata().unwrap().len(), 0);
        let Err(refused) = Trials::make(&directories) else { panic!("two runs in one directory") };
        assert!(refused.to_string().contains("another hoist tune"), "{refused}");
        drop(trials);
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["mine"]);
    }

    /// Kills: a run that removes by name what it has removed already.
    #[test]
    fn the_file_of_a_run_that_came_later_stays() {
        let folder = tempfile::tempdir().unwrap();
        let directories = [folder.path().to_owned()];
        let first = Trials::make(&directories).unwrap();
        first.remove().unwrap();
        let second = Trials::make(&directories).unwrap();
        drop(first);
        assert!(folder.path().join(NAME).exists());
        drop(second);
        assert!(!folder.path().join(NAME).exists());
    }

    #[test]
    fn a_link_is_not_followed_and_earlier_files_go() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        [&first, &second].into_iter().for_each(|path| std::fs::create_dir(path).unwrap());
        std::fs::write(folder.path().join("mine"), "mine").unwrap();
        std::os::unix::fs::symlink("../mine", second.join(NAME)).unwrap();
        assert!(Trials::make(&[first.clone(), second]).is_err());
        assert!(!first.join(NAME).exists());
        assert_eq!(std::fs::read(folder.path().join("mine")).unwrap(), b"mine");
    }
}
