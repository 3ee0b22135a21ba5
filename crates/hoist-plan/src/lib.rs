//! What moves where and when, decided and nothing else.
//!
//! [`Plan`] is a pure state machine: the driver hands it an [`Event`] with the time at which it
//! happened, and the plan writes [`Action`]s into the caller's buffer. It does no I/O, starts no
//! thread, reads no clock and takes no random number, so that the engine, the simulator and the
//! property tests run the very same decisions. Equal events give equal actions.
//!
//! Reading order: [`contract`](Event) (what passes between plan and driver), `order` (the sequence
//! of accesses and what follows each use), `placement` (which units stay where between two
//! accesses), `plan` (the state machine), `bound` (the least time a step could take).

#![forbid(unsafe_code)]

mod ahead;
mod arena;
mod bound;
mod config;
mod conflict;
mod contract;
mod demand;
mod evict;
mod fetch;
mod gather;
mod order;
mod pace;
mod placement;
mod plan;
mod profile;
mod rollback;
mod settle;
mod stats;
mod step;
mod unit;
mod windows;
mod writeback;

pub use bound::{Bandwidths, Bound, Resource, bound};
pub use config::{Config, Problem};
pub use contract::{
    Action, Cause, ClientId, Event, LeaseId, Mode, OrderId, Priority, Refusal, RequestId, SumPurpose, Tier,
    UnitId,
};
pub use order::{AccessSpec, Order, OrderError, UnitUse};
pub use placement::{Placement, place};
pub use plan::Plan;
pub use stats::{Stalls, Stats};
pub use unit::{Kind, UnitSpec};
