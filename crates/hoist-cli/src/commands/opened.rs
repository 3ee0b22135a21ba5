//! Stores for the commands that work on one.

use std::path::PathBuf;
use std::sync::Arc;

use hoist_io::memory::{self, Slab};
use hoist_store::{BlockingStore, Config};

use crate::failure::Failure;

/// The directories of a store that is only looked at.
#[derive(Debug, clap::Args)]
pub struct Directories {
    /// The store's directories.
    #[arg(value_name = "DIR", required_unless_present = "store")]
    directories: Vec<PathBuf>,
    /// The same, as the other commands have it.
    #[arg(long, value_name = "DIR")]
    store: Vec<PathBuf>,
}

impl Directories {
    /// However they were given.
    pub fn all(&self) -> Vec<PathBuf> {
        [self.directories.as_slice(), self.store.as_slice()].concat()
    }
}

/// Memory of a tool: what a store needs to go at full speed.
const SLAB_BYTES: u64 = 64 << 20;

/// The config of a store in these directories.
pub fn config(directories: &[PathBuf]) -> Config {
    Config { nvme_path: directories.to_vec(), world_size: 0, ..Config::default() }
}

/// The memory that a tool moves bytes through.
///
/// # Errors
/// When the machine has not so much.
pub fn slab() -> Result<Arc<Slab>, Failure> {
    let config = memory::Config { budget_bytes: SLAB_BYTES, ..memory::Config::default() };
    Slab::map(&config).map_err(|error| Failure::work("taking memory", error, "free 64 MiB of memory"))
}

/// Opens the store in these directories.
///
/// # Errors
/// What the store says.
pub fn open(directories: &[PathBuf]) -> Result<BlockingStore, Failure> {
    BlockingStore::open(&config(directories), &hoist_io::Config::default(), &slab()?)
        .map_err(|error| Failure::Work(format!("opening the store: {error}")))
}

/// Opens the store in these directories beside others who only read it, at a snapshot if one is named: nothing of it
/// changes, and not all directories must be there.
///
/// # Errors
/// What the store says.
pub fn open_shared(directories: &[PathBuf], snapshot: Option<&str>) -> Result<BlockingStore, Failure> {
    let config = Config { snapshot: snapshot.map(str::to_owned), ..config(directories) };
    BlockingStore::open_shared(&config, &hoist_io::Config::default(), &slab()?)
        .map_err(|error| Failure::Work(format!("opening the store: {error}")))
}

/// Closes a store, after the work or after its failure.
///
/// # Errors
/// That of the work, else what the store says.
pub fn close<T>(store: BlockingStore, work: Result<T, Failure>) -> Result<T, Failure> {
    let closed = store.close().map_err(|error| Failure::Work(format!("closing the store: {error}")));
    let done = work?;
    closed.map(|()| done)
}
