//! What the machine gave of what was asked for.

use std::fmt;

/// What a slab is made of, found by trying and read back from the kernel. Printed by `hoist doctor` and kept in reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obtained {
    /// Bytes mapped in all: the budget rounded down to pages.
    pub bytes: u64,
    /// Bytes in reserved huge pages (`MAP_HUGETLB`).
    pub hugetlb_bytes: u64,
    /// Bytes in transparent huge pages, as `AnonHugePages` in smaps said after populating.
    pub transparent_bytes: u64,
    /// Bytes in small pages: the rest.
    pub small_bytes: u64,
    /// Bytes that `mlock` took.
    pub locked_bytes: u64,
    /// Each step down, with its cause.
    pub stepped_down: Vec<String>,
}

impl fmt::Display for Obtained {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} bytes: {} in hugetlb pages, {} in transparent huge pages, {} in small pages; {} locked",
            self.bytes, self.hugetlb_bytes, self.transparent_bytes, self.small_bytes, self.locked_bytes
        )?;
        self.stepped_down.iter().try_for_each(|step| write!(out, "; {step}"))
    }
}
