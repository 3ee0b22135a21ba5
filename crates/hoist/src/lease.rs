use std::sync::Arc;

use crossbeam_channel::Sender;
use hoist_device::Event;
use hoist_plan::{LeaseId, Tier};

use crate::cast::{clip, clip_mut};
use crate::cut::Cut;
use crate::message::{Granted, Hold, Message};

/// The bytes of one access, where the trainer wanted them, until it is released or dropped.
///
/// A use's bytes come in one part when they are contiguous, and in several, in order, where memory
/// in transit is in pages or another access cuts the tensor. While a lease lives nobody else
/// changes its tensors; a lease that writes is the only one on what it writes.
///
/// Dropping it never blocks. A lease that writes has changed its tensors, whether it wrote or not:
/// what it overwrites must be written whole.
pub struct Lease {
    id: LeaseId,
    holds: Vec<Hold>,
    cut: Arc<Cut>,
    engine: Sender<Message>,
    event: Event,
    process: u32,
}

impl Lease {
    pub(crate) fn new(granted: Granted, engine: Sender<Message>) -> Lease {
        Lease {
            id: granted.lease,
            holds: granted.holds,
            cut: granted.cut,
            engine,
            event: Event::done(),
            process: std::process::id(),
        }
    }

    /// Where the bytes are.
    pub fn tier(&self) -> Tier {
        self.cut.tier
    }

    /// Number of uses, as in the access.
    pub fn uses(&self) -> usize {
        self.cut.uses.len()
    }

    /// The bytes of the use with this index in [`Access::uses`](crate::Access), in order. Of an
    /// overwritten tensor they are anything.
    ///
    /// # Panics
    /// When there is no such use.
    pub fn parts(&self, use_index: usize) -> impl Iterator<Item = &[u8]> {
        self.cut.uses[use_index]
            .iter()
            .flat_map(|part| clip(read(&self.holds[part.hold]), part.offset, part.bytes))
    }

    /// The same, to be written.
    ///
    /// # Panics
    /// When there is no such use, or it only reads.
    pub fn parts_mut(&mut self, use_index: usize) -> impl Iterator<Item = &mut [u8]> {
        assert!(self.cut.writes[use_index], "use {use_index} only reads: declare Update or Overwrite");
        let parts = &self.cut.uses[use_index];
        let range = match (parts.first(), parts.last()) {
            (Some(first), Some(last)) => first.hold..last.hold + 1,
            _ => 0..0,
        };
        let holds = self.holds[range].iter_mut();
        holds.zip(parts).flat_map(|(hold, part)| clip_mut(write(hold), part.offset, part.bytes))
    }

    /// Gives the bytes back now, as dropping does.
    pub fn release(self) {}

    /// Gives the bytes back once the device has passed this event: work that was launched on
    /// them may still run.
    pub fn release_after(mut self, event: Event) {
        self.event = event;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let holds = std::mem::take(&mut self.holds);
        if std::process::id() != self.process {
            // In a forked child neither the memory is there nor the engine's thread.
            std::mem::forget(holds);
            return;
        }
        // An engine that has ended has no use for it.
        let _ = self.engine.send(Message::Released { lease: self.id, holds, event: self.event });
    }
}

fn read(hold: &Hold) -> Box<dyn Iterator<Item = &[u8]> + '_> {
    match hold {
        Hold::HostRead(reader) => Box::new(reader.parts()),
        Hold::HostWrite(slot) => Box::new(slot.parts()),
        Hold::DeviceRead(reader) => Box::new(std::iter::once(reader.as_slice())),
        Hold::DeviceWrite(slot) => Box::new(std::iter::once(slot.as_slice())),
    }
}

fn write(hold: &mut Hold) -> Box<dyn Iterator<Item = &mut [u8]> + '_> {
    match hold {
        Hold::HostWrite(slot) => Box::new(slot.parts_mut()),
        Hold::DeviceWrite(slot) => Box::new(std::iter::once(slot.as_mut_slice())),
        Hold::HostRead(_) | Hold::DeviceRead(_) => {
            panic!("a use that writes holds a slot that it may not write")
        }
    }
}
