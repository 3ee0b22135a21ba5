//! How far a run has come: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// Tells a person how far a run has come, on stderr.
pub struct Progress {
    bar: ProgressBar,
    plain: bool,
}

impl Progress {
    /// For a run of this many accesses in all.
    pub fn new(accesses: u64) -> Self {
        let plain = !stderr().is_terminal();
        let bar = if plain { ProgressBar::hidden() } else { ProgressBar::new(accesses) };
        // The template is a constant; were it wrong, the default style would be shown.
        if let Ok(style) = ProgressStyle::with_template("{msg:24} {bar:40} {percent:>3} % {elapsed}") {
            bar.set_style(style);
        }
        Self { bar, plain }
    }

    /// Something else begins.
    pub fn begin(&self, what: impl Into<String>) {
        let what = what.into();
        if self.plain {
            eprintln!("{what}");
        }
        self.bar.set_message(what);
    }

    /// One access has ended.
    pub fn advance(&self) {
        self.bar.inc(1);
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        if self.plain { eprintln!("{line}") } else { self.bar.println(line) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
