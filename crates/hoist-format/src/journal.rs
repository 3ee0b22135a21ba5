//! A journal: a preamble, then batches of frames. A batch starts at a multiple of [`JOURNAL_ALIGN_BYTES`], is written
//! at once, and holds when its last frame, the epoch, is there.

use crate::{BatchId, EpochRecord, Error, Record, codec, frame};
use crc_fast::{CrcAlgorithm, checksum};

/// The version that this crate writes, and the only one that it reads. In version 1 a run lay whole in one directory; in
/// version 2 there was one epoch, in version 3 all bytes lay in the store's own files.
pub const FORMAT_VERSION: u32 = 4;

/// Batches start at multiples of this, so that appending one never rewrites a block that holds an older one.
/// 4096: the largest logical block of NVMe drives in use, and the page of x86-64.
pub const JOURNAL_ALIGN_BYTES: usize = 4096;

/// Bytes of the preamble that are not zero: magic, version, reserved, checksum.
pub(crate) const PREAMBLE_BYTES: usize = 24;

const MAGIC: [u8; 8] = *b"hoistjnl";

/// The first [`JOURNAL_ALIGN_BYTES`] of a journal. It is outside the codec, so that any later version can be told.
pub fn preamble() -> Vec<u8> {
    let mut block = vec![0; JOURNAL_ALIGN_BYTES];
    block[0..8].copy_from_slice(&MAGIC);
    block[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let crc = checksum(CrcAlgorithm::Crc64Nvme, &block[0..16]);
    block[16..24].copy_from_slice(&crc.to_le_bytes());
    block
}

fn check_preamble(bytes: &[u8]) -> Result<(), Error> {
    let block = bytes.get(..JOURNAL_ALIGN_BYTES).ok_or(Error::NotAJournal)?;
    let crc = checksum(CrcAlgorithm::Crc64Nvme, &block[0..16]);
    if block[0..8] != MAGIC || block[16..24] != crc.to_le_bytes() {
        return Err(Error::NotAJournal);
    }
    let found = u32::from_le_bytes([block[8], block[9], block[10], block[11]]);
    if found != FORMAT_VERSION {
        return Err(Error::OtherVersion { found, supported: FORMAT_VERSION });
    }
    Ok(())
}

/// Ends a batch: zeros to the next multiple of [`JOURNAL_ALIGN_BYTES`], where the next batch starts.
pub fn pad_batch(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(JOURNAL_ALIGN_BYTES), 0);
}

/// Records that hold together or not at all.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Its number, one more than that of the batch before it, and the attempt that wrote it.
    pub id: BatchId,
    /// The closing record: the newest epoch.
    pub epoch: EpochRecord,
    /// The frames of its other records, all of which can be decoded.
    frames: &'a [u8],
}

impl Batch<'_> {
    /// Its records, in order, without the closing one. Each is decoded when it is asked for: those of a large store at once
    /// take more memory than the store, and what they leave of the heap is in pieces.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let mut frames = self.frames;
        std::iter::from_fn(move || {
            let (_, record, rest) = read_record(frames)?;
            frames = rest;
            Some(record)
        })
    }
}

/// The first frame, its record, and what is behind it.
fn read_record(bytes: &[u8]) -> Option<(frame::Frame<'_>, Record, &[u8])> {
    let frame = frame::read_frame(bytes).ok()?;
    let record = codec::decode(frame.payload).ok()?;
    let rest = &bytes[frame::FRAME_HEAD_BYTES + frame.payload.len()..];
    Some((frame, record, rest))
}

/// Where the valid part of a journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// The next batch belongs here: a multiple of [`JOURNAL_ALIGN_BYTES`].
    pub bytes: usize,
    /// The highest batch number of any frame with a matching checksum, behind the valid part too. A write that was
    /// cut leaves at most one more than the last valid batch; more says that the journal was damaged later.
    pub newest_seen: Option<u64>,
}

/// Reads a journal's preamble and then its batches in order, as far as they are whole and consecutive; `visit` gets
/// each. The first batch must start with a header record, later ones must not hold one.
///
/// # Errors
/// No preamble, or one of another version. Bytes behind it never give an error: they end the valid part.
pub fn read_journal(bytes: &[u8], mut visit: impl FnMut(Batch<'_>)) -> (Result<(), Error>, Tail) {
    let checked = check_preamble(bytes);
    let mut tail = Tail { bytes: JOURNAL_ALIGN_BYTES, newest_seen: None };
    let mut last = None;
    while checked.is_ok() {
        let Some((batch, end)) = read_batch(bytes, tail.bytes, last) else { break };
        (last, tail) = (Some(batch.id.number), Tail { bytes: end, newest_seen: Some(batch.id.number) });
        visit(batch);
    }
    for at in (tail.bytes..bytes.len()).step_by(JOURNAL_ALIGN_BYTES) {
        if let Ok(frame) = frame::read_frame(&bytes[at..]) {
            tail.newest_seen = tail.newest_seen.max(Some(frame.batch.number));
        }
    }
    (checked, tail)
}

/// The batch at `start`, which must follow batch `last`, and where the next one starts.
fn read_batch(bytes: &[u8], start: usize, last: Option<u64>) -> Option<(Batch<'_>, usize)> {
    let mut at = start;
    let mut id = None;
    for number in 0.. {
        let (frame, record, rest) = read_record(bytes.get(at..)?)?;
        let frames = &bytes[start..at];
        at = bytes.len() - rest.len();
        let id = *id.get_or_insert(frame.batch);
        let consecutive = last.is_none_or(|last| last.checked_add(1) == Some(id.number));
        if frame.batch != id || frame.number != number || !consecutive {
            return None;
        }
        let first = last.is_none() && number == 0;
        if matches!(record, Record::Header(_)) != first {
            return None;
        }
        if let Record::Epoch(epoch) = record {
            let end = at.next_multiple_of(JOURNAL_ALIGN_BYTES);
            let padding = bytes.get(at..end)?;
            let whole = epoch.batch <= id.number && padding.iter().all(|byte| *byte == 0);
            return whole.then_some((Batch { id, epoch, frames }, end));
        }
    }
    None
}

#[cfg(test)]
mod tests;
