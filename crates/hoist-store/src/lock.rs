//! The lock of a directory: one opener at a time, or any number that only read.

use crate::Error;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Who may have a directory at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holders {
    /// This opener alone, which may write.
    One,
    /// Any number that only read.
    Readers,
}

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
    holders: Holders,
}

impl Lock {
    /// Takes the lock of `directory`. Who has it alone writes this process into it; who only reads writes nothing.
    pub fn take(directory: &Path, holders: Holders) -> Result<Lock, Error> {
        let path = directory.join("hoist.lock");
        let failed = |doing, source| Error::File { doing, path: path.clone(), source };
        let (flags, operation) = match holders {
            Holders::One => (OFlags::RDWR | OFlags::CREATE, FlockOperation::NonBlockingLockExclusive),
            Holders::Readers => (OFlags::RDONLY, FlockOperation::NonBlockingLockShared),
        };
        let file = rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.map_err(|errno| failed("opening the lock", errno.into()))?);
        match rustix::fs::flock(&file, operation) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(held(directory, file)),
            Err(errno) => return Err(failed("locking", errno.into())),
        }
        let mut lock = Lock { file, pid: std::process::id(), holders };
        if lock.is_shared() {
            return Ok(lock);
        }
        lock.file
            .set_len(0)
            .and_then(|()| writeln!(lock.file, "{}", lock.pid))
            .map_err(|error| failed("writing", error))?;
        Ok(lock)
    }

    /// Whether others may have it, too: then nothing is written under it.
    pub fn is_shared(&self) -> bool {
        self.holders == Holders::Readers
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
    let directory = directory.to_owned();
    // Beside readers there is room for one more; the process in the file is one of before. Closing lets go of it.
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return Error::BeingRead { directory };
    }
    let mut pid = String::new();
    // Unreadable, or not written yet: the holder is then unknown, which the error says.
    let read = file.read_to_string(&mut pid);
    let pid =
        if read.is_ok() && !pid.trim().is_empty() { pid.trim().to_owned() } else { "unknown".to_owned() };
    Error::Locked { directory, pid }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opener_is_told_who_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take(directory.path(), Holders::One).unwrap();
        let text = Lock::take(directory.path(), Holders::One).err().unwrap().to_string();
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        assert!(text.contains(directory.path().to_str().unwrap()), "{text}");
        // A program started meanwhile does not keep it.
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        drop(lock);
        let again = Lock::take(directory.path(), Holders::One);
        child.kill().unwrap();
        child.wait().unwrap();
        again.unwrap();
    }

    #[test]
    fn readers_share_it_and_nobody_writes_beside_them() {
        let directory = tempfile::tempdir().unwrap();
        let take = |holders| Lock::take(directory.path(), holders);
        assert!(matches!(take(Holders::Readers), Err(Error::File { .. })), "there is no store");
        let writer = take(Holders::One).unwrap();
        let text = take(Holders::Readers).err().unwrap().to_string();
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        drop(writer);
        let before = std::fs::read(directory.path().join("hoist.lock")).unwrap();
        let readers = [take(Holders::Readers).unwrap(), take(Holders::Readers).unwrap()];
        assert!(matches!(take(Holders::One), Err(Error::BeingRead { .. })));
        // To be told so keeps nobody from reading, and a reader less is not all of them.
        let [first, second] = readers;
        drop(first);
        assert!(matches!(take(Holders::One), Err(Error::BeingRead { .. })));
        drop(second);
        assert_eq!(std::fs::read(directory.path().join("hoist.lock")).unwrap(), before);
        take(Holders::One).unwrap();
    }

    // A duplicate shares the file as a forked child does: flock(2) makes no difference between fork(2) and dup(2).
    #[test]
    fn a_child_that_shares_the_file_does_not_keep_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take(directory.path(), Holders::One).unwrap();
        let _shared = lock.file.try_clone().unwrap();
        drop(lock);
        Lock::take(directory.path(), Holders::One).unwrap();
    }

    #[test]
    fn a_child_does_not_unlock_what_its_parent_holds() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take(directory.path(), Holders::One).unwrap();
        let shared = lock.file.try_clone().unwrap();
        drop(Lock { file: shared, pid: lock.pid + 1, holders: Holders::One });
        assert!(matches!(Lock::take(directory.path(), Holders::One), Err(Error::Locked { .. })));
    }
}
