//! What older epochs have that the newest has not: kept as long as a snapshot needs it.

use crate::contents::{Contents, NoteValue, blocks_of};
use crate::few::Few;
use crate::location::{Locations, Piece};
use crate::{Error, RunId, Span};
use hoist_format::{EpochRecord, Extent};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The longest name of a snapshot in bytes: a file name's, so that tools may name files for them.
pub const SNAPSHOT_NAME_BYTES_MAX: usize = 255;

/// Bytes that an older epoch has, and the newest has not, or has in another place.
#[derive(Clone)]
pub(crate) struct PastSpan {
    pub span: Span,
    pub extents: Vec<Extent>,
    pub checksums: Vec<u64>,
    /// The first batch with it, and the first without it.
    pub born: u64,
    pub died: u64,
}

/// A note that an older epoch has.
#[derive(Clone)]
pub(crate) struct PastNote {
    pub key: String,
    pub bytes: Vec<u8>,
    pub born: u64,
    pub died: u64,
}

/// The name under which the epoch before the newest is kept until that is final. No snapshot of a caller's has a slash.
pub(crate) const PREVIOUS: &str = "/previous";

/// The snapshots, and what only they have.
#[derive(Default, Clone)]
pub(crate) struct History {
    snapshots: BTreeMap<String, EpochRecord>,
    pub spans: Vec<PastSpan>,
    pub notes: Vec<PastNote>,
}

/// A snapshot that is being deleted, with what only it had.
pub(crate) struct Deleted {
    name: String,
    epoch: EpochRecord,
    spans: Vec<PastSpan>,
    notes: Vec<PastNote>,
}

impl Deleted {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has what was born in a batch and has not died.
    pub fn had(&self, born: u64) -> bool {
        born <= self.epoch.batch
    }

    /// Free, when the deletion is durable.
    pub fn extents(&self) -> impl Iterator<Item = Extent> {
        self.spans.iter().flat_map(|past| past.extents.iter().copied())
    }
}

impl History {
    /// All that is kept, by name, with [`PREVIOUS`].
    pub fn kept(&self) -> impl Iterator<Item = (&str, &EpochRecord)> {
        self.snapshots.iter().map(|(name, epoch)| (name.as_str(), epoch))
    }

    /// The epoch before the newest, while that is not final.
    pub fn previous(&self) -> Option<&EpochRecord> {
        self.snapshots.get(PREVIOUS)
    }

    /// All snapshots, by name.
    pub fn snapshots(&self) -> impl Iterator<Item = (&str, &EpochRecord)> {
        self.kept().filter(|(name, _)| *name != PREVIOUS)
    }

    /// The epoch that is kept as `name`.
    pub fn snapshot(&self, name: &str) -> Result<&EpochRecord, Error> {
        let none = || Error::NoSnapshot {
            name: name.to_owned(),
            others: self.snapshots().map(|(name, _)| name).collect::<Vec<_>>().join(", "),
        };
        self.snapshots.get(name).ok_or_else(none)
    }

    /// Whether an epoch can be kept under this name.
    pub fn check_name(&self, name: &str) -> Result<(), Error> {
        let bad = |what: String| Err(Error::BadSnapshotName { name: name.to_owned(), what });
        if name.is_empty() || name.len() > SNAPSHOT_NAME_BYTES_MAX {
            return bad(format!("it has {} bytes: 1 to {SNAPSHOT_NAME_BYTES_MAX} will do", name.len()));
        }
        if name.chars().any(|char| char.is_control() || char == '/') {
            return bad("it has a slash or a control character".into());
        }
        if self.snapshots.contains_key(name) {
            return bad("there is one with this name: delete it first, or choose another".into());
        }
        Ok(())
    }

    /// Keeps an epoch from now on. `false`: there was one with this name.
    pub fn insert(&mut self, name: String, epoch: EpochRecord) -> bool {
        self.snapshots.insert(name, epoch).is_none()
    }

    /// Whether a snapshot has what was born and died in these batches.
    pub fn holds(&self, born: u64, died: u64) -> bool {
        self.snapshots.values().any(|epoch| (born..died).contains(&epoch.batch))
    }

    /// Whether there are snapshots.
    pub fn is_empty(&self) -> bool {
        self.snapshots.is_empty()
    }

    /// Takes a snapshot out, with what no other one has.
    pub fn remove(&mut self, name: &str) -> Option<Deleted> {
        let (name, epoch) = self.snapshots.remove_entry(name)?;
        let (all_spans, all_notes) = (std::mem::take(&mut self.spans), std::mem::take(&mut self.notes));
        let (kept, spans) = all_spans.into_iter().partition(|past| self.holds(past.born, past.died));
        self.spans = kept;
        let (kept, notes) = all_notes.into_iter().partition(|past| self.holds(past.born, past.died));
        self.notes = kept;
        Some(Deleted { name, epoch, spans, notes })
    }

    /// Puts back what [`History::remove`] has taken out.
    pub fn put_back(&mut self, deleted: Deleted) {
        self.snapshots.insert(deleted.name, deleted.epoch);
        self.spans.extend(deleted.spans);
        self.notes.extend(deleted.notes);
    }

    /// What the epoch had that was made by `batch`, in a store that has `now`. Scratch and derived bytes are of no epoch.
    pub fn contents_at(&self, now: &Contents, batch: u64) -> Contents {
        let mut then = Contents { touched: now.touched.clone(), ..Contents::new(Arc::clone(&now.layout)) };
        let mut pieces: BTreeMap<RunId, Vec<Piece>> = BTreeMap::new();
        for (run, _) in now.durable_runs() {
            let (from, to) = (&now.bytes[run.0 as usize], &mut then.bytes[run.0 as usize]);
            let old = from.locations.all().iter().filter(|piece| piece.valid && piece.born <= batch);
            pieces.entry(run).or_default().extend(old);
            to.checksums.clone_from(&from.checksums);
        }
        let lived = |born: u64, died: u64| (born..died).contains(&batch);
        for past in self.spans.iter().filter(|past| lived(past.born, past.died)) {
            let run_bytes = now.run(&past.span).bytes;
            let checksums = &mut then.bytes[past.span.run.0 as usize].checksums;
            if checksums.is_empty() {
                *checksums = Few::of(0, hoist_format::blocks(run_bytes));
            }
            checksums[blocks_of(&past.span)].copy_from_slice(&past.checksums);
            let mut offset = past.span.offset;
            pieces.entry(past.span.run).or_default().extend(past.extents.iter().map(|extent| {
                let piece = Piece { offset, extent: *extent, valid: true, born: past.born };
                offset += extent.bytes;
                piece
            }));
        }
        for (run, pieces) in pieces {
            then.bytes[run.0 as usize].locations = Locations::new(pieces);
        }
        let notes = now.notes.iter().filter(|(_, note)| note.born <= batch);
        then.notes.extend(notes.map(|(key, note)| (key.clone(), note.clone())));
        for past in self.notes.iter().filter(|past| lived(past.born, past.died)) {
            then.notes.insert(past.key.clone(), NoteValue { bytes: past.bytes.clone(), born: past.born });
        }
        then
    }

    /// The names of the snapshots that have something.
    pub fn holders(&self, past: &PastSpan) -> impl Iterator<Item = &str> {
        let lived = past.born..past.died;
        let holds = move |(_, epoch): &(&String, &EpochRecord)| lived.contains(&epoch.batch);
        self.snapshots.iter().filter(holds).map(|(name, _)| name.as_str())
    }
}
