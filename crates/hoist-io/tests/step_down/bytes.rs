//! Bytes through a backend and back, compared.

use hoist_io::{
    Backend, BackendChoice, Completion, Config, FileOp, FileRange, FileReply, Priority, Request, Transfer,
    Wait, open,
};
use hoist_memory::{Slab, Slot};
use std::path::Path;
use std::sync::Arc;

/// What is written: five blocks, more than the queue is deep, and one that is not full.
const BYTES: u64 = (5 << 15) + 4096;

/// One huge page and what is left over.
const SLAB_BYTES: u64 = 4 << 20;

pub fn slab() -> Arc<Slab> {
    let config =
        hoist_memory::Config { budget_bytes: SLAB_BYTES, page_bytes: 64 << 10, piece_bytes: 2 << 20 };
    Slab::map(&config).unwrap()
}

pub fn config(backend: BackendChoice) -> Config {
    Config { backend, block_size: 32 << 10, queue_depth: 4 }
}

/// The backend that a machine gets without asking for one.
pub fn backend(slab: &Arc<Slab>) -> Box<dyn Backend> {
    open(&config(BackendChoice::Auto), slab).unwrap()
}

/// The byte at `index`: never the same in two places near each other, never all zero.
fn byte(index: u64) -> u8 {
    ((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// Writes a file in the folder, and finds the same bytes by another way and by the backend.
pub fn check(backend: &mut dyn Backend, slab: &Arc<Slab>, folder: &Path) {
    let path = folder.join("data");
    let opened = backend.file(FileOp::Open { path: path.clone(), create: true, direct: true }).unwrap();
    let FileReply::Opened { file, .. } = opened else { panic!("{opened:?} for an open") };
    let mut slot = slab.allocate(BYTES).unwrap();
    for (index, place) in slot.parts_mut().flatten().enumerate() {
        *place = byte(index as u64);
    }
    let ranges = vec![FileRange { file, offset: 0, bytes: BYTES, buffer_offset: 0 }];
    let write = Transfer::Write(slot.share());
    run(backend, Request { id: 1, priority: Priority::Demand, ranges: ranges.clone(), transfer: write });
    run(
        backend,
        Request { id: 2, priority: Priority::Demand, ranges: Vec::new(), transfer: Transfer::Sync(file) },
    );
    let plain = std::fs::read(&path).unwrap();
    assert!(
        plain.len() as u64 == BYTES && is_right(plain.iter()),
        "the file differs: {}",
        backend.obtained()
    );
    let read = Transfer::Read(slab.allocate(BYTES).unwrap());
    let completion = run(backend, Request { id: 3, priority: Priority::Demand, ranges, transfer: read });
    let Transfer::Read(slot) = completion.transfer else { panic!("another transfer came back") };
    assert!(slot_is_right(&slot), "what is read differs: {}", backend.obtained());
}

fn slot_is_right(slot: &Slot) -> bool {
    is_right(slot.parts().flatten())
}

fn is_right<'byte>(bytes: impl Iterator<Item = &'byte u8>) -> bool {
    bytes.zip(0..BYTES).all(|(found, index)| *found == byte(index))
}

fn run(backend: &mut dyn Backend, request: Request) -> Completion {
    backend.push(request);
    let mut done = Vec::new();
    while done.is_empty() {
        backend.reap(Wait::UntilSomething, &mut done).unwrap();
    }
    let completion = done.remove(0);
    assert!(completion.result.is_ok() && done.is_empty(), "{:?}", completion.result);
    completion
}

/// The only step down that has all these words.
pub fn step<'step>(steps: &'step [String], words: &[&str]) -> &'step str {
    let mut found = steps.iter().filter(|step| words.iter().all(|word| step.contains(word)));
    let step = found.next().unwrap_or_else(|| panic!("no step down says {words:?}: {steps:#?}"));
    assert!(found.next().is_none(), "said twice: {steps:#?}");
    step
}
