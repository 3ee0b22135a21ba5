//! Where bytes are, and whose they are: for errors and tools.

use crate::contents::blocks_of;
use crate::directory::segment_path;
use crate::segments::Segment;
use crate::{Span, Store, TensorId};
use hoist_format::{CHECKSUM_BYTES, Extent};
use std::path::PathBuf;

impl Store {
    /// Where the newest bytes of `span` are, and whose they are: for errors.
    #[must_use]
    pub fn describe(&self, span: &Span) -> String {
        if self.contents.check(span).is_err() {
            return span.to_string();
        }
        let names =
            self.tensors_in(span).map(|id| self.contents.layout.tensors[id.0 as usize].spec.name.as_str());
        let extents = self.extents(span).into_iter();
        let extents = extents.map(|(path, e)| (path, e.offset, e.bytes)).chain(self.in_sources(span));
        let places =
            extents.map(|(path, offset, bytes)| format!("{bytes} bytes at {offset} of {}", path.display()));
        format!("{span} ({}), {}", summary(names), summary(places))
    }

    /// The tensors with bytes in `span`.
    ///
    /// # Panics
    /// When there is no such run.
    pub fn tensors_in(&self, span: &Span) -> impl Iterator<Item = TensorId> {
        self.contents.tensors_in(span)
    }

    /// The files and extents of the newest bytes of `span`, in order; what was never written to the store is left out.
    ///
    /// # Panics
    /// When there is no such run.
    #[must_use]
    pub fn extents(&self, span: &Span) -> Vec<(PathBuf, Extent)> {
        let locations = &self.contents.bytes[span.run.0 as usize].locations;
        locations.extents(span.offset, span.end()).map(|extent| (self.path_of(&extent), extent)).collect()
    }

    /// The file that an extent lies in.
    pub(crate) fn path_of(&self, extent: &Extent) -> PathBuf {
        let Segment { directory, number, .. } = self.segments[extent.segment as usize];
        segment_path(&self.directories[directory].path, number)
    }

    /// The block of 256 KiB with number `block` in `span`.
    #[must_use]
    pub fn block(&self, span: &Span, block: usize) -> Span {
        let offset = (blocks_of(span).start + block) as u64 * CHECKSUM_BYTES;
        Span { run: span.run, offset, bytes: CHECKSUM_BYTES.min(span.end().saturating_sub(offset)) }
    }
}

/// The first of some, and how many more: an error is one line.
fn summary(mut items: impl Iterator<Item = impl std::fmt::Display>) -> String {
    const NAMED: usize = 4;
    let named: Vec<_> = items.by_ref().take(NAMED).map(|item| item.to_string()).collect();
    match items.count() {
        0 if named.is_empty() => "nothing".to_owned(),
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
