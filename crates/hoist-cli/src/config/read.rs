//! From a TOML table to the typed config, section by section.

use std::path::PathBuf;

use hoist_io::{BackendChoice, QUEUE_DEPTH_MAX};
use toml::{Table, Value};

use super::limits::{RIGHT_BLOCK, is_block};
use super::problem::Problem;
use super::reader::Reader;
use super::{
    Compute, Config, Device, Durability, Endurance, Gpt2, Host, Io, Model, Placement, Prefetch, Run, Store,
};

/// Below what one thread copies in memory (measured: 12 GB/s on a virtual machine), in bytes per second: the links
/// are emulated by such copies, so one that is promised more does not keep to it.
const LINK_BYTES_PER_SECOND: u64 = 8_000_000_000;
/// Limits on shapes: far above any model there is, and low enough that no product of them leaves 64 bits.
const LAYERS_MAX: u64 = 10_000;
const HIDDEN_MAX: u64 = 1 << 18;
const ROWS_MAX: u64 = 1 << 24;
/// Limits on the run: so many steps take longer than anybody waits.
const STEPS_MAX: u64 = 1_000_000;
/// Above this multiple of the I/O time a run shows nothing of the I/O any more.
const IO_RATIO_MAX: f64 = 1000.0;

/// Reads `table`, going on from the problems found so far.
///
/// # Errors
/// All problems.
pub fn read(table: &Table, problems: Vec<Problem>) -> Result<Config, Vec<Problem>> {
    let mut reader = Reader::new(table, problems);
    let mut notes = Vec::new();
    let device = device(&mut reader, &mut notes);
    let host = Host { budget_bytes: reader.bytes_required("host.budget", "512 MiB") };
    let store = store(&mut reader);
    let io = io(&mut reader);
    let prefetch = Prefetch { enabled: reader.boolean("prefetch.enabled").unwrap_or(true) };
    let later = ["lru", "on_demand", "resident"];
    let policy = reader.choice("placement.policy", &[("optimal", "optimal")], &later).unwrap_or("optimal");
    let model = model(&mut reader);
    let run = Run {
        steps: reader.integer("run.steps", 1..=STEPS_MAX).unwrap_or(5),
        warmup: reader.integer("run.warmup", 0..=STEPS_MAX).unwrap_or(1),
        seed: reader.integer("run.seed", 0..=i64::MAX as u64).unwrap_or(0),
    };
    let compute = Compute { io_ratio: io_ratio(&mut reader) };
    let endurance = Endurance { tbw_bytes: reader.bytes("endurance.tbw", "600 TB") };
    let problems = reader.finish();
    match model {
        Some(model) if problems.is_empty() => {
            let placement = Placement { policy };
            Ok(Config { device, host, store, io, prefetch, placement, model, run, compute, endurance, notes })
        }
        _ => Err(problems),
    }
}

fn device(reader: &mut Reader<'_>, notes: &mut Vec<String>) -> Device {
    let kinds = [("emulated", false), ("auto", true)];
    if reader.choice("device.kind", &kinds, &["cuda"]) == Some(true) {
        notes.push("device.kind = \"auto\": this hoist has no other device, so it is emulated".to_owned());
    }
    Device {
        kind: "emulated",
        budget_bytes: reader.bytes_required("device.budget", "128 MiB"),
        h2d_bytes_per_second: reader.rate("device.h2d").unwrap_or(LINK_BYTES_PER_SECOND),
        d2h_bytes_per_second: reader.rate("device.d2h").unwrap_or(LINK_BYTES_PER_SECOND),
    }
}

/// Far more than anybody has disks for, each being as large as the model.
const SNAPSHOTS_MAX: u64 = 1000;
/// More than the largest training runs have (some 100,000 in 2026).
const RANKS_MAX: u64 = 1 << 20;

fn store(reader: &mut Reader<'_>) -> Store {
    let right = "a list of directories, such as [\"/mnt/nvme0/hoist\"]";
    if reader.value("store.nvme_path").is_none() {
        reader.problem("store.nvme_path", "is missing", format!("would be right: {right}"));
    }
    let (rank, world_size) = ranks(reader);
    let durabilities =
        [("step", Durability::Step), ("snapshot", Durability::Snapshot), ("none", Durability::None)];
    Store {
        nvme_path: reader.read("store.nvme_path", right, directories).unwrap_or_default(),
        keep: reader.boolean("store.keep").unwrap_or(false),
        durability: reader.choice("store.durability", &durabilities, &[]).unwrap_or(Durability::Step),
        snapshots: reader
            .integer("store.snapshots", 0..=SNAPSHOTS_MAX)
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(0),
        rank,
        world_size,
    }
}

/// Which rank of how many: one of one, if nothing is said.
fn ranks(reader: &mut Reader<'_>) -> (u32, u32) {
    let world_size = reader.integer("store.world_size", 1..=RANKS_MAX);
    let rank = reader.integer("store.rank", 0..=RANKS_MAX - 1).unwrap_or(0);
    // A wrong number of ranks is told of by itself: what it should be is not known.
    let is_known = world_size.is_some() || reader.value("store.world_size").is_none();
    let world_size = world_size.unwrap_or(1);
    if is_known && rank >= world_size {
        let what = format!("rank {rank} of {world_size} is none");
        let right = "would be right: a number from 0 on, less than store.world_size";
        reader.problem("store.rank", what, right);
    }
    let narrow = |number: u64| u32::try_from(number).unwrap_or(0);
    (narrow(rank), narrow(world_size))
}

/// One directory, or a list of different ones.
fn directories(value: &Value) -> Option<Vec<PathBuf>> {
    let one = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(PathBuf::from);
    let paths: Vec<PathBuf> = match value {
        Value::Array(values) => values.iter().map(one).collect::<Option<_>>()?,
        value => vec![one(value)?],
    };
    let different = paths.iter().collect::<std::collections::BTreeSet<_>>().len() == paths.len();
    (!paths.is_empty() && different).then_some(paths)
}

fn io(reader: &mut Reader<'_>) -> Io {
    let default = hoist_io::Config::default();
    let block_size = reader.bytes("io.block_size", "1 MiB").unwrap_or(default.block_size);
    if !is_block(block_size) {
        reader.problem("io.block_size", format!("{block_size} bytes is not right"), RIGHT_BLOCK);
    }
    let depth = reader.integer("io.queue_depth", 1..=u64::from(QUEUE_DEPTH_MAX));
    Io {
        backend: reader.choice("io.backend", &BackendChoice::ALL, &[]).unwrap_or(default.backend),
        block_size,
        queue_depth: depth.and_then(|depth| u32::try_from(depth).ok()).unwrap_or(default.queue_depth),
    }
}

fn io_ratio(reader: &mut Reader<'_>) -> f64 {
    let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
    let right = format!("a number from 0 to {IO_RATIO_MAX}, such as 1.0");
    reader
        .read("compute.io_ratio", &right, |value| number(value).filter(|n| (0.0..=IO_RATIO_MAX).contains(n)))
        .unwrap_or(1.0)
}

/// Which model: a missing `model.kind` follows from the other keys.
fn model(reader: &mut Reader<'_>) -> Option<Model> {
    let right = "the path of a .safetensors file, of the index of several, or of their directory";
    let path = reader.read("model.safetensors", right, |value| {
        value.as_str().filter(|text| !text.is_empty()).map(PathBuf::from)
    });
    if let Some(path) = path.as_ref().filter(|path| !path.is_file() && !path.is_dir()) {
        let what = format!("there is no file or directory \"{}\"", path.display());
        reader.problem("model.safetensors", what, format!("would be right: {right}"));
        // Which model was meant is not known, so its other keys are not judged.
        reader.allow(&GPT2_KEYS);
        reader.allow(&["model.kind"]);
        return None;
    }
    let asked = reader.choice("model.kind", &[("gpt2", true), ("safetensors", false)], &[]);
    match (asked, path) {
        (None | Some(false), Some(path)) => return Some(Model::Safetensors { path }),
        (Some(true), None) => return Some(Model::Gpt2(gpt2(reader))),
        (Some(true), Some(_)) => {
            let right = "leave one of the two out, or set model.kind = \"safetensors\"";
            reader.problem("model.safetensors", "goes with model.kind = \"safetensors\" alone", right);
        }
        (Some(false), None) => missing_file(reader),
        (None, None) if reader.value("model.kind").is_none() => missing_file(reader),
        (None, None) => {}
    }
    reader.allow(&GPT2_KEYS);
    None
}

fn missing_file(reader: &mut Reader<'_>) {
    if reader.value("model.safetensors").is_some() {
        return; // not a path: said already
    }
    let right = "name a model file (--set model.safetensors=PATH) or shapes (model.kind = \"gpt2\")";
    reader.problem("model.safetensors", "is missing", right);
}

const GPT2_KEYS: [&str; 5] = ["model.layers", "model.hidden", "model.heads", "model.vocab", "model.context"];

/// The shapes; what is left out is GPT-2 small's (config.json of openai-community/gpt2).
fn gpt2(reader: &mut Reader<'_>) -> Gpt2 {
    let [layers, hidden, heads, vocab, context] = GPT2_KEYS;
    let shapes = Gpt2 {
        layers: reader.integer(layers, 1..=LAYERS_MAX).unwrap_or(12),
        hidden: reader.integer(hidden, 1..=HIDDEN_MAX).unwrap_or(768),
        heads: reader.integer(heads, 1..=HIDDEN_MAX).unwrap_or(12),
        vocab: reader.integer(vocab, 1..=ROWS_MAX).unwrap_or(50257),
        context: reader.integer(context, 1..=ROWS_MAX).unwrap_or(1024),
    };
    if !shapes.hidden.is_multiple_of(shapes.heads) {
        let what = format!("{} does not divide model.hidden = {}", shapes.heads, shapes.hidden);
        reader.problem(heads, what, "would be right: a divisor of model.hidden");
    }
    shapes
}
