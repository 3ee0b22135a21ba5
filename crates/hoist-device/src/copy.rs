//! One copy between host and device, and the memory it owns while it is under way.

use hoist_memory::{Slot, SlotReader};

use crate::{Completion, DeviceReader, DeviceSlot};

/// A copy that was asked for and has not been delivered.
#[derive(Debug)]
pub(crate) enum Copy {
    /// Host to device.
    In { id: u64, from: SlotReader, to: DeviceSlot },
    /// Device to host.
    Out { id: u64, from: DeviceReader, to: Slot },
}

impl Copy {
    /// A copy that fills `to` from the head of `from`.
    pub fn into_device(id: u64, from: SlotReader, to: DeviceSlot) -> Self {
        let (host, device) = (from.bytes(), to.bytes());
        assert!(host >= device, "copy {id} fills {device} bytes of device from a host slot of {host}");
        Self::In { id, from, to }
    }

    /// A copy of all of `from` into the head of `to`.
    pub fn into_host(id: u64, from: DeviceReader, to: Slot) -> Self {
        let (host, device) = (to.bytes(), from.bytes());
        assert!(host >= device, "copy {id} puts {device} bytes of device into a host slot of {host}");
        Self::Out { id, from, to }
    }

    /// The bytes that cross the link: those of the device's range.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::In { to, .. } => to.bytes(),
            Self::Out { from, .. } => from.bytes(),
        }
    }

    /// Moves the bytes.
    pub fn carry_out(&mut self) {
        match self {
            Self::In { from, to, .. } => {
                let mut rest = to.as_mut_slice();
                for part in from.parts() {
                    let (head, tail) = rest.split_at_mut(part.len().min(rest.len()));
                    head.copy_from_slice(&part[..head.len()]);
                    rest = tail;
                }
                assert!(rest.is_empty(), "the parts of {from:?} end {} bytes too early", rest.len());
            }
            Self::Out { from, to, .. } => {
                let mut rest = from.as_slice();
                for part in to.parts_mut() {
                    let (head, tail) = rest.split_at(part.len().min(rest.len()));
                    part[..head.len()].copy_from_slice(head);
                    rest = tail;
                }
                assert!(rest.is_empty(), "the host slot ends {} bytes too early for {from:?}", rest.len());
            }
        }
    }

    /// Gives the memory back with the news.
    pub fn into_completion(self) -> Completion {
        match self {
            Self::In { id, from, to } => Completion::CopiedIn { id, from, to },
            Self::Out { id, from, to } => Completion::CopiedOut { id, from, to },
        }
    }
}
