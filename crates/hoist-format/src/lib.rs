//! The bytes of a store: the journal's preamble, its records in frames, and the checksums of data.
//!
//! This crate knows no files and no rings: it turns records into bytes and back. It is the only user of bincode,
//! and no bincode type is in its interface, so the codec can be replaced behind [`encode_record`] and
//! [`read_journal`] without a change elsewhere. `docs/format.md` draws the files.

#![forbid(unsafe_code)]

mod checksum;
mod codec;
mod dtype;
mod error;
mod frame;
mod journal;
mod records;

pub use checksum::{CHECKSUM_BYTES, blocks, checksum};
pub use dtype::Dtype;
pub use error::Error;
pub use frame::{BatchId, FRAME_HEAD_BYTES, RECORD_BYTES_MAX, encode_record};
pub use journal::{Batch, FORMAT_VERSION, JOURNAL_ALIGN_BYTES, Tail, pad_batch, preamble, read_journal};
pub use records::{
    Class, EpochRecord, Extent, Header, LifeKind, Lifetime, NoteRecord, Record, RunRecord, ShardRecord,
    SnapshotRecord, SourcePlace, SourceRecord, SpanRecord, StoreId, TensorRecord, TouchRecord,
};
