//! The lock of a directory: one opener at a time.

use crate::Error;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Held while the store is open; the kernel lets go of it when the process ends, however it ends.
///
/// It is closed in a child that runs another program (CLOEXEC). A child that is forked and runs none shares the
/// open file until it exits or closes it, as flock(2) has it.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of `directory` and writes this process into it.
    pub fn take(directory: &Path) -> Result<Lock, Error> {
        let path = directory.join("hoist.lock");
        let failed = |doing, source| Error::File { doing, path: path.clone(), source };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(file.map_err(|errno| failed("opening the lock", errno.into()))?);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(held(directory, file)),
            Err(errno) => return Err(failed("locking", errno.into())),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|error| failed("writing", error))?;
        Ok(Lock { _file: file })
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
}
