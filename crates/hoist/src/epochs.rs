//! Steps become epochs, are dropped, are kept under a name, and come back.

use crossbeam_channel::Sender;
use hoist_plan::Event;
use hoist_store::{Durability, Epoch, Scalars, Store};

use crate::error::Error;
use crate::failures::Aborted;
use crate::message::EpochReply;
use crate::pipeline::{Pipeline, answer};

impl Pipeline {
    /// 7: the step ends. At most one commit is under way; this one waits until that is over.
    pub(crate) fn commit(&mut self, scalars: Scalars, reply: Sender<Result<(), Error>>, epoch: EpochReply) {
        let refused = self.usable().err().or_else(|| {
            let outside = Error::Step { call: "commit_step", rule: "needs a step: begin one first" };
            (!self.in_step).then_some(outside)
        });
        let large = scalars.check().err().map(Error::from);
        let refused = refused.or(large);
        if let Some(error) = refused {
            return answer(&reply, Err(error));
        }
        // Leases that wait for the device alone are given back already; one that is waited for
        // belongs to the step as much as one that is held.
        let count = self.held.len() - self.releasing.len() + self.waiting.len();
        if count > 0 {
            return answer(&reply, Err(Error::LeasesHeld { call: "commit_step", count }));
        }
        self.in_step = false;
        self.next_commit = Some((scalars, reply, epoch));
        self.begin_commit();
    }

    /// Begins the commit that waits, once the one before it is over and the device is done.
    pub(crate) fn begin_commit(&mut self) {
        if self.committing.is_some() || !self.releasing.is_empty() {
            return;
        }
        let Some((scalars, reply, epoch)) = self.next_commit.take() else { return };
        self.committing = Some(epoch);
        self.sealed_scalars = scalars;
        self.sealed_notes = std::mem::take(&mut self.notes);
        self.events.push_back(Event::CommitBegun(self.epoch));
        self.epoch += 1;
        answer(&reply, Ok(()));
    }

    pub(crate) fn publish(&mut self, epoch: u64) {
        if self.publish_later(epoch) {
            return;
        }
        for (key, bytes) in std::mem::take(&mut self.sealed_notes) {
            if let Err(error) = self.store.set_note(&key, bytes) {
                return self.committed(epoch, Err(error.into()));
            }
        }
        match self.store.commit(&std::mem::take(&mut self.sealed_scalars)) {
            // No promise: the step is over when its leases are. The plan counts steps, of which the epoch has many.
            Ok(next) if !self.store.commits() => self.ended_in(next, epoch),
            Ok(started) => assert_eq!(started, epoch, "the store and the plan count epochs alike"),
            Err(error) => self.committed(epoch, Err(error.into())),
        }
    }

    /// The step that the plan counts as `counted` is over, and belongs to an epoch.
    fn ended_in(&mut self, epoch: u64, counted: u64) {
        self.events.push_back(Event::CommitDone(counted));
        if let Some(waiting) = self.committing.take() {
            answer(&waiting.sender, Ok(epoch));
        }
        self.begin_commit();
    }

    pub(crate) fn committed(&mut self, epoch: u64, result: Result<(), Error>) {
        match result {
            Ok(()) => self.ended_in(epoch, epoch),
            Err(cause) => {
                self.abort(epoch, cause);
                self.events.push_back(Event::Rollback);
            }
        }
    }

    /// What the step wrote is dropped, once a commit under way is over.
    pub(crate) fn abort_step(&mut self) -> Result<(), Error> {
        const CALL: &str = "abort_step";
        self.usable()?;
        if !self.in_step {
            return Err(Error::Step { call: CALL, rule: "needs a step: begin one first" });
        }
        self.no_leases(CALL)?;
        if self.store.durability() != Durability::Step {
            if self.step_writes {
                return Err(Error::NotTaken { call: CALL });
            }
            self.nobody_waits(CALL)?;
            self.in_step = false;
            self.notes.clear();
            return Ok(());
        }
        self.finish_commit(CALL)?;
        self.drop_step(Error::Aborted)
    }

    /// Drops what the running step has written, and all cached slots of durable units: the state is that of the newest
    /// durable epoch. Who waits in `acquire`, or comes before the next step, hears `why`.
    fn drop_step(&mut self, why: Error) -> Result<(), Error> {
        (self.in_step, self.step_writes) = (false, false);
        self.notes.clear();
        self.give_up_final();
        self.aborted = Some(Aborted::asked_for(why));
        self.events.push_back(Event::Rollback);
        self.decide();
        // A lease that was granted while a record was waited for comes back first: the next call sees to that.
        while self.aborted.as_ref().is_some_and(|aborted| aborted.rolling_back)
            && self.no_leases("rollback").is_ok()
        {
            self.alive()?;
            self.take_one()?;
        }
        Ok(())
    }

    /// Keeps the newest epoch under a name. Where steps are no epochs, all that is dirty is written and made one first.
    pub(crate) fn snapshot(&mut self, name: &str) -> Result<(), Error> {
        const CALL: &str = "snapshot";
        self.between_steps(CALL)?;
        if self.store.durability() == Durability::Snapshot {
            self.nobody_waits(CALL)?;
            self.flush(false, CALL)?;
        }
        self.keep_record(|store| store.snapshot(name).map(|()| true))
    }

    pub(crate) fn delete_snapshot(&mut self, name: &str) -> Result<(), Error> {
        self.between_steps("delete_snapshot")?;
        self.keep_record(|store| store.delete_snapshot(name).map(|()| true))
    }

    /// Goes back to a snapshot, or to the newest durable epoch.
    pub(crate) fn rollback(&mut self, to: Option<&str>) -> Result<Epoch, Error> {
        const CALL: &str = "rollback";
        self.alive()?;
        self.settle_rollback(CALL)?;
        self.no_leases(CALL)?;
        match self.store.durability() {
            Durability::None => return Err(hoist_store::Error::NoSnapshots.into()),
            Durability::Snapshot if to.is_none() => return Err(Error::NotTaken { call: CALL }),
            Durability::Snapshot | Durability::Step => {}
        }
        if to.is_some() && self.store.awaits_final() {
            // Refused by the store only when all that is newer than the last snapshot would have been dropped for it.
            let rule = "to a snapshot comes when the newest epoch is final: finalize it first";
            return Err(Error::Step { call: CALL, rule });
        }
        // A name that is none must not cost what is running.
        if let Some(name) = to.filter(|name| !self.store.snapshots().any(|(one, _)| one == *name)) {
            self.store.rollback_to(name)?;
        }
        self.end_abort()?;
        self.finish_commit(CALL)?;
        self.drop_step(Error::Aborted)?;
        self.settle_rollback(CALL)?;
        self.end_abort()?;
        if let Some(name) = to {
            self.go_back(name)?;
        }
        Ok(self.store.newest())
    }

    fn go_back(&mut self, name: &str) -> Result<(), Error> {
        let went = self.keep_record(|store| store.rollback_to(name).map(|_| true));
        // Where steps are no epochs, the store is at the last snapshot whether it went further or not.
        if went.is_ok() || self.store.durability() == Durability::Snapshot {
            self.epoch = self.store.epoch() + 1;
            let specs = self.units.specs(&self.store);
            self.plan.replace_stored(specs.into_iter().map(|spec| spec.stored), self.epoch);
            self.errors.clear();
        }
        went
    }

    /// Has the store write a record, if it says that there is one, and waits until it is durable.
    pub(crate) fn keep_record(
        &mut self,
        start: impl FnOnce(&mut Store) -> Result<bool, hoist_store::Error>,
    ) -> Result<(), Error> {
        if !start(&mut self.store)? {
            return Ok(());
        }
        (self.recording, self.recorded) = (true, None);
        let result = loop {
            if let Some(result) = self.recorded.take() {
                break result;
            }
            self.alive()?;
            self.take_one()?;
        };
        self.recording = false;
        let Err(cause) = result else { return Ok(()) };
        let error = Error::Record { cause: Box::new(cause) };
        // The record may be on a drive: nothing is written until it is taken back.
        if self.store.retract_record().is_ok() {
            return Err(error);
        }
        if self.store.durability() == Durability::Step {
            self.drop_step(error.clone())?;
        } else {
            self.fail(error.clone());
        }
        Err(error)
    }

    /// Nothing runs: no step, no commit, and nothing is rolled back.
    fn between_steps(&mut self, call: &'static str) -> Result<(), Error> {
        self.alive()?;
        self.settle_rollback(call)?;
        if self.in_step {
            return Err(Error::Step {
                call,
                rule: "cannot be called within a step: commit or abort it first",
            });
        }
        self.no_leases(call)?;
        self.end_abort()?;
        self.finish_commit(call)
    }

    pub(crate) fn no_leases(&self, call: &'static str) -> Result<(), Error> {
        let count = self.held.len() - self.releasing.len();
        if count > 0 { Err(Error::LeasesHeld { call, count }) } else { Ok(()) }
    }

    /// Waits for the commit under way, and for the device. Not beside a lease that is granted meanwhile: its holder may
    /// wait for a call that comes after this one.
    fn finish_commit(&mut self, call: &'static str) -> Result<(), Error> {
        while self.committing.is_some() || self.next_commit.is_some() || !self.releasing.is_empty() {
            self.alive()?;
            self.no_leases(call)?;
            self.not_until_final(call)?;
            self.take_one()?;
        }
        self.no_leases(call)?;
        self.usable()
    }
}
