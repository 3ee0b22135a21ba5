//! What a store holds after commits, crashes and damage.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;

use common::*;
use hoist_store::*;
use std::os::unix::fs::FileExt;
use tempfile::tempdir;

const LARGE: u64 = (5 << 19) - 1;

fn tensors() -> Vec<TensorSpec> {
    vec![
        spec("small", 100, Life::Durable),
        spec("large", LARGE, Life::Durable),
        spec("scratch", (1 << 20) + 1, Life::Scratch),
        spec("cast", LARGE, Life::Derived { from: "large".into() }),
        spec("other", 1000, Life::Durable),
    ]
}

#[test]
fn dropped_without_commit_it_is_at_the_last_epoch() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = config(&[directory.path()]);
    let mut store = Driver::create(&config, &slab, &tensors()).unwrap();
    let whole = store.whole(1);
    assert!(!store.store.has_bytes(&whole));
    store.write(whole, 1).unwrap();
    store.store.set_note("step", vec![1]).unwrap();
    assert_eq!(store.commit(), 1);
    store.write(whole, 2).unwrap();
    store.write(store.whole(0), 2).unwrap();
    store.write(store.whole(2), 2).unwrap();
    store.store.set_note("step", vec![2]).unwrap();
    store.assert_holds(whole, 2);
    drop(store);
    let mut store = Driver::open(&config, &slab).unwrap();
    assert_eq!((store.store.epoch(), store.store.note("step")), (1, Some(&[1][..])));
    store.assert_holds(whole, 1);
    assert!(!store.store.has_bytes(&store.whole(0)) && !store.store.has_bytes(&store.whole(2)));
    assert!(matches!(store.read(store.whole(0)), Err(Error::NoBytes { .. })));
    let specs: Vec<_> = store.store.tensors().iter().map(|tensor| tensor.spec.clone()).collect();
    assert_eq!(specs, tensors());
    assert_eq!(store.store.tensor("cast"), Some(TensorId(3)));
    let listed: Vec<_> = store.store.ls().map(|tensor| (tensor.run_tensors, tensor.has_bytes)).collect();
    assert_eq!(listed, [(2, false), (1, true), (1, false), (1, false), (2, false)]);
    // All space but that of the committed bytes is free again.
    let used: u64 = [LARGE].iter().map(|bytes| bytes.next_multiple_of(4096)).sum();
    let total: u64 = (0..).map_while(|n| segment_bytes(directory.path(), n)).sum();
    assert_eq!(store.store.directories().map(|one| one.free_bytes).sum::<u64>(), total - used);
}

fn segment_bytes(directory: &std::path::Path, number: u32) -> Option<u64> {
    std::fs::metadata(directory.join("data").join(format!("{number:04}.seg"))).ok().map(|file| file.len())
}

#[test]
fn files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, slab) = (tempdir().unwrap(), slab());
    let path = directory.path().join("deep/store");
    let store = Driver::create(&config(&[&path]), &slab, &tensors()).unwrap();
    let mode = |file: &str| std::fs::metadata(path.join(file)).unwrap().permissions().mode() & 0o777;
    for folder in ["", "manifest", "data"] {
        assert_eq!(mode(folder), 0o700, "{folder:?}");
    }
    for file in ["hoist.lock", "manifest/0000.journal", "manifest/0001.journal", "data/0000.seg"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    drop(store);
}

#[test]
fn spans_may_be_rewritten_in_other_pieces() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = config(&[directory.path()]);
    let mut store = Driver::create(&config, &slab, &tensors()).unwrap();
    store.write(store.whole(1), 1).unwrap();
    store.commit();
    store.write(span(1, BLOCK, 3 * BLOCK), 2).unwrap();
    store.write(span(1, 8 * BLOCK, LARGE - 8 * BLOCK), 3).unwrap();
    store.commit();
    drop(store);
    let mut store = Driver::open(&config, &slab).unwrap();
    store.assert_holds(span(1, 0, BLOCK), 1);
    store.assert_holds(span(1, BLOCK, 3 * BLOCK), 2);
    store.assert_holds(span(1, 4 * BLOCK, 4 * BLOCK), 1);
    store.assert_holds(span(1, 8 * BLOCK, LARGE - 8 * BLOCK), 3);
    assert_eq!(store.read(store.whole(1)).unwrap().len() as u64, LARGE);
    store.store.close().unwrap();
}

#[test]
fn wrong_spans_are_refused_with_their_slots() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let mut store = Driver::create(&config(&[directory.path()]), &slab, &tensors()).unwrap();
    for wrong in
        [span(1, 1, BLOCK), span(1, 0, BLOCK + 1), span(1, 0, LARGE + 1), span(9, 0, 1), span(1, 0, 0)]
    {
        let error = store.start_write(wrong, 1).unwrap_err();
        assert!(matches!(error, Error::BadSpan { .. }), "{wrong}: {error}");
    }
    let free = slab.pages_free();
    store.start_write(span(1, 0, 2 * BLOCK), 1).unwrap();
    assert!(matches!(store.start_write(span(1, BLOCK, BLOCK), 1), Err(Error::Busy { .. })));
    assert!(matches!(store.store.commit(&Scalars::default()), Err(Error::NotYet { .. })));
    assert!(matches!(store.event(), StoreEvent::Written { result: Ok(()), .. }));
    assert_eq!(slab.pages_free(), free, "every slot came back");
}

#[test]
fn no_space_says_need_and_free_and_a_commit_makes_room() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let mut store =
        Driver::create(&config(&[directory.path()]), &slab, &[spec("a", 1 << 20, Life::Durable)]).unwrap();
    let whole = store.whole(0);
    for seed in 0..20 {
        store.write(whole, seed).unwrap();
        store.commit();
    }
    store.write(whole, 20).unwrap();
    store.store.commit(&Scalars::default()).unwrap();
    // Until epoch 21 is durable, both copies of the bytes are needed.
    match store.start_write(whole, 21) {
        Err(Error::NoSpace { need_bytes, free_bytes, .. }) => {
            assert_eq!((need_bytes, free_bytes), (1 << 20, 0))
        }
        other => panic!("{other:?}"),
    }
    store.wait_for_commit();
    store.write(whole, 21).unwrap();
    // Bytes that no epoch holds yet are written again where they are.
    store.write(whole, 22).unwrap();
    store.assert_holds(whole, 22);
    store.commit();
    store.assert_holds(whole, 22);
}

#[test]
fn a_commit_goes_on_while_the_next_epoch_is_written() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = config(&[directory.path()]);
    let mut store = Driver::create(&config, &slab, &tensors()).unwrap();
    store.write(span(1, 0, BLOCK), 1).unwrap();
    store.store.commit(&Scalars::default()).unwrap();
    assert!(matches!(store.store.commit(&Scalars::default()), Err(Error::NotYet { .. })));
    store.write(span(1, 0, BLOCK), 2).unwrap();
    if store.committed.is_empty() {
        store.wait_for_commit();
    }
    store.assert_holds(span(1, 0, BLOCK), 2);
    drop(store);
    let mut store = Driver::open(&config, &slab).unwrap();
    store.assert_holds(span(1, 0, BLOCK), 1);
}

#[test]
fn without_durability_close_keeps_what_was_written_in_place() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = Config { durability: Durability::None, ..config(&[directory.path()]) };
    let mut store = Driver::create(&config, &slab, &tensors()).unwrap();
    store.write(store.whole(1), 1).unwrap();
    let before = store.store.extents(&store.whole(1));
    assert_eq!(store.store.commit(&Scalars::default()).unwrap(), 1);
    store.write(span(1, 0, BLOCK), 2).unwrap();
    assert_eq!(store.store.extents(&store.whole(1)), before, "in place");
    store.store.close().unwrap();
    let mut store = Driver::open(&config, &slab).unwrap();
    assert_eq!(store.store.epoch(), 1);
    store.assert_holds(span(1, 0, BLOCK), 2);
    store.assert_holds(span(1, BLOCK, 2 * BLOCK), 1);
    store.store.close().unwrap();
    assert_eq!(Driver::open(&config, &slab).unwrap().store.epoch(), 1, "nothing changed, nothing is written");
}

#[test]
fn the_journal_is_rewritten_when_it_is_full() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = config(&[directory.path()]);
    let mut store = Driver::create(&config, &slab, &tensors()).unwrap();
    store.write(store.whole(1), 1).unwrap();
    store.commit();
    let first = journal(directory.path());
    let mut swaps = 0;
    for seed in 0..20u64 {
        store.store.set_note("large", vec![seed as u8; 200_000]).unwrap();
        store.write(span(1, 0, BLOCK), seed).unwrap();
        store.commit();
        swaps += u32::from(journal(directory.path()) != first);
        assert!(std::fs::metadata(journal(directory.path())).unwrap().len() < 2 << 20);
    }
    assert!(swaps > 0, "20 notes of 200,000 bytes do not fit 1 MiB");
    drop(store);
    let mut store = Driver::open(&config, &slab).unwrap();
    assert_eq!((store.store.epoch(), store.store.note("large").unwrap()[0]), (21, 19));
    store.assert_holds(span(1, 0, BLOCK), 19);
    store.assert_holds(span(1, BLOCK, BLOCK), 1);
}

#[test]
fn a_flipped_byte_is_found_and_named() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = config(&[directory.path()]);
    let mut store = Driver::create(&config, &slab, &tensors()).unwrap();
    for run in [0, 1] {
        store.write(store.whole(run), 5).unwrap();
    }
    store.commit();
    let (last, small) = (span(1, 9 * BLOCK, LARGE - 9 * BLOCK), store.whole(0));
    let places = [last, small].map(|span| store.store.extents(&span).remove(0));
    store.store.close().unwrap();
    for (path, extent) in &places {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        let at = extent.offset + extent.bytes - 1;
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    }
    let mut store = BlockingStore::open(&config, &hoist_io::Config::default(), &slab).unwrap();
    let report = verify(&mut store).unwrap();
    let found: Vec<_> =
        report.bad.iter().map(|bad| (bad.span, bad.tensors.clone(), bad.places.clone())).collect();
    let place = |n: usize| vec![(places[n].0.clone(), places[n].1.offset, places[n].1.bytes)];
    assert_eq!(
        found,
        [(small, vec!["small".into(), "other".into()], place(1)), (last, vec!["large".into()], place(0))]
    );
    assert_eq!(report.blocks, 11);
    let error = store.tensor_bytes(TensorId(1)).unwrap_err().to_string();
    assert!(error.contains("large") && error.contains(places[0].0.to_str().unwrap()), "{error}");
    assert!(store.tensor_bytes(TensorId(0)).is_err());
}

#[test]
fn a_journal_cut_anywhere_opens_at_an_older_epoch_or_says_why_not() {
    let (directory, copy, slab) = (tempdir().unwrap(), tempdir().unwrap(), slab());
    let config_of = config(&[directory.path()]);
    let small = [spec("a", 100, Life::Durable)];
    let mut store = Driver::create(&config_of, &slab, &small).unwrap();
    for seed in 1..=3 {
        store.write(store.whole(0), seed).unwrap();
        store.commit();
    }
    let whole = store.whole(0);
    drop(store);
    let bytes = std::fs::read(journal(directory.path())).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // The layout is 4 KiB blocks: every cut around their edges and inside their records, a few in their padding.
    let interesting = |cut: &usize| cut % 4096 < 300 || cut % 4096 > 4092 || cut.is_multiple_of(512);
    let mut epochs = std::collections::BTreeSet::new();
    for cut in
        (0..=used.next_multiple_of(4096)).filter(interesting).step_by(7).chain([used.next_multiple_of(4096)])
    {
        let path = copy.path().join(cut.to_string());
        copy_tree(directory.path(), &path);
        std::fs::write(journal(&path), &bytes[..cut]).unwrap();
        match Driver::open(&config(&[&path]), &slab) {
            Ok(mut store) => {
                let epoch = store.store.epoch();
                epochs.insert(epoch);
                assert_eq!(epoch, (cut / 4096).saturating_sub(2) as u64, "cut at {cut}");
                // The extents of older epochs are free again later: bytes are those of the epoch, or refused.
                match store.read(whole) {
                    Ok(_) => store.assert_holds(whole, epoch),
                    Err(Error::NoBytes { .. }) => assert_eq!(epoch, 0),
                    Err(error) => assert!(matches!(error, Error::Corrupt { .. }) && epoch < 3, "{error}"),
                }
            }
            Err(Error::NoStore { .. }) => assert!(cut < 2 * 4096, "cut at {cut}"),
            Err(error) => panic!("cut at {cut}: {error}"),
        }
        std::fs::remove_dir_all(path).unwrap();
    }
    assert_eq!(epochs.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn damage_that_no_cut_off_write_explains_is_refused() {
    let (directory, slab) = (tempdir().unwrap(), slab());
    let config = config(&[directory.path()]);
    let mut store = Driver::create(&config, &slab, &[spec("a", 100, Life::Durable)]).unwrap();
    for seed in 1..=4 {
        store.write(store.whole(0), seed).unwrap();
        store.commit();
    }
    drop(store);
    let path = journal(directory.path());
    let bytes = std::fs::read(&path).unwrap();
    // Blocks: preamble, epoch 0, 1, 2, 3, 4.
    for (block, opens_at) in [(0, None), (1, None), (2, None), (3, None), (4, None), (5, Some(3))] {
        let mut damaged = bytes.clone();
        damaged[block * 4096 + 17] ^= 4;
        std::fs::write(&path, &damaged).unwrap();
        match (Driver::open(&config, &slab), opens_at) {
            (Ok(store), Some(epoch)) => assert_eq!(store.store.epoch(), epoch),
            (Err(error @ Error::Damaged { .. }), None) => assert!(error.to_string().contains("batch 4")),
            (other, _) => panic!("block {block}: {:?}", other.err().map(|error| error.to_string())),
        }
    }
}
