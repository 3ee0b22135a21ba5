//! What a power cut leaves of writes, lengths and names.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use hoist_io::memory::{AlignedBuffer, Slab};
use hoist_io::{
    Backend, BackendChoice, Completion, Config, FileId, FileOp, FileRange, Operation, Priority, Request,
    Transfer, Wait,
};
use hoist_testkit::{Power, Powered, Random};
use std::collections::BTreeSet;
use std::path::Path;

/// Two blocks of direct I/O: sixteen sectors.
const BYTES: usize = 8192;

fn open_backend(power: &Power) -> Powered {
    let slab = Slab::map(&hoist_io::memory::Config { budget_bytes: 2 << 20, ..Default::default() }).unwrap();
    let config = Config { backend: BackendChoice::Pread, queue_depth: 1, ..Config::default() };
    Powered::new(hoist_io::open(&config, &slab).unwrap(), power)
}

fn open(backend: &mut Powered, path: &Path) -> FileId {
    let op = FileOp::Open { path: path.to_owned(), create: true, direct: true };
    backend.file(op).unwrap().file()
}

fn request(transfer: Transfer, file: Option<FileId>) -> Request {
    let range = |file| FileRange { file, offset: 0, bytes: BYTES as u64, buffer_offset: 0 };
    Request { id: 1, priority: Priority::Demand, ranges: file.map(range).into_iter().collect(), transfer }
}

fn write_of(file: FileId, byte: u8) -> Request {
    let mut buffer = AlignedBuffer::new(BYTES).unwrap();
    buffer.fill(byte);
    request(Transfer::WriteBuffer(buffer), Some(file))
}

fn run(backend: &mut Powered, request: Request) -> Completion {
    backend.push(request);
    let mut done = Vec::new();
    while done.is_empty() {
        backend.reap(Wait::UntilSomething, &mut done).unwrap();
    }
    done.pop().unwrap()
}

fn write(backend: &mut Powered, file: FileId, byte: u8) {
    run(backend, write_of(file, byte)).result.unwrap();
}

fn sync(backend: &mut Powered, file: FileId) {
    run(backend, request(Transfer::Sync(file), None)).result.unwrap();
}

/// Which bytes are in which sector; whether a seed tore it.
fn sectors(path: &Path) -> BTreeSet<u8> {
    let bytes = std::fs::read(path).unwrap();
    let whole = bytes.chunks(512).inspect(|sector| assert!(sector.iter().all(|byte| *byte == sector[0])));
    whole.map(|sector| sector[0]).collect()
}

#[test]
fn what_was_synced_stays_and_the_rest_is_kept_lost_or_torn() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..64 {
        let (folder, power) = (tempfile::tempdir().unwrap(), Power::new());
        let [kept, loose] = ["kept", "loose"].map(|name| folder.path().join(name));
        let mut backend = open_backend(&power);
        let files = [&kept, &loose].map(|path| open(&mut backend, path));
        backend.file(FileOp::SyncDir { path: folder.path().to_owned() }).unwrap();
        for byte in [1, 2] {
            files.iter().for_each(|file| write(&mut backend, *file, byte));
            if byte == 1 {
                files.iter().for_each(|file| sync(&mut backend, *file));
            }
        }
        sync(&mut backend, files[0]);
        write(&mut backend, files[1], 3);
        let read = Transfer::ReadBuffer(AlignedBuffer::new(BYTES).unwrap());
        let Transfer::ReadBuffer(read) = run(&mut backend, request(read, Some(files[1]))).transfer else {
            panic!("a buffer comes back")
        };
        assert!(read.iter().all(|byte| *byte == 3), "before the cut all is as it was written");
        assert!(
            run(&mut backend, request(Transfer::Sync(FileId(9)), None)).result.is_err(),
            "it is not open"
        );
        power.cut();
        assert!(run(&mut backend, write_of(files[0], 4)).result.is_err());
        assert!(run(&mut backend, request(Transfer::Sync(files[1]), None)).result.is_err());
        assert!(backend.file(FileOp::Length { file: files[0] }).is_err());
        drop(backend);
        power.restore(&mut Random::new(seed)).unwrap();
        assert!(power.is_on());
        assert_eq!(sectors(&kept), [2].into());
        outcomes.insert(sectors(&loose));
    }
    let all = [vec![1], vec![2], vec![3], vec![1, 2], vec![1, 3], vec![2, 3], vec![1, 2, 3]];
    assert_eq!(outcomes, all.map(BTreeSet::from_iter).into());
}

/// A sync covers what was done when it began; a request that the cut meets at its end may be done or not.
#[test]
fn a_sync_that_the_cut_meets_is_none() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..32 {
        let (folder, power) = (tempfile::tempdir().unwrap(), Power::new());
        let path = folder.path().join("file");
        let mut backend = open_backend(&power);
        let file = open(&mut backend, &path);
        backend.file(FileOp::SyncDir { path: folder.path().to_owned() }).unwrap();
        write(&mut backend, file, 1);
        sync(&mut backend, file);
        write(&mut backend, file, 2);
        // It begins, and does not end.
        power.cut_after(1);
        assert!(run(&mut backend, request(Transfer::Sync(file), None)).result.is_err());
        drop(backend);
        power.restore(&mut Random::new(seed)).unwrap();
        outcomes.insert(sectors(&path));
    }
    assert_eq!(outcomes, [[1].into(), [2].into(), [1, 2].into()].into());
}

#[test]
fn a_failed_write_may_come_to_light() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..32 {
        let (folder, power) = (tempfile::tempdir().unwrap(), Power::new());
        let path = folder.path().join("file");
        let mut backend = open_backend(&power);
        let file = open(&mut backend, &path);
        backend.file(FileOp::SyncDir { path: folder.path().to_owned() }).unwrap();
        write(&mut backend, file, 1);
        sync(&mut backend, file);
        power.fail(Operation::Write, "file");
        assert!(run(&mut backend, write_of(file, 2)).result.is_err());
        power.mend();
        assert_eq!(sectors(&path), [1].into());
        drop(backend);
        power.restore(&mut Random::new(seed)).unwrap();
        outcomes.insert(sectors(&path));
    }
    assert_eq!(outcomes, [[1].into(), [2].into(), [1, 2].into()].into());
}

/// Lengths are durable with their file, names with their folder.
#[test]
fn names_and_lengths_are_lost_until_they_are_synced() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..64 {
        let (folder, power) = (tempfile::tempdir().unwrap(), Power::new());
        let path = |name: &str| folder.path().join(name);
        let sync_folder = FileOp::SyncDir { path: folder.path().to_owned() };
        let mut backend = open_backend(&power);
        for (name, byte) in [("a", 1), ("b", 2), ("c", 3)] {
            let file = open(&mut backend, &path(name));
            write(&mut backend, file, byte);
            sync(&mut backend, file);
            if name == "a" {
                backend.file(FileOp::Truncate { file, bytes: 512 }).unwrap();
            }
        }
        backend.file(sync_folder).unwrap();
        backend.file(FileOp::Rename { from: path("c"), to: path("b") }).unwrap();
        open(&mut backend, &path("d"));
        backend.file(FileOp::Remove { path: path("b") }).unwrap();
        drop(backend);
        power.restore(&mut Random::new(seed)).unwrap();
        let names: Vec<_> = ["b", "c", "d"].into_iter().filter(|name| path(name).exists()).collect();
        let b = path("b").exists().then(|| sectors(&path("b")));
        outcomes.insert((std::fs::metadata(path("a")).unwrap().len(), names.concat(), b));
    }
    let names: BTreeSet<_> = outcomes.iter().map(|(_, names, b)| (names.as_str(), b.clone())).collect();
    let held = |byte| Some([byte].into());
    assert_eq!(names, [("bc", held(2)), ("b", held(3)), ("bd", held(3)), ("d", None)].into());
    let lengths: BTreeSet<_> = outcomes.iter().map(|(length, ..)| *length).collect();
    assert_eq!(lengths, [512, BYTES as u64].into());
}
