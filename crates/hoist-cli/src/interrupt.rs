//! Ctrl-C: the first asks the work to end, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::Failure;

/// Exit status of a process that a second signal ended: 128 and the number of SIGINT, as shells have it.
const STATUS_ENDED: i32 = 130;
/// How long work may go on without looking: well under the 2 s in which an interrupted run must have ended.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Interrupted work that still goes on after this ends at once: 2 s are promised, on busy machines too, and the kernel
/// took up to 0.4 s to take a process with 600 MiB of locked memory and a full ring apart.
const GRACE: Duration = Duration::from_millis(1000);

/// What is still to be said when work is left in its middle.
type LastWords = Box<dyn FnOnce() + Send>;

/// Whether the work has been asked to end.
#[derive(Clone, Default)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    last_words: Arc<Mutex<Option<LastWords>>>,
}

impl Interrupt {
    /// Asks for SIGINT and SIGTERM.
    ///
    /// # Errors
    /// When the kernel refuses a handler.
    pub fn install() -> Result<Self, Failure> {
        Self::handle().map_err(|error| {
            Failure::work("installing a handler for Ctrl-C", error, "report it: this should not be")
        })
    }

    fn handle() -> std::io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Handlers run in this order: the first signal finds the flag unset and sets it, the second ends.
            flag::register_conditional_shutdown(signal, STATUS_ENDED, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        let watched = Self { asked, ..Self::default() };
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
        if let Some(words) = self.swap_last_words(None) {
            words();
        }
        eprintln!(
            "hoist: interrupted: the work did not end in time, so it was left; a store opens at its last epoch"
        );
        std::process::exit(1);
    }

    /// Sets what is still to be said when the work must be left in its middle; nothing, once it has been said.
    pub fn set_last_words(&self, words: Option<LastWords>) {
        self.swap_last_words(words);
    }

    fn swap_last_words(&self, words: Option<LastWords>) -> Option<LastWords> {
        let mut held = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut held, words)
    }

    /// Whether the work has been asked to end.
    pub fn is_set(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
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
