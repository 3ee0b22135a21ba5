//! Journals whose checksums are right and whose records are not: a clear error, never a panic, and no memory without end.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;

use common::*;
use hoist_format::{
    BatchId, Extent, Lifetime, Record, ShardRecord, SpanRecord, encode_record, pad_batch, preamble,
    read_journal,
};
use hoist_store::*;
use tempfile::tempdir;

/// Opens a store of whose journal the first batch was changed.
fn open(number: Option<u64>, change: impl Fn(&mut Vec<Record>)) -> Result<Driver, Error> {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = config(&[directory.path()]);
    let tensors = ["a", "b"].map(|name| spec(name, 1 << 20, Life::Durable));
    Driver::create(&config, &slab, &tensors).unwrap().store.close().unwrap();
    let path = journal(directory.path());
    let (bytes, mut out) = (std::fs::read(&path).unwrap(), preamble());
    let (checked, _) = read_journal(&bytes, |batch| {
        let mut records = batch.records().collect();
        change(&mut records);
        records.push(Record::Epoch(batch.epoch));
        let id = BatchId { number: number.unwrap_or(batch.id.number), attempt: 7 };
        for (place, record) in records.iter().enumerate() {
            encode_record(id, place as u32, record, &mut out).unwrap();
        }
        pad_batch(&mut out);
    });
    checked.unwrap();
    out.resize(bytes.len(), 0);
    std::fs::write(&path, out).unwrap();
    Driver::open(&config, &slab)
}

fn assert_damaged(change: impl Fn(&mut Vec<Record>)) {
    match open(None, change) {
        Err(Error::Damaged { .. }) => {}
        other => panic!("{:?}", other.map(drop)),
    }
}

fn span_of(extents: Vec<Extent>, died: Option<u64>) -> Record {
    let bytes = extents.iter().map(|extent| extent.bytes).sum();
    let (checksums, life) = (vec![1; blocks(bytes)], Lifetime { born: 0, died });
    Record::Spans(vec![SpanRecord { run: 0, offset: 0, bytes, extents, checksums, life }])
}

fn extent(offset: u64, bytes: u64) -> Extent {
    Extent { segment: 0, offset, bytes }
}

#[test]
fn what_is_told_of_no_place_is_refused() {
    let far = u64::MAX - 4095;
    let wrong = [
        vec![extent(far, BLOCK / 2), extent(0, BLOCK / 2)],
        vec![extent(far, BLOCK)],
        vec![extent(1 << 40, BLOCK)],
        vec![Extent { segment: 7, ..extent(0, BLOCK) }],
        vec![extent(512, BLOCK)],
        vec![extent(0, 1000), extent(8192, BLOCK - 1000)],
    ];
    for extents in wrong {
        for died in [None, Some(1)] {
            assert_damaged(|records| records.push(span_of(extents.clone(), died)));
        }
    }
    // One that the newest epoch would have twice.
    let twice = |records: &mut Vec<Record>| {
        records.push(span_of(vec![extent(0, BLOCK), extent(0, BLOCK)], None));
    };
    assert_damaged(twice);
}

#[test]
fn a_run_that_is_larger_than_the_store_takes_no_memory() {
    assert_damaged(|records| {
        for record in records.iter_mut() {
            if let Record::Runs(runs) = record {
                runs[0].bytes = 1 << 60;
            }
        }
        records.push(span_of(vec![extent(0, BLOCK)], None));
    });
}

#[test]
fn a_shard_outside_its_whole_and_a_rank_of_none_are_refused() {
    let shard = |shape: &[u64], start| {
        let shape = shape.to_vec();
        move |records: &mut Vec<Record>| {
            for record in records.iter_mut() {
                if let Record::Tensors(tensors) = record {
                    tensors[1].shard = Some(ShardRecord { shape: shape.clone(), start });
                }
            }
        }
    };
    let mib = 1 << 20;
    let wrong = [
        (vec![mib - 1], 0),
        (vec![2, mib], mib + 1),
        (vec![2, mib], u64::MAX),
        (vec![], 0),
        (vec![0, mib], 0),
        (vec![1 << 62], 0),
        (vec![1 << 33, 1 << 33], 0),
        (vec![1; 1000], 0),
    ];
    for (shape, start) in wrong {
        assert_damaged(shard(&shape, start));
    }
    let opened = open(None, shard(&[2, mib], mib)).unwrap();
    let right = Shard { shape: vec![2, mib], start: mib };
    assert_eq!(opened.store.tensors()[1].spec.shard.as_deref(), Some(&right));
    for (rank, world_size) in [(0, 0), (3, 3)] {
        assert_damaged(|records| {
            if let Record::Header(header) = &mut records[0] {
                (header.rank, header.world_size) = (rank, world_size);
            }
        });
    }
}

#[test]
fn segments_that_cannot_be_those_of_the_directories_are_refused() {
    for segments in [vec![], vec![vec![u64::MAX; 4]], vec![vec![1 << 20], vec![1 << 20]]] {
        assert_damaged(|records| {
            if let Record::Header(header) = &mut records[0] {
                header.segments = segments.clone();
            }
        });
    }
}

#[test]
fn no_batch_has_the_last_number() {
    let opened = open(Some(u64::MAX), |_| {});
    assert!(matches!(opened, Err(Error::Damaged { .. })), "{:?}", opened.map(drop));
}
