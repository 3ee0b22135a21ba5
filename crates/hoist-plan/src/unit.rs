use crate::contract::{LeaseId, Refusal, RequestId, Tier, UnitId};

/// What a unit's bytes are worth after the step, and where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Belongs to epochs.
    Durable,
    /// Never does.
    Scratch,
    /// Like scratch, and can be made from these units' host slots when it is nowhere.
    Derived {
        /// Durable units that hold the elements which this one is a cast of.
        sources: Vec<UnitId>,
    },
}

/// One unit as the driver declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitSpec {
    /// Its length; it takes whole pages on the host and 256-byte steps on the device.
    pub bytes: u64,
    /// Durable, scratch or derived.
    pub kind: Kind,
    /// NVMe holds its newest version when the plan begins.
    pub stored: bool,
}

/// How a host slot gets its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    Reading(RequestId),
    Verifying(RequestId),
    /// Its sources are being brought to the host.
    Gathering,
    Deriving(RequestId),
    CopyingOut(RequestId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Absent,
    Filling(Fill),
    /// `blank`: for an overwrite that has not been released yet; holds no bytes of the unit.
    Present {
        blank: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    Absent,
    Filling { offset: u64 },
    Present { offset: u64, blank: bool },
}

/// How far the write-back of the newest version has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteBack {
    Idle,
    Queued,
    Summing(RequestId),
    Writing(RequestId),
}

/// Who holds a copy: one writer or any number of readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holds {
    pub(crate) readers: u32,
    pub(crate) writer: bool,
}

impl Holds {
    pub(crate) fn none(self) -> bool {
        self.readers == 0 && !self.writer
    }
}

/// What comes next for a unit: filled in when an access to it is granted, from the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// Position of the next access in the endless sequence of accesses; `u64::MAX`: none known.
    pub(crate) seq: u64,
    pub(crate) tier: Tier,
    /// Whether that access, or another order's, needs the bytes.
    pub(crate) reads: bool,
    /// The placement keeps it on the host until then.
    pub(crate) keep_host: bool,
    /// The placement keeps it on the device until then.
    pub(crate) keep_device: bool,
    /// It will be changed again before this step ends, so writing it now would be for nothing.
    pub(crate) written_again: bool,
}

impl Next {
    pub(crate) const NEVER: Next = Next {
        seq: u64::MAX,
        tier: Tier::Host,
        reads: true,
        keep_host: false,
        keep_device: false,
        written_again: false,
    };
}

pub(crate) struct Unit {
    pub(crate) spec: UnitSpec,
    pub(crate) pages: u64,
    /// NVMe holds the newest version.
    pub(crate) stored: bool,
    /// The newest durable epoch has a version of it.
    pub(crate) in_epoch: bool,
    pub(crate) host: Host,
    pub(crate) host_holds: Holds,
    pub(crate) device: Device,
    pub(crate) device_holds: Holds,
    /// Waits for room on the host to be copied there.
    pub(crate) drain_queued: bool,
    /// A copy to the host is in flight.
    pub(crate) draining: bool,
    /// A demand found no room: leaves before its planned time.
    pub(crate) evict_host: bool,
    pub(crate) evict_device: bool,
    /// Derived units that wait for this one's host slot.
    pub(crate) wanted: u32,
    /// Derived units that are made from this one.
    pub(crate) derivatives: Vec<UnitId>,
    /// Made from its sources ahead of its first access, which has not come yet.
    pub(crate) made_ahead: bool,
    /// The read in flight has been promoted to a demand's.
    pub(crate) promoted: bool,
    pub(crate) write_back: WriteBack,
    /// Epoch of the newest version, while it is durable and not on NVMe yet.
    pub(crate) unsaved: Option<u64>,
    pub(crate) next: Next,
    /// Counted in the plan's `kept_pages` / `kept_device_bytes`.
    pub(crate) kept_host: bool,
    pub(crate) kept_device: bool,
    /// Listed in the plan's `kept_elsewhere` under this sequence number.
    pub(crate) elsewhere_until: Option<u64>,
    /// Why it could not be brought the last time; a new demand tries again.
    pub(crate) refused: Option<Refusal>,
    /// The oldest waiting demand that uses it.
    pub(crate) demanded_by: Option<LeaseId>,
    /// The last write of it failed: it stays in memory, and is not tried again by itself.
    pub(crate) write_failed: bool,
}

impl Unit {
    pub(crate) fn new(spec: UnitSpec, page_bytes: u64) -> Unit {
        Unit {
            pages: spec.bytes.div_ceil(page_bytes).max(1),
            stored: spec.stored,
            in_epoch: spec.stored,
            spec,
            host: Host::Absent,
            host_holds: Holds::default(),
            device: Device::Absent,
            device_holds: Holds::default(),
            drain_queued: false,
            draining: false,
            evict_host: false,
            evict_device: false,
            wanted: 0,
            derivatives: Vec::new(),
            made_ahead: false,
            promoted: false,
            write_back: WriteBack::Idle,
            unsaved: None,
            next: Next::NEVER,
            kept_host: false,
            kept_device: false,
            elsewhere_until: None,
            refused: None,
            demanded_by: None,
            write_failed: false,
        }
    }

    pub(crate) fn durable(&self) -> bool {
        matches!(self.spec.kind, Kind::Durable)
    }

    /// The host slot holds the newest version.
    pub(crate) fn on_host(&self) -> bool {
        matches!(self.host, Host::Present { blank: false })
    }

    /// The device range holds the newest version.
    pub(crate) fn on_device(&self) -> bool {
        matches!(self.device, Device::Present { blank: false, .. })
    }

    /// Nobody reads the newest version any more, so the order says, and no epoch needs it.
    pub(crate) fn dead(&self) -> bool {
        !self.next.reads && if self.durable() { self.stored } else { true }
    }

    /// The newest version is in memory, not on NVMe.
    pub(crate) fn only_in_memory(&self) -> bool {
        !self.stored && (self.on_host() || self.on_device())
    }
}
