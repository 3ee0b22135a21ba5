//! The engine: leases over a model's state that is larger than the device, and larger than memory.
//!
//! A trainer opens an [`Engine`] over a store, declares the [`Order`] in which it will use its
//! tensors, and then, step by step, acquires each [`Access`] of that order and gets a [`Lease`]
//! over the bytes where it wants them, on the device or on the host. The engine reads ahead,
//! writes behind, keeps within its budgets and makes each step durable as one epoch.
//!
//! ```no_run
//! use hoist::{Access, Class, Config, Dtype, Engine, Life, Mode, Order, Phase, Scalars, TensorSpec, Tier};
//!
//! # fn main() -> Result<(), hoist::Error> {
//! let weight = TensorSpec {
//!     name: "layer.0.weight".into(),
//!     dtype: Dtype::F32,
//!     shape: vec![1024, 1024],
//!     class: Class::Parameter,
//!     life: Life::Durable,
//!     group: "layer.0".into(),
//!     shard: None,
//! };
//! let engine = Engine::create(Config::new("/nvme/run1", 512 << 20, 128 << 20), &[weight])?;
//! let id = engine.tensor("layer.0.weight").expect("it was just created");
//! let whole = engine.whole(id, Mode::Overwrite);
//! let order = engine.declare(Order {
//!     accesses: vec![Access::new("layer.0", Phase::Optimizer, Tier::Host, vec![whole])],
//! })?;
//! engine.begin_step(order)?;
//! let mut lease = engine.acquire(0)?;
//! for part in lease.parts_mut(0) {
//!     part.fill(1);
//! }
//! lease.release();
//! let epoch = engine.commit_step(&Scalars::step(1))?.wait()?;
//! # let _ = epoch;
//! engine.close()
//! # }
//! ```
//!
//! To read the code, open `pipeline.rs`: it is the engine's thread, a step from `acquire` to the
//! grant, and every action of the plan turned into I/O and copies.

#![forbid(unsafe_code)]

mod calls;
mod cast;
mod config;
mod cut;
mod engine;
mod epochs;
mod error;
mod failures;
mod figures;
mod lease;
mod message;
mod open;
mod order;
mod pipeline;
mod ranks;
mod slots;
mod stats;
mod workers;

pub use config::{Config, Problem};
pub use engine::{Commit, Engine};
pub use error::Error;
pub use hoist_device::{Config as DeviceConfig, Event};
pub use hoist_memory::Config as HostConfig;
pub use hoist_plan::{Bandwidths, Bound, Mode, OrderId, Resource, Stalls, Tier};
pub use hoist_store::{
    BackendChoice, Class, Config as StoreConfig, Deliver, Dtype, Durability, Epoch, IoConfig, IoError,
    IoThread, Life, RankStores, RanksError, Scalars, Shard, TensorId, TensorInfo, TensorSpec,
};
pub use lease::Lease;
pub use open::StartIo;
pub use order::{Access, Order, Phase, TensorUse};
pub use stats::Stats;
