//! The config of a run: one TOML file, typed, with every problem found before anything opens.

pub mod limits;
mod overrides;
mod problem;
mod read;
mod reader;
pub mod units;

use std::path::{Path, PathBuf};

use hoist_io::BackendChoice;
use serde::{Serialize, Serializer};
use toml::Table;

pub use problem::Problem;

/// The config of a run, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// The device tier.
    pub device: Device,
    /// The host tier.
    pub host: Host,
    /// The NVMe tier.
    pub store: Store,
    /// How files are read and written.
    pub io: Io,
    /// Reading ahead.
    pub prefetch: Prefetch,
    /// Which tensors stay where.
    pub placement: Placement,
    /// What is run.
    pub model: Model,
    /// How long it is run.
    pub run: Run,
    /// How long the emulated computation takes.
    pub compute: Compute,
    /// How much the drives may be written.
    pub endurance: Endurance,
    /// What was decided for the reader of the config, to be printed once.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// `device.*`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Device {
    /// Always `emulated` for now.
    pub kind: &'static str,
    /// Bytes of device memory.
    #[serde(rename = "budget")]
    pub budget_bytes: u64,
    /// Bandwidth of the link from host to device.
    #[serde(rename = "h2d")]
    pub h2d_bytes_per_second: u64,
    /// Bandwidth of the link from device to host.
    #[serde(rename = "d2h")]
    pub d2h_bytes_per_second: u64,
}

/// `host.*`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Host {
    /// Bytes of pinned host memory.
    #[serde(rename = "budget")]
    pub budget_bytes: u64,
}

/// `store.*`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Store {
    /// Directories that form the store.
    pub nvme_path: Vec<PathBuf>,
    /// Whether the store is left behind after the run.
    pub keep: bool,
    /// What a commit promises.
    pub durability: Durability,
    /// How many snapshots there is space for.
    pub snapshots: u32,
    /// Which rank's the store is, from 0 on.
    pub rank: u32,
    /// How many ranks there are, each with a store of its own.
    pub world_size: u32,
}

/// `store.durability`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Every committed step stays.
    Step,
    /// What was committed when the store was made a snapshot of, or closed, stays.
    Snapshot,
    /// No promise after a crash.
    None,
}

/// `io.*`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Io {
    /// What moves the bytes.
    #[serde(serialize_with = "write_name")]
    pub backend: BackendChoice,
    /// The largest single transfer in bytes.
    pub block_size: u64,
    /// Transfers in flight per directory.
    pub queue_depth: u32,
}

/// A backend as configs write it.
fn write_name<S: Serializer>(backend: &BackendChoice, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(backend.name())
}

/// `prefetch.*`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prefetch {
    /// Whether reads run ahead of their access and write-back behind it.
    pub enabled: bool,
}

/// `placement.*`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Placement {
    /// Always `optimal` for now: by next use, on the known order.
    pub policy: &'static str,
}

/// `model.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Model {
    /// A training step over GPT-2 shapes.
    Gpt2(Gpt2),
    /// Forward passes over a model's files.
    Safetensors {
        /// The model's file, the index of its shards, or their directory.
        #[serde(rename = "safetensors")]
        path: PathBuf,
    },
}

/// The shapes of a GPT-2 model; `model.*` with `model.kind = "gpt2"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpt2 {
    /// Transformer layers.
    pub layers: u64,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Attention heads; they divide `hidden`.
    pub heads: u64,
    /// Rows of the token embedding, which is the head too.
    pub vocab: u64,
    /// Rows of the position embedding.
    pub context: u64,
}

/// `run.*`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Measured steps.
    pub steps: u64,
    /// Steps before those.
    pub warmup: u64,
    /// What the contents are derived from.
    pub seed: u64,
}

/// `compute.*`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compute {
    /// Compute time of a step as a multiple of its predicted I/O time.
    pub io_ratio: f64,
}

/// `endurance.*`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Endurance {
    /// Bytes that may be written to all drives together, by their data sheets; `None` where nobody asks.
    #[serde(rename = "tbw")]
    pub tbw_bytes: Option<u64>,
}

/// Reads the config at `path` with `--set` arguments over it.
///
/// # Errors
/// All problems at once: an unreadable file and broken TOML are one each, then everything that keys and values
/// have wrong.
pub fn load(path: &Path, sets: &[String]) -> Result<Config, Vec<Problem>> {
    let key = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        vec![Problem::new(
            &key,
            format!("cannot be read ({error})"),
            "name a config file, such as config/quickstart.toml",
        )]
    })?;
    parse(&key, &text, sets)
}

/// Reads a config from its text; `name` stands for it in problems.
///
/// # Errors
/// All problems at once.
pub fn parse(name: &str, text: &str, sets: &[String]) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut table: Table = text.parse().unwrap_or_else(|error: toml::de::Error| {
        let line =
            error.span().map_or(1, |span| 1 + text.get(..span.start).unwrap_or(text).matches('\n').count());
        let what = format!("is not TOML at line {line} ({})", error.message().replace('\n', ", "));
        problems.push(Problem::new(name, what, "correct the line"));
        Table::new()
    });
    if !problems.is_empty() {
        return Err(problems);
    }
    overrides::apply(&mut table, sets, &mut problems);
    read::read(&table, problems)
}

#[cfg(test)]
mod tests;
