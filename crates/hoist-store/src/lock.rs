//! The lock of a directory: one opener at a time.

use crate::Error;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Held while the store is open; the kernel lets go of it when the process ends, however it ends.
///
/// A child that runs another program does not have the file (CLOEXEC). A child that is forked and runs none shares it,
/// and flock(2) lets go of the lock when the last sharer closes it, or when any of them unlocks it. So the process that
/// took it unlocks on drop, whatever children it has, and a child that drops its copy does not. There is one case left:
/// a process that is killed leaves the lock to such children until they end. A record lock (fcntl(2)) would not be
/// theirs, but is gone as soon as anything in this process closes the file, as copying the directory does: two
/// processes would then write one store. To be refused too long is the lesser evil.
pub(crate) struct Lock {
    file: File,
    /// The process that took it.
    pid: u32,
}

impl Lock {
    /// Takes the lock of `directory` and writes this process into it.
    pub fn take(directory: &Path) -> Result<Lock, Error> {
        let path = directory.join("hoist.lock");
        let failed = |doing, source| Error::File { doing, path: path.clone(), source };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.map_err(|errno| failed("opening the lock", errno.into()))?);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(held(directory, file)),
            Err(errno) => return Err(failed("locking", errno.into())),
        }
        let mut lock = Lock { file, pid: std::process::id() };
        lock.file
            .set_len(0)
            .and_then(|()| writeln!(lock.file, "{}", lock.pid))
            .map_err(|error| failed("writing", error))?;
        Ok(lock)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            // Closing, which follows, unlocks too where no child shares the file.
            let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        }
    }
}

fn held(directory: &Path, mut file: File) -> Error {
    let mut pid = String::new();
    // Unreadable, or not written yet: the holder is then unknown, which the error says.
    let read = file.read_to_string(&mut pid);
    let pid =
        if read.is_ok() && !pid.trim().is_empty() { pid.trim().to_owned() } else { "unknown".to_owned() };
    Error::Locked { directory: directory.to_owned(), pid }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opener_is_told_who_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take(directory.path()).unwrap();
        let text = Lock::take(directory.path()).err().unwrap().to_string();
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        assert!(text.contains(directory.path().to_str().unwrap()), "{text}");
        // A program started meanwhile does not keep it.
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        drop(lock);
        let again = Lock::take(directory.path());
        child.kill().unwrap();
        child.wait().unwrap();
        again.unwrap();
    }

    // A duplicate shares the file as a forked child does: flock(2) makes no difference between fork(2) and dup(2).
    #[test]
    fn a_child_that_shares_the_file_does_not_keep_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take(directory.path()).unwrap();
        let _shared = lock.file.try_clone().unwrap();
        drop(lock);
        Lock::take(directory.path()).unwrap();
    }

    #[test]
    fn a_child_does_not_unlock_what_its_parent_holds() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take(directory.path()).unwrap();
        let shared = lock.file.try_clone().unwrap();
        drop(Lock { file: shared, pid: lock.pid + 1 });
        assert!(matches!(Lock::take(directory.path()), Err(Error::Locked { .. })));
    }
}
