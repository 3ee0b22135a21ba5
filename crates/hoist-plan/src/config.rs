use crate::bound::Bandwidths;

/// What the plan must keep within.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Pages of the host arena.
    pub host_pages: u64,
    /// Bytes of one page (1 MiB unless a test makes it small).
    pub page_bytes: u64,
    /// Bytes of the device arena.
    pub device_bytes: u64,
    /// Most bytes of prefetch reads, and of writes, in flight: what keeps the drives' queues full (for
    /// each directory twice queue depth x block size; what is moved is spread over all of them).
    pub credit_bytes: u64,
    /// Fetch ahead of demand and write behind it. Without, reads are serial and each write is
    /// waited for: the baseline that overlap is measured against.
    pub prefetch: bool,
    /// Durable units are written in the step that changes them (`durability = "step"`).
    pub write_each_step: bool,
    /// What the tiers can move, as measured: the split between resident and transit memory
    /// follows from it.
    pub bandwidths: Bandwidths,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, as in the config file.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub would_be_right: String,
}

impl Config {
    /// All problems at once; empty when the config can be used.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.host_pages < 2 {
            problems.push(Problem {
                key: "host.budget",
                what: format!("holds {} pages of {} bytes", self.host_pages, self.page_bytes),
                would_be_right: format!("at least 2 pages ({} bytes)", 2 * self.page_bytes),
            });
        }
        if !self.page_bytes.is_power_of_two() || self.page_bytes < 4096 {
            problems.push(Problem {
                key: "host.page_bytes",
                what: format!("is {}", self.page_bytes),
                would_be_right: "a power of two of at least 4096".into(),
            });
        }
        if self.credit_bytes == 0 {
            problems.push(Problem {
                key: "io.queue_depth",
                what: "leaves no byte in flight".into(),
                would_be_right: "a queue depth and block size of which the product is not 0".into(),
            });
        }
        let rates = &self.bandwidths;
        let rates = [
            ("bandwidths.read", rates.read),
            ("bandwidths.write", rates.write),
            ("bandwidths.mixed_read", rates.mixed_read),
            ("bandwidths.mixed_write", rates.mixed_write),
            ("bandwidths.h2d", rates.h2d),
            ("bandwidths.d2h", rates.d2h),
        ];
        for (key, rate) in rates.into_iter().filter(|(_, rate)| !rate.is_finite() || *rate <= 0.0) {
            problems.push(Problem {
                key,
                what: format!("is {rate} bytes per second"),
                would_be_right: "a number above 0: what was measured, or the data sheet's".into(),
            });
        }
        problems
    }
}
