//! What clients ask of the engine's thread: orders, steps, leases, the end.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use hoist_plan::{Bandwidths, Bound, Cause, ClientId, Event, LeaseId, OrderId, Plan, Refusal};
use hoist_store::{Durability, NOTE_BYTES_MAX};

use crate::cut::{Cut, Units};
use crate::error::Error;
use crate::message::{Call, Granted, Message, Waiting};
use crate::order::Order;
use crate::pipeline::{Pipeline, answer};
use crate::slots::Slots;

impl Pipeline {
    pub(crate) fn call(&mut self, call: Call) {
        match call {
            Call::Declare(order, reply) => {
                let declared = self.declare(order);
                answer(&reply, declared);
            }
            Call::Bound { order, bandwidths, compute, reply } => {
                answer(&reply, self.bound(order, bandwidths, compute));
            }
            Call::Begin(order, reply) => {
                let begun = self.begin(order);
                answer(&reply, begun);
            }
            Call::Acquire { client, access, reply } => self.acquire(client, access, reply),
            Call::Commit(scalars, reply, epoch) => self.commit(scalars, reply, epoch),
            Call::Abort(reply) => {
                let aborted = self.abort_step();
                answer(&reply, aborted);
            }
            Call::Snapshot(name, reply) => {
                let made = self.snapshot(&name);
                answer(&reply, made);
            }
            Call::DeleteSnapshot(name, reply) => {
                let deleted = self.delete_snapshot(&name);
                answer(&reply, deleted);
            }
            Call::Snapshots(reply) => {
                let all = self.store.snapshots().map(|(name, epoch)| (name.to_owned(), epoch));
                answer(&reply, all.collect());
            }
            Call::Finalize(epoch, reply) => {
                let finalized = self.finalize(epoch);
                answer(&reply, finalized);
            }
            Call::Epochs(reply) => answer(&reply, self.store.epochs()),
            Call::Rollback(to, reply) => {
                let back = self.rollback(to.as_deref());
                answer(&reply, back);
            }
            Call::Launch(compute, reply) => answer(&reply, self.device.launch(compute)),
            Call::Stats(reply) => answer(&reply, self.stats()),
            Call::Note(key, bytes, reply) => {
                let noted = self.note(key, bytes);
                answer(&reply, noted);
            }
            Call::Close(_) => panic!("the end of the engine is handled where it ends"),
        }
    }

    /// Keeps a note for the epoch of the running step: the one before may still be on its way.
    fn note(&mut self, key: String, bytes: Vec<u8>) -> Result<(), Error> {
        self.usable()?;
        if let Some(snapshot) = self.store.read_only() {
            return Err(hoist_store::Error::ReadOnly { snapshot: snapshot.to_owned() }.into());
        }
        if key.len() + bytes.len() > NOTE_BYTES_MAX {
            return Err(Error::LargeNote { key, bytes: bytes.len() });
        }
        self.notes.push((key, bytes));
        Ok(())
    }

    /// Declares an order. One that cuts tensors where none did before needs new units: everything
    /// is written out first, and the plan is made anew.
    fn declare(&mut self, order: Order) -> Result<OrderId, Error> {
        if self.in_step {
            return Err(Error::Step {
                call: "declare",
                rule: "cannot be called within a step: commit it first",
            });
        }
        self.alive()?;
        self.settle_rollback("declare")?;
        let mut orders = self.orders.clone();
        orders.push(order);
        let units = Units::cut(&self.store, &orders);
        let cuts = self.cut_all(&units, &orders)?;
        let specs = units.specs(&self.store);
        let last = cuts.last().map(|cuts| accesses(cuts)).unwrap_or_default();
        let index = orders.len() - 1;
        if units.spans == self.units.spans {
            self.plan.declare(&last).map_err(|error| named(&error, &orders[index]))?;
        } else {
            // Refused orders are refused before anything moves.
            for (cuts, order) in cuts.iter().zip(&orders) {
                hoist_plan::Order::compile(&accesses(cuts), &specs, &self.plan_config)
                    .map_err(|error| named(&error, order))?;
            }
            self.nobody_waits("declare")?;
            self.flush(true, "declare")?;
            self.units = units;
            self.replan(&cuts).map_err(|error| named(&error, &orders[index]))?;
        }
        (self.orders, self.cuts) = (orders, cuts);
        Ok(OrderId(index as u32))
    }

    /// A new plan over these cuts, with nothing in memory: what the store has is all there is.
    fn replan(&mut self, cuts: &[Vec<Arc<Cut>>]) -> Result<(), hoist_plan::OrderError> {
        self.carry_stats();
        self.slots = Slots::new(self.units.count());
        self.plan = Plan::new(self.plan_config.clone(), self.units.specs(&self.store), self.epoch);
        self.errors.clear();
        self.current = None;
        for cuts in cuts {
            self.plan.declare(&accesses(cuts))?;
        }
        Ok(())
    }

    fn cut_all(&self, units: &Units, orders: &[Order]) -> Result<Vec<Vec<Arc<Cut>>>, Error> {
        let cut = |order: &Order| {
            let accesses = order.accesses.iter().enumerate();
            accesses.map(|(index, access)| units.access(&self.store, index, access).map(Arc::new)).collect()
        };
        orders.iter().map(cut).collect()
    }

    fn bound(
        &self,
        order: OrderId,
        bandwidths: Bandwidths,
        compute: Option<Vec<Duration>>,
    ) -> Result<Bound, Error> {
        let Some(cuts) = self.cuts.get(order.0 as usize) else {
            return Err(Error::NoSuch { what: "order", index: order.0 as usize, count: self.orders.len() });
        };
        let nanoseconds = |one: &Duration| u64::try_from(one.as_nanos()).unwrap_or(u64::MAX);
        let compute_ns = compute.map(|times| times.iter().map(nanoseconds).collect::<Vec<_>>());
        if let Some(times) = compute_ns.as_ref().filter(|times| times.len() != cuts.len()) {
            return Err(Error::NoSuch { what: "compute time", index: times.len(), count: cuts.len() });
        }
        Ok(self.plan.bound(order, bandwidths, compute_ns.as_deref()))
    }

    fn begin(&mut self, order: OrderId) -> Result<(), Error> {
        self.alive()?;
        self.settle_rollback("begin_step")?;
        if self.in_step || self.next_commit.is_some() {
            return Err(Error::Step { call: "begin_step", rule: "comes after the step before is committed" });
        }
        if !self.waiting.is_empty() && self.current != Some(order.0 as usize) {
            let rule = "over another order comes when nobody waits in acquire";
            return Err(Error::Step { call: "begin_step", rule });
        }
        if order.0 as usize >= self.orders.len() {
            return Err(Error::NoSuch { what: "order", index: order.0 as usize, count: self.orders.len() });
        }
        self.end_abort()?;
        self.current = Some(order.0 as usize);
        (self.in_step, self.step_writes) = (true, false);
        self.events.push_back(Event::StepBegun(order));
        Ok(())
    }

    fn acquire(&mut self, client: u32, access: usize, reply: Sender<Result<Granted, Error>>) {
        let cut = match self.admit(access) {
            Ok(cut) => cut,
            Err(error) => return answer(&reply, Err(error)),
        };
        let lease = LeaseId(self.next_lease);
        self.next_lease += 1;
        self.waiting.insert(lease, Waiting { reply, cut });
        let client = ClientId(client);
        self.events.push_back(Event::Demanded { lease, client, access: access as u32 });
    }

    fn admit(&mut self, access: usize) -> Result<Arc<Cut>, Error> {
        // What is there now is of another epoch than the step's that asks, perhaps.
        self.usable()?;
        let Some(order) = self.current else {
            return Err(Error::Step { call: "acquire", rule: "needs an order: begin a step first" });
        };
        let cuts = &self.cuts[order];
        let Some(cut) = cuts.get(access) else {
            return Err(Error::NoSuch { what: "access", index: access, count: cuts.len() });
        };
        if let Some(snapshot) = self.store.read_only().filter(|_| cut.writes_durable) {
            let refused = hoist_store::Error::ReadOnly { snapshot: snapshot.to_owned() };
            return Err(refused.into());
        }
        if cut.writes_durable && !self.in_step {
            let rule = "of a durable tensor for writing belongs into a step: begin one first";
            return Err(Error::Step { call: "acquire", rule });
        }
        Ok(Arc::clone(cut))
    }

    pub(crate) fn refuse(&mut self, lease: LeaseId, refusal: Refusal) {
        let error = match refusal {
            Refusal::Failed { unit, .. } | Refusal::NotWritten { unit } => {
                let known = self.errors.get(&unit).cloned();
                known.unwrap_or_else(|| Error::NoContents { tensor: self.name(unit) })
            }
            Refusal::NoContents { unit } => Error::NoContents { tensor: self.name(unit) },
            Refusal::WouldDeadlock { waiting_for } => {
                Error::WouldDeadlock { waiting_for: cause_name(waiting_for) }
            }
            // Only a close flushes while somebody waits.
            Refusal::Flushed => Error::Closed,
            Refusal::RolledBack => self.usable().err().unwrap_or(Error::Closed),
        };
        if let Some(waiting) = self.waiting.remove(&lease) {
            answer(&waiting.reply, Err(error));
        }
    }

    /// The engine is at its end. Everybody who waits hears of it, and so does every later call.
    pub(crate) fn fail(&mut self, error: Error) {
        tracing::error!("{error}");
        if let Some(waiting) = self.committing.take() {
            answer(&waiting.sender, Err(error.clone()));
        }
        if let Some((_, reply, _)) = self.next_commit.take() {
            answer(&reply, Err(error.clone()));
        }
        for waiting in self.waiting.values_mut() {
            answer(&waiting.reply, Err(error.clone()));
            // A grant that comes all the same finds nobody, and the lease is given back.
            waiting.reply = crossbeam_channel::bounded(0).0;
        }
        self.failed.get_or_insert(error);
    }

    pub(crate) fn alive(&self) -> Result<(), Error> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Alive, and not in a step that is rolled back.
    pub(crate) fn usable(&mut self) -> Result<(), Error> {
        self.alive()?;
        self.aborted.as_mut().map_or(Ok(()), |aborted| Err(aborted.tell()))
    }

    /// Waits for what is under way and writes what a close must keep.
    pub(crate) fn quiesce(&mut self) -> Result<(), Error> {
        if self.has_half_a_step() {
            let rule = "cannot be called within a step that has written in place: commit it first";
            return Err(Error::Step { call: "close", rule });
        }
        loop {
            // One that is granted meanwhile, too: its holder may wait for a call that waits behind this one, and what is
            // under way for its memory.
            self.no_leases("close")?;
            let rolling_back = self.aborted.as_ref().is_some_and(|aborted| aborted.rolling_back);
            let over = self.committing.is_none() && self.releasing.is_empty() && !rolling_back;
            if over || self.failed.is_some() {
                break;
            }
            self.not_until_final("close")?;
            self.take_one()?;
        }
        self.flush_unwritten()
    }

    /// Whether NVMe may have a part of a step's bytes in the place of those that the next epoch is to have. At `"none"` that
    /// is all that was promised.
    pub(crate) fn has_half_a_step(&self) -> bool {
        self.store.durability() == Durability::Snapshot && self.in_step && self.step_writes
    }

    /// The last handle is gone: nobody waits any more, but what was promised is kept.
    pub(crate) fn abandon(&mut self) {
        // An epoch that waits for another to be final has nobody any more who would say so.
        while self.failed.is_none()
            && !self.waits_for_final()
            && (self.committing.is_some() || !self.releasing.is_empty())
        {
            if self.take_one().is_err() {
                return;
            }
        }
        // A lease that outlives all handles may be changing what would be written.
        if !self.held.is_empty() {
            return;
        }
        if self.has_half_a_step() {
            return;
        }
        if let Err(error) = self.flush_unwritten() {
            tracing::error!(
                "the engine was dropped, and what it kept in memory could not be written: {error}"
            );
        }
    }

    /// Without an epoch a step, what is in memory is written when the engine ends.
    fn flush_unwritten(&mut self) -> Result<(), Error> {
        if self.failed.is_none() && self.store.durability() != Durability::Step {
            self.flush(false, "close")?;
        }
        Ok(())
    }

    /// For calls that flush: who waits for a lease would be refused.
    pub(crate) fn nobody_waits(&self, call: &'static str) -> Result<(), Error> {
        let rule = "comes when nobody waits in acquire: wait until all have their leases and release them";
        if self.waiting.is_empty() { Ok(()) } else { Err(Error::Step { call, rule }) }
    }

    pub(crate) fn flush(&mut self, all: bool, call: &'static str) -> Result<(), Error> {
        loop {
            if !self.held.is_empty() {
                return Err(Error::LeasesHeld { call, count: self.held.len() });
            }
            if self.committing.is_none() {
                break;
            }
            self.alive()?;
            self.not_until_final(call)?;
            self.take_one()?;
        }
        self.settle_rollback(call)?;
        self.flushed = false;
        // What failed before is tried again now.
        self.write_error = None;
        self.events.push_back(Event::Flush { all });
        self.decide();
        while !self.flushed {
            self.alive()?;
            self.take_one()?;
        }
        self.write_error.take().map_or(Ok(()), Err)
    }

    /// Takes one message; calls wait until what is under way is over.
    pub(crate) fn take_one(&mut self) -> Result<(), Error> {
        match self.inbox.recv() {
            Ok(Message::Call(call)) => self.deferred.push_back(call),
            Ok(message) => self.take(message),
            Err(_) => return Err(Error::Closed),
        }
        Ok(())
    }
}

/// What the plan must know of each access of an order.
fn accesses(cuts: &[Arc<Cut>]) -> Vec<hoist_plan::AccessSpec> {
    cuts.iter().map(|cut| cut.spec.clone()).collect()
}

fn named(error: &hoist_plan::OrderError, order: &Order) -> Error {
    use hoist_plan::OrderError::{BadUnit, Empty, NoTransit, TooLarge};
    let access = match error {
        Empty => 0,
        BadUnit { access, .. } | TooLarge { access, .. } | NoTransit { access, .. } => *access,
    };
    let layer = order.accesses.get(access).map(|access| access.layer.clone()).unwrap_or_default();
    Error::BadAccess { access, layer, what: error.to_string() }
}

fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::NvmeRead => "bytes from NVMe",
        Cause::NvmeWrite => "a write to NVMe",
        Cause::H2d => "a copy to the device",
        Cause::D2h => "a copy from the device",
        Cause::HostFull => "host memory",
        Cause::DeviceFull => "device memory",
    }
}
