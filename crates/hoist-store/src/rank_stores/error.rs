//! What can be wrong with the stores of several ranks taken together.

use std::path::PathBuf;

/// Why the stores of several ranks do not make one whole, or not the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RanksError {
    /// Stores of different worlds.
    #[error(
        "{} is a store of {} ranks, and {} one of {}: give the directories of the ranks of one run",
        .first.display(), .world_sizes.0, .other.display(), .world_sizes.1
    )]
    WorldSizes {
        /// A directory of one store.
        first: PathBuf,
        /// A directory of another.
        other: PathBuf,
        /// How many ranks each of them says there are.
        world_sizes: (u32, u32),
    },
    /// Two stores of one rank.
    #[error("{} and {} are both rank {rank}'s: give each rank once", .first.display(), .second.display())]
    Twice {
        /// The rank.
        rank: u32,
        /// A directory of the first store.
        first: PathBuf,
        /// A directory of the second.
        second: PathBuf,
    },
    /// Not all ranks are there.
    #[error("the stores of all {world_size} ranks are needed, and {given} are given: missing are {}", list(.missing))]
    Missing {
        /// How many ranks there are.
        world_size: u32,
        /// How many stores were given.
        given: usize,
        /// The ranks that are missing, the first 16 of them.
        missing: Vec<u32>,
    },
    /// The ranks have no epoch in common.
    #[error(
        "no epoch can be opened on all ranks, {}: go back to a snapshot that all of them have, each by itself",
        .epochs.iter().map(|(rank, epochs)| format!("rank {rank} has {}", list(epochs))).collect::<Vec<_>>().join(", ")
    )]
    NoCommonEpoch {
        /// For each rank the epochs that its store can be opened at.
        epochs: Vec<(u32, Vec<u64>)>,
    },
    /// The same epoch was made by different steps.
    #[error(
        "epoch {epoch} was made by step {} on rank 0 and by step {} on rank {rank}: they are not of one run, or one of \
         them went on alone", .steps.0, .steps.1
    )]
    Steps {
        /// The newest common epoch.
        epoch: u64,
        /// The rank that differs from rank 0.
        rank: u32,
        /// The steps on rank 0 and on that rank.
        steps: (u64, u64),
    },
    /// Two ranks, or the old stores and the new one, do not have the same tensor under a name.
    #[error("tensor {tensor:?} is not the same everywhere: {what}")]
    Differs {
        /// Its name.
        tensor: String,
        /// Who has what.
        what: String,
    },
    /// No rank has these elements.
    #[error("no rank has elements {from} to {to} of tensor {tensor:?}: the stores are not all of the run's")]
    Gap {
        /// Its name.
        tensor: String,
        /// The first element that is missing.
        from: u64,
        /// The first behind it that is not.
        to: u64,
    },
    /// Two ranks have the same elements, and none of them has the whole tensor.
    #[error("ranks {} and {} both have element {element} of tensor {tensor:?}: shards must not overlap", .ranks.0, .ranks.1)]
    Overlap {
        /// Its name.
        tensor: String,
        /// The first element that both have.
        element: u64,
        /// Who has it.
        ranks: (u32, u32),
    },
    /// Some of what is needed of a tensor was written, and some never was.
    #[error(
        "of elements {from} to {to} of tensor {tensor:?} only some were ever written: write all of it, or none, before"
    )]
    Partial {
        /// Its name.
        tensor: String,
        /// The first element that is needed.
        from: u64,
        /// The first behind it that is not.
        to: u64,
    },
    /// Elements cannot be read as they were asked for.
    #[error("{count} elements from {first} on of tensor {tensor:?} cannot be read: {what}")]
    BadRead {
        /// Its name.
        tensor: String,
        /// The first element that was asked for.
        first: u64,
        /// How many were.
        count: u64,
        /// What is wrong.
        what: String,
    },
}

fn list<T: ToString>(all: &[T]) -> String {
    all.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
