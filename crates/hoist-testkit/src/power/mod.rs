//! Power for drives with a volatile cache, and what is left on them when it is cut.

mod changes;
mod names;
mod powered;

pub use powered::Powered;

use crate::Random;
use changes::Changes;
use hoist_io::Operation;
use names::Names;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The power of all drives of a machine. A clone is the same power; used from any thread.
///
/// The files always hold the newest bytes, as somebody would read them who asks the drive. What would be lost is
/// remembered: every write and every change of a length until a sync of its file that began after it was done, every name
/// that was made, changed or removed until a sync of its folder. That outlives the backends: a process that ends loses
/// nothing.
#[derive(Clone, Default)]
pub struct Power {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Until it is cut.
    operations_left: Option<u64>,
    is_cut: bool,
    /// What fails while the power is on: an operation on files whose path has this part.
    failing: Option<(Operation, String)>,
    files: BTreeMap<PathBuf, Changes>,
    names: Names,
}

impl Power {
    /// Power that is on.
    #[must_use]
    pub fn new() -> Power {
        Power::default()
    }

    /// Cuts it when so many more operations have begun or ended: requests begin and end, an operation on a file is
    /// one. The operation that meets the cut fails, and so does everything after it, with EIO.
    pub fn cut_after(&self, operations: u64) {
        self.lock().operations_left = Some(operations);
    }

    /// Cuts it now.
    pub fn cut(&self) {
        self.lock().is_cut = true;
    }

    /// Whether it was not cut.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.lock().is_cut
    }

    /// From now on this operation fails with EIO on files whose path has this part, and no other fails. A write that
    /// fails may still come to light after a cut.
    pub fn fail(&self, operation: Operation, path_part: &str) {
        self.lock().failing = Some((operation, path_part.to_owned()));
    }

    /// Nothing fails any more.
    pub fn mend(&self) {
        self.lock().failing = None;
    }

    /// The power comes back, and `random` decides what the drives had kept of what was not synced: of a write all,
    /// nothing, its start, or any of its sectors, whatever became of others; of the changes of names those up to one, as
    /// file systems write them in order. To be called when no backend is left.
    ///
    /// # Errors
    /// What the files say.
    pub fn restore(&self, random: &mut Random) -> io::Result<()> {
        let mut state = self.lock();
        let State { files, names, .. } = std::mem::take(&mut *state);
        for (path, changes) in files {
            changes.lose(&path, random)?;
        }
        names.lose(random)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts an operation. Whether there is power for it.
    fn has_power(&mut self) -> bool {
        match &mut self.operations_left {
            _ if self.is_cut => {}
            Some(0) => self.is_cut = true,
            Some(left) => *left -= 1,
            None => {}
        }
        !self.is_cut
    }

    fn fails(&self, operation: Operation, path: &Path) -> bool {
        let failing = self.failing.as_ref();
        failing.is_some_and(|(failing, part)| *failing == operation && path.to_string_lossy().contains(part))
    }

    fn changes(&mut self, path: &Path) -> &mut Changes {
        self.files.entry(path.to_owned()).or_default()
    }
}
