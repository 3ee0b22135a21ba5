//! What an epoch under construction changes, and what takes it back.

use crate::contents::{Contents, NoteValue, RunBytes, blocks_of};
use crate::history::{History, PastNote, PastSpan};
use crate::location::{Piece, UNCOMMITTED};
use crate::ranges::Ranges;
use crate::{RunId, Span};
use hoist_format::{CHECKSUM_BYTES, Extent};
use std::collections::BTreeMap;

/// What an epoch under construction changes.
#[derive(Default, Clone)]
pub(crate) struct Changes {
    /// Durable bytes that were written.
    pub spans: BTreeMap<RunId, Ranges>,
    /// What the epoch before had in their place: free when this one is durable, unless a snapshot has it; back when it is
    /// rolled back. Pieces and checksums of blocks lie one span's behind the other's.
    before: Vec<Before>,
    pieces_before: Vec<Piece>,
    checksums_before: Vec<u64>,
    /// Notes that were set or deleted, with what they were before.
    notes: BTreeMap<String, Option<NoteValue>>,
    /// Durable writes that failed and were not made good.
    pub failed: Vec<Span>,
}

/// A span as it was, and how many pieces it had.
#[derive(Clone, Copy)]
struct Before {
    span: Span,
    pieces: usize,
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
    pub fn keep_before(&mut self, bytes: &RunBytes, span: &Span) {
        let count = self.pieces_before.len();
        self.pieces_before.extend(bytes.locations.between(span.offset, span.end()));
        let pieces = self.pieces_before.len() - count;
        if pieces > 0 {
            self.before.push(Before { span: *span, pieces });
            // A run of which only writes in place have failed has places, and no checksums yet.
            match bytes.checksums.get(blocks_of(span)) {
                Some(checksums) => self.checksums_before.extend_from_slice(checksums),
                None => self.checksums_before.resize(self.checksums_before.len() + blocks_of(span).len(), 0),
            }
        }
    }

    /// Sets a note, or deletes it.
    pub fn set_note(&mut self, contents: &mut Contents, key: &str, bytes: Option<Vec<u8>>) {
        let before = match bytes {
            Some(bytes) => contents.notes.insert(key.to_owned(), NoteValue { bytes, born: UNCOMMITTED }),
            None => contents.notes.remove(key),
        };
        self.notes.entry(key.to_owned()).or_insert(before);
    }

    /// The notes that were set or deleted.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.keys().map(String::as_str)
    }

    /// Says that `batch` is the first to tell of what was written.
    pub fn set_born(&self, contents: &mut Contents, batch: u64) {
        for (run, ranges) in &self.spans {
            let locations = &mut contents.bytes[run.0 as usize].locations;
            ranges.iter().for_each(|(from, to)| locations.set_born(from, to, batch));
        }
        for key in self.notes.keys() {
            if let Some(note) = contents.notes.get_mut(key) {
                note.born = batch;
            }
        }
    }

    /// What snapshots have of what this epoch, made durable by batch `died`, has replaced goes to `history`, and the
    /// extents of the rest to `free`.
    pub fn retire(self, died: u64, history: &mut History, free: &mut Vec<Extent>) {
        if history.is_empty() {
            free.extend(self.pieces_before.iter().map(|piece| piece.extent));
            return;
        }
        let (mut pieces, mut checksums) = (self.pieces_before.as_slice(), self.checksums_before.as_slice());
        for Before { span, pieces: count } in self.before {
            let (these, others) = pieces.split_at(count);
            let (sums, other_sums) = checksums.split_at(blocks_of(&span).len());
            (pieces, checksums) = (others, other_sums);
            for part in these.chunk_by(|one, next| one.end() == next.offset && one.born == next.born) {
                if part[0].valid && history.holds(part[0].born, died) {
                    history.spans.push(past(&span, part, sums, died));
                } else {
                    free.extend(part.iter().map(|piece| piece.extent));
                }
            }
        }
        for (key, before) in self.notes {
            if let Some(NoteValue { bytes, born }) = before.filter(|note| history.holds(note.born, died)) {
                history.notes.push(PastNote { key, bytes, born, died });
            }
        }
    }

    /// Makes `contents` what they were before. What this epoch has written is free then: its extents go to `free`.
    pub fn undo(self, contents: &mut Contents, free: &mut Vec<Extent>) {
        for (run, ranges) in &self.spans {
            let locations = &mut contents.bytes[run.0 as usize].locations;
            ranges.iter().for_each(|(from, to)| locations.remove(from, to, free));
        }
        let (mut pieces, mut checksums) = (self.pieces_before.as_slice(), self.checksums_before.as_slice());
        for Before { span, pieces: count } in self.before {
            let bytes = &mut contents.bytes[span.run.0 as usize];
            let (these, others) = pieces.split_at(count);
            for Piece { offset, extent, valid, born } in these {
                let mut nothing = Vec::new();
                bytes.locations.replace(*offset, &[*extent], (*valid, *born), &mut nothing);
                assert!(nothing.is_empty(), "{extent:?} comes back to where {nothing:?} is");
            }
            let blocks = blocks_of(&span);
            let (sums, other_sums) = checksums.split_at(blocks.len());
            if let Some(now) = bytes.checksums.get_mut(blocks) {
                now.copy_from_slice(sums);
            }
            (pieces, checksums) = (others, other_sums);
        }
        for (key, before) in self.notes {
            match before {
                Some(note) => contents.notes.insert(key, note),
                None => contents.notes.remove(&key),
            };
        }
    }
}

/// A part of `span` that is no more: pieces that follow each other, all of one batch; `checksums` are the span's.
fn past(span: &Span, pieces: &[Piece], checksums: &[u64], died: u64) -> PastSpan {
    let offset = pieces[0].offset;
    let bytes = pieces.iter().map(|piece| piece.extent.bytes).sum();
    let part = Span { run: span.run, offset, bytes };
    // What is written by itself is whole blocks, so what was replaced by two writes is, too.
    assert!(offset.is_multiple_of(CHECKSUM_BYTES), "{part} of {span} is not whole blocks");
    let first = ((offset - span.offset) / CHECKSUM_BYTES) as usize;
    let checksums = checksums[first..first + blocks_of(&part).len()].to_vec();
    let extents = pieces.iter().map(|piece| piece.extent).collect();
    PastSpan { span: part, extents, checksums, born: pieces[0].born, died }
}
