//! Device memory and the copies to and from it.
//!
//! A [`Device`] is an arena of a fixed budget, two links (`h2d`, `d2h`) and a stream. It carries out
//! what the plan decided and decides nothing: offsets in the arena come from the plan's allocator,
//! and copies are done in the order they were asked for. It knows slots, not tensors and not files.
//!
//! Whoever holds memory owns it by value. A copy takes both its ends and gives them back in its
//! [`Completion`], so no byte can be freed or written while it is being copied.
//!
//! There is one kind so far, `emulated`: device memory is host memory, a copy takes the time that
//! its bytes take at the link's bandwidth, and compute takes wall-clock time and no processor time.

mod arena;
mod config;
mod copy;
mod emulated;
mod error;
mod event;
mod link;
mod pace;
mod ranges;
mod slot;
mod timer;

use std::time::Duration;

use hoist_memory::{Slot, SlotReader};

pub use config::{Config, Problem};
pub use error::Error;
pub use event::Event;
pub use slot::{DeviceReader, DeviceSlot};

/// Device memory and what can be done with it. Owned by one thread, that of the engine.
///
/// Dropping a device waits until every copy is done and every event has passed, and delivers them.
/// Slots that are left keep the arena mapped.
pub trait Device: Send {
    /// What the device is, for reports.
    fn name(&self) -> String;

    /// The arena's length in bytes.
    fn budget_bytes(&self) -> u64;

    /// What could not be had of the machine and was done without, a line with its cause each.
    fn stepped_down(&self) -> &[String];

    /// The slot of `bytes` bytes at `offset` of the arena. Its bytes are what the range held before.
    ///
    /// # Panics
    /// When the range is outside the arena or overlaps one that is held: an impossible state, because
    /// the plan gives out offsets.
    fn claim(&mut self, offset: u64, bytes: u64) -> DeviceSlot;

    /// Fills `to` from the head of `from` over the h2d link; [`Completion::CopiedIn`] when it is done.
    ///
    /// # Panics
    /// When `from` is shorter than `to`.
    fn copy_in(&mut self, id: u64, from: SlotReader, to: DeviceSlot);

    /// Copies `from` into the head of `to` over the d2h link; [`Completion::CopiedOut`] when it is done.
    /// Bytes of `to` behind that stay as they are.
    ///
    /// # Panics
    /// When `to` is shorter than `from`.
    fn copy_out(&mut self, id: u64, from: DeviceReader, to: Slot);

    /// Puts work of this length on the stream, behind what is there; the event passes when it ends. More than a day
    /// counts as a day.
    fn launch(&mut self, compute: Duration) -> Event;

    /// Delivers [`Completion::Event`] with `id` once `event` has passed.
    fn notify(&mut self, id: u64, event: Event);
}

/// What a device has done. The memory of a copy comes back with it.
#[derive(Debug)]
pub enum Completion {
    /// `to` holds the bytes of `from`.
    CopiedIn {
        /// The id given to [`Device::copy_in`].
        id: u64,
        /// Where the bytes came from.
        from: SlotReader,
        /// Where they are now.
        to: DeviceSlot,
    },
    /// `to` holds the bytes of `from`.
    CopiedOut {
        /// The id given to [`Device::copy_out`].
        id: u64,
        /// Where the bytes came from.
        from: DeviceReader,
        /// Where they are now.
        to: Slot,
    },
    /// The event has passed.
    Event {
        /// The id given to [`Device::notify`].
        id: u64,
    },
}

/// Opens the device that the config describes.
///
/// `deliver` is called from the device's own threads, each with its own clone, and must not block: a
/// link stands still while it runs. A process that forks keeps the device in the parent only: in the
/// child its memory is not mapped and its threads do not exist.
pub fn open(
    config: &Config,
    deliver: impl FnMut(Completion) + Clone + Send + 'static,
) -> Result<Box<dyn Device>, Error> {
    Ok(Box::new(emulated::Emulated::open(config, deliver)?))
}
