//! Writes journals to begin with, packed, to the folder that is its argument.

use hoist_format::{
    BatchId, Class, Dtype, EpochRecord, Extent, Header, LifeKind, Lifetime, NoteRecord, Record, RunRecord,
    ShardRecord, SnapshotRecord, SourcePlace, SourceRecord, SpanRecord, StoreId, TensorRecord, TouchRecord,
    encode_record,
};
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("the folder"));
    std::fs::create_dir_all(&folder)?;
    for batches in 1..4 {
        // Choices: checksums are made right.
        let mut packed = vec![0];
        for number in 0..batches {
            let mut bytes = Vec::new();
            let records = if number == 0 { creation() } else { changes() };
            for (record, place) in records.iter().chain([&Record::Epoch(epoch(number))]).zip(0..) {
                encode_record(BatchId { number, attempt: 5 }, place, record, &mut bytes)
                    .expect("a small record");
            }
            packed.extend((bytes.len() as u16).to_le_bytes());
            packed.extend(bytes);
        }
        std::fs::write(folder.join(format!("{batches}-batches")), packed)?;
    }
    Ok(())
}

fn creation() -> Vec<Record> {
    let header = Header {
        store: StoreId(1),
        directories: vec!["/nvme/0".to_owned(), "/nvme/1".to_owned()],
        directory: 1,
        segments: vec![vec![1 << 20], vec![1 << 20, 1 << 18]],
        rank: 1,
        world_size: 2,
    };
    let run =
        RunRecord { bytes: 1 << 18, class: Class::Parameter, life: LifeKind::Durable, group: "g".to_owned() };
    let tensor = |cast_of| TensorRecord {
        name: "t".to_owned(),
        dtype: Dtype::F32,
        shape: vec![256, 256],
        run: 0,
        offset: 0,
        cast_of,
        source: Some(SourcePlace { source: 0, offset: 9 }),
        shard: Some(ShardRecord { shape: vec![512, 256], start: 65_536 }),
    };
    let source = SourceRecord { path: "/m".to_owned(), bytes: 1 << 20, mtime: (1 << 30, 7), inode: 3 };
    vec![
        Record::Header(header),
        Record::Sources(vec![source]),
        Record::Runs(vec![run]),
        Record::Tensors(vec![tensor(None), tensor(Some(0))]),
    ]
}

fn changes() -> Vec<Record> {
    let extents = vec![Extent { segment: 2, offset: 4096, bytes: 1 << 18 }];
    let life = Lifetime { born: 1, died: None };
    let span = SpanRecord { run: 0, offset: 0, bytes: 1 << 18, extents, checksums: vec![7], life };
    let note = NoteRecord { key: "step".to_owned(), bytes: Some(vec![1, 2, 3]), life };
    let snapshot = SnapshotRecord { name: "kept".to_owned(), epoch: epoch(1) };
    let deleted = Record::SnapshotDeleted("kept".to_owned());
    let touched = Record::Touched(vec![TouchRecord { run: 0, offset: 0, checksums: vec![5] }]);
    vec![Record::Spans(vec![span]), Record::Note(note), Record::Snapshot(snapshot), deleted, touched]
}

fn epoch(number: u64) -> EpochRecord {
    let scalars = vec![("loss".to_owned(), vec![1, 2])];
    EpochRecord { number, batch: number, time_s: 1 << 30, step: number, scalars }
}
