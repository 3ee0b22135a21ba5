//! What this machine can do for hoist, found by trying. One module per area; each gives lines.

mod cgroup;
mod direct;
mod directory;
mod gpu;
mod kernel;
mod lock;
mod memory;
mod pages;
mod process;
mod ring;
mod trial;

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// hoist works, less well.
    Degraded,
    /// hoist does not work.
    Broken,
}

/// One thing that was examined: one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was examined.
    pub name: String,
    /// How well it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What that costs; none when it is as it should be.
    pub cost: Option<String>,
    /// What mends it, a command where there is one; none when it is as it should be.
    pub mend: Option<String>,
}

impl Finding {
    fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Ok, found: found.into(), cost: None, mend: None }
    }

    fn degraded(
        name: impl Into<String>,
        found: impl Into<String>,
        cost: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        let (cost, mend) = (Some(cost.into()), Some(mend.into()));
        Self { name: name.into(), state: State::Degraded, found: found.into(), cost, mend }
    }

    fn broken(
        name: impl Into<String>,
        found: impl Into<String>,
        cost: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { state: State::Broken, ..Self::degraded(name, found, cost, mend) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ok => "ok",
            State::Degraded => "degraded",
            State::Broken => "broken",
        };
        write!(f, "{state:9} {}: {}", self.name, self.found)?;
        self.cost.iter().try_for_each(|cost| write!(f, "; costs: {cost}"))?;
        self.mend.iter().try_for_each(|mend| write!(f, "; mend: {mend}"))
    }
}

/// Every line, as a program reads it.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// The machine's lines, then those of each directory.
    pub lines: Vec<Finding>,
}

impl Diagnosis {
    /// Examines the machine, then each directory.
    pub fn of(directories: &[PathBuf]) -> Self {
        let ring = ring::examine();
        let has_ring = ring.works;
        let mut lines = vec![kernel::examine(), ring.line, lock::examine()];
        lines.extend(pages::examine());
        lines.extend(memory::examine());
        lines.push(gpu::examine());
        lines.extend(directories.iter().flat_map(|path| directory::examine(path, has_ring)));
        Self { lines }
    }

    /// How many lines say that hoist does not work.
    pub fn broken(&self) -> usize {
        self.lines.iter().filter(|line| line.state == State::Broken).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_this_machine_can_be_used() {
        let folder = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        let diagnosis = Diagnosis::of(&[folder.path().to_owned()]);
        let shown: Vec<String> = diagnosis.lines.iter().map(ToString::to_string).collect();
        assert_eq!(diagnosis.broken(), 0, "{shown:#?}");
        for line in &diagnosis.lines {
            let well = line.state == State::Ok;
            assert_eq!((line.cost.is_none(), line.mend.is_none()), (well, well), "{line}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a trial file was left");
    }

    #[test]
    fn a_folder_that_is_not_there_is_broken() {
        let diagnosis = Diagnosis::of(&[PathBuf::from("/nowhere/at/all")]);
        let mut broken = diagnosis.lines.iter().filter(|line| line.state == State::Broken);
        assert!(broken.next().unwrap().to_string().contains("/nowhere/at/all"));
        assert_eq!((broken.next(), diagnosis.broken()), (None, 1));
    }

    #[test]
    fn a_line_says_what_it_costs_and_what_mends_it() {
        let line = Finding::degraded("pages", "small ones", "time", "sysctl vm.nr_hugepages=512");
        let text = "degraded  pages: small ones; costs: time; mend: sysctl vm.nr_hugepages=512";
        assert_eq!(line.to_string(), text);
        assert_eq!(Finding::ok("kernel", "6.18.1").to_string(), "ok        kernel: 6.18.1");
        let json = serde_json::to_value(&line).unwrap();
        assert_eq!((json["state"].as_str(), json["cost"].as_str()), (Some("degraded"), Some("time")));
    }
}
