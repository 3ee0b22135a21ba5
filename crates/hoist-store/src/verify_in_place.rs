//! Finds bytes in files outside the store that are not those of their first read: of the newest epoch, and of snapshots.

use crate::contents::Contents;
use crate::ranges::Ranges;
use crate::{BadBlock, BlockingStore, Error, RunId, Span, Store, VerifyReport};
use hoist_format::{CHECKSUM_BYTES, blocks};
use std::collections::BTreeMap;

/// Reads what any epoch has in sources. What was never read has its checksum from then on.
///
/// # Errors
/// [`Error::NoMemory`], or when the I/O thread has stopped.
pub(crate) fn verify(store: &mut BlockingStore, report: &mut VerifyReport) -> Result<(), Error> {
    let mut spans = Vec::new();
    for (run, ranges) in in_sources(store.store()) {
        spans.extend(ranges.iter().map(|(from, to)| Span { run, offset: from, bytes: to - from }));
    }
    let mut chunks = Vec::new();
    for span in spans {
        chunks.extend(store.chunks(span)?);
    }
    let again = read(store, chunks, report, false)?;
    // What could not be read as a whole is looked at block by block.
    let parts = again.into_iter().flat_map(|span| {
        let starts = (span.offset..span.end()).step_by(CHECKSUM_BYTES as usize);
        starts.map(move |offset| Span { offset, bytes: CHECKSUM_BYTES.min(span.end() - offset), ..span })
    });
    read(store, parts.collect(), report, true).map(drop)
}

/// What the newest epoch, or a snapshot, has no bytes of its own for.
fn in_sources(store: &Store) -> BTreeMap<RunId, Ranges> {
    let mut all: BTreeMap<RunId, Ranges> = BTreeMap::new();
    let mut add = |contents: &Contents| {
        let sourced = contents.durable_runs().filter(|(run, _)| contents.layout.is_sourced(*run));
        for (run, info) in sourced {
            for (from, to) in contents.bytes[run.0 as usize].locations.gaps(0, info.bytes) {
                all.entry(run).or_default().insert(from, to);
            }
        }
    };
    add(&store.contents);
    if store.sources.is_some() {
        for (_, epoch) in store.history.kept() {
            add(&store.history.contents_at(&store.contents, epoch.batch));
        }
    }
    all
}

/// Reads spans and compares them; those that could not be read, or, in the `last` attempt, these as bad ones.
fn read(
    store: &mut BlockingStore,
    spans: Vec<Span>,
    report: &mut VerifyReport,
    last: bool,
) -> Result<Vec<Span>, Error> {
    let mut unreadable = Vec::new();
    store.read_each_by(Store::read_source, spans.into_iter(), |store, span, slot| {
        match slot.and_then(|slot| store.check_blocks(&span, &slot, true)) {
            Ok(bad) => {
                report.blocks += blocks(span.bytes) as u64;
                report.bytes += span.bytes;
                let bad = bad.into_iter().map(|block| store.store().block(&span, block));
                report.bad.extend(bad.map(|block| bad_block(store.store(), block, None)));
            }
            Err(error) if last => {
                report.bad.push(bad_block(store.store(), span, Some(error.to_string())));
            }
            Err(_) => unreadable.push(span),
        }
        Ok(())
    })?;
    Ok(unreadable)
}

fn bad_block(store: &Store, span: Span, unreadable: Option<String>) -> BadBlock {
    let name = |id: crate::TensorId| store.tensors()[id.0 as usize].spec.name.clone();
    let tensors = store.tensors_in(&span).map(name).collect();
    // The newest epoch has it, or else snapshots do.
    let newest = store.is_in_place(&span);
    let has = |batch: u64| {
        let then = store.history.contents_at(&store.contents, batch);
        let own = then.bytes[span.run.0 as usize].locations.extents(span.offset, span.end());
        own.map(|extent| extent.bytes).sum::<u64>() < span.bytes
    };
    let kept = store.history.kept().filter(|(_, epoch)| !newest && has(epoch.batch));
    let snapshots = kept.map(|(name, _)| name.to_owned()).collect();
    BadBlock { tensors, snapshots, span, places: store.places_in_sources(&span), unreadable }
}
