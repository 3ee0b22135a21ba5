//! Waking a backend that waits.

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Makes a waiting [`crate::Backend::reap`] return. A wake is never lost: one that comes before the wait ends it.
#[derive(Clone)]
pub struct Waker {
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Waker {
    /// A waker that calls `wake`, for backends of other crates.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Waker {
        Waker { wake: Arc::new(wake) }
    }

    /// Wakes; cheap when a wake is pending already.
    pub fn wake(&self) {
        (self.wake)();
    }
}

/// An eventfd that the ring reads, so that waiting for transfers and for a wake is one wait.
pub(crate) struct WakeFd {
    fd: OwnedFd,
    /// Whether the eventfd was written and the ring's reader has not seen it: saves the system call.
    pending: AtomicBool,
}

impl WakeFd {
    pub(crate) fn new() -> std::io::Result<WakeFd> {
        // Without NONBLOCK on purpose: on such a file the ring's read would end with EAGAIN instead of waiting.
        Ok(WakeFd { fd: eventfd(0, EventfdFlags::CLOEXEC)?, pending: AtomicBool::new(false) })
    }

    pub(crate) fn wake(&self) {
        if self.pending.swap(true, Ordering::SeqCst) {
            return;
        }
        // Blocks only when 2^64 - 2 wakes were not read, and `pending` allows one.
        while rustix::io::write(&self.fd, &1u64.to_ne_bytes()) == Err(rustix::io::Errno::INTR) {}
    }

    /// To be called when the eventfd was read, before the caller looks at what it was woken for.
    pub(crate) fn seen(&self) {
        self.pending.store(false, Ordering::SeqCst);
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
