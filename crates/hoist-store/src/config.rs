//! Where a store lies and what it promises.

use hoist_format::CHECKSUM_BYTES;
use std::path::PathBuf;

/// Default largest segment: 1 GiB, so that a store of a terabyte has a thousand files, and one is zeroed in about a
/// second.
pub const SEGMENT_BYTES_DEFAULT: u64 = 1 << 30;

/// Segments are rounded up to this, so that a small store stays small and a large one has room between runs.
pub const SEGMENT_GRAIN_BYTES: u64 = 64 << 20;

/// More drives than a machine holds; requests' ids have room for 32768.
const DIRECTORIES_MAX: usize = 255;

/// What a commit promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Every commit is an epoch that survives a power cut.
    #[default]
    Step,
    /// Every snapshot, and `close`, is an epoch that survives a power cut. In between, bytes are written over those that
    /// were written since, so that steps write no more than they must; after a crash the store opens at the last of them.
    Snapshot,
    /// Durable tensors are written in place; they hold after `close`, and nothing is promised after a crash.
    None,
}

/// One thing that is wrong in a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, as the user writes it.
    pub key: &'static str,
    /// What is wrong, with the value.
    pub what: String,
    /// A value that would do.
    pub would_be_right: String,
}

/// The place and the promise of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The directories. At open in any order, but all of them.
    pub nvme_path: Vec<PathBuf>,
    /// At open it may differ from what the store was created with only if the space suffices: see [`crate::Store::open`].
    pub durability: Durability,
    /// The largest segment in bytes, a multiple of 256 KiB; larger where more than 256 of a directory would be needed.
    pub segment_bytes: u64,
    /// How many snapshots a new store has space for, besides what it has to have: each may take as much as all durable
    /// tensors. With less a snapshot can be made all the same, and steps fail when what it keeps leaves them no space.
    pub snapshots: u32,
    /// In a new store over a model's files: how many bytes of the tensors in them it has space for when they are written,
    /// in as many versions as other durable ones. Writing more fails; what is not written takes no space.
    pub in_place_room_bytes: u64,
    /// Which rank's shards the store holds, from 0 on: the same at each opening.
    pub rank: u32,
    /// How many ranks there are, each with a store of its own; 0: whatever the store has, for tools. With more than one, an epoch is final when the trainer says
    /// so: see [`crate::Store::finalize`].
    pub world_size: u32,
    /// The epoch to open at, one of [`crate::Store::epochs`], instead of the newest: what is newer is dropped.
    pub epoch: Option<u64>,
    /// The snapshot to open at, instead of the newest epoch: then nothing durable is written. None exists at creation.
    pub snapshot: Option<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            nvme_path: Vec::new(),
            durability: Durability::default(),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            snapshots: 0,
            in_place_room_bytes: 0,
            rank: 0,
            world_size: 1,
            epoch: None,
            snapshot: None,
        }
    }
}

impl Config {
    /// Everything that is wrong, at once.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key, what: String, would_be_right: &str| {
            problems.push(Problem { key, what, would_be_right: would_be_right.to_owned() });
        };
        if self.nvme_path.is_empty() {
            wrong(
                "store.nvme_path",
                "no directory is given".to_owned(),
                "a list of directories on NVMe drives",
            );
        }
        if self.nvme_path.len() > DIRECTORIES_MAX {
            let what = format!("{} directories are given", self.nvme_path.len());
            wrong("store.nvme_path", what, "at most 255 directories");
        }
        for (place, path) in self.nvme_path.iter().enumerate() {
            if self.nvme_path[..place].contains(path) {
                wrong("store.nvme_path", format!("{} is given twice", path.display()), "each directory once");
            }
        }
        if self.rank >= self.world_size.max(1) {
            let what = format!("rank {} of {} is none", self.rank, self.world_size);
            wrong("store.rank", what, "a number from 0 on, less than store.world_size");
        }
        if self.epoch.is_some() && self.snapshot.is_some() {
            let what = "a store is opened at an epoch or at a snapshot".to_owned();
            wrong("store.snapshot", what, "one of the two");
        }
        if self.in_place_room_bytes > 0 && self.durability == Durability::None {
            let what = "at durability \"none\" a write that is lost would leave the model's bytes".to_owned();
            wrong("store.in_place_room", what, "0, or durability \"step\" or \"snapshot\"");
        }
        if self.segment_bytes == 0 || !self.segment_bytes.is_multiple_of(CHECKSUM_BYTES) {
            let what = format!("{} bytes is no multiple of 256 KiB", self.segment_bytes);
            wrong("store.segment_size", what, "1 GiB");
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_come_at_once() {
        let config = Config { segment_bytes: 5, ..Config::default() };
        assert_eq!(config.problems().len(), 2);
        let config = Config { nvme_path: vec!["/a".into(), "/b".into(), "/a".into()], ..Config::default() };
        assert!(config.problems()[0].what.contains("/a is given twice"));
        let nvme_path = (0..256).map(|number| format!("/{number}").into()).collect();
        let config = Config { nvme_path, ..Config::default() };
        assert!(config.problems()[0].what.contains("256 directories"));
        let config = Config { nvme_path: vec!["/a".into()], ..Config::default() };
        assert!(config.problems().is_empty());
    }
}
