//! Ctrl-C: the first asks the work to end, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit status of a process that a second signal ended: 128 and the number of SIGINT, as shells have it.
const STATUS_ENDED: i32 = 130;
/// How long work may go on without looking: well under the 2 s in which an interrupted run must have ended.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Interrupted work that still goes on after this ends at once: 2 s are promised.
const GRACE: Duration = Duration::from_millis(1800);

/// Whether the work has been asked to end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks for SIGINT and SIGTERM.
    ///
    /// # Errors
    /// When the kernel refuses a handler.
    pub fn install() -> std::io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Handlers run in this order: the first signal finds the flag unset and sets it, the second ends.
            flag::register_conditional_shutdown(signal, STATUS_ENDED, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        let watched = Self(asked);
        let watcher = watched.clone();
        std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || watcher.watch())?;
        Ok(watched)
    }

    /// Ends the process when interrupted work does not: the kernel may be in the middle of something long.
    fn watch(&self) {
        while !self.is_set() {
            std::thread::sleep(SLEEP_MAX);
        }
        std::thread::sleep(GRACE);
        eprintln!(
            "hoist: interrupted: the work did not end in time, so it was left; a store opens at its last epoch"
        );
        std::process::exit(1);
    }

    /// Whether the work has been asked to end.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sleeps, unless and until the work is asked to end.
    pub fn sleep(&self, duration: Duration) {
        let mut left = duration;
        while !left.is_zero() && !self.is_set() {
            let nap = left.min(SLEEP_MAX);
            std::thread::sleep(nap);
            left -= nap;
        }
    }
}
