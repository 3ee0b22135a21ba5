//! What the tests of transfers share.

use hoist_io::{
    Backend, BackendChoice, Completion, Config, Error, FileId, FileOp, FileRange, Priority, Request,
    RequestId, Transfer, Wait, open,
};
use hoist_memory::{Slab, Slot};
use std::path::Path;
use std::sync::Arc;

pub const BACKENDS: [BackendChoice; 3] =
    [BackendChoice::Uring, BackendChoice::TokioUring, BackendChoice::Pread];

pub fn slab(budget_bytes: u64) -> Arc<Slab> {
    let config = hoist_memory::Config { budget_bytes, page_bytes: 64 << 10, piece_bytes: 2 << 20 };
    Slab::map(&config).unwrap()
}

/// Small blocks, so that a small file has many.
pub fn config(backend: BackendChoice) -> Config {
    Config { backend, block_size: 32 << 10, queue_depth: 8 }
}

pub fn backend(choice: BackendChoice, slab: &Arc<Slab>) -> Box<dyn Backend> {
    let backend = open(&config(choice), slab).unwrap();
    let name = match choice {
        BackendChoice::Auto | BackendChoice::Uring => "uring",
        BackendChoice::TokioUring => "tokio-uring",
        BackendChoice::Pread => "pread",
    };
    assert_eq!(backend.obtained().backend, name, "{}", backend.obtained());
    backend
}

pub fn open_file(backend: &mut dyn Backend, path: &Path) -> FileId {
    backend.file(FileOp::Open { path: path.to_owned(), create: true, direct: true }).unwrap().file()
}

/// The byte at `index` of what step `step` writes: never the same in two places near each other, never all zero.
pub fn byte(step: u64, index: u64) -> u8 {
    let mixed = (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ step.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mixed >> 56) as u8
}

/// A slot of `bytes` that holds what `step` writes.
pub fn filled(slab: &Arc<Slab>, bytes: u64, step: u64) -> Slot {
    let mut slot = slab.allocate(bytes).unwrap();
    let mut index = 0;
    for part in slot.parts_mut() {
        for place in part {
            *place = byte(step, index);
            index += 1;
        }
    }
    slot
}

pub fn contents<'part>(parts: impl Iterator<Item = &'part [u8]>) -> Vec<u8> {
    parts.flatten().copied().collect()
}

pub fn request(id: RequestId, priority: Priority, ranges: Vec<FileRange>, transfer: Transfer) -> Request {
    Request { id, priority, ranges, transfer }
}

/// All of a transfer in one range from the start of the file.
pub fn whole(file: FileId, bytes: u64) -> Vec<FileRange> {
    vec![FileRange { file, offset: 0, bytes, buffer_offset: 0 }]
}

/// Pushes one request and waits for it.
pub fn run(backend: &mut dyn Backend, request: Request) -> Completion {
    let id = request.id;
    backend.push(request);
    let mut done = Vec::new();
    while done.is_empty() {
        backend.reap(Wait::UntilSomething, &mut done).unwrap();
    }
    assert_eq!(done.len(), 1);
    let completion = done.remove(0);
    assert_eq!(completion.id, id);
    completion
}

pub fn write_slot(backend: &mut dyn Backend, ranges: Vec<FileRange>, slot: Slot) -> Result<(), Error> {
    run(backend, request(1000, Priority::WriteBack, ranges, Transfer::Write(slot.share()))).result
}

pub fn read_slot(backend: &mut dyn Backend, ranges: Vec<FileRange>, slot: Slot) -> Result<Slot, Error> {
    let completion = run(backend, request(1001, Priority::Demand, ranges, Transfer::Read(slot)));
    completion.result?;
    match completion.transfer {
        Transfer::Read(slot) => Ok(slot),
        other => panic!("{other:?} came back for a read"),
    }
}
