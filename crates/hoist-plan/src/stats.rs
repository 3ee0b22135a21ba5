use crate::contract::Cause;

/// Time that clients waited in `acquire`, by cause, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// For bytes from NVMe.
    pub nvme_read_ns: u64,
    /// For write-back.
    pub nvme_write_ns: u64,
    /// For copies to the device.
    pub h2d_ns: u64,
    /// For copies from the device.
    pub d2h_ns: u64,
    /// For host pages.
    pub host_full_ns: u64,
    /// For device ranges.
    pub device_full_ns: u64,
}

impl Stalls {
    pub(crate) fn add(&mut self, cause: Cause, ns: u64) {
        let sum = match cause {
            Cause::NvmeRead => &mut self.nvme_read_ns,
            Cause::NvmeWrite => &mut self.nvme_write_ns,
            Cause::H2d => &mut self.h2d_ns,
            Cause::D2h => &mut self.d2h_ns,
            Cause::HostFull => &mut self.host_full_ns,
            Cause::DeviceFull => &mut self.device_full_ns,
        };
        *sum += ns;
    }

    /// The sum of both, cause by cause.
    pub fn plus(self, other: Stalls) -> Stalls {
        Stalls {
            nvme_read_ns: self.nvme_read_ns + other.nvme_read_ns,
            nvme_write_ns: self.nvme_write_ns + other.nvme_write_ns,
            h2d_ns: self.h2d_ns + other.h2d_ns,
            d2h_ns: self.d2h_ns + other.d2h_ns,
            host_full_ns: self.host_full_ns + other.host_full_ns,
            device_full_ns: self.device_full_ns + other.device_full_ns,
        }
    }

    /// All causes together.
    pub fn total_ns(&self) -> u64 {
        self.nvme_read_ns
            + self.nvme_write_ns
            + self.h2d_ns
            + self.d2h_ns
            + self.host_full_ns
            + self.device_full_ns
    }
}

/// What the plan has moved so far, and the most that was in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes asked of NVMe.
    pub read_bytes: u64,
    /// Bytes sent to NVMe.
    pub write_bytes: u64,
    /// Bytes copied host to device.
    pub h2d_bytes: u64,
    /// Bytes copied device to host.
    pub d2h_bytes: u64,
    /// Most bytes of host pages in use at once.
    pub host_peak_bytes: u64,
    /// Most bytes of device memory in use at once.
    pub device_peak_bytes: u64,
    /// Units that were given up before their planned time, because a demand found no room.
    pub emergency_evictions: u64,
    /// Demands that were not the next access of the order.
    pub departures: u64,
    /// Waiting, by cause.
    pub stalls: Stalls,
}
