//! Finds bytes that are not those written.

use crate::{BlockingStore, Error, Span};
use hoist_format::{CHECKSUM_BYTES, checksum};
use std::path::PathBuf;

/// Compares the checksums of `parts` with `expected`.
///
/// # Errors
/// The numbers of the blocks of 256 KiB that differ, or that are on one side only; at least one.
pub fn verify_parts<'a>(expected: &[u64], parts: impl Iterator<Item = &'a [u8]>) -> Result<(), Vec<usize>> {
    let mut found = Vec::with_capacity(expected.len());
    checksum(parts, &mut found);
    let blocks = 0..expected.len().max(found.len());
    let bad: Vec<_> = blocks.filter(|block| expected.get(*block) != found.get(*block)).collect();
    if bad.is_empty() { Ok(()) } else { Err(bad) }
}

/// A block of 256 KiB that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBlock {
    /// The names of the tensors with bytes in it.
    pub tensors: Vec<String>,
    /// The block in its run.
    pub span: Span,
    /// Where it is: segment file, offset, length. One, unless the space was fragmented.
    pub places: Vec<(PathBuf, u64, u64)>,
    /// The error of reading it; none when it was read and its checksum does not match.
    pub unreadable: Option<String>,
}

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Blocks that were looked at.
    pub blocks: u64,
    /// Bytes that were looked at.
    pub bytes: u64,
    /// All bad blocks, by run and offset.
    pub bad: Vec<BadBlock>,
}

/// Reads every durable byte of the newest epoch and compares it with its checksum. A bad block does not end it.
///
/// # Errors
/// [`Error::NoMemory`], or when the I/O thread has stopped; bad bytes are in the report.
pub fn verify(store: &mut BlockingStore) -> Result<VerifyReport, Error> {
    let mut report = VerifyReport::default();
    let contents = &store.store().contents;
    let mut spans = Vec::new();
    for (run, info) in contents.durable_runs() {
        for (from, to, _) in contents.bytes[run.0 as usize].locations.stretches(0, info.bytes) {
            match spans.last_mut() {
                Some(Span { run: last, offset, bytes }) if *last == run && *offset + *bytes >= from => {
                    *bytes = to - *offset;
                }
                _ => spans.push(Span { run, offset: from, bytes: to - from }),
            }
        }
    }
    for span in spans {
        let chunks = store.chunks(span)?;
        store.read_each(chunks, |store, chunk, slot| {
            look_at(store, chunk, slot, &mut report);
            Ok(())
        })?;
    }
    // What could not be read as a whole is looked at block by block.
    let (whole, mut bad): (Vec<_>, Vec<_>) =
        report.bad.into_iter().partition(|bad| bad.span.bytes > CHECKSUM_BYTES);
    report.bad = Vec::new();
    for span in whole.into_iter().map(|bad| bad.span) {
        for block in 0..hoist_format::blocks(span.bytes) {
            let block = store.store().block(&span, block);
            let slot = store.read_one(block);
            look_at(store, block, slot, &mut report);
        }
    }
    report.bad.append(&mut bad);
    report.bad.sort_by_key(|bad| bad.span);
    Ok(report)
}

fn look_at(
    store: &BlockingStore,
    chunk: Span,
    slot: Result<hoist_memory::Slot, Error>,
    report: &mut VerifyReport,
) {
    let store = store.store();
    let mut add = |span: Span, unreadable: Option<String>| {
        let name = |id: crate::TensorId| store.tensors()[id.0 as usize].spec.name.clone();
        let tensors = store.tensors_in(&span).map(name).collect();
        let places = store.extents(&span).into_iter().map(|(path, e)| (path, e.offset, e.bytes)).collect();
        report.bad.push(BadBlock { tensors, span, places, unreadable });
    };
    let slot = match slot {
        Ok(slot) => slot,
        Err(error) => return add(chunk, Some(error.to_string())),
    };
    if let Err(blocks) = verify_parts(store.checksums(&chunk).unwrap_or(&[]), slot.parts()) {
        blocks.into_iter().for_each(|block| add(store.block(&chunk, block), None));
    }
    report.blocks += hoist_format::blocks(chunk.bytes) as u64;
    report.bytes += chunk.bytes;
}
