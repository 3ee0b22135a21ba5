//! What the engine's thread is told, and by whom.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::Sender;
use hoist_device::{DeviceReader, DeviceSlot, Event};
use hoist_memory::{Slot, SlotReader};
use hoist_plan::{Bandwidths, Bound, LeaseId, OrderId};
use hoist_store::{Epoch, Scalars};

use crate::cut::Cut;
use crate::error::Error;
use crate::order::Order;
use crate::stats::Stats;
use crate::workers::Worked;

/// One slot of a lease, by value: the lease is its only writer, or one of its readers.
#[derive(Debug)]
pub(crate) enum Hold {
    HostRead(SlotReader),
    HostWrite(Slot),
    DeviceRead(DeviceReader),
    DeviceWrite(DeviceSlot),
}

/// A lease as it is handed to a client.
pub(crate) struct Granted {
    pub(crate) lease: LeaseId,
    pub(crate) holds: Vec<Hold>,
    pub(crate) cut: Arc<Cut>,
}

/// Where the outcome of a commit goes.
pub(crate) struct EpochReply {
    pub(crate) sender: Sender<Result<u64, Error>>,
    /// Whether somebody has taken it from the channel. What nobody has taken, the next call says.
    pub(crate) heard: Arc<AtomicBool>,
}

/// What a client asks; each is answered on its own channel.
pub(crate) enum Call {
    Declare(Order, Sender<Result<OrderId, Error>>),
    Bound {
        order: OrderId,
        bandwidths: Bandwidths,
        compute: Option<Vec<Duration>>,
        reply: Sender<Result<Bound, Error>>,
    },
    Begin(OrderId, Sender<Result<(), Error>>),
    Acquire {
        client: u32,
        access: usize,
        reply: Sender<Result<Granted, Error>>,
    },
    /// The last is answered when the epoch is durable.
    Commit(Scalars, Sender<Result<(), Error>>, EpochReply),
    Abort(Sender<Result<(), Error>>),
    Snapshot(String, Sender<Result<(), Error>>),
    DeleteSnapshot(String, Sender<Result<(), Error>>),
    Snapshots(Sender<Vec<(String, Epoch)>>),
    Finalize(u64, Sender<Result<(), Error>>),
    Epochs(Sender<Vec<u64>>),
    /// To a snapshot, or to the newest durable epoch.
    Rollback(Option<String>, Sender<Result<Epoch, Error>>),
    Launch(Duration, Sender<Event>),
    Stats(Sender<Stats>),
    Note(String, Vec<u8>, Sender<Result<(), Error>>),
    Close(Sender<Result<(), Error>>),
}

/// Everything that reaches the engine's thread.
pub(crate) enum Message {
    Call(Call),
    /// A lease came back; its bytes may move after the event.
    Released {
        lease: LeaseId,
        holds: Vec<Hold>,
        event: Event,
    },
    Io(hoist_store::Completion),
    Device(hoist_device::Completion),
    Worked(Worked),
    /// A thread of the engine has panicked.
    Died(&'static str),
    /// The last handle is gone.
    Abandoned,
}

/// A client that ends a step: told when the commit begins, and its epoch when it is durable.
pub(crate) type CommitCall = (Scalars, Sender<Result<(), Error>>, EpochReply);

/// A client that waits in `acquire`.
pub(crate) struct Waiting {
    pub(crate) reply: Sender<Result<Granted, Error>>,
    pub(crate) cut: Arc<Cut>,
}
