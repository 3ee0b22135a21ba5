//! What can go wrong, by name.

use crate::{Error, Problem};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What `latency` adds: some hundred times what a read of an NVMe drive takes, about what one takes that collects
/// garbage.
const LATENCY: Duration = Duration::from_millis(10);

/// How much of a block a short transfer moves. Blocks of one sector (4096 bytes) are left whole, but by `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// The first sector.
    First,
    /// Half of the sectors.
    Middle,
    /// All but the last sector.
    Last,
    /// A random number of sectors and 512 bytes: no place from where direct I/O can go on.
    Odd,
    /// Nothing. For a read that is the end of the file.
    None,
}

/// What goes wrong. Each has a name, by which it is parsed and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// `eio`: the block fails.
    Eio,
    /// `eintr`: the try was interrupted.
    Eintr,
    /// `eagain`: the kernel had no room for it.
    Eagain,
    /// `short-first`, `short-middle`, `short-last`, `short-odd`, `short-none`: fewer bytes than asked for.
    Short(Short),
    /// `latency`: the request comes back so much later (10 ms when parsed). Its place is that of its first range.
    Latency(Duration),
}

impl FaultKind {
    /// One of each, with its name.
    pub const ALL: [(&'static str, FaultKind); 9] = [
        ("eio", FaultKind::Eio),
        ("eintr", FaultKind::Eintr),
        ("eagain", FaultKind::Eagain),
        ("short-first", FaultKind::Short(Short::First)),
        ("short-middle", FaultKind::Short(Short::Middle)),
        ("short-last", FaultKind::Short(Short::Last)),
        ("short-odd", FaultKind::Short(Short::Odd)),
        ("short-none", FaultKind::Short(Short::None)),
        ("latency", FaultKind::Latency(LATENCY)),
    ];

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let same = |kind: &FaultKind| match (kind, self) {
            (FaultKind::Latency(_), FaultKind::Latency(_)) => true,
            _ => kind == self,
        };
        let found = FaultKind::ALL.iter().find(|(_, kind)| same(kind));
        found.map_or_else(|| panic!("{self:?} has no name"), |(name, _)| name)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for FaultKind {
    type Err = Error;

    /// # Errors
    /// [`Error::Config`] with the names that there are.
    fn from_str(name: &str) -> Result<FaultKind, Error> {
        let found = FaultKind::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| *kind).ok_or_else(|| {
            let what = format!("there is no fault \"{name}\"");
            let would_be_right = FaultKind::ALL.map(|(name, _)| name).join(", ");
            Error::Config(vec![Problem { key: "faults", what, would_be_right }])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_name() {
        for (name, kind) in FaultKind::ALL {
            assert_eq!((kind.name(), name.parse::<FaultKind>().unwrap()), (name, kind));
        }
        let error = "eoi".parse::<FaultKind>().unwrap_err().to_string();
        assert!(error.contains("eoi") && error.contains("short-odd"), "{error}");
    }
}
