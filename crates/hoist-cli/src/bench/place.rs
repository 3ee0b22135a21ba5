//! The directories of a run's store: made for the run, and cleaned up after it unless the store is to be kept.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Says that a directory's store may go: a run made it, and has not been told to keep it. Holds the process's id.
const MARKER: &str = "made-by-bench";
/// What a store consists of, by name.
const STORE: [&str; 3] = ["hoist.lock", "manifest", "data"];
/// What the probe of bandwidths leaves.
pub const PROBE: &str = "probe";

/// The directories while the run has them.
#[derive(Debug)]
pub struct Place {
    directories: Vec<Directory>,
    keep: bool,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    created: bool,
}

impl Place {
    /// Makes the directories ready for a new store. What an earlier run left that did not come to its end is removed.
    ///
    /// # Errors
    /// When one holds a store that no run may remove, is in use by a running process, or cannot be made.
    pub fn prepare(paths: &[PathBuf], keep: bool) -> Result<Self, Failure> {
        // Filled as it goes: what was made is removed when a later directory cannot be.
        let mut place = Self { directories: Vec::new(), keep: false };
        for path in paths {
            let failed = |why: std::io::Error| {
                Failure::work(
                    format!("preparing {}", path.display()),
                    why,
                    "name a directory that can be written",
                )
            };
            let created = !path.exists();
            fs::create_dir_all(path).map_err(failed)?;
            if !created {
                clear_leftovers(path)?;
            }
            place.directories.push(Directory { path: path.clone(), created });
            fs::write(path.join(MARKER), std::process::id().to_string()).map_err(failed)?;
        }
        place.keep = keep;
        Ok(place)
    }

    /// Cleans up, and says what could not be.
    ///
    /// # Errors
    /// What the file system says.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.clean()
    }

    fn clean(&mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        for directory in std::mem::take(&mut self.directories) {
            let cleaned =
                if self.keep { remove(&directory.path, &[PROBE, MARKER]) } else { clear(&directory.path) };
            let cleaned = cleaned.and_then(|()| match directory.created && !self.keep {
                true => fs::remove_dir(&directory.path),
                false => Ok(()),
            });
            result = result.and(cleaned.map_err(|why| {
                Failure::work(format!("cleaning up {}", directory.path.display()), why, "remove it by hand")
            }));
        }
        result
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(failure) = self.clean() {
            tracing::warn!(%failure, "the store's directories were left behind");
        }
    }
}

/// Removes what a run that did not come to its end left in `path`.
fn clear_leftovers(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    match fs::read_to_string(path.join(MARKER)) {
        Ok(id) if Path::new("/proc").join(id.trim()).join("status").exists() => {
            let why = format!("process {} is running a bench in it", id.trim());
            Err(Failure::work(
                format!("preparing {shown}"),
                why,
                "wait for it, or set store.nvme_path to another",
            ))
        }
        Ok(_) => {
            clear(path).map_err(|why| Failure::work(format!("clearing {shown}"), why, "remove it by hand"))
        }
        Err(_) if STORE.iter().any(|name| path.join(name).exists()) => {
            let remedy = "remove it, or set store.nvme_path to another directory";
            Err(Failure::work(format!("preparing {shown}"), "it holds a store already", remedy))
        }
        Err(_) => Ok(()),
    }
}

/// Removes what a run puts into a directory, the marker last: until then the rest may go.
fn clear(path: &Path) -> std::io::Result<()> {
    remove(path, &STORE)?;
    remove(path, &[PROBE, MARKER])
}

fn remove(path: &Path, names: &[&str]) -> std::io::Result<()> {
    for name in names {
        let path = path.join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_store(path: &Path) {
        fs::create_dir(path.join("data")).unwrap();
        fs::write(path.join("data/0000.seg"), "bytes").unwrap();
        fs::write(path.join("hoist.lock"), "").unwrap();
    }

    #[test]
    fn what_was_made_goes_and_what_was_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (made, found) = (folder.path().join("a/b"), folder.path().join("found"));
        fs::create_dir(&found).unwrap();
        fs::write(found.join("mine"), "mine").unwrap();
        let place = Place::prepare(&[made.clone(), found.clone()], false).unwrap();
        make_store(&made);
        make_store(&found);
        place.finish().unwrap();
        assert!(!made.exists());
        let left: Vec<_> = fs::read_dir(&found).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["mine"]);
    }

    #[test]
    fn a_kept_store_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let place = Place::prepare(std::slice::from_ref(&path), true).unwrap();
        make_store(&path);
        place.finish().unwrap();
        assert!(path.join("data/0000.seg").exists() && !path.join(MARKER).exists());
        let refused = Place::prepare(std::slice::from_ref(&path), false).unwrap_err().to_string();
        assert!(refused.contains("holds a store already"), "{refused}");
        assert!(path.join("data/0000.seg").exists());
    }

    #[test]
    fn leftovers_go_unless_their_process_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_path_buf();
        make_store(&path);
        fs::write(path.join(MARKER), std::process::id().to_string()).unwrap();
        assert!(Place::prepare(std::slice::from_ref(&path), false).is_err());
        // No process has this id: pid_max is at most 2^22 (proc_sys_kernel(5)).
        fs::write(path.join(MARKER), "99999999").unwrap();
        let place = Place::prepare(std::slice::from_ref(&path), false).unwrap();
        assert!(!path.join("data").exists());
        drop(place);
        assert!(path.exists() && !path.join(MARKER).exists());
    }
}
