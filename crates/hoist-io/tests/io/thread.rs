//! The thread that drives a backend.

use crate::common::{BACKENDS, byte, config, contents, filled, request, slab, whole};
use hoist_io::{Error, FileOp, FileRange, IoThread, Priority, Transfer};
use std::sync::mpsc;

#[test]
fn many_requests_from_several_threads_come_back_once() {
    for choice in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let slab = slab(16 << 20);
        let (sender, receiver) = mpsc::channel();
        let thread = IoThread::spawn("io-test", &config(choice), slab.clone(), move |completion| {
            sender.send(completion).unwrap();
        })
        .unwrap();
        let open = FileOp::Open { path: folder.path().join("data"), create: true, direct: true };
        let file = thread.file(open).unwrap().file();
        let bytes = 128 << 10;
        let range = |place: u64| vec![FileRange { file, offset: place * bytes, bytes, buffer_offset: 0 }];
        std::thread::scope(|scope| {
            for lane in 0..4u64 {
                let (thread, slab, range) = (&thread, &slab, &range);
                scope.spawn(move || {
                    for place in (lane..64).step_by(4) {
                        let slot = filled(slab, bytes, place).share();
                        thread.push(request(place, Priority::WriteBack, range(place), Transfer::Write(slot)));
                        thread.promote(place, Priority::Prefetch);
                    }
                });
            }
        });
        let mut seen: Vec<u64> = (0..64)
            .map(|_| {
                let completion = receiver.recv().unwrap();
                completion.result.unwrap();
                completion.id
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..64).collect::<Vec<_>>());
        // Idle in between: nothing may be lost between going to sleep and a push.
        for place in 0..64 {
            let slot = slab.allocate(bytes).unwrap();
            thread.push(request(place, Priority::Demand, range(place), Transfer::Read(slot)));
            let completion = receiver.recv().unwrap();
            completion.result.unwrap();
            let Transfer::Read(slot) = completion.transfer else { panic!("another transfer") };
            assert!(contents(slot.parts()).into_iter().zip(0..).all(|(found, at)| found == byte(place, at)));
        }
        assert_eq!(thread.obtained().files_direct, 1);
        thread.close().unwrap();
        assert_eq!(slab.pages_free(), slab.pages());
    }
}

#[test]
fn closing_delivers_what_was_pushed() {
    for choice in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let slab = slab(16 << 20);
        let (sender, receiver) = mpsc::channel();
        let thread = IoThread::spawn("io-test", &config(choice), slab.clone(), move |completion| {
            sender.send((completion.id, completion.result.is_ok())).unwrap();
        })
        .unwrap();
        let path = folder.path().join("data");
        let file =
            thread.file(FileOp::Open { path: path.clone(), create: true, direct: true }).unwrap().file();
        for id in 0..12 {
            let slot = filled(&slab, 1 << 20, 3).share();
            thread.push(request(id, Priority::WriteBack, whole(file, 1 << 20), Transfer::Write(slot)));
        }
        thread.close().unwrap();
        let mut back: Vec<_> = receiver.iter().collect();
        back.sort_unstable();
        assert_eq!(back, (0..12).map(|id| (id, true)).collect::<Vec<_>>());
        assert!(std::fs::read(path).unwrap().into_iter().zip(0..).all(|(found, at)| found == byte(3, at)));
        assert_eq!(slab.pages_free(), slab.pages());
    }
}

#[test]
fn what_cannot_be_opened_is_said_at_spawn() {
    let slab = slab(1 << 20);
    let wrong = hoist_io::Config { block_size: 1, ..config(BACKENDS[0]) };
    let Err(error) = IoThread::spawn("io-test", &wrong, slab.clone(), |_| {}) else { panic!("it opened") };
    assert!(matches!(&error, Error::Config(problems) if problems[0].key == "io.block_size"), "{error}");
    let failed = || Err(Error::UnknownFile { file: 3 });
    assert!(matches!(IoThread::spawn_with("io-test", failed, |_| {}), Err(Error::UnknownFile { file: 3 })));
}

#[test]
fn a_thread_that_panicked_answers_with_an_error() {
    for choice in BACKENDS {
        let slab = slab(1 << 20);
        let thread =
            IoThread::spawn("io-panic", &config(choice), slab.clone(), |_| panic!("on purpose")).unwrap();
        let transfer = Transfer::Read(slab.allocate(4096).unwrap());
        thread.push(request(1, Priority::Demand, Vec::new(), transfer));
        while thread.file(FileOp::Remove { path: "/nonexistent/file".into() }).is_ok() {}
        assert!(matches!(thread.close(), Err(Error::Stopped { .. })));
        assert_eq!(slab.pages_free(), slab.pages());
    }
}
