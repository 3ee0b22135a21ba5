//! Whatever a journal's bytes are, its decoder neither panics nor takes much memory, and what it gives is what was written.

#![no_main]

mod pack;

use hoist_format::{FRAME_HEAD_BYTES, JOURNAL_ALIGN_BYTES, Record, encode_record, pad_batch, read_journal};

libfuzzer_sys::fuzz_target!(|packed: &[u8]| {
    let journal = pack::unpack(packed);
    let (mut again, mut last) = (hoist_format::preamble(), None);
    let (checked, tail) = read_journal(&journal, |batch| {
        assert!(last.is_none_or(|last| batch.id.number == last + 1), "batches follow each other");
        last = Some(batch.id.number);
        let frames = batch.records().chain([Record::Epoch(batch.epoch.clone())]).zip(0..);
        frames.for_each(|(record, number)| {
            encode_record(batch.id, number, &record, &mut again).expect("it was read")
        });
        pad_batch(&mut again);
    });
    assert_eq!(checked, Ok(()));
    assert!(tail.bytes.is_multiple_of(JOURNAL_ALIGN_BYTES) && tail.bytes >= JOURNAL_ALIGN_BYTES);
    assert_eq!(tail.newest_seen.max(last), tail.newest_seen);
    assert!(tail.newest_seen.is_none() || journal.len() >= JOURNAL_ALIGN_BYTES + FRAME_HEAD_BYTES);
    // A record has one form.
    assert!(again == journal[..tail.bytes], "what was read is not what is there");
});
