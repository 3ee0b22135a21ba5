//! Where what a command found goes: standard output, and the files that a user names.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::Problem;
use crate::failure::Failure;

/// Prints a text. A reader who has left, such as `head`, has seen enough: the work goes on and ends as it would.
///
/// # Errors
/// When what standard output goes to takes no more.
pub fn print(text: impl Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::work("writing to standard output", error, "make room where it goes"))
        }
        _ => Ok(()),
    }
}

/// Finds out before any work whether a file can be written there: what took long to find would be lost.
///
/// # Errors
/// What is wrong with the path that was given with this flag.
pub fn check(flag: &str, path: &Path) -> Result<(), Problem> {
    let key = format!("{flag} {}", path.display());
    if path.is_dir() {
        return Err(Problem::new(key, "is a directory", "name a file"));
    }
    if !folder(path).is_dir() {
        return Err(Problem::new(key, "lies in no directory that is there", "make it, or name another"));
    }
    Ok(())
}

/// The same for the file of `--json`, if one is named.
pub fn json_problem(path: Option<&Path>) -> Option<Problem> {
    check("--json", path?).err()
}

/// The directory that a file lies in.
pub fn folder(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    folder.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Writes what a command found to the file of `--json`, if one is named.
///
/// # Errors
/// What the file system says.
pub fn write_json(found: &impl Serialize, path: Option<&Path>) -> Result<(), Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_is_found_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let problem = |path: &Path| json_problem(Some(path)).map(|problem| problem.to_string());
        assert!(json_problem(None).is_none());
        assert!(problem(Path::new("report.json")).is_none());
        assert!(problem(&folder.path().join("report.json")).is_none());
        assert!(problem(folder.path()).unwrap().contains("is a directory"));
        let nowhere = problem(&folder.path().join("nowhere/report.json")).unwrap();
        assert!(nowhere.starts_with("--json") && nowhere.contains("no directory"), "{nowhere}");
    }
}
