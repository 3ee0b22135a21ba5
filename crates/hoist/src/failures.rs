//! What becomes of requests that fail: an error that names the tensor, and an event for the plan.

use std::sync::Arc;

use hoist_memory::Slot;
use hoist_plan::{Event, RequestId, UnitId};

use crate::error::Error;
use crate::pipeline::Pipeline;

impl Pipeline {
    /// The drive or the store failed a read: the unit is not there, and who asks for it hears why.
    pub(crate) fn not_read(&mut self, request: RequestId, slot: Slot, error: hoist_store::Error) {
        let unit = self.ended(request);
        drop(slot);
        self.slots.host_is_lost(unit);
        let error = Error::Transfer { tensor: self.name(unit), cause: Arc::new(error) };
        self.errors.insert(unit, error);
        self.events.push_back(Event::Failed(request));
    }

    /// A write failed: the unit stays in memory.
    pub(crate) fn not_written(&mut self, request: RequestId, error: hoist_store::Error) {
        let unit = self.ended(request);
        self.write_error = Some(Error::Transfer { tensor: self.name(unit), cause: Arc::new(error) });
        self.events.push_back(Event::Failed(request));
    }

    /// What came is not what was written.
    pub(crate) fn corrupt(&mut self, request: RequestId, slot: Slot, block: usize) {
        let unit = self.ended(request);
        drop(slot);
        self.slots.host_is_lost(unit);
        let span = self.store.block(&self.units.spans[unit.0 as usize], block);
        let tensors: Vec<&str> = self
            .store
            .tensors_in(&span)
            .map(|id| self.store.tensors()[id.0 as usize].spec.name.as_str())
            .collect();
        let error = Error::Corrupt { tensor: tensors.join(", "), place: self.store.describe(&span) };
        self.errors.insert(unit, error);
        self.events.push_back(Event::Failed(request));
    }

    /// The tensors with bytes in a unit, for errors.
    pub(crate) fn name(&self, unit: UnitId) -> String {
        let tensors = self.store.tensors_in(&self.units.spans[unit.0 as usize]);
        let names: Vec<&str> =
            tensors.map(|id| self.store.tensors()[id.0 as usize].spec.name.as_str()).collect();
        names.join(", ")
    }
}
