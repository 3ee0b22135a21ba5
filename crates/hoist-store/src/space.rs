//! What holds a store's space.

use crate::Store;
use crate::free_space::FreeSpace;
use hoist_format::{Extent, LifeKind};
use std::collections::BTreeMap;

/// Where the space of a store's segments is, in bytes; all but `by_snapshot` add up to the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What nothing uses.
    pub free_bytes: u64,
    /// What the newest epoch has, or the one under construction.
    pub newest_bytes: u64,
    /// Places of scratch and derived tensors.
    pub scratch_bytes: u64,
    /// What snapshots have and the newest epoch has not.
    pub snapshot_bytes: u64,
    /// What is in use until a commit or a read under way is over.
    pub passing_bytes: u64,
    /// For each snapshot what it alone has: so much is free when it is deleted.
    pub by_snapshot: BTreeMap<String, u64>,
}

impl Store {
    /// What holds the space.
    #[must_use]
    pub fn space(&self) -> Space {
        let mut space = Space::default();
        // All of it, less what is told of one after the other.
        let mut unclaimed = Vec::new();
        for (place, directory) in self.directories.iter().enumerate() {
            let all = FreeSpace::new(directory.free.first(), directory.free.segments());
            space.free_bytes += directory.free.bytes();
            space.total_bytes += all.bytes();
            unclaimed.insert(place, all);
        }
        for (run, bytes) in self.contents.layout.runs.iter().zip(&self.contents.bytes) {
            let durable = run.life == LifeKind::Durable;
            for extent in bytes.locations.all().iter().map(|piece| piece.extent) {
                let bytes = claim(&mut unclaimed[self.place_of(&extent)], extent);
                *(if durable { &mut space.newest_bytes } else { &mut space.scratch_bytes }) += bytes;
            }
        }
        space.by_snapshot = self.snapshots().map(|(name, _)| (name.to_owned(), 0)).collect();
        for past in &self.history.spans {
            let mut names = self.history.holders(past);
            let only = names.next().filter(|_| names.next().is_none());
            for extent in &past.extents {
                let bytes = claim(&mut unclaimed[self.place_of(extent)], *extent);
                space.snapshot_bytes += bytes;
                let only = only.filter(|_| !self.shares.overlaps(extent));
                if let Some(alone) = only.and_then(|name| space.by_snapshot.get_mut(name)) {
                    *alone += bytes;
                }
            }
        }
        space.passing_bytes = unclaimed.iter().map(FreeSpace::bytes).sum::<u64>() - space.free_bytes;
        space
    }
}

/// Takes what is unclaimed of an extent, and says how much that was.
fn claim(unclaimed: &mut FreeSpace, extent: Extent) -> u64 {
    let parts = unclaimed.split(extent).map(|(parts, _)| parts).unwrap_or_default();
    parts.into_iter().filter(|part| unclaimed.take(*part)).map(|part| part.bytes).sum()
}
