//! Journals of stores over a model's files whose records nobody has written: each is refused, and none ends the process.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;

use common::*;
use hoist_format::{BatchId, Record, TouchRecord, encode_record, pad_batch, preamble, read_journal};
use hoist_store::*;
use std::path::Path;
use tempfile::TempDir;

/// A file of tensors of so many bytes, in one layer.
fn write_model(path: &Path, sizes: &[usize]) {
    let (mut header, mut at) = (Vec::new(), 0);
    for (number, bytes) in sizes.iter().enumerate() {
        let end = at + bytes;
        header.push(format!(
            "\"layer.0.{number}\":{{\"dtype\":\"U8\",\"shape\":[{bytes}],\"data_offsets\":[{at},{end}]}}"
        ));
        at = end;
    }
    let header = format!("{{{}}}", header.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    bytes.resize(bytes.len() + at, 5);
    std::fs::write(path, bytes).unwrap();
}

/// What opening says after each record of a store over such a file was changed, with checksums that match.
fn changed(sizes: &[usize], change: impl Fn(&mut Record), more: Option<Record>) -> Option<String> {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let model = folder.path().join("m.safetensors");
    write_model(&model, sizes);
    let store = folder.path().join("store");
    let (config, io) = (config(&[&store]), IoConfig::default());
    let made = BlockingStore::create_over(&config, &io, &slab(), &ModelFiles::open(&model).unwrap());
    made.unwrap().close().unwrap();
    let journals = ["0000.journal", "0001.journal"].map(|name| store.join("manifest").join(name));
    let path =
        journals.into_iter().find(|path| std::fs::read(path).unwrap().starts_with(&preamble())).unwrap();
    let (bytes, mut out) = (std::fs::read(&path).unwrap(), preamble());
    let (checked, _) = read_journal(&bytes, |batch| {
        let id = BatchId { number: batch.id.number, attempt: 7 };
        let epoch = Record::Epoch(batch.epoch.clone());
        let mut records: Vec<Record> = batch.records().collect();
        records.iter_mut().for_each(&change);
        for (place, record) in records.iter().chain(&more).chain([&epoch]).enumerate() {
            encode_record(id, place as u32, record, &mut out).unwrap();
        }
        pad_batch(&mut out);
    });
    checked.unwrap();
    out.resize(bytes.len().max(out.len()), 0);
    std::fs::write(&path, out).unwrap();
    BlockingStore::open(&config, &io, &slab()).err().map(|error| error.to_string())
}

const MIB: usize = 1 << 20;

fn run_bytes(bytes: u64) -> impl Fn(&mut Record) {
    move |record| {
        if let Record::Runs(runs) = record {
            runs[0].bytes = bytes;
        }
    }
}

fn touch(run: u32, offset: u64, count: usize) -> Option<Record> {
    Some(Record::Touched(vec![TouchRecord { run, offset, checksums: vec![1; count] }]))
}

#[test]
fn what_was_written_is_opened() {
    assert_eq!(changed(&[2 * MIB], |_| {}, None), None);
    assert_eq!(changed(&[2 * MIB], |_| {}, touch(0, 1 << 18, 7)), None);
}

#[test]
fn runs_and_files_of_any_length_are_refused() {
    let lengths = [1 << 62, u64::MAX - 5, u64::MAX, 3 << 20, (2 << 20) + 1];
    for bytes in lengths {
        assert!(changed(&[2 * MIB], run_bytes(bytes), touch(0, 0, 1)).is_some(), "{bytes}");
        let with_file = |record: &mut Record| {
            run_bytes(bytes)(record);
            if let Record::Sources(sources) = record {
                sources[0].bytes = u64::MAX;
            }
        };
        assert!(changed(&[2 * MIB], with_file, touch(0, 0, 1)).is_some(), "{bytes}, and the file");
    }
}

#[test]
fn checksums_of_what_is_not_there_are_refused() {
    for (run, offset, count) in [(1, 0, 1), (0, 1, 1), (0, 2 << 20, 1), (0, 0, 9), (0, u64::MAX << 18, 2)] {
        assert!(changed(&[2 * MIB], |_| {}, touch(run, offset, count)).is_some(), "{run} {offset} {count}");
    }
}

#[test]
fn tensors_that_do_not_cover_their_run_are_refused() {
    // In the order of their records and of their offsets: swapped, apart, over each other, and one not in the file.
    let offsets = [[2048, 0], [0, 4096], [0, 900], [0, 1536]];
    for places in offsets {
        let change = |record: &mut Record| {
            if let Record::Tensors(tensors) = record {
                tensors.iter_mut().zip(places).for_each(|(tensor, offset)| tensor.offset = offset);
            }
            run_bytes(places.iter().max().unwrap() + 2000)(record);
        };
        assert!(changed(&[1000, 2000], change, None).is_some(), "{places:?}");
    }
    let no_source = |record: &mut Record| {
        if let Record::Tensors(tensors) = record {
            tensors[1].source = None;
        }
    };
    assert!(changed(&[1000, 2000], no_source, None).is_some());
    let outside = |record: &mut Record| {
        if let Record::Tensors(tensors) = record {
            tensors[0].source.as_mut().unwrap().offset = u64::MAX - 10;
        }
    };
    assert!(changed(&[1000, 2000], outside, None).is_some());
}
