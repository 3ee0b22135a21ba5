//! What can be wrong with a config, said so that it can be put right at once.

use std::fmt;

/// One thing wrong with a config: the key, what is wrong with it, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key, or the file or option where no key can be named.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub would_be_right: String,
}

impl Problem {
    /// A problem with `key`.
    pub fn new(key: impl Into<String>, what: impl Into<String>, would_be_right: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into(), would_be_right: would_be_right.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.key, self.what, self.would_be_right)
    }
}
