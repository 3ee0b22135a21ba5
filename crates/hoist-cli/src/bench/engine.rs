//! From the config of a run to the engine's own.

use hoist::{Bandwidths, Engine, Stats};
use hoist_store::TensorSpec;

use super::probe::Rates;
use crate::config::{Backend, Config, Durability};
use crate::failure::Failure;

/// A new engine with these tensors.
///
/// # Errors
/// What the engine says, with what to do.
pub fn create(config: &Config, rates: Rates, tensors: &[TensorSpec]) -> Result<Engine, Failure> {
    let engine_config = hoist::Config {
        host_budget_bytes: config.host.budget_bytes,
        device: hoist::device::Config {
            budget_bytes: config.device.budget_bytes,
            h2d_bytes_per_second: config.device.h2d_bytes_per_second,
            d2h_bytes_per_second: config.device.d2h_bytes_per_second,
        },
        store: hoist_store::Config {
            nvme_path: config.store.nvme_path.clone(),
            durability: match config.store.durability {
                Durability::Step => hoist_store::Durability::Step,
                Durability::None => hoist_store::Durability::None,
            },
            ..hoist_store::Config::default()
        },
        io: io(config),
        prefetch: config.prefetch.enabled,
        bandwidths: bandwidths(config, rates),
    };
    Engine::create(engine_config, tensors).map_err(|error| {
        Failure::work("creating the store", error, "correct the config, or see what hoist doctor says")
    })
}

/// How the store and the probes do their I/O.
pub fn io(config: &Config) -> hoist_io::Config {
    hoist_io::Config {
        backend: match config.io.backend {
            Backend::Auto => hoist_io::BackendChoice::Auto,
            Backend::Uring => hoist_io::BackendChoice::Uring,
            Backend::Pread => hoist_io::BackendChoice::Pread,
        },
        block_size: config.io.block_size,
        queue_depth: config.io.queue_depth,
    }
}

/// What the tiers can move: the drives as probed, the links as configured.
pub fn bandwidths(config: &Config, rates: Rates) -> Bandwidths {
    Bandwidths {
        read: rates.read,
        write: rates.write,
        mixed_read: rates.mixed_read,
        mixed_write: rates.mixed_write,
        h2d: config.device.h2d_bytes_per_second as f64,
        d2h: config.device.d2h_bytes_per_second as f64,
    }
}

/// What I/O and memory obtained, for the report.
pub fn obtained(stats: &Stats) -> Vec<String> {
    stats.obtained.clone()
}
