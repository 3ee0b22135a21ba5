//! The part of the config that this crate reads.

use std::fmt;

/// What the emulated device is: its memory and its two links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Device memory in bytes: the arena is exactly this long.
    pub budget_bytes: u64,
    /// Bandwidth of the link from host to device, bytes per second.
    pub h2d_bytes_per_second: u64,
    /// Bandwidth of the link from device to host, bytes per second.
    pub d2h_bytes_per_second: u64,
}

impl Config {
    /// Everything that is wrong with the config, each with its key; empty when it can work.
    pub fn problems(&self) -> Vec<Problem> {
        [
            ("device.budget", self.budget_bytes, "a size above 0 bytes, such as \"2 GiB\""),
            ("device.h2d", self.h2d_bytes_per_second, "a bandwidth above 0, such as \"24 GB/s\""),
            ("device.d2h", self.d2h_bytes_per_second, "a bandwidth above 0, such as \"24 GB/s\""),
        ]
        .into_iter()
        .filter(|(_, value, _)| *value == 0)
        .map(|(key, value, right)| Problem { key, what: format!("is {value}"), would_be_right: right.into() })
        .collect()
    }
}

/// One thing that is wrong with a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key in the config file.
    pub key: &'static str,
    /// What is wrong with its value.
    pub what: String,
    /// A value that would be right.
    pub would_be_right: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}; right would be {}", self.key, self.what, self.would_be_right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named_at_once() {
        let config = Config { budget_bytes: 0, h2d_bytes_per_second: 0, d2h_bytes_per_second: 1 };
        let keys: Vec<_> = config.problems().iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["device.budget", "device.h2d"]);
        assert_eq!(Config { budget_bytes: 1, h2d_bytes_per_second: 1, ..config }.problems(), []);
    }
}
