//! A report for people: rows of a name and a value.

use std::fmt::Write as _;

use comfy_table::{Table, presets};

/// Rows in two columns.
pub struct Rows {
    table: Table,
}

impl Rows {
    /// None yet.
    pub fn new() -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        Self { table }
    }

    /// One more.
    pub fn row(&mut self, name: &str, value: String) {
        self.table.add_row([name.to_owned(), value]);
    }

    /// What was obtained from the machine, a row each.
    pub fn obtained(&mut self, obtained: &[String]) {
        obtained.iter().for_each(|obtained| self.row("obtained", obtained.clone()));
    }

    /// All of them as text, behind a line that says why they are only a part, if they are.
    pub fn text(&self, partial: Option<String>) -> String {
        let mut text = String::new();
        if let Some(why) = partial {
            let _ = writeln!(text, "PARTIAL: {why}");
        }
        // The preset pads to the widest row; trailing blanks would only be in the way of a reader's clipboard.
        for line in self.table.to_string().lines() {
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}
