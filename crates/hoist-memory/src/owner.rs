//! Who may touch the memory: the process that mapped it, not its forked children.

use crate::{Error, SECTOR_BYTES};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

/// Knows whether this process mapped the memory, at the cost of one load: a page that the kernel wipes in a forked
/// child (`MADV_WIPEONFORK`) holds the owner's pid. `getpid` would be a system call per allocation.
pub(crate) struct Owner {
    page: NonNull<AtomicU32>,
    pid: u32,
}

// SAFETY: the page holds one atomic that is written once, before the value is shared; the mapping lives as long as it.
unsafe impl Send for Owner {}
// SAFETY: as above; all access through a shared reference is an atomic load.
unsafe impl Sync for Owner {}

impl Owner {
    pub(crate) fn claim() -> Result<Owner, Error> {
        let failed =
            |source: rustix::io::Errno| Error::Reserve { bytes: SECTOR_BYTES, source: source.into() };
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
        let page = unsafe { mmap_anonymous(ptr::null_mut(), SECTOR_BYTES, access, MapFlags::PRIVATE) }
            .map_err(failed)?;
        let pid = std::process::id();
        let owner =
            Owner { page: NonNull::new(page.cast()).ok_or_else(|| failed(rustix::io::Errno::NOMEM))?, pid };
        // SAFETY: the range is the page just mapped; the advice changes only what a child sees.
        unsafe { madvise(page, SECTOR_BYTES, Advice::LinuxWipeOnFork) }.map_err(failed)?;
        owner.stamp().store(pid, Ordering::Relaxed);
        Ok(owner)
    }

    fn stamp(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped readable and writable until drop, page-aligned, and zeros are a valid AtomicU32.
        unsafe { self.page.as_ref() }
    }

    /// Whether this process is the owner. A wiped page reads 0, which is no process's pid.
    pub(crate) fn is_here(&self) -> bool {
        self.stamp().load(Ordering::Relaxed) == self.pid
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_here() {
            return Ok(());
        }
        Err(Error::Forked { owner_pid: self.pid, pid: std::process::id() })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: the page was mapped by `claim` with this size, is unmapped only here, and no reference outlives self.
        let _ = unsafe { munmap(self.page.as_ptr().cast(), SECTOR_BYTES) };
    }
}
