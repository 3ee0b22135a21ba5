//! Moves file ranges into slots and back at the deepest queue the device takes.
//!
//! A [`Backend`] is the seam: io_uring, or threads that call pread and pwrite, behind one trait that is object-safe,
//! so that wrappers can inject faults or throttle. A [`Request`] owns the memory that it moves, and gives it back in
//! its [`Completion`]: the kernel never writes memory that somebody else may touch. Requests are cut into blocks;
//! blocks go to the kernel strictly by [`Priority`], then in the order they came. There is no other policy here.
//!
//! Two wrappers stand for drives other than the one at hand: [`Throttled`] for a slower one, [`Faulty`] for a broken one.
//!
//! An [`IoThread`] drives one backend on a thread of its own, and answers each request once, whatever becomes of the
//! backend.

mod advice;
mod answers;
mod backend;
mod block;
mod bounce;
mod config;
mod core;
mod cut;
mod driver;
mod error;
mod faults;
mod files;
mod obtained;
mod pread;
mod request;
mod requests;
mod thread;
mod throttled;
mod tokio_uring;
mod uring;
mod waker;
mod workers;

pub use backend::{Backend, FileOp, FileReply, Wait, open};
pub use config::{BackendChoice, Config, Problem, QUEUE_DEPTH_MAX};
pub use error::{Error, Operation};
pub use faults::{Fault, FaultKind, Faults, Faulty, Place, Short};
/// The memory that requests own: for callers that make slabs and slots.
pub use hoist_memory as memory;
pub use obtained::Obtained;
pub use request::{Completion, FileId, FileRange, Priority, Request, RequestId, Transfer};
pub use thread::IoThread;
pub use throttled::{Rate, Throttled};
pub use waker::Waker;
