//! What becomes of what fails. A request: an error that names the tensor, and an event for the plan. An epoch: it is
//! rolled back, and all who have to do with it hear why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hoist_memory::Slot;
use hoist_plan::{Event, RequestId, UnitId};

use crate::error::Error;
use crate::message::EpochReply;
use crate::pipeline::{Pipeline, answer};

/// An epoch that failed.
pub(crate) struct Aborted {
    error: Error,
    /// Whether a call has said so, or whoever waits for the commit has heard it. An answer that lies in a channel is none:
    /// a step would begin over another epoch than its trainer thinks.
    told: bool,
    heard: Option<Arc<AtomicBool>>,
    /// Requests are in flight, or leases held, that must come back first.
    pub(crate) rolling_back: bool,
    /// Why its record could not be taken back.
    unretracted: Option<Error>,
}

impl Aborted {
    /// One that whoever asked for it knows of.
    pub(crate) fn asked_for(error: Error) -> Aborted {
        Aborted { error, told: true, heard: None, rolling_back: true, unretracted: None }
    }

    /// The error, for who asks.
    pub(crate) fn tell(&mut self) -> Error {
        self.told = true;
        self.error.clone()
    }

    fn is_told(&self) -> bool {
        self.told || self.heard.as_ref().is_some_and(|heard| heard.load(Ordering::Acquire))
    }

    /// What whoever closes must hear: that a later open may find the epoch all the same, or what nobody has heard of.
    pub(crate) fn untold(self) -> Option<Error> {
        let told = self.is_told();
        self.unretracted.or((!told).then_some(self.error))
    }
}

impl Pipeline {
    /// The epoch is lost, and with it the running step; the plan rolls back. Who waits for the commit hears of it now, who
    /// waits in `acquire` when the plan refuses, and every call until the next step begins.
    pub(crate) fn abort(&mut self, epoch: u64, cause: Error) {
        let error = Error::Commit { epoch, cause: Box::new(cause) };
        tracing::error!("{error}");
        let heard = self.committing.take().map(|EpochReply { sender, heard }| {
            answer(&sender, Err(error.clone()));
            heard
        });
        // Whoever ends the running step waits for this one.
        let told = self.next_commit.take().map(|(_, reply, _)| answer(&reply, Err(error.clone()))).is_some();
        self.in_step = false;
        self.notes.clear();
        self.give_up_final();
        self.aborted = Some(Aborted { error, told, heard, rolling_back: true, unretracted: None });
    }

    /// Nothing is in flight and no lease is held: the store follows.
    pub(crate) fn rolled_back(&mut self) {
        self.epoch = self.store.epoch() + 1;
        let unretracted = self.roll_store_back().err();
        if let Some(aborted) = &mut self.aborted {
            (aborted.rolling_back, aborted.unretracted) = (false, unretracted);
        }
    }

    fn roll_store_back(&mut self) -> Result<(), Error> {
        let failed =
            |error: hoist_store::Error| Error::Commit { epoch: self.epoch, cause: Box::new(error.into()) };
        self.store.rollback().map_err(failed)
    }

    /// Before the first call after an epoch failed that could go on: somebody must have heard of it, and it must be over.
    pub(crate) fn settle_rollback(&mut self, call: &'static str) -> Result<(), Error> {
        loop {
            let count = self.held.len() - self.releasing.len();
            let Some(aborted) = &mut self.aborted else { return Ok(()) };
            if !aborted.is_told() {
                return Err(aborted.tell());
            }
            if !aborted.rolling_back {
                return Ok(());
            }
            if count > 0 {
                return Err(Error::LeasesHeld { call, count });
            }
            self.alive()?;
            self.take_one()?;
        }
    }

    /// What failed is over, if the store can go on: it is tried again each time.
    pub(crate) fn end_abort(&mut self) -> Result<(), Error> {
        if self.aborted.as_ref().is_some_and(|aborted| aborted.unretracted.is_some()) {
            self.roll_store_back()?;
        }
        self.aborted = None;
        Ok(())
    }

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
        let error = Error::Transfer { tensor: self.name(unit), cause: Arc::new(error) };
        self.errors.insert(unit, error.clone());
        self.write_error = Some(error);
        self.events.push_back(Event::Failed(request));
    }

    /// What was read is compared: it is good, or not what was written.
    pub(crate) fn verified(
        &mut self,
        request: RequestId,
        slot: Slot,
        (sums, unknown): (&[u64], &[usize]),
        bad: &[usize],
    ) {
        let unit = self.requests.get(&request.0);
        let unit = unit.unwrap_or_else(|| panic!("request {} was never made", request.0)).0 as usize;
        let span = self.units.spans[unit];
        let touched = match bad {
            [] => self.store.touch(&span, unknown, sums),
            bad => Ok(bad.to_vec()),
        };
        let touched = match touched {
            Ok(touched) => touched,
            Err(error) => return self.not_read(request, slot, error),
        };
        match touched.first() {
            None => {
                let unit = self.ended(request);
                self.slots.host_arrives(unit, slot);
                self.events.push_back(Event::Done(request));
            }
            Some(&block) => self.corrupt(request, slot, block),
        }
    }

    fn corrupt(&mut self, request: RequestId, slot: Slot, block: usize) {
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
