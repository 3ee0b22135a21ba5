//! What an epoch under construction changes, and what takes it back.

use crate::contents::{Contents, blocks_of};
use crate::ranges::Ranges;
use crate::{RunId, Span};
use hoist_format::Extent;
use std::collections::BTreeMap;

/// What an epoch under construction changes.
#[derive(Default)]
pub(crate) struct Changes {
    /// Durable bytes that were written.
    pub spans: BTreeMap<RunId, Ranges>,
    /// What older epochs had in their place: free when this one is durable, back when it is rolled back.
    before: Vec<Piece>,
    /// The spans of `before`, and one after the other the checksums of their blocks.
    spans_before: Vec<Span>,
    checksums_before: Vec<u64>,
    /// Notes that were set, with what they were before.
    notes: BTreeMap<String, Option<Vec<u8>>>,
    /// Durable writes that failed and were not made good.
    pub failed: Vec<Span>,
}

/// A part of a run, where it was.
struct Piece {
    run: RunId,
    offset: u64,
    extent: Extent,
    /// Whether the extent held its bytes.
    valid: bool,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        !self.has_bytes() && self.notes.is_empty()
    }

    /// Whether any durable bytes were written, or tried to be.
    pub fn has_bytes(&self) -> bool {
        !self.spans.is_empty() || !self.failed.is_empty()
    }

    /// Whether all of `span` was written in this epoch.
    pub fn covers(&self, span: &Span) -> bool {
        let parts = self.spans.get(&span.run).map(|ranges| ranges.split(span.offset, span.end()));
        parts.is_some_and(|parts| parts.iter().all(|(_, _, inside)| *inside))
    }

    /// Remembers that a durable write failed, or that one made good for it.
    pub fn note_write(&mut self, span: &Span, done: bool) {
        if done {
            let covers = |failed: &Span| {
                failed.run == span.run && span.offset <= failed.offset && failed.end() <= span.end()
            };
            self.failed.retain(|failed| !covers(failed));
        } else {
            self.failed.push(*span);
        }
    }

    /// Remembers where `span` was in the epoch before, which is about to get another place in this one.
    pub fn keep_before(&mut self, contents: &Contents, span: &Span) {
        let bytes = &contents.bytes[span.run.0 as usize];
        let pieces = bytes.locations.parts(span.offset, span.end());
        let count = self.before.len();
        self.before.extend(pieces.map(|(offset, extent, valid)| Piece {
            run: span.run,
            offset,
            extent,
            valid,
        }));
        if self.before.len() > count {
            self.spans_before.push(*span);
            self.checksums_before.extend_from_slice(&bytes.checksums[blocks_of(span)]);
        }
    }

    /// Sets a note.
    pub fn set_note(&mut self, contents: &mut Contents, key: &str, bytes: Vec<u8>) {
        let before = contents.notes.insert(key.to_owned(), bytes);
        self.notes.entry(key.to_owned()).or_insert(before);
    }

    /// The notes that were set.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.keys().map(String::as_str)
    }

    /// The extents of older epochs that this one, durable now, has replaced.
    pub fn dropped(&self) -> impl Iterator<Item = Extent> {
        self.before.iter().map(|piece| piece.extent)
    }

    /// Makes `contents` what they were before. What this epoch has written is free then: its extents go to `free`.
    pub fn undo(self, contents: &mut Contents, free: &mut Vec<Extent>) {
        for (run, ranges) in &self.spans {
            let locations = &mut contents.bytes[run.0 as usize].locations;
            ranges.iter().for_each(|(from, to)| locations.remove(from, to, free));
        }
        for Piece { run, offset, extent, valid } in self.before {
            let locations = &mut contents.bytes[run.0 as usize].locations;
            let mut nothing = Vec::new();
            locations.replace(offset, &[extent], valid, &mut nothing);
            assert!(nothing.is_empty(), "{extent:?} comes back to where {nothing:?} is");
        }
        let mut checksums = self.checksums_before.as_slice();
        for span in &self.spans_before {
            let blocks = blocks_of(span);
            let (these, others) = checksums.split_at(blocks.len());
            contents.bytes[span.run.0 as usize].checksums[blocks].copy_from_slice(these);
            checksums = others;
        }
        for (key, before) in self.notes {
            match before {
                Some(bytes) => contents.notes.insert(key, bytes),
                None => contents.notes.remove(&key),
            };
        }
    }
}
