//! A directory that a store may go to.

use std::path::Path;

use hoist_io::BackendChoice;
use rustix::fs::{StatVfsMountFlags, statvfs};
use tempfile::NamedTempFile;

use super::{Finding, direct, trial};
use crate::config::units::format_bytes;
use crate::report::file_system;

/// What quickstart takes at most.
const FREE_BYTES_GOOD: u64 = 5 << 30;

/// File systems that are made of memory.
const OF_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// File system, space, direct I/O, and a write and read by each way that this machine has.
pub fn examine(path: &Path, has_ring: bool) -> Vec<Finding> {
    let shown = path.display();
    if !path.is_dir() {
        let (found, cost) = ("there is no such directory", "no store can be there");
        return vec![Finding::broken(shown.to_string(), found, cost, format!("mkdir -p {shown}"))];
    }
    let mut lines = vec![kind(path), free_space(path)];
    match writable(path) {
        Err(line) => lines.push(line),
        Ok(file) => {
            lines.push(direct::examine(path, file.path()));
            if has_ring {
                lines.push(trial::examine(path, BackendChoice::Uring));
            }
            lines.push(trial::examine(path, BackendChoice::Pread));
        }
    }
    lines
}

fn kind(path: &Path) -> Finding {
    let (name, kind) = (format!("{}: file system", path.display()), file_system(path));
    if !OF_MEMORY.contains(&kind.as_str()) {
        return Finding::ok(name, kind);
    }
    let cost =
        "a store there takes the memory that it is meant to save, and is gone with the machine's power";
    Finding::degraded(name, kind, cost, "name a directory on an NVMe drive")
}

fn free_space(path: &Path) -> Finding {
    let name = format!("{}: free space", path.display());
    match statvfs(path) {
        Ok(found) => {
            let bytes = found.f_bavail.saturating_mul(found.f_frsize);
            if bytes >= FREE_BYTES_GOOD {
                return Finding::ok(name, format_bytes(bytes));
            }
            let cost = "quickstart takes up to 5 GiB; a store, twice its durable bytes";
            Finding::degraded(name, format_bytes(bytes), cost, "remove files, or name another directory")
        }
        Err(error) => {
            let cost = "whether a store fits is not known";
            Finding::degraded(name, error.to_string(), cost, "name a directory that can be examined")
        }
    }
}

/// A file in the directory, removed when dropped; or the line that says why there is none.
fn writable(path: &Path) -> Result<NamedTempFile, Finding> {
    tempfile::Builder::new().prefix("hoist-doctor").tempfile_in(path).map_err(|error| {
        let shown = path.display();
        let is_read_only = statvfs(path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
        let (found, mend) = if is_read_only {
            (format!("the file system is read-only: {error}"), format!("mount -o remount,rw {shown}"))
        } else {
            (
                format!("no file can be made: {error}"),
                format!("chown $USER {shown}, or name another directory"),
            )
        };
        let cost = "no store can be made there, and none opened for writing";
        Finding::broken(format!("{shown}: writing"), found, cost, mend)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn a_directory_that_takes_no_files_is_broken_once() {
        let lines = examine(Path::new("/sys/kernel"), true);
        let broken: Vec<_> = lines.iter().filter(|line| line.state == State::Broken).collect();
        assert_eq!(broken.len(), 1, "{lines:#?}");
        assert_eq!(broken[0].name, "/sys/kernel: writing");
    }

    #[test]
    fn memory_is_no_drive() {
        let shared = Path::new("/dev/shm");
        if file_system(shared) != "tmpfs" {
            return println!("skipped: {} is no tmpfs here", shared.display());
        }
        let lines = examine(shared, false);
        let state = |name: &str| lines.iter().find(|line| line.name.ends_with(name)).unwrap().state;
        assert_eq!(state("file system"), State::Degraded);
        assert_eq!(state("direct I/O"), State::Degraded);
        assert!(lines.iter().all(|line| line.state != State::Broken), "{lines:#?}");
    }
}
