//! The contract between the plan and its driver: everything else hangs on these types.
//!
//! Every request that the plan makes carries a [`RequestId`] that it never uses again, so that a
//! late completion cannot be taken for another's.

/// A unit: what the plan moves as one (a shard, a piece of one, or a bundle). An index into the
/// table that [`Plan::new`](crate::Plan::new) was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId(pub u32);

/// One request of the plan to its driver. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One lease, numbered by the driver. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// One clone of the engine handle: it waits for at most one demand at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

/// A declared execution order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub u32);

/// Where a lease wants its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Device memory.
    Device,
    /// Host slots.
    Host,
}

/// What an access does with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Reads it.
    Read,
    /// Reads it and writes it.
    Update,
    /// Writes every byte of it without reading: what it held before is not fetched, and the order
    /// that declares it gives leave to forget those bytes once their last reader is done.
    Overwrite,
}

impl Mode {
    /// Whether the bytes from before are needed.
    pub fn reads(self) -> bool {
        !matches!(self, Mode::Overwrite)
    }
    /// Whether the lease is mutable.
    pub fn writes(self) -> bool {
        !matches!(self, Mode::Read)
    }
}

/// In which order the drive serves what is queued: strictly by this, then first come first served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A trainer waits for it.
    Demand,
    /// It will be wanted.
    Prefetch,
    /// It must leave, some time.
    WriteBack,
}

/// What a trainer waited for in `acquire`, or why the plan cannot go on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Bytes on their way from NVMe, their verification, or a derived unit being made from them.
    NvmeRead,
    /// A write-back that holds the bytes or the memory.
    NvmeWrite,
    /// A copy host to device.
    H2d,
    /// A copy device to host.
    D2h,
    /// No host page is free.
    HostFull,
    /// No device range is free.
    DeviceFull,
}

/// Why a demand was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The last request that tried to bring this unit failed; the driver knows how.
    Failed {
        /// What could not be had.
        unit: UnitId,
        /// The request that failed.
        request: RequestId,
    },
    /// The unit has never been written, or its order gave leave to forget it.
    NoContents {
        /// What is not there.
        unit: UnitId,
    },
    /// Every holder of leases is itself blocked, and nothing in flight frees memory.
    WouldDeadlock {
        /// What the refused demand was waiting for.
        waiting_for: Cause,
    },
    /// The memory that it needs is held by this unit, which could not be written; the driver knows why. That is tried
    /// again now.
    NotWritten {
        /// What is in the way.
        unit: UnitId,
    },
    /// What it asks for is being rolled back.
    RolledBack,
    /// Everything is being written out: what it would change comes too late.
    Flushed,
}

/// Why a checksum is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SumPurpose {
    /// Compare with what the manifest says: the bytes were just read.
    Verify,
    /// Put it into the manifest: the bytes are about to be written.
    Record,
}

/// What the driver tells the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step over this order begins: the next demand is expected at its first access.
    StepBegun(OrderId),
    /// A client asks for the access at this index of the current order and waits.
    Demanded {
        /// The lease that shall be granted.
        lease: LeaseId,
        /// Who waits.
        client: ClientId,
        /// Index of the access in the current order.
        access: u32,
    },
    /// The client let go of the lease, but the device still works on its bytes.
    Releasing(LeaseId),
    /// The lease's bytes may move. A mutable lease has changed what it held.
    Released(LeaseId),
    /// A read, write, checksum, derivation or copy has ended well.
    Done(RequestId),
    /// It has failed: what it read is not there, what it wrote is not written.
    Failed(RequestId),
    /// The step has ended; what it wrote shall become this epoch. Only after the epoch before it is
    /// durable.
    CommitBegun(u64),
    /// The driver has made the published epoch durable.
    CommitDone(u64),
    /// Drop what the running step has written, and the epoch being committed, if there is one: durable units go back to
    /// the newest durable epoch, and the step is over. Not while the driver makes an epoch durable: before, or when that
    /// has failed. Answered by [`Action::RolledBack`], when nothing is in flight and all leases are released. Where
    /// units are not written each step, what NVMe has is to be replaced then: see [`crate::Plan::replace_stored`].
    Rollback,
    /// Write what is nowhere but in memory: durable units, and with `all` scratch units too, and
    /// then forget all slots. Not while leases are held; who waits for one is refused. Answered by [`Action::Flushed`].
    Flush {
        /// Scratch too, and leave no slot behind.
        all: bool,
    },
}

/// Events are small: each crosses a channel.
const _: () = assert!(std::mem::size_of::<Event>() <= 32);

/// What the plan asks its driver to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Read the unit from NVMe into a new host slot.
    Read {
        /// Answered by `Done` or `Failed`.
        request: RequestId,
        /// What to read.
        unit: UnitId,
        /// How soon.
        priority: Priority,
    },
    /// Write the unit's host slot to NVMe.
    Write {
        /// Answered by `Done` or `Failed`.
        request: RequestId,
        /// What to write.
        unit: UnitId,
    },
    /// A trainer now waits for this queued request.
    Promote {
        /// The request, still in flight.
        request: RequestId,
    },
    /// Compute the checksums of the unit's host slot.
    Checksum {
        /// Answered by `Done` or `Failed`.
        request: RequestId,
        /// Whose bytes.
        unit: UnitId,
        /// To compare, or to keep.
        purpose: SumPurpose,
    },
    /// Make the derived unit in a new host slot from its sources' host slots.
    Derive {
        /// Answered by `Done` or `Failed`.
        request: RequestId,
        /// What to make.
        unit: UnitId,
    },
    /// Take a new, blank host slot for a unit that will be overwritten.
    BlankHost {
        /// Whose slot.
        unit: UnitId,
    },
    /// Take a blank device range for a unit that will be overwritten.
    BlankDevice {
        /// Whose range.
        unit: UnitId,
        /// Byte offset in the device arena.
        offset: u64,
    },
    /// Copy the unit's host slot into this device range.
    CopyIn {
        /// Answered by `Done`.
        request: RequestId,
        /// What to copy.
        unit: UnitId,
        /// Byte offset in the device arena.
        offset: u64,
    },
    /// Copy the unit's device range into a new host slot.
    CopyOut {
        /// Answered by `Done`.
        request: RequestId,
        /// What to copy.
        unit: UnitId,
    },
    /// Give the unit's host slot back.
    DropHost {
        /// Whose slot.
        unit: UnitId,
    },
    /// Give the unit's device range back.
    DropDevice {
        /// Whose range.
        unit: UnitId,
    },
    /// All units of the access are there and nobody else changes them: hand the lease out.
    Grant {
        /// To whom.
        lease: LeaseId,
    },
    /// The demand ends with an error.
    Refuse {
        /// Whose.
        lease: LeaseId,
        /// Why.
        refusal: Refusal,
    },
    /// Every durable byte of this epoch is on NVMe: make the epoch durable.
    Publish {
        /// Which.
        epoch: u64,
    },
    /// A durable write failed, or cannot be made because of another that failed: this epoch can never be published, and is
    /// rolled back as by [`Event::Rollback`].
    FailEpoch {
        /// Which.
        epoch: u64,
    },
    /// The flush is complete.
    Flushed,
    /// Nothing is in flight, nobody holds a lease, and no slot has bytes of a durable or derived unit any more. The next
    /// event may read.
    RolledBack,
}
