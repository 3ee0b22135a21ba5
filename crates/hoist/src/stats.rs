use hoist_plan::Stalls;

/// What an engine has moved since it was opened, what it used, and what it obtained.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Bytes read from NVMe.
    pub nvme_read_bytes: u64,
    /// Bytes written to NVMe.
    pub nvme_write_bytes: u64,
    /// Bytes that the drives have taken for that: in whole blocks of 4 KiB, with the journal of every directory.
    pub drive_write_bytes: u64,
    /// Bytes copied host to device.
    pub h2d_bytes: u64,
    /// Bytes copied device to host.
    pub d2h_bytes: u64,
    /// The host budget in whole pages.
    pub host_budget_bytes: u64,
    /// Most bytes of host pages in use at once.
    pub host_peak_bytes: u64,
    /// The device budget.
    pub device_budget_bytes: u64,
    /// Most bytes of device memory in use at once.
    pub device_peak_bytes: u64,
    /// Bytes from NVMe whose checksums were compared before a lease saw them.
    pub summed_bytes: u64,
    /// Units that left memory before their planned time, because a demand found no room.
    pub emergency_evictions: u64,
    /// Accesses that were not the next of the order.
    pub departures: u64,
    /// Time waited in `acquire`, by cause.
    pub stalls: Stalls,
    /// What was obtained from the machine, a line each: backend, pages, locks, and each step down
    /// with its cause.
    pub obtained: Vec<String>,
}
