//! What waits until an epoch is final on all ranks: the commit after it, and writes for which the epoch before it has the
//! space.

use hoist_plan::{RequestId, UnitId};
use hoist_store::Error as StoreError;

use crate::error::Error;
use crate::pipeline::Pipeline;

/// What waits for an epoch to be final.
#[derive(Default)]
pub(crate) struct UntilFinal {
    /// The epoch that is to be made durable.
    unpublished: Option<u64>,
    /// Writes that found no space, and what the store said.
    writes: Vec<(RequestId, UnitId, StoreError)>,
}

impl Pipeline {
    /// All ranks have this epoch: the one before it is kept no more, and what waited for that goes on.
    pub(crate) fn finalize(&mut self, epoch: u64) -> Result<(), Error> {
        self.usable()?;
        let mut recorded = false;
        self.keep_record(|store| {
            recorded = store.finalize(epoch)?;
            Ok(recorded)
        })?;
        let UntilFinal { unpublished, writes } = std::mem::take(&mut self.until_final);
        for (request, unit, _) in writes {
            self.write(request, unit);
        }
        if let Some(epoch) = unpublished {
            self.publish(epoch);
        }
        self.decide();
        Ok(())
    }

    /// Whether the epoch must wait; it is published when the one before it is final.
    pub(crate) fn publish_later(&mut self, epoch: u64) -> bool {
        let later = self.store.commits() && self.store.awaits_final();
        if later {
            self.until_final.unpublished = Some(epoch);
        }
        later
    }

    /// A write that found no space is made again when the epoch is final that has it; any other is over.
    pub(crate) fn refused(&mut self, request: RequestId, unit: UnitId, sums: Vec<u64>, error: StoreError) {
        if matches!(error, StoreError::NoSpace { .. }) && self.store.awaits_final() {
            self.sums.insert(unit, sums);
            self.until_final.writes.push((request, unit, error));
        } else {
            self.not_written(request, error);
        }
    }

    /// Whether what is under way can only end when the newest epoch is said to be final.
    pub(crate) fn waits_for_final(&self) -> bool {
        self.until_final.unpublished.is_some() || !self.until_final.writes.is_empty()
    }

    /// Nobody can say so while this call waits.
    pub(crate) fn not_until_final(&self, call: &'static str) -> Result<(), Error> {
        let rule = "waits for a commit that waits until the epoch before it is final: finalize that first";
        if self.waits_for_final() { Err(Error::Step { call, rule }) } else { Ok(()) }
    }

    /// What waited is given up: its epoch is lost.
    pub(crate) fn give_up_final(&mut self) {
        for (request, unit, error) in std::mem::take(&mut self.until_final).writes {
            self.sums.remove(&unit);
            self.not_written(request, error);
        }
    }
}
