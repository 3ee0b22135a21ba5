//! Frames: one record with its length, its place and its checksum.
//!
//! ```text
//! 0   u32  payload bytes, 1 to RECORD_BYTES_MAX
//! 4   u32  number of the frame in its batch, from 0
//! 8   u64  number of the batch
//! 16  u64  the attempt to write that batch: a random number
//! 24  u64  CRC-64/NVME of the 24 bytes before and of the payload
//! 32  payload
//! ```
//!
//! Number and batch make the order of frames checkable: a length that turned into 0 cannot hide a frame. All frames of a
//! batch are of one attempt: what is left of one that was cut off, at the same place and perhaps with an equal beginning,
//! cannot complete the next one.

use crate::{Error, Record, codec};
use crc_fast::{CrcAlgorithm, Digest};

/// Bytes before a frame's payload.
pub const FRAME_HEAD_BYTES: usize = 32;

/// Bytes of the head that the checksum covers; it lies behind them.
const SUMMED_BYTES: usize = 24;

/// A batch, as each of its frames names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchId {
    /// Its number.
    pub number: u64,
    /// The attempt to write it: a random number, never used for another one.
    pub attempt: u64,
}

/// The largest payload. A record of 4,096 runs, tensors or spans of usual size is far below; it bounds what a
/// decoder allocates for one frame.
pub const RECORD_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A valid frame: where it stands, and its payload.
pub(crate) struct Frame<'a> {
    pub number: u32,
    pub batch: BatchId,
    pub payload: &'a [u8],
}

fn crc(head: &[u8], payload: &[u8]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    digest.update(head);
    digest.update(payload);
    digest.finalize()
}

/// Appends the frame of `record` to `out`: frame `number` of batch `batch`. On an error `out` is as before.
pub fn encode_record(batch: BatchId, number: u32, record: &Record, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    out.resize(start + FRAME_HEAD_BYTES, 0);
    if let Err(error) = codec::encode(record, out) {
        out.truncate(start);
        return Err(error);
    }
    let (head, payload) = out[start..].split_at_mut(FRAME_HEAD_BYTES);
    // The codec has refused payloads over RECORD_BYTES_MAX, so the length fits.
    head[0..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    head[4..8].copy_from_slice(&number.to_le_bytes());
    head[8..16].copy_from_slice(&batch.number.to_le_bytes());
    head[16..24].copy_from_slice(&batch.attempt.to_le_bytes());
    let crc = crc(&head[..SUMMED_BYTES], payload);
    head[SUMMED_BYTES..].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// The frame at the start of `bytes`.
pub(crate) fn read_frame(bytes: &[u8]) -> Result<Frame<'_>, Error> {
    let bad = |what| Error::BadFrame { what };
    let (head, rest) = bytes.split_at_checked(FRAME_HEAD_BYTES).ok_or(bad("cut short in its head"))?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let payload_bytes = u64::from(word(0));
    if payload_bytes == 0 || payload_bytes > RECORD_BYTES_MAX {
        return Err(bad("its length is out of range"));
    }
    let payload = rest.get(..payload_bytes as usize).ok_or(bad("cut short in its payload"))?;
    if crc(&head[..SUMMED_BYTES], payload) != long(SUMMED_BYTES) {
        return Err(bad("its checksum does not match"));
    }
    Ok(Frame { number: word(4), batch: BatchId { number: long(8), attempt: long(16) }, payload })
}
