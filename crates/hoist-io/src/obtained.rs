//! What the machine gave of what was asked for.

use std::fmt;

/// What a backend is made of, found by trying. Printed by `hoist doctor` and kept in reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obtained {
    /// `uring`, `tokio-uring` or `pread`.
    pub backend: &'static str,
    /// Blocks that the kernel has at a time, at most.
    pub queue_depth: u32,
    /// The flags that the ring was made with; empty without a ring.
    pub ring_flags: Vec<&'static str>,
    /// Pieces of the slab that are registered with the ring: 0 when none is.
    pub registered_pieces: u32,
    /// Whether all rings of the slab share one registration: its memory counts as pinned once, not once per ring.
    pub registered_once: bool,
    /// Files opened for direct I/O since the start.
    pub files_direct: u32,
    /// Files for which direct I/O was asked and refused.
    pub files_buffered: u32,
    /// Files that the ring knew by a place in its table, of all that were opened since the start.
    pub files_registered: u32,
    /// Memory of the slab that what is read of sources goes through, in bytes: 0 while none is open past the page cache.
    pub bounce_bytes: u64,
    /// What lets memory or files be registered, of the first refusal; none where nothing was refused.
    pub registration_advice: Option<&'static str>,
    /// Each step down, with its cause.
    pub stepped_down: Vec<String>,
}

impl Obtained {
    /// Records a step down, loudly.
    pub(crate) fn step_down(&mut self, step: String) {
        tracing::warn!(step, "I/O stepped down");
        self.stepped_down.push(step);
    }
}

impl fmt::Display for Obtained {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} x {}", self.backend, self.queue_depth)?;
        if !self.ring_flags.is_empty() {
            let once = if self.registered_once { " once for all rings" } else { "" };
            let (flags, pieces) = (self.ring_flags.join("|"), self.registered_pieces);
            write!(out, " ({flags}), {pieces} pieces registered{once}")?;
        }
        write!(out, ", {} files direct, {} buffered", self.files_direct, self.files_buffered)?;
        if !self.ring_flags.is_empty() {
            write!(out, ", {} registered", self.files_registered)?;
        }
        if self.bounce_bytes > 0 {
            write!(out, ", {} bytes for sectors of files in place", self.bounce_bytes)?;
        }
        self.stepped_down.iter().try_for_each(|step| write!(out, "; {step}"))
    }
}
