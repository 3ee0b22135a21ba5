use super::*;
use crate::*;
use proptest::prelude::*;

fn header() -> Record {
    Record::Header(Header {
        store: StoreId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        directories: vec!["/nvme0".into()],
        directory: 0,
        segments: vec![vec![1 << 20]],
        rank: 1,
        world_size: 3,
    })
}

fn creation() -> Vec<Record> {
    let run = RunRecord {
        bytes: 600_000,
        class: Class::OptimizerState,
        life: LifeKind::Derived,
        group: "layer.1".into(),
    };
    let tensor = TensorRecord {
        name: "layer.1.weight".into(),
        dtype: Dtype::BF16,
        shape: vec![300, 1000],
        run: 0,
        offset: 0,
        cast_of: Some(3),
        source: Some(SourcePlace { source: 0, offset: 77 }),
        shard: Some(ShardRecord { shape: vec![600, 1000], start: 300_000 }),
    };
    let source = SourceRecord {
        path: "/models/a.safetensors".into(),
        bytes: 600_077,
        mtime: (1_800_000_000, 5),
        inode: 12,
    };
    vec![header(), Record::Sources(vec![source]), Record::Runs(vec![run]), Record::Tensors(vec![tensor])]
}

/// What batch `number` holds besides its epoch: contents follow from the number, so that a wrong one shows.
fn records(number: u64) -> Vec<Record> {
    let span = SpanRecord {
        run: number as u32,
        offset: 0,
        bytes: 300_000,
        extents: vec![Extent { segment: 0, offset: number * 4096, bytes: 300_000 }],
        checksums: vec![number * 3, number * 5],
        life: Lifetime { born: number - 3, died: (number == 7).then_some(number - 1) },
    };
    let note = NoteRecord {
        key: format!("step {number}"),
        bytes: Some(vec![number as u8; 3]),
        life: Lifetime { born: number, died: None },
    };
    let snapshot = SnapshotRecord { name: format!("before {number}"), epoch: epoch(number - 1) };
    let deleted = Record::SnapshotDeleted(format!("before {}", number - 1));
    let touch = TouchRecord { run: 0, offset: 0, checksums: vec![number] };
    let (snapshot, touched) = (Record::Snapshot(snapshot), Record::Touched(vec![touch]));
    vec![Record::Spans(vec![span]), Record::Note(note), snapshot, deleted, touched]
}

/// The epoch that batch `number` makes.
fn epoch(number: u64) -> EpochRecord {
    let scalars = vec![("rate".into(), vec![number as u8, 7])];
    EpochRecord {
        number: number - 2,
        batch: number,
        time_s: 1_800_000_000 + number,
        step: number * 10,
        scalars,
    }
}

fn id(number: u64) -> BatchId {
    BatchId { number, attempt: number * 0x0101_0101 }
}

fn append(out: &mut Vec<u8>, number: u64, first: bool) -> Vec<Record> {
    let mut all = if first { creation() } else { Vec::new() };
    all.extend(records(number));
    for (place, record) in all.iter().chain([&Record::Epoch(epoch(number))]).enumerate() {
        encode_record(id(number), place as u32, record, out).unwrap();
    }
    pad_batch(out);
    all
}

/// A batch with its records.
#[derive(Debug, PartialEq)]
struct Whole {
    id: BatchId,
    records: Vec<Record>,
    epoch: EpochRecord,
}

fn journal(batches: u64) -> (Vec<u8>, Vec<Whole>) {
    let mut bytes = preamble();
    let batches = (7..7 + batches).map(|number| {
        let records = append(&mut bytes, number, number == 7);
        Whole { id: id(number), records, epoch: epoch(number) }
    });
    let batches = batches.collect();
    (bytes, batches)
}

fn read(bytes: &[u8]) -> (Result<(), Error>, Tail, Vec<Whole>) {
    let mut batches = Vec::new();
    let (checked, tail) = read_journal(bytes, |batch| {
        let records = batch.records().collect();
        batches.push(Whole { id: batch.id, records, epoch: batch.epoch });
    });
    (checked, tail, batches)
}

#[test]
fn reads_what_was_written() {
    let (bytes, batches) = journal(3);
    let (checked, tail, found) = read(&bytes);
    checked.unwrap();
    assert_eq!((tail.bytes, tail.newest_seen), (bytes.len(), Some(9)));
    assert_eq!(found, batches);
}

#[test]
fn is_the_same_bytes_as_ever() {
    let mut frame = Vec::new();
    let record = Record::Spans(vec![SpanRecord {
        run: 2,
        offset: 3,
        bytes: 6,
        extents: vec![Extent { segment: 4, offset: 5, bytes: 6 }],
        checksums: vec![7],
        life: Lifetime { born: 8, died: Some(9) },
    }]);
    encode_record(id(9), 1, &record, &mut frame).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        hex(&frame),
        concat!(
            "5d000000",
            "01000000",
            "0900000000000000",
            "0909090900000000",
            "274d42eeda8cdaeb",
            "03000000",
            "0100000000000000",
            "02000000",
            "0300000000000000",
            "0600000000000000",
            "0100000000000000",
            "04000000",
            "0500000000000000",
            "0600000000000000",
            "0100000000000000",
            "0700000000000000",
            "0800000000000000",
            "01",
            "0900000000000000",
        )
    );
    assert_eq!(
        hex(&preamble()[..24]),
        concat!("686f6973746a6e6c", "04000000", "00000000", "7e35c83d21271266")
    );
    let (bytes, _) = journal(2);
    let mut crc = Vec::new();
    crate::checksum([bytes.as_slice()].into_iter(), &mut crc);
    assert_eq!(crc, [7_458_944_320_286_473_532], "every record type is in it");
}

#[test]
fn another_version_is_told() {
    for found in [1, 2, 3, 5] {
        let (mut bytes, _) = journal(1);
        bytes[8] = found;
        let crc = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &bytes[0..16]);
        bytes[16..24].copy_from_slice(&crc.to_le_bytes());
        let found = u32::from(found);
        assert_eq!(read(&bytes).0, Err(Error::OtherVersion { found, supported: 4 }));
    }
}

#[test]
fn a_record_over_the_limit_is_refused() {
    let mut out = vec![1, 2, 3];
    let bytes = Some(vec![5; RECORD_BYTES_MAX as usize]);
    let note = NoteRecord { key: "large".into(), bytes, life: Lifetime { born: 1, died: None } };
    let error = encode_record(id(1), 0, &Record::Note(note), &mut out).unwrap_err();
    assert!(matches!(error, Error::RecordTooLarge { .. }), "{error}");
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn a_batch_that_makes_no_epoch_tells_of_an_older_one() {
    let (mut bytes, mut batches) = journal(1);
    for (number, newest) in [(8, 7), (9, 10)] {
        let records = vec![Record::SnapshotDeleted("old".into())];
        for (place, record) in records.iter().chain([&Record::Epoch(epoch(newest))]).enumerate() {
            encode_record(id(number), place as u32, record, &mut bytes).unwrap();
        }
        pad_batch(&mut bytes);
        batches.push(Whole { id: id(number), records, epoch: epoch(newest) });
    }
    let (_, tail, found) = read(&bytes);
    assert_eq!(found, batches[..2], "an epoch of a batch that is still to come");
    assert_eq!(tail.newest_seen, Some(9));
}

// Kills: a batch that is cut off after a beginning that an earlier attempt had as well, and is completed by its end.
#[test]
fn what_is_left_of_an_earlier_attempt_completes_no_batch() {
    let write = |attempt: u64, out: &mut Vec<u8>| {
        let mut all = records(8);
        all.insert(
            0,
            Record::Note(NoteRecord {
                key: "long".into(),
                bytes: Some(vec![7; 3 * 4096]),
                life: Lifetime { born: 8, died: None },
            }),
        );
        for (place, record) in all.iter().chain([&Record::Epoch(epoch(8))]).enumerate() {
            encode_record(BatchId { number: 8, attempt }, place as u32, record, out).unwrap();
        }
        pad_batch(out);
    };
    let (start, _) = journal(1);
    let (mut first, mut second) = (start.clone(), start.clone());
    write(1, &mut first);
    write(2, &mut second);
    assert_eq!(first.len(), second.len());
    assert_eq!((read(&first).2.len(), read(&second).2.len()), (2, 2));
    for cut in (start.len()..first.len()).step_by(512) {
        let torn = [&second[..cut], &first[cut..]].concat();
        let whole = torn == first || torn == second;
        assert_eq!(read(&torn).2.len(), if whole { 2 } else { 1 }, "cut at {cut}");
    }
}

#[test]
fn every_cut_gives_a_prefix() {
    let (bytes, batches) = journal(3);
    for cut in 0..bytes.len() {
        let (checked, tail, found) = read(&bytes[..cut]);
        assert_eq!(checked.is_ok(), cut >= JOURNAL_ALIGN_BYTES, "cut at {cut}");
        assert!(found.len() < batches.len() && found == batches[..found.len()], "cut at {cut}");
        assert!(tail.bytes <= cut.max(JOURNAL_ALIGN_BYTES));
    }
}

#[test]
fn every_flipped_byte_gives_an_error_or_a_prefix() {
    let (mut bytes, batches) = journal(3);
    for place in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            bytes[place] ^= flip;
            let (checked, tail, found) = read(&bytes);
            assert!(found == batches[..found.len()], "a wrong record after a flip at {place}");
            // Bytes 24.. of the preamble's block carry nothing.
            let spare = (PREAMBLE_BYTES..JOURNAL_ALIGN_BYTES).contains(&place);
            assert!(spare || checked.is_err() || found.len() < batches.len(), "unseen flip at {place}");
            if found.len() == 1 {
                assert_eq!(tail.newest_seen, Some(9), "damage before batch 9 shows as such, flip at {place}");
            }
            bytes[place] ^= flip;
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        let (_, _, found) = read(&bytes);
        prop_assert!(found.is_empty());
        let _ = codec::decode(&bytes);
    }

    #[test]
    fn any_payload_behind_a_valid_checksum_is_read(
        tag in 0u32..9, payload in prop::collection::vec(any::<u8>(), 1..200), number in 0u32..2,
    ) {
        let payload = [&tag.to_le_bytes(), payload.as_slice()].concat();
        let mut bytes = preamble();
        let mut head = [0; 24];
        head[0..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[4..8].copy_from_slice(&number.to_le_bytes());
        let crc = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &[&head, payload.as_slice()].concat());
        bytes.extend(head);
        bytes.extend(crc.to_le_bytes());
        bytes.extend(&payload);
        pad_batch(&mut bytes);
        let (_, _, found) = read(&bytes);
        prop_assert!(found.is_empty(), "a single frame is never a batch that starts with a header");
    }

    #[test]
    fn lengths_from_outside_allocate_no_more_than_the_limit(length in any::<u64>()) {
        let payload = [&3u32.to_le_bytes()[..], &length.to_le_bytes()].concat();
        prop_assert!(length == 0 || codec::decode(&payload).is_err());
    }
}
