//! A slower drive, on real backends and by the real clock.

use crate::common::{BACKENDS, byte, config, contents, filled, request, slab};
use hoist_io::{Backend, Completion, FileOp, FileRange, IoThread, Priority, Rate, Throttled, Transfer, open};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const REQUEST_BYTES: u64 = 128 << 10;
const REQUESTS: u64 = 16;
const BYTES_PER_SECOND: u64 = 20_000_000;

/// Processor time of the calling thread.
fn thread_time() -> Duration {
    // SAFETY: a zeroed timespec is valid, and is written to.
    unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        assert_eq!(libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time), 0);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

/// Kills: a rate that is not kept, waiting that spins, a new rate that wakes nobody, bytes that are mixed up.
#[test]
fn bytes_pass_at_the_rate_and_the_thread_sleeps_meanwhile() {
    for choice in BACKENDS {
        let (folder, slab) = (tempfile::tempdir().unwrap(), slab(8 << 20));
        let rate = Rate::new(BYTES_PER_SECOND);
        let (sender, back) = mpsc::channel::<(Completion, Duration)>();
        let own = (rate.clone(), slab.clone());
        let open = move || {
            let inner = open(&config(choice), &own.1)?;
            Ok(Box::new(Throttled::new(inner, &own.0)) as Box<dyn Backend>)
        };
        let deliver = move |completion| sender.send((completion, thread_time())).unwrap();
        let thread = IoThread::spawn_with("io-test", open, deliver).unwrap();
        let path = folder.path().join("data");
        let file = thread.file(FileOp::Open { path, create: true, direct: true }).unwrap().file();
        let push = |id: u64, transfer| {
            let offset = id * REQUEST_BYTES;
            let range = FileRange { file, offset, bytes: REQUEST_BYTES, buffer_offset: 0 };
            thread.push(request(id, Priority::Prefetch, vec![range], transfer));
        };
        let start = Instant::now();
        for id in 0..REQUESTS {
            push(id, Transfer::Write(filled(&slab, REQUEST_BYTES, id).share()));
        }
        let mut used = Duration::ZERO;
        for _ in 0..REQUESTS {
            let (completion, thread_time) = back.recv().unwrap();
            completion.result.unwrap();
            used = thread_time;
        }
        // All but the burst of 10 ms takes its time.
        let least = Duration::from_secs_f64((REQUESTS * REQUEST_BYTES) as f64 / BYTES_PER_SECOND as f64);
        let took = start.elapsed();
        assert!(took >= least - Duration::from_millis(10), "{choice:?}: {took:?} instead of {least:?}");
        assert!(used < took / 4, "{choice:?}: {used:?} of processor time in {took:?}");
        // The bucket has saved up one of these at most. The others pass by nothing but the new rate's waking.
        rate.set(0);
        for id in 0..REQUESTS {
            push(id, Transfer::Read(slab.allocate(REQUEST_BYTES).unwrap()));
        }
        let early: Vec<_> =
            std::iter::from_fn(|| back.recv_timeout(Duration::from_millis(50)).ok()).collect();
        assert!(early.len() <= 1 + (BYTES_PER_SECOND / 100 / REQUEST_BYTES) as usize, "{early:?}");
        rate.set(1_000_000_000_000);
        let rest: Vec<_> = (early.len() as u64..REQUESTS).map(|_| back.recv().unwrap()).collect();
        for (Completion { id, transfer, result, .. }, _) in early.into_iter().chain(rest) {
            result.unwrap();
            let Transfer::Read(slot) = transfer else { panic!("another transfer") };
            assert!(contents(slot.parts()).into_iter().zip(0..).all(|(found, at)| found == byte(id, at)));
        }
        thread.close().unwrap();
        assert_eq!(slab.pages_free(), slab.pages());
    }
}
