//! Threads that measure directories at the same time.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::drive::Error;
use crate::failure::Failure;

/// Lets threads begin together: when each of them is ready or has ended.
pub struct Start {
    ready: Sender<()>,
    go: Receiver<()>,
}

impl Start {
    /// Waits for the others.
    pub fn wait(self) {
        drop(self.ready);
        // Nothing is ever sent: it ends when the sender is dropped.
        let _ = self.go.recv();
    }
}

/// Does the same with each directory, all at once, each in a thread; `doing` is what, for an error.
///
/// # Errors
/// The first of the directories' errors.
pub fn in_all<Made: Send>(
    doing: &str,
    directories: &[PathBuf],
    work: impl Fn(&Path, Start) -> Result<Made, Error> + Sync,
) -> Result<Vec<Made>, Failure> {
    let (work, (ready, all_ready)) = (&work, channel());
    std::thread::scope(|scope| {
        let (threads, go): (Vec<_>, Vec<_>) = directories
            .iter()
            .map(|directory| {
                let (sender, go) = channel();
                let start = Start { ready: ready.clone(), go };
                (scope.spawn(move || work(directory, start)), sender)
            })
            .unzip();
        drop(ready);
        // Nothing is ever sent: it ends when nobody is left who is not ready.
        let _ = all_ready.recv();
        drop(go);
        let made = threads.into_iter().zip(directories).map(|(thread, directory)| {
            let made = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            made.map_err(|why| {
                let doing = format!("{doing} {}", directory.display());
                Failure::work(doing, why, "see what hoist doctor says about the directory")
            })
        });
        made.collect()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn threads_begin_together_and_one_that_fails_holds_nobody_up() {
        let directories = ["0", "1", "2"].map(PathBuf::from);
        let ready = AtomicU32::new(0);
        let make = |directory: &Path, start: Start| {
            if directory == Path::new("1") {
                return Err("no such drive".into());
            }
            // The others are there long before this one.
            if directory == Path::new("2") {
                std::thread::sleep(Duration::from_millis(50));
            }
            ready.fetch_add(1, Ordering::SeqCst);
            start.wait();
            assert_eq!(ready.load(Ordering::SeqCst), 2, "begun before the other was ready");
            Ok(())
        };
        let failure = in_all("measuring", &directories, make).expect_err("one has failed").to_string();
        assert!(failure.contains("measuring 1") && failure.contains("no such drive"), "{failure}");
    }
}
