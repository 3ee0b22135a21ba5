//! The main path: the engine's thread.
//!
//! A step, from `acquire` to the grant:
//!
//! 1. A message comes: a client's call, a lease that came back, a completion of the drive, the
//!    device or a worker ([`Pipeline::take`]).
//! 2. Memory that came with it goes into the table of slots, and it becomes an event.
//! 3. The plan decides: events in, actions out ([`Pipeline::decide`]).
//! 4. Each action is carried out: reads, checksums, copies, writes are handed to who does them
//!    ([`Pipeline::carry_out`]). Nothing here waits for them; they come back as messages.
//! 5. What was read is verified by a worker, copied to the device if it is wanted there, and when
//!    all units of the access are in place the plan grants: the slots move into the lease.
//! 6. The lease comes back, changed or not; what was changed is summed by a worker and written.
//! 7. When the last durable byte of a step is on NVMe the plan publishes its epoch, the store
//!    makes it durable, and the client that waits for the commit hears of it.
//!
//! The plan decides everything and does no I/O; this file does and decides nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use hoist_device::{Device, Event as DeviceEvent};
use hoist_memory::{Slab, Slot};
use hoist_plan::{Action, Event, LeaseId, Plan, Priority, RequestId, SumPurpose, UnitId};
use hoist_store::{Scalars, Store, StoreEvent};

use crate::cut::{Cut, Units};
use crate::error::Error;
use crate::failures::Aborted;
use crate::message::{Call, CommitCall, EpochReply, Granted, Hold, Message, Waiting};
use crate::order::Order;
use crate::ranks::UntilFinal;
use crate::slots::Slots;
use crate::workers::{Job, Worked, Workers};

/// Everything the engine's thread owns.
pub(crate) struct Pipeline {
    pub(crate) inbox: Receiver<Message>,
    pub(crate) plan: Plan,
    pub(crate) plan_config: hoist_plan::Config,
    pub(crate) store: Store,
    pub(crate) device: Box<dyn Device>,
    pub(crate) slab: Arc<Slab>,
    pub(crate) workers: Workers,
    pub(crate) units: Units,
    pub(crate) slots: Slots,
    pub(crate) orders: Vec<Order>,
    /// Each declared access in units.
    pub(crate) cuts: Vec<Vec<Arc<Cut>>>,
    /// The order of the last step that began.
    pub(crate) current: Option<usize>,
    pub(crate) in_step: bool,
    /// Whether the running step has got a lease that writes durable bytes.
    pub(crate) step_writes: bool,
    /// The epoch that the next commit makes.
    pub(crate) epoch: u64,
    /// The commit under way, and who waits for it; and the call that waits until it is over.
    pub(crate) committing: Option<EpochReply>,
    pub(crate) next_commit: Option<CommitCall>,
    /// What ended the engine's usefulness: a thread that has died.
    pub(crate) failed: Option<Error>,
    /// The epoch that failed last, until a step begins after it.
    pub(crate) aborted: Option<Aborted>,
    pub(crate) waiting: HashMap<LeaseId, Waiting>,
    pub(crate) held: HashMap<LeaseId, Arc<Cut>>,
    /// Leases whose bytes the device still works on.
    pub(crate) releasing: HashMap<u64, (LeaseId, Vec<Hold>)>,
    pub(crate) next_lease: u64,
    /// Units of the requests in flight.
    pub(crate) requests: HashMap<u64, UnitId>,
    /// Checksums of a unit between their computation and its write.
    pub(crate) sums: HashMap<UnitId, Vec<u64>>,
    pub(crate) spare_sums: Vec<Vec<u64>>,
    /// Why a unit could not be had, or not be written.
    pub(crate) errors: HashMap<UnitId, Error>,
    pub(crate) write_error: Option<Error>,
    pub(crate) flushed: bool,
    /// Calls that came while a flush was waited for.
    pub(crate) deferred: VecDeque<Call>,
    pub(crate) started: Instant,
    pub(crate) summed_bytes: u64,
    /// Notes of the running step, and of the step that is being committed.
    pub(crate) notes: Vec<(String, Vec<u8>)>,
    pub(crate) sealed_notes: Vec<(String, Vec<u8>)>,
    /// What the trainer has said of the step that is being committed.
    pub(crate) sealed_scalars: Scalars,
    /// Whether the engine waits for a record of the store, and what came of it.
    pub(crate) recording: bool,
    pub(crate) recorded: Option<Result<(), Error>>,
    pub(crate) until_final: UntilFinal,
    pub(crate) carried: hoist_plan::Stats,
    pub(crate) events: VecDeque<Event>,
}

impl Pipeline {
    /// Runs until the engine is closed or its last handle is gone.
    pub(crate) fn run(mut self) {
        let close = loop {
            let message = match self.deferred.pop_front() {
                Some(call) => Message::Call(call),
                None => match self.inbox.recv() {
                    Ok(message) => message,
                    Err(_) => break None,
                },
            };
            match message {
                Message::Call(Call::Close(reply)) => match self.quiesce() {
                    Ok(()) => break Some(reply),
                    Err(error) => answer(&reply, Err(error)),
                },
                Message::Abandoned => {
                    self.abandon();
                    break None;
                }
                other => self.take(other),
            }
        };
        let untold = self.failed.take().or_else(|| self.aborted.take().and_then(Aborted::untold));
        let half = self.has_half_a_step();
        let closed = if half { self.store.close_uncommitted() } else { self.store.close() };
        let result = closed.map_err(Error::from);
        let result = untold.map_or(result, Err);
        match (close, result) {
            (Some(reply), result) => answer(&reply, result),
            (None, Err(error)) => tracing::error!("closing the store: {error}"),
            (None, Ok(())) => {}
        }
    }

    // 1 and 2: a message comes and becomes an event.
    pub(crate) fn take(&mut self, message: Message) {
        match message {
            Message::Call(call) => self.call(call),
            Message::Released { lease, holds, event } if event.is_done() => self.released(lease, holds),
            Message::Released { lease, holds, event } => self.released_later(lease, holds, event),
            Message::Io(completion) => match self.store.handle(completion) {
                Some(event) => self.stored(event),
                None => return,
            },
            Message::Device(completion) => self.device_done(completion),
            Message::Worked(worked) => self.worked(worked),
            Message::Died(name) => self.fail(Error::Died { name }),
            Message::Abandoned => {}
        }
        self.decide();
    }

    // 3: the plan decides.
    pub(crate) fn decide(&mut self) {
        let mut actions = Vec::new();
        while let Some(event) = self.events.pop_front() {
            let now_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.plan.handle(event, now_ns, &mut actions);
            for action in actions.drain(..) {
                self.carry_out(action);
            }
        }
    }

    // 4: each action is carried out.
    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Read { request, unit, priority } => self.read(request, unit, priority),
            Action::Write { request, unit } => self.write(request, unit),
            Action::Promote { request } => {
                self.store.promote(request.0, hoist_store::Priority::Demand);
            }
            Action::Checksum { request, unit, purpose: SumPurpose::Verify } => self.verify(request, unit),
            Action::Checksum { request, unit, purpose: SumPurpose::Record } => self.record(request, unit),
            Action::Derive { request, unit } => self.derive(request, unit),
            Action::BlankHost { unit } => {
                let slot = self.new_slot(unit);
                self.slots.host_arrives(unit, slot);
            }
            Action::BlankDevice { unit, offset } => {
                let bytes = self.units.spans[unit.0 as usize].bytes;
                self.slots.device_leaves(unit);
                self.slots.device_arrives(unit, self.device.claim(offset, bytes));
            }
            Action::CopyIn { request, unit, offset } => {
                let bytes = self.units.spans[unit.0 as usize].bytes;
                let to = self.device.claim(offset, bytes);
                self.slots.device_leaves(unit);
                self.requests.insert(request.0, unit);
                self.device.copy_in(request.0, self.slots.read_host(unit), to);
            }
            Action::CopyOut { request, unit } => {
                let to = self.new_slot(unit);
                self.requests.insert(request.0, unit);
                self.device.copy_out(request.0, self.slots.read_device(unit), to);
            }
            Action::DropHost { unit } => self.slots.drop_host(unit),
            Action::DropDevice { unit } => self.slots.drop_device(unit),
            Action::Grant { lease } => self.grant(lease),
            Action::Refuse { lease, refusal } => self.refuse(lease, refusal),
            Action::Publish { epoch } => self.publish(epoch),
            Action::FailEpoch { epoch } => {
                let cause = self.write_error.take().unwrap_or(Error::Closed);
                self.abort(epoch, cause);
            }
            Action::RolledBack => self.rolled_back(),
            Action::Flushed => self.flushed = true,
        }
    }

    /// A host slot for a unit. The plan has counted its pages, so they are there.
    fn new_slot(&mut self, unit: UnitId) -> Slot {
        let bytes = self.units.spans[unit.0 as usize].bytes;
        self.slots.host_leaves(unit);
        let free = self.slab.pages_free();
        let slot = self.slab.allocate(bytes);
        slot.unwrap_or_else(|| panic!("no pages for {bytes} bytes of unit {}: {free} are free", unit.0))
    }

    fn read(&mut self, request: RequestId, unit: UnitId, priority: Priority) {
        let slot = self.new_slot(unit);
        self.requests.insert(request.0, unit);
        let span = self.units.spans[unit.0 as usize];
        if !self.store.has_bytes(&span) {
            self.workers.push(Job::Blank { request, target: slot });
            return;
        }
        let priority = match priority {
            Priority::Demand => hoist_store::Priority::Demand,
            Priority::Prefetch => hoist_store::Priority::Prefetch,
            Priority::WriteBack => hoist_store::Priority::WriteBack,
        };
        if let Err((slot, error)) = self.store.read(request.0, span, slot, priority) {
            self.not_read(request, slot, error);
        }
    }

    // 5: what was read is verified. The slot came with the completion before.
    fn verify(&mut self, request: RequestId, unit: UnitId) {
        let slot = self.slots.take_unverified(unit);
        self.requests.insert(request.0, unit);
        let mut expected = self.spare_sums.pop().unwrap_or_default();
        expected.clear();
        let unknown = self.store.expected(&self.units.spans[unit.0 as usize], &mut expected);
        let unknown = unknown.unwrap_or_else(|| {
            // A bundle that was never written has none, and holds the zeros just made.
            hoist_store::checksum(slot.parts(), &mut expected);
            Vec::new()
        });
        self.workers.push(Job::Verify { request, slot, expected, unknown });
    }

    // 6: what was changed is summed and written.
    fn record(&mut self, request: RequestId, unit: UnitId) {
        self.requests.insert(request.0, unit);
        let sums = self.spare_sums.pop().unwrap_or_default();
        self.workers.push(Job::Record { request, slot: self.slots.read_host(unit), sums });
    }

    pub(crate) fn write(&mut self, request: RequestId, unit: UnitId) {
        self.requests.insert(request.0, unit);
        let sums = self.sums.remove(&unit).unwrap_or_else(|| panic!("unit {} has no checksums", unit.0));
        let span = self.units.spans[unit.0 as usize];
        let Err((slot, error)) = self.store.write(request.0, span, self.slots.read_host(unit), &sums) else {
            return self.spare_sums.push(sums);
        };
        drop(slot);
        self.refused(request, unit, sums, error);
    }

    fn derive(&mut self, request: RequestId, unit: UnitId) {
        let target = self.new_slot(unit);
        self.requests.insert(request.0, unit);
        let span = self.units.spans[unit.0 as usize];
        let casts = self.units.sources(&self.store, &span);
        let casts = casts.map(|(source, cast)| (self.slots.read_host(source), cast)).collect();
        self.workers.push(Job::Derive { request, casts, target });
    }

    fn stored(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Read { id, slot, result: Ok(()) } => self.filled(RequestId(id), slot),
            StoreEvent::Read { id, slot, result: Err(error) } => self.not_read(RequestId(id), slot, error),
            StoreEvent::Written { id, slot, result } => {
                // The reader goes first: the event may make the slot somebody's to write.
                drop(slot);
                match result {
                    Ok(()) => self.done(RequestId(id)),
                    Err(error) => self.not_written(RequestId(id), error),
                }
            }
            StoreEvent::Committed { result, .. } | StoreEvent::Recorded { result } if self.recording => {
                self.recorded = Some(result.map_err(Error::from));
            }
            StoreEvent::Committed { epoch, result } => self.committed(epoch, result.map_err(Error::from)),
            StoreEvent::Recorded { result } => panic!("nobody waits for the record that came to {result:?}"),
        }
    }

    fn device_done(&mut self, completion: hoist_device::Completion) {
        match completion {
            hoist_device::Completion::CopiedIn { id, from, to } => {
                drop(from);
                let unit = self.ended(RequestId(id));
                self.slots.device_arrives(unit, to);
                self.events.push_back(Event::Done(RequestId(id)));
            }
            hoist_device::Completion::CopiedOut { id, from, to } => {
                drop(from);
                let unit = self.ended(RequestId(id));
                self.slots.host_arrives(unit, to);
                self.events.push_back(Event::Done(RequestId(id)));
            }
            hoist_device::Completion::Event { id } => {
                if let Some((lease, holds)) = self.releasing.remove(&id) {
                    self.released(lease, holds);
                    self.begin_commit();
                }
            }
        }
    }

    fn worked(&mut self, worked: Worked) {
        match worked {
            Worked::Verified { request, slot, sums, unknown, bad } => {
                self.summed_bytes += slot.bytes();
                self.verified(request, slot, (&sums, &unknown), &bad);
                self.spare_sums.push(sums);
            }
            Worked::Recorded { request, sums } => {
                let unit = self.ended(request);
                self.sums.insert(unit, sums);
                self.events.push_back(Event::Done(request));
            }
            Worked::Derived { request, target } => {
                let unit = self.ended(request);
                self.slots.host_arrives(unit, target);
                self.events.push_back(Event::Done(request));
            }
            Worked::Blanked { request, target } => self.filled(request, target),
        }
    }

    /// Bytes have come; the plan asks for their verification next.
    fn filled(&mut self, request: RequestId, slot: Slot) {
        let unit = self.ended(request);
        self.slots.keep_unverified(unit, slot);
        self.events.push_back(Event::Done(request));
    }

    fn done(&mut self, request: RequestId) {
        self.ended(request);
        self.events.push_back(Event::Done(request));
    }

    pub(crate) fn ended(&mut self, request: RequestId) -> UnitId {
        let unit = self.requests.remove(&request.0);
        unit.unwrap_or_else(|| panic!("request {} ended twice or was never made", request.0))
    }

    fn released_later(&mut self, lease: LeaseId, holds: Vec<Hold>, event: DeviceEvent) {
        self.releasing.insert(lease.0, (lease, holds));
        self.device.notify(lease.0, event);
        self.events.push_back(Event::Releasing(lease));
    }

    pub(crate) fn released(&mut self, lease: LeaseId, holds: Vec<Hold>) {
        let cut = self.held.remove(&lease);
        let cut = cut.unwrap_or_else(|| panic!("lease {} came back twice", lease.0));
        for (&(unit, _), hold) in cut.holds.iter().zip(holds) {
            self.slots.give_back(unit, hold);
        }
        self.events.push_back(Event::Released(lease));
    }

    fn grant(&mut self, lease: LeaseId) {
        let Some(Waiting { reply, cut }) = self.waiting.remove(&lease) else {
            panic!("lease {} is granted but nobody asked for it", lease.0);
        };
        let lend = |&(unit, writes): &(UnitId, bool)| self.slots.lend(unit, cut.tier, writes);
        let holds = cut.holds.iter().map(lend).collect();
        self.step_writes |= cut.writes_durable;
        self.held.insert(lease, Arc::clone(&cut));
        let granted = Granted { lease, holds, cut };
        if let Err(unwanted) = reply.send(Ok(granted))
            && let Ok(granted) = unwanted.into_inner()
        {
            // The client has gone meanwhile.
            self.released(lease, granted.holds);
        }
    }
}

/// Answers a client; one that no longer listens has gone, and needs no answer.
pub(crate) fn answer<T>(reply: &Sender<T>, value: T) {
    let _ = reply.send(value);
}
