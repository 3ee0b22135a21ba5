//! What this machine can do for hoist, found by trying.

mod directory;
mod machine;

use std::fmt;
use std::path::PathBuf;

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Ok,
    /// hoist works, less well.
    Degraded,
    /// hoist does not work.
    Broken,
}

/// One thing that was examined.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What was examined.
    pub what: String,
    /// How well it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do about it; none when it is as it should be.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), state: State::Ok, found: found.into(), remedy: None }
    }

    fn bad(
        state: State,
        what: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), state, found: found.into(), remedy: Some(remedy.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ok => "ok",
            State::Degraded => "degraded",
            State::Broken => "broken",
        };
        write!(f, "{state:9} {}: {}", self.what, self.found)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "; {remedy}"))
    }
}

/// Everything about the machine, then about each directory.
pub fn examine(directories: &[PathBuf]) -> Vec<Finding> {
    let mut findings = machine::examine();
    findings.extend(directories.iter().flat_map(|path| directory::examine(path)));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_this_machine_can_be_used() {
        let folder = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        let findings = examine(&[folder.path().to_owned()]);
        let shown: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(findings.iter().all(|finding| finding.state != State::Broken), "{shown:#?}");
        assert!(
            findings.iter().all(|finding| (finding.state == State::Ok) == finding.remedy.is_none()),
            "{shown:#?}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a trial file was left");
    }

    #[test]
    fn a_folder_that_is_not_there_is_broken() {
        let findings = examine(&[PathBuf::from("/nowhere/at/all")]);
        let broken: Vec<&Finding> =
            findings.iter().filter(|finding| finding.state == State::Broken).collect();
        assert_eq!(broken.len(), 1);
        assert!(broken[0].to_string().contains("/nowhere/at/all"));
    }
}
