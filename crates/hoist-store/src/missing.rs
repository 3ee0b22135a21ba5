//! Stores of which directories are not there: what lies in them has no bytes, and who asks for it hears where it was.

use crate::contents::Contents;
use crate::history::History;
use crate::location::Locations;
use crate::segments::Segments;
use crate::{Error, RunId, Span, Store};

/// Takes out of all epochs what has a part in a segment that is not there.
///
/// # Errors
/// [`Error::Directories`] when that is of a tensor which also lies in a model's file: there its older bytes would come to
/// light.
pub(crate) fn leave_out(
    contents: &mut Contents,
    history: &mut History,
    segments: &Segments,
) -> Result<(), Error> {
    let in_place = || {
        let what = "tensors of a model's file were written to directories that are missing: give all of them";
        Err(Error::Directories { what: what.to_owned() })
    };
    for (run, bytes) in (0..).map(RunId).zip(&mut contents.bytes) {
        let all = bytes.locations.all();
        let kept: Vec<_> =
            all.iter().filter(|piece| segments.get(&piece.extent).is_some()).copied().collect();
        if kept.len() < all.len() {
            if contents.layout.is_sourced(run) {
                return in_place();
            }
            bytes.locations = Locations::new(kept);
        }
    }
    let is_there = |extents: &[_]| extents.iter().all(|extent| segments.get(extent).is_some());
    let mut of_model = history.spans.iter().filter(|past| contents.layout.is_sourced(past.span.run));
    if !of_model.all(|past| is_there(&past.extents)) {
        return in_place();
    }
    history.spans.retain(|past| is_there(&past.extents));
    Ok(())
}

impl Store {
    /// The directories that the store is read without, as they were called when it was made.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Why a span has no bytes.
    pub(crate) fn no_bytes(&self, span: Span) -> Error {
        match self.missing.as_slice() {
            [] => Error::NoBytes { span },
            missing => Error::Missing { span, directories: missing.join(", ") },
        }
    }
}
