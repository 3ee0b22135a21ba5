//! Both backends under way: order, abandoning, draining, closing, waking.

use crate::common::{
    BACKENDS, backend, byte, config, contents, filled, open_file, read_slot, request, slab, whole, write_slot,
};
use hoist_io::{Backend, BackendChoice, Completion, Config, Error, FileId, Priority, Transfer, Wait, open};
use hoist_memory::Slab;
use std::sync::Arc;
use std::time::Duration;

const BYTES: u64 = 1 << 20;

/// A file with a mebibyte in it, open.
fn written(backend: &mut dyn Backend, slab: &Arc<Slab>, folder: &tempfile::TempDir) -> FileId {
    let file = open_file(backend, &folder.path().join("data"));
    write_slot(backend, whole(file, BYTES), filled(slab, BYTES, 1)).unwrap();
    file
}

fn push_read(backend: &mut dyn Backend, slab: &Arc<Slab>, file: FileId, id: u64, priority: Priority) {
    backend.push(request(id, priority, whole(file, BYTES), Transfer::Read(slab.allocate(BYTES).unwrap())));
}

fn reap_all(backend: &mut dyn Backend, count: usize) -> Vec<Completion> {
    let mut done = Vec::new();
    while done.len() < count {
        backend.reap(Wait::UntilSomething, &mut done).unwrap();
    }
    assert_eq!(done.len(), count);
    done
}

#[test]
fn abandoned_requests_come_back_queued_or_in_flight() {
    for choice in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let slab = slab(16 << 20);
        let mut backend = backend(choice, &slab);
        let file = written(&mut *backend, &slab, &folder);
        // Eight blocks fit the depth, 32 are in a request: the first is in flight with blocks left, the rest is queued.
        for id in 0..4 {
            push_read(&mut *backend, &slab, file, id, Priority::Prefetch);
        }
        backend.submit().unwrap();
        assert_eq!(backend.in_flight(), 8);
        backend.abandon(0);
        backend.abandon(2);
        backend.abandon(99);
        let mut done = reap_all(&mut *backend, 4);
        done.sort_by_key(|completion| completion.id);
        for completion in &done {
            match (&completion.result, completion.id) {
                (Err(Error::Abandoned { id }), 0 | 2) => assert_eq!(*id, completion.id),
                (Ok(()), 1 | 3) => {
                    let Transfer::Read(slot) = &completion.transfer else { panic!("another transfer") };
                    assert!(
                        contents(slot.parts()).into_iter().zip(0..).all(|(found, at)| found == byte(1, at))
                    );
                }
                (result, id) => panic!("{id}: {result:?}"),
            }
        }
        assert_eq!(backend.in_flight(), 0);
        drop(done);
        assert_eq!(slab.pages_free(), slab.pages());
    }
}

#[test]
fn demand_passes_what_is_queued() {
    for choice in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let slab = slab(32 << 20);
        // One block at a time: then requests end in the order in which their last blocks were started.
        let mut backend = open(&Config { queue_depth: 1, ..config(choice) }, &slab).unwrap();
        let file = written(&mut *backend, &slab, &folder);
        for id in 0..6 {
            push_read(&mut *backend, &slab, file, id, Priority::WriteBack);
        }
        for id in 10..14 {
            push_read(&mut *backend, &slab, file, id, Priority::Prefetch);
        }
        backend.submit().unwrap();
        push_read(&mut *backend, &slab, file, 20, Priority::Demand);
        backend.promote(5, Priority::Demand);
        let order: Vec<_> = reap_all(&mut *backend, 11).iter().map(|completion| completion.id).collect();
        assert_eq!(order, [20, 5, 10, 11, 12, 13, 0, 1, 2, 3, 4], "{choice:?}");
    }
}

#[test]
fn draining_finishes_everything() {
    for choice in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let slab = slab(16 << 20);
        let mut backend = backend(choice, &slab);
        let file = written(&mut *backend, &slab, &folder);
        for id in 0..8 {
            push_read(&mut *backend, &slab, file, id, Priority::Prefetch);
        }
        let mut done = Vec::new();
        backend.drain(Duration::from_secs(60), &mut done).unwrap();
        assert_eq!((done.len(), backend.in_flight()), (8, 0));
        assert!(done.iter().all(|completion| completion.result.is_ok()));
        read_slot(&mut *backend, whole(file, BYTES), slab.allocate(BYTES).unwrap()).unwrap();
    }
}

#[test]
fn dropping_waits_for_what_is_in_flight_and_every_slot_comes_home() {
    for choice in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let slab = slab(16 << 20);
        for _ in 0..20 {
            // A mebibyte in each of 16 blocks: enough to be still under way when `submit` returns.
            let config = Config { block_size: BYTES, queue_depth: 16, ..config(choice) };
            let mut backend = open(&config, &slab).unwrap();
            let file = written(&mut *backend, &slab, &folder);
            for id in 0..15 {
                push_read(&mut *backend, &slab, file, id, Priority::Prefetch);
            }
            backend.submit().unwrap();
            drop(backend);
            assert_eq!(slab.pages_free(), slab.pages());
            // A transfer that still ran would write over this.
            let slots: Vec<_> = (0..16).map(|step| filled(&slab, BYTES, 100 + step)).collect();
            std::thread::sleep(Duration::from_millis(2));
            for (slot, step) in slots.iter().zip(100..) {
                assert!(
                    contents(slot.parts()).into_iter().zip(0..).all(|(found, at)| found == byte(step, at))
                );
            }
        }
        assert_eq!(Arc::strong_count(&slab), 1, "nothing was leaked");
    }
}

/// Tries until blocks are in flight both when the deadline passes and when the backend is dropped: on a busy machine they
/// may all have ended before.
const DEADLINE_TRIES: usize = 100;

#[test]
fn a_deadline_that_passes_leaks_rather_than_frees() {
    for choice in BACKENDS {
        assert!(
            (0..DEADLINE_TRIES).any(|_| leaks_past_a_deadline(choice)),
            "{choice:?}: never a block in flight"
        );
    }
}

/// Whether the memory of eight reads was leaked as it has to be; else they had ended.
fn leaks_past_a_deadline(choice: BackendChoice) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let slab = slab(16 << 20);
    let mut backend = backend(choice, &slab);
    let file = written(&mut *backend, &slab, &folder);
    for id in 0..8 {
        push_read(&mut *backend, &slab, file, id, Priority::Prefetch);
    }
    backend.submit().unwrap();
    let mut done = Vec::new();
    let drained = backend.drain(Duration::ZERO, &mut done);
    let whole_or_abandoned =
        |completion: &Completion| matches!(completion.result, Ok(()) | Err(Error::Abandoned { .. }));
    assert!(done.iter().all(whole_or_abandoned), "{choice:?}: {done:?}");
    match drained {
        // What was queued has come back; what is in flight stays with the kernel.
        Err(Error::NotDrained { in_flight, .. }) => {
            assert!((1..=8).contains(&in_flight) && done.len() < 8);
            drop(done);
            drop(backend);
            // Leaked is the whole backend, with its handle of the slab.
            let is_leaked = slab.pages_free() < slab.pages();
            assert_eq!(is_leaked, Arc::strong_count(&slab) > 1, "{choice:?}");
            is_leaked
        }
        // Blocks kept ending before anybody looked at the clock.
        Ok(()) => {
            assert_eq!(done.len(), 8);
            false
        }
        Err(error) => panic!("{choice:?}: {error}"),
    }
}

#[test]
fn a_wake_ends_a_wait_from_before_or_meanwhile() {
    for choice in BACKENDS {
        let slab = slab(1 << 20);
        let mut backend = backend(choice, &slab);
        let waker = backend.waker();
        let mut done = Vec::new();
        for turn in 0..200 {
            std::thread::scope(|scope| {
                if turn % 2 == 0 {
                    waker.wake();
                    waker.wake();
                } else {
                    scope.spawn(|| waker.wake());
                }
                backend.reap(Wait::UntilSomething, &mut done).unwrap();
            });
            assert!(done.is_empty());
        }
    }
}

/// Threads of this process whose name contains `part`.
fn threads_named(part: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.contains(part)).count()
}

/// Direct reads of what is on the drive are asynchronous by themselves. (Only writes that grow a file, and syncs, need
/// a worker of the ring: they wait in the file system.)
#[test]
fn reads_need_no_kernel_worker() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let text: Vec<u8> = (0..BYTES).map(|index| byte(1, index)).collect();
    std::fs::write(&path, text).unwrap();
    std::fs::File::open(&path).unwrap().sync_all().unwrap();
    let slab = slab(32 << 20);
    let mut backend = backend(BackendChoice::Uring, &slab);
    let file = open_file(&mut *backend, &path);
    for id in 0..16 {
        push_read(&mut *backend, &slab, file, id, Priority::Prefetch);
    }
    assert!(reap_all(&mut *backend, 16).iter().all(|completion| completion.result.is_ok()));
    // SAFETY: takes nothing and cannot fail.
    let own = unsafe { libc::gettid() };
    assert_eq!(threads_named(&format!("iou-wrk-{own}")), 0);
}
