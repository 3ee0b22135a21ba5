use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use hoist_device::Event;
use hoist_plan::{Bandwidths, Bound, Mode, OrderId, Tier};
use hoist_store::{CHECKSUM_BYTES, Epoch, Scalars, TensorId, TensorInfo, Tensors};

use crate::error::Error;
use crate::lease::Lease;
use crate::message::{Call, EpochReply, Message};
use crate::order::{Order, TensorUse};
use crate::stats::Stats;

/// A handle on an open engine. Clones are clients: each waits for one lease at a time (threads that
/// acquire at once need a clone each, or a deadlock may be seen where there is none), and all share
/// the step. The engine ends when it is closed or when its last handle is dropped.
pub struct Engine {
    shared: Arc<Shared>,
    client: u32,
}

struct Shared {
    messages: Sender<Message>,
    /// Disconnected once the engine's thread has ended.
    ended: Receiver<()>,
    tensors: Tensors,
    notes: Vec<(String, Vec<u8>)>,
    opened_at: Epoch,
    clients: AtomicU32,
    thread: Mutex<Option<JoinHandle<()>>>,
    process: u32,
}

/// A commit under way.
#[derive(Debug)]
pub struct Commit {
    epoch: Receiver<Result<u64, Error>>,
    /// Set when the outcome has been taken.
    heard: Arc<AtomicBool>,
}

impl Commit {
    /// Waits until the step is durable; gives its epoch. Where steps are no epochs that is at once, and a promise of nothing:
    /// at durability `"snapshot"` the epoch is the one that the next snapshot makes, or [`Engine::close`] without one, at
    /// `"none"` the one that [`Engine::close`] makes, and all steps until then belong to it. Open at a snapshot, it is the
    /// snapshot's.
    ///
    /// # Errors
    /// [`Error::Commit`]: the step is lost, and the running one with it; the next begins at the epoch before it.
    pub fn wait(self) -> Result<u64, Error> {
        let outcome = self.epoch.recv().unwrap_or(Err(Error::Closed));
        self.heard.store(true, Ordering::Release);
        outcome
    }
}

impl Engine {
    pub(crate) fn new(
        messages: Sender<Message>,
        ended: Receiver<()>,
        tensors: Tensors,
        notes: Vec<(String, Vec<u8>)>,
        opened_at: Epoch,
        thread: JoinHandle<()>,
    ) -> Engine {
        let process = std::process::id();
        let (clients, thread) = (AtomicU32::new(1), Mutex::new(Some(thread)));
        Engine {
            shared: Arc::new(Shared { messages, ended, tensors, notes, opened_at, clients, thread, process }),
            client: 0,
        }
    }

    /// All tensors, in order of creation; a [`TensorId`] is a place in it.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.shared.tensors.all()
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<TensorId> {
        self.shared.tensors.find(name)
    }

    /// The notes of the store as they were when it was opened.
    pub fn notes(&self) -> &[(String, Vec<u8>)] {
        &self.shared.notes
    }

    /// The epoch at which the store was opened, with what the trainer said of it; number 0 when it was created.
    pub fn opened_at(&self) -> &Epoch {
        &self.shared.opened_at
    }

    /// A use of a whole tensor.
    ///
    /// # Panics
    /// When there is no such tensor.
    pub fn whole(&self, tensor: TensorId, mode: Mode) -> TensorUse {
        TensorUse { tensor, bytes: 0..self.tensors()[tensor.0 as usize].bytes, mode }
    }

    /// The piece that an order should use where it has no reason for another: a quarter of the
    /// tier's budget, so that one is used while others come and go.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn piece_bytes(&self, tier: Tier) -> Result<u64, Error> {
        let stats = self.stats()?;
        let budget_bytes =
            if tier == Tier::Host { stats.host_budget_bytes } else { stats.device_budget_bytes };
        Ok((budget_bytes / 4).next_multiple_of(CHECKSUM_BYTES).max(CHECKSUM_BYTES))
    }

    /// Cuts a tensor into pieces of at most `bytes_max` (at least 256 KiB each, which is what one
    /// checksum covers), each an access of its own. An order should use one cut of a tensor
    /// throughout: where it does not, leases come in several parts.
    ///
    /// # Panics
    /// When there is no such tensor.
    pub fn pieces(&self, tensor: TensorId, bytes_max: u64) -> Vec<Range<u64>> {
        let bytes = self.tensors()[tensor.0 as usize].bytes;
        let piece = (bytes_max - bytes_max % CHECKSUM_BYTES).max(CHECKSUM_BYTES);
        (0..bytes.div_ceil(piece)).map(|i| i * piece..((i + 1) * piece).min(bytes)).collect()
    }

    /// Declares an execution order. Outside a step, without leases.
    ///
    /// # Errors
    /// [`Error::BadAccess`]: an access that is larger than its tier's budget, with both numbers,
    /// or cut where it cannot be. [`Error::Step`] within a step, and, where tensors are cut that were not cut so before,
    /// beside a client that waits in [`Engine::acquire`]; [`Error::LeasesHeld`].
    pub fn declare(&self, order: Order) -> Result<OrderId, Error> {
        self.ask(|reply| Call::Declare(order, reply))?
    }

    /// The least time that a step over this order could take, and the least it must move, with
    /// these bandwidths, and these compute times (one for each access) instead of the declared
    /// ones where they are given.
    ///
    /// # Errors
    /// [`Error::NoSuch`]: no such order, or not one compute time for each access.
    pub fn bound(
        &self,
        order: OrderId,
        bandwidths: Bandwidths,
        compute: Option<Vec<Duration>>,
    ) -> Result<Bound, Error> {
        self.ask(|reply| Call::Bound { order, bandwidths, compute, reply })?
    }

    /// Begins a step over a declared order.
    ///
    /// # Errors
    /// [`Error::Step`] within a step; [`Error::NoSuch`]. [`Error::Commit`] when an epoch has failed and nobody has heard
    /// of it, or when its record cannot be taken back from a drive: call it again, then a step begins from the epoch
    /// before. [`Error::LeasesHeld`] by the step that was lost.
    pub fn begin_step(&self, order: OrderId) -> Result<(), Error> {
        self.ask(|reply| Call::Begin(order, reply))?
    }

    /// Waits for the access with this index of the current order. Accesses may come in another
    /// order than declared: that costs time, nothing else.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Transfer`], [`Error::NoContents`] name the tensor, and only it
    /// is affected. So does [`Error::Transfer`] when the memory that is needed is held by a tensor that could not be
    /// written: acquire again when the drive is well, or has space. [`Error::WouldDeadlock`]; [`Error::Step`];
    /// [`Error::Commit`]: an epoch has failed, and this step with it.
    pub fn acquire(&self, access: usize) -> Result<Lease, Error> {
        let client = self.client;
        let granted = self.ask(|reply| Call::Acquire { client, access, reply })??;
        Ok(Lease::new(granted, self.shared.messages.clone()))
    }

    /// Ends the step and begins to make it durable, with what the trainer says of it: [`Engine::opened_at`] gives that
    /// back. The next step may begin at once; the next commit waits for this one.
    ///
    /// # Errors
    /// [`Error::LeasesHeld`], [`Error::Step`] outside a step, [`Error::Commit`] when an earlier
    /// commit failed; scalars that are too large.
    pub fn commit_step(&self, scalars: &Scalars) -> Result<Commit, Error> {
        let scalars = scalars.clone();
        let (sender, epoch) = bounded(1);
        let heard = Arc::new(AtomicBool::new(false));
        let answers = EpochReply { sender, heard: Arc::clone(&heard) };
        self.ask(|reply| Call::Commit(scalars, reply, answers))??;
        Ok(Commit { epoch, heard })
    }

    /// Ends the step and drops what it has written: durable tensors are as the step before left them, scratch as this one
    /// did. A commit under way is waited for. At durability `"none"` and `"snapshot"` only a step that wrote no durable
    /// tensor can be aborted.
    ///
    /// # Errors
    /// [`Error::LeasesHeld`], [`Error::Step`] outside a step, [`Error::NotTaken`]; [`Error::Commit`] when the commit that was
    /// waited for failed, and with it this step.
    pub fn abort_step(&self) -> Result<(), Error> {
        self.ask(Call::Abort)?
    }

    /// Keeps the newest epoch under a name until it is deleted: no bytes are copied. Outside a step; a commit under way is
    /// waited for. At durability `"snapshot"` this is what makes an epoch: all that is dirty is written first.
    ///
    /// # Errors
    /// [`Error::Step`] within a step, and at durability `"snapshot"` beside a client that waits in [`Engine::acquire`];
    /// [`Error::LeasesHeld`], [`Error::Record`]; a name that is taken or cannot be one, and durability `"none"`, by the
    /// store's error.
    pub fn snapshot(&self, name: &str) -> Result<(), Error> {
        self.ask(|reply| Call::Snapshot(name.to_string(), reply))?
    }

    /// Keeps a snapshot no more; what only it had is free.
    ///
    /// # Errors
    /// As [`Engine::snapshot`]; a name that is none, by the store's error.
    pub fn delete_snapshot(&self, name: &str) -> Result<(), Error> {
        self.ask(|reply| Call::DeleteSnapshot(name.to_string(), reply))?
    }

    /// All snapshots, by name.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn snapshots(&self) -> Result<Vec<(String, Epoch)>, Error> {
        self.ask(Call::Snapshots)
    }

    /// Says that all ranks have made this epoch durable: the trainer calls it after a barrier of its own. Until then the
    /// engine keeps the epoch before it, so that all ranks can go on at one that all have (`store.epoch` of the config, one of
    /// [`Engine::epochs`]), and the commit after it waits. With one rank every epoch is final by itself.
    ///
    /// # Errors
    /// An epoch that is not the newest durable one, by the store's error; [`Error::Record`].
    pub fn finalize(&self, epoch: u64) -> Result<(), Error> {
        self.ask(|reply| Call::Finalize(epoch, reply))?
    }

    /// The epochs that the store can be opened at now: the newest durable one, and before it the one that is kept until that
    /// is final.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn epochs(&self) -> Result<Vec<u64>, Error> {
        self.ask(Call::Epochs)
    }

    /// Goes back to the newest durable epoch: drops the running step, and every byte of durable tensors in memory.
    ///
    /// # Errors
    /// [`Error::LeasesHeld`]; [`Error::NotTaken`] at durability `"snapshot"`, and the store's error at `"none"`.
    pub fn rollback(&self) -> Result<Epoch, Error> {
        self.ask(|reply| Call::Rollback(None, reply))?
    }

    /// Goes back to a snapshot: drops the running step, and makes a new epoch of what the snapshot has, its notes and what
    /// was said of its step included; that is returned. No bytes are copied, and all snapshots stay.
    ///
    /// # Errors
    /// [`Error::LeasesHeld`], [`Error::Record`]; [`Error::Step`] at durability `"snapshot"` beside a client that waits in
    /// [`Engine::acquire`]; a name that is none and durability `"none"`, by the store's error.
    pub fn rollback_to(&self, snapshot: &str) -> Result<Epoch, Error> {
        self.ask(|reply| Call::Rollback(Some(snapshot.to_string()), reply))?
    }

    /// Puts work of this length on the emulated device's stream; the event passes when it ends.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn launch(&self, compute: Duration) -> Result<Event, Error> {
        self.ask(|reply| Call::Launch(compute, reply))
    }

    /// Sets a small named record of the store; it becomes durable with the next commit.
    ///
    /// # Errors
    /// When it is too large.
    pub fn set_note(&self, key: &str, bytes: Vec<u8>) -> Result<(), Error> {
        self.ask(|reply| Call::Note(key.to_string(), bytes, reply))?
    }

    /// What has been moved and waited for since the engine was opened.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn stats(&self) -> Result<Stats, Error> {
        self.ask(Call::Stats)
    }

    /// Waits for a commit under way and closes the store. A step that was not committed is
    /// dropped; at durability `none` what is in memory is written. Every handle gets
    /// [`Error::Closed`] from then on.
    ///
    /// # Errors
    /// [`Error::LeasesHeld`]: nothing was closed. [`Error::Commit`]: a commit failed, and nobody may
    /// have heard of it. What the store said otherwise.
    pub fn close(&self) -> Result<(), Error> {
        self.ask(Call::Close)??;
        self.shared.join();
        Ok(())
    }

    fn ask<T>(&self, call: impl FnOnce(Sender<T>) -> Call) -> Result<T, Error> {
        if std::process::id() != self.shared.process {
            return Err(Error::Forked);
        }
        let (reply, answer) = bounded(1);
        self.shared.messages.send(Message::Call(call(reply))).map_err(|_| Error::Closed)?;
        select! {
            recv(answer) -> value => value.map_err(|_| Error::Closed),
            // An answer may have come just before the end.
            recv(self.shared.ended) -> _ => answer.try_recv().map_err(|_| Error::Closed),
        }
    }
}

impl Clone for Engine {
    /// Another client of the same engine.
    fn clone(&self) -> Engine {
        let client = self.shared.clients.fetch_add(1, Ordering::Relaxed);
        Engine { shared: Arc::clone(&self.shared), client }
    }
}

impl Shared {
    fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the engine's thread panicked");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A forked child has no such threads.
        if std::process::id() == self.process {
            let _ = self.messages.send(Message::Abandoned);
            self.join();
        }
    }
}
