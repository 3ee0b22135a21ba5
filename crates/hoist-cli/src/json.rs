//! The file that `--json` names.

use std::path::Path;

use serde::Serialize;

use crate::failure::Failure;

/// Writes what a command found, if a file is named.
///
/// # Errors
/// What the file system says.
pub fn write(found: &impl Serialize, path: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let written = || {
        let mut text = serde_json::to_string_pretty(found)?;
        text.push('\n');
        std::fs::write(path, text)
    };
    written().map_err(|error: std::io::Error| {
        Failure::work(format!("writing {}", path.display()), error, "name a file that can be written")
    })
}
