//! Files that are only read, whose ranges begin and end anywhere.

use crate::common::*;
use hoist_io::{
    Backend, Error, Fault, FaultKind, Faults, Faulty, FileId, FileOp, FileRange, Priority, Request, Short,
    Transfer, Wait,
};
use hoist_memory::{AlignedBuffer, Slab};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// Ends in the middle of a sector.
const FILE_BYTES: u64 = 700_001;

fn source(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("source");
    let bytes: Vec<u8> = (0..FILE_BYTES).map(|index| byte(3, index)).collect();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The same, which nobody may write.
fn protected_source(folder: &Path) -> std::path::PathBuf {
    let path = source(folder);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    path
}

/// A backend of each kind, with its slab.
fn backends() -> impl Iterator<Item = (Box<dyn Backend>, Arc<Slab>)> {
    BACKENDS.into_iter().map(|choice| {
        let slab = slab(4 << 20);
        (backend(choice, &slab), slab)
    })
}

fn open_source(backend: &mut dyn Backend, path: &Path) -> FileId {
    backend.file(FileOp::OpenSource { path: path.to_owned() }).unwrap().file()
}

fn read(backend: &mut dyn Backend, ranges: Vec<FileRange>, transfer: Transfer) -> Result<Transfer, Error> {
    backend.push(Request { id: 1, priority: Priority::Demand, ranges, transfer });
    let mut done = Vec::new();
    while done.is_empty() {
        backend.reap(Wait::UntilSomething, &mut done).unwrap();
    }
    let completion = done.remove(0);
    completion.result.map(|()| completion.transfer)
}

/// Ranges of the file, one behind the other in memory with gaps; what memory they need.
fn ranges(file: FileId, places: &[(u64, u64, u64)]) -> (Vec<FileRange>, u64) {
    let mut at = 0;
    let ranges = places
        .iter()
        .map(|(offset, bytes, gap)| {
            let offset = offset % FILE_BYTES;
            let bytes = (*bytes).min(FILE_BYTES - offset);
            let range = FileRange { file, offset, bytes, buffer_offset: at + gap };
            at += gap + bytes;
            range
        })
        .collect();
    (ranges, at.max(1))
}

fn places() -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
    let offset = prop_oneof![0..FILE_BYTES, (0..170u64).prop_map(|sector| sector * 4096)];
    let bytes = prop_oneof![0..9000u64, 0..200_000u64, (0..20u64).prop_map(|sectors| sectors * 4096)];
    proptest::collection::vec((offset, bytes, prop_oneof![Just(0), 0..300u64]), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// What is asked for comes, wherever it begins and ends, and nothing beside it is touched.
    #[test]
    fn any_ranges_come_back(choice in 0..3usize, places in places(), in_buffer in any::<bool>(), seed in any::<u64>(), faulty in any::<bool>()) {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = source(folder.path());
        let slab = slab(4 << 20);
        let faults = Faults::new(seed);
        if faulty {
            faults.add(Fault { rate: 0.3, ..Fault::new(FaultKind::Short(Short::Odd)) });
        }
        let mut backend = Faulty::open(&config(BACKENDS[choice]), &slab, &faults).unwrap();
        let backend: &mut dyn Backend = &mut backend;
        let file = open_source(backend, &path);
        let (ranges, bytes) = ranges(file, &places);
        let mut expected: Vec<u8> = (0..bytes).map(|index| byte(7, index)).collect();
        for range in &ranges {
            for index in 0..range.bytes {
                expected[(range.buffer_offset + index) as usize] = byte(3, range.offset + index);
            }
        }
        let found = match in_buffer {
            false => {
                let transfer = Transfer::Read(filled(&slab, bytes, 7));
                let Transfer::Read(slot) = read(backend, ranges, transfer).unwrap() else { panic!("no slot") };
                contents(slot.parts())
            }
            true => {
                let mut buffer = AlignedBuffer::new(bytes as usize).unwrap();
                buffer[..bytes as usize].iter_mut().zip(0..).for_each(|(place, index)| *place = byte(7, index));
                let transfer = Transfer::ReadBuffer(buffer);
                let Transfer::ReadBuffer(buffer) = read(backend, ranges, transfer).unwrap() else {
                    panic!("no buffer")
                };
                buffer[..bytes as usize].to_vec()
            }
        };
        prop_assert!(found == expected, "other bytes");
    }
}

#[test]
fn a_source_is_read_alone_and_ends_where_it_ends() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = protected_source(folder.path());
    for (mut backend, slab) in backends() {
        let file = open_source(backend.as_mut(), &path);
        let range = |bytes| vec![FileRange { file, offset: FILE_BYTES - 10, bytes, buffer_offset: 0 }];
        let transfer = || Transfer::Read(slab.allocate(100).unwrap());
        assert!(read(backend.as_mut(), range(10), transfer()).is_ok());
        let error = read(backend.as_mut(), range(11), transfer()).unwrap_err();
        assert!(matches!(error, Error::EndOfFile { missing_bytes: 1, .. }), "{error}");
        let write = Transfer::Write(slab.allocate(100).unwrap().share());
        let error = read(backend.as_mut(), range(10), write).unwrap_err();
        assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
        let fill = Transfer::Fill(slab.allocate(100).unwrap().divide());
        let error = read(backend.as_mut(), range(10), fill).unwrap_err();
        assert!(matches!(error, Error::SharedMemory { .. }), "{error}");
        assert!(std::fs::read(&path).unwrap().iter().zip(0..).all(|(found, index)| *found == byte(3, index)));
    }
}

#[test]
fn a_file_of_ones_own_is_read_like_one_that_is_written() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = protected_source(folder.path());
    for (mut backend, slab) in backends() {
        let file = backend.file(FileOp::OpenRead { path: path.clone() }).unwrap().file();
        assert_eq!(backend.obtained().bounce_bytes, 0);
        let range = |offset| vec![FileRange { file, offset, bytes: 4096, buffer_offset: 0 }];
        let transfer = || Transfer::Read(slab.allocate(4096).unwrap());
        let Transfer::Read(slot) = read(backend.as_mut(), range(8192), transfer()).unwrap() else {
            panic!("no slot")
        };
        assert!(contents(slot.parts()).iter().zip(8192..).all(|(found, index)| *found == byte(3, index)));
        let error = read(backend.as_mut(), range(100), transfer()).unwrap_err();
        assert!(matches!(error, Error::Misaligned { .. }), "{error}");
        let write = Transfer::Write(slab.allocate(4096).unwrap().share());
        let error = read(backend.as_mut(), range(8192), write).unwrap_err();
        assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    }
}

#[test]
fn its_memory_is_a_part_of_the_slab_and_taken_once() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = source(folder.path());
    let slab = slab(4 << 20);
    let mut backend = backend(BACKENDS[0], &slab);
    assert_eq!((slab.pages_free(), backend.obtained().bounce_bytes), (64, 0));
    let first = open_source(backend.as_mut(), &path);
    // An eighth of 4 MiB has 8 pages of 64 KiB, of which a block takes one.
    assert_eq!((slab.pages_free(), backend.obtained().bounce_bytes), (56, 8 * (64 << 10)));
    let second = open_source(backend.as_mut(), &path);
    assert_eq!(slab.pages_free(), 56);
    backend.file(FileOp::Close(first)).unwrap();
    backend.file(FileOp::Close(second)).unwrap();

    let small =
        Slab::map(&hoist_memory::Config { budget_bytes: 4096, page_bytes: 4096, piece_bytes: 2 << 20 })
            .unwrap();
    let mut backend = crate::common::backend(BACKENDS[2], &small);
    let error = backend.file(FileOp::OpenSource { path }).unwrap_err();
    assert!(matches!(error, Error::NoBounce { bytes: 32_768 }), "{error}");
}

/// Blocks that are under way when a source is opened may lie at places for which there is no memory.
#[test]
fn a_source_may_be_opened_while_blocks_are_under_way() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = source(folder.path());
    for choice in BACKENDS {
        // An eighth of the slab has two blocks, and the depth is 8.
        let slab = slab(1 << 20);
        let mut backend = backend(choice, &slab);
        let own = folder.path().join("own");
        std::fs::write(&own, vec![9; 512 << 10]).unwrap();
        let file = open_file(backend.as_mut(), &own);
        let ranges = vec![FileRange { file, offset: 0, bytes: 512 << 10, buffer_offset: 0 }];
        let transfer = Transfer::Read(slab.allocate(512 << 10).unwrap());
        backend.push(Request { id: 5, priority: Priority::Demand, ranges, transfer });
        backend.submit().unwrap();
        let file = open_source(backend.as_mut(), &path);
        let mut done = Vec::new();
        while done.is_empty() {
            backend.reap(Wait::UntilSomething, &mut done).unwrap();
        }
        assert!(done[0].result.is_ok());
        drop(done);
        for _ in 0..8 {
            let ranges = vec![FileRange { file, offset: 77, bytes: 300_000, buffer_offset: 0 }];
            let transfer = Transfer::Read(slab.allocate(300_000).unwrap());
            let Transfer::Read(slot) = read(backend.as_mut(), ranges, transfer).unwrap() else {
                panic!("no slot")
            };
            assert!(
                contents(slot.parts()).into_iter().zip(77..).all(|(found, index)| found == byte(3, index))
            );
        }
    }
}
