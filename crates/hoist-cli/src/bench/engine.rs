//! From the config of a run to the engine's own.

use hoist::{Bandwidths, Engine, Stats};
use hoist_store::TensorSpec;

use super::probe::Rates;
use crate::config::{Config, Durability, Problem};
use crate::failure::Failure;

/// The engine's config, with bandwidths assumed until they are measured.
///
/// # Errors
/// What the library crates find wrong with their parts of it.
pub fn config(config: &Config) -> Result<hoist::Config, Failure> {
    let (host, device) = (config.host.budget_bytes, config.device.budget_bytes);
    let assumed = hoist::Config::new("", host, device);
    let engine_config = hoist::Config {
        device: hoist::DeviceConfig {
            h2d_bytes_per_second: config.device.h2d_bytes_per_second,
            d2h_bytes_per_second: config.device.d2h_bytes_per_second,
            ..assumed.device
        },
        store: hoist_store::Config {
            nvme_path: config.store.nvme_path.clone(),
            durability: match config.store.durability {
                Durability::Step => hoist_store::Durability::Step,
                Durability::Snapshot => hoist_store::Durability::Snapshot,
                Durability::None => hoist_store::Durability::None,
            },
            snapshots: config.store.snapshots,
            rank: config.store.rank,
            world_size: config.store.world_size,
            ..assumed.store
        },
        io: io(config),
        prefetch: config.prefetch.enabled,
        ..assumed
    };
    let problem = |found: hoist::Problem| {
        Problem::new(found.key, found.what, format!("would be right: {}", found.would_be_right))
    };
    let problems: Vec<Problem> = engine_config.problems().into_iter().map(problem).collect();
    if problems.is_empty() { Ok(engine_config) } else { Err(Failure::Config(problems)) }
}

/// A new engine with these tensors.
///
/// # Errors
/// What the engine says, with what to do.
pub fn create(config: hoist::Config, tensors: &[TensorSpec]) -> Result<Engine, Failure> {
    Engine::create(config, tensors).map_err(|error| {
        Failure::work("creating the store", error, "correct the config, or see what hoist doctor says")
    })
}

/// What the engine has moved and waited for.
///
/// # Errors
/// When its thread has ended.
pub fn stats(engine: &Engine) -> Result<Stats, Failure> {
    engine.stats().map_err(|error| Failure::work("asking the engine for its figures", error, "run it again"))
}

/// How the store and the probes do their I/O.
pub fn io(config: &Config) -> hoist_io::Config {
    hoist_io::Config {
        backend: config.io.backend,
        block_size: config.io.block_size,
        queue_depth: config.io.queue_depth,
    }
}

/// What the tiers can move: the drives as probed; the links as configured, or as memory is copied where that is slower.
pub fn bandwidths(config: &Config, rates: Rates) -> Bandwidths {
    let link = |configured: u64| rates.copy.min(configured as f64);
    Bandwidths {
        read: rates.read,
        write: rates.write,
        mixed_read: rates.mixed_read,
        mixed_write: rates.mixed_write,
        h2d: link(config.device.h2d_bytes_per_second),
        d2h: link(config.device.d2h_bytes_per_second),
    }
}
