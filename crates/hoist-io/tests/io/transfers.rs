//! Both backends on real files: contents both ways, refusals, errors that say where.

use crate::common::{
    BACKENDS, backend, byte, contents, filled, open_file, read_slot, request, run, slab, whole, write_slot,
};
use hoist_io::{Error, FileId, FileOp, FileRange, FileReply, Operation, Priority, Transfer, Wait};
use hoist_memory::AlignedBuffer;
use std::os::unix::fs::FileExt;

#[test]
fn what_is_written_is_in_the_file_and_is_read_back() {
    for choice in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let slab = slab(16 << 20);
        let mut backend = backend(choice, &slab);
        let file = open_file(&mut *backend, &path);
        for (step, bytes) in
            [4096, 8192, 32 << 10, 36 << 10, 1 << 20, (5 << 20) + 4096].into_iter().enumerate()
        {
            let step = step as u64;
            write_slot(&mut *backend, whole(file, bytes), filled(&slab, bytes, step)).unwrap();
            let found = std::fs::read(&path).unwrap();
            let expected: Vec<u8> = (0..bytes).map(|index| byte(step, index)).collect();
            assert!(found == expected, "{choice:?}: the file differs after writing {bytes} bytes");
            let other = filled(&slab, bytes, 77);
            let slot = read_slot(&mut *backend, whole(file, bytes), other).unwrap();
            assert!(contents(slot.parts()) == expected, "{choice:?}: {bytes} bytes read back differ");
        }
        assert_eq!(slab.pages_free(), slab.pages(), "every slot came home");
        assert_eq!(backend.obtained().files_direct, 1, "{}", backend.obtained());
    }
}

#[test]
fn many_ranges_of_several_files_land_where_they_belong() {
    for choice in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let slab = slab(8 << 20);
        let mut backend = backend(choice, &slab);
        let files: Vec<FileId> =
            (0..3).map(|index| open_file(&mut *backend, &folder.path().join(format!("{index}")))).collect();
        // Ranges of 1 to 23 sectors, in turn in each file, with gaps, and in another order than in memory.
        let mut ranges = Vec::new();
        let mut buffer_offset = 0;
        for turn in 0..40u64 {
            let bytes = (1 + turn * 7 % 23) * 4096;
            let file = files[turn as usize % 3];
            ranges.push(FileRange { file, offset: (40 - turn) * (32 * 4096), bytes, buffer_offset });
            buffer_offset += bytes;
        }
        write_slot(&mut *backend, ranges.clone(), filled(&slab, buffer_offset, 5)).unwrap();
        for range in &ranges {
            let plain = std::fs::File::open(folder.path().join(format!("{}", range.file.0))).unwrap();
            let mut found = vec![0; range.bytes as usize];
            plain.read_exact_at(&mut found, range.offset).unwrap();
            let right =
                found.iter().zip(range.buffer_offset..).all(|(found, index)| *found == byte(5, index));
            assert!(right, "{choice:?}: {range:?}");
        }
        let slot = read_slot(&mut *backend, ranges, slab.allocate(buffer_offset).unwrap()).unwrap();
        assert!(contents(slot.parts()).into_iter().zip(0..).all(|(found, index)| found == byte(5, index)));
    }
}

#[test]
fn buffers_outside_the_slab_and_slots_of_another_slab_work() {
    for choice in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let (own, other) = (slab(1 << 20), slab(1 << 20));
        let mut backend = backend(choice, &own);
        let file = open_file(&mut *backend, &folder.path().join("data"));
        write_slot(&mut *backend, whole(file, 100 << 10), filled(&other, 100 << 10, 9)).unwrap();
        let buffer = AlignedBuffer::new(100 << 10).unwrap();
        let read = request(1, Priority::Demand, whole(file, 100 << 10), Transfer::ReadBuffer(buffer));
        let completion = run(&mut *backend, read);
        completion.result.unwrap();
        let Transfer::ReadBuffer(buffer) = completion.transfer else { panic!("another transfer") };
        assert!(buffer.iter().zip(0..).all(|(found, index)| *found == byte(9, index)));
        let sync = run(&mut *backend, request(2, Priority::WriteBack, Vec::new(), Transfer::Sync(file)));
        sync.result.unwrap();
    }
}

#[test]
fn what_cannot_be_moved_is_refused_with_the_numbers() {
    for choice in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let slab = slab(1 << 20);
        let mut backend = backend(choice, &slab);
        let file = open_file(&mut *backend, &folder.path().join("data"));
        write_slot(&mut *backend, whole(file, 65536), filled(&slab, 65536, 1)).unwrap();
        let good = FileRange { file, offset: 4096, bytes: 4096, buffer_offset: 4096 };
        let mut refused = |range: FileRange| {
            read_slot(&mut *backend, vec![good, range], slab.allocate(8192).unwrap()).unwrap_err()
        };
        for range in [
            FileRange { offset: 4097, ..good },
            FileRange { bytes: 512, ..good },
            FileRange { buffer_offset: 8, bytes: 4096, ..good },
        ] {
            let error = refused(range);
            assert!(
                matches!(error, Error::Misaligned { offset, bytes, buffer_offset, .. }
                if (offset, bytes, buffer_offset) == (range.offset, range.bytes, range.buffer_offset)),
                "{error}"
            );
        }
        for range in [
            FileRange { bytes: 8192, ..good },
            FileRange { buffer_offset: u64::MAX - 4095, ..good },
            FileRange { offset: i64::MAX as u64 - 4095, bytes: 8192, buffer_offset: 0, ..good },
        ] {
            let error = refused(range);
            assert!(matches!(error, Error::OutOfRange { capacity_bytes: 8192, .. }), "{error}");
        }
        let error = refused(FileRange { file: FileId(99), ..good });
        assert!(matches!(error, Error::UnknownFile { file: 99 }), "{error}");
        assert_eq!(slab.pages_free(), slab.pages());
    }
}

#[test]
fn a_file_that_is_too_short_names_what_is_missing() {
    for choice in BACKENDS {
        for length in [0, 4096, 100_000, 98_304] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("short");
            std::fs::write(&path, vec![0xAB; length]).unwrap();
            let slab = slab(1 << 20);
            let mut backend = backend(choice, &slab);
            let file = open_file(&mut *backend, &path);
            let range = FileRange { file, offset: 0, bytes: 128 << 10, buffer_offset: 0 };
            let error = read_slot(&mut *backend, vec![range], slab.allocate(128 << 10).unwrap()).unwrap_err();
            let Error::EndOfFile { path: named, offset, bytes, missing_bytes } = &error else {
                panic!("{error}")
            };
            assert_eq!(**named, *path);
            // The error is of one of the blocks behind the end, and tells how much of it is missing.
            assert_eq!(*missing_bytes, (offset + bytes).saturating_sub(length as u64).min(*bytes), "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }
}

#[test]
fn an_error_of_the_file_system_names_operation_file_place_and_errno() {
    for choice in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let slab = slab(1 << 20);
        let mut backend = backend(choice, &slab);
        let file = open_file(&mut *backend, &folder.path().join("data"));
        // ext4 and xfs end far below 2^62 bytes: EFBIG.
        let range = FileRange { file, offset: 1 << 62, bytes: 4096, buffer_offset: 0 };
        let error = write_slot(&mut *backend, vec![range], filled(&slab, 4096, 3)).unwrap_err();
        let Error::Transfer { operation, offset, bytes, source, .. } = &error else { panic!("{error}") };
        assert_eq!((*operation, *offset, *bytes), (Operation::Write, 1 << 62, 4096));
        assert!(matches!(source.raw_os_error(), Some(libc::EFBIG | libc::EINVAL)), "{error}");
        // The failure of one request is nobody else's.
        write_slot(&mut *backend, whole(file, 4096), filled(&slab, 4096, 4)).unwrap();
    }
}

#[test]
fn file_operations_answer_and_fail_with_path_and_errno() {
    for choice in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let slab = slab(1 << 20);
        let mut backend = backend(choice, &slab);
        let missing = FileOp::Open { path: at("missing"), create: false, direct: true };
        let error = backend.file(missing).unwrap_err();
        let Error::File { operation: "open", path, source } = &error else { panic!("{error}") };
        assert_eq!((path, source.raw_os_error()), (&at("missing"), Some(libc::ENOENT)));

        let file = open_file(&mut *backend, &at("data"));
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(at("data")).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "private to its owner");
        assert_eq!(
            backend.file(FileOp::Allocate { file, offset: 0, bytes: 1 << 20 }).unwrap(),
            FileReply::Done
        );
        assert_eq!(backend.file(FileOp::Length { file }).unwrap().length_bytes(), 1 << 20);
        backend.file(FileOp::Truncate { file, bytes: 8192 }).unwrap();
        assert_eq!(std::fs::metadata(at("data")).unwrap().len(), 8192);
        backend.file(FileOp::Rename { from: at("data"), to: at("renamed") }).unwrap();
        backend.file(FileOp::SyncDir { path: folder.path().to_owned() }).unwrap();
        assert!(at("renamed").exists() && !at("data").exists());
        backend.file(FileOp::Close(file)).unwrap();
        assert!(matches!(backend.file(FileOp::Close(file)), Err(Error::UnknownFile { .. })));
        backend.file(FileOp::Remove { path: at("renamed") }).unwrap();
        assert!(!at("renamed").exists());
    }
}

#[test]
fn a_file_in_use_is_not_closed() {
    for choice in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let slab = slab(2 << 20);
        let mut backend = backend(choice, &slab);
        let file = open_file(&mut *backend, &folder.path().join("data"));
        let slot = filled(&slab, 1 << 20, 1);
        backend.push(request(1, Priority::WriteBack, whole(file, 1 << 20), Transfer::Write(slot.share())));
        let error = backend.file(FileOp::Close(file)).unwrap_err();
        assert!(matches!(error, Error::FileInUse { requests: 1, .. }), "{error}");
        let mut done = Vec::new();
        while done.is_empty() {
            backend.reap(Wait::UntilSomething, &mut done).unwrap();
        }
        backend.file(FileOp::Close(file)).unwrap();
    }
}

#[test]
fn a_file_without_direct_io_is_used_buffered_and_says_so() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else { return };
    for choice in BACKENDS {
        let slab = slab(1 << 20);
        let mut backend = backend(choice, &slab);
        let path = folder.path().join("data");
        let op = FileOp::Open { path: path.clone(), create: true, direct: true };
        let FileReply::Opened { file, direct: false, .. } = backend.file(op).unwrap() else {
            panic!("direct?")
        };
        assert_eq!(backend.obtained().files_buffered, 1);
        assert!(
            backend.obtained().stepped_down.iter().any(|step| step.contains("tmpfs")),
            "{}",
            backend.obtained()
        );
        write_slot(&mut *backend, whole(file, 65536), filled(&slab, 65536, 6)).unwrap();
        let slot = read_slot(&mut *backend, whole(file, 65536), slab.allocate(65536).unwrap()).unwrap();
        assert!(contents(slot.parts()).into_iter().zip(0..).all(|(found, index)| found == byte(6, index)));
        let odd = vec![FileRange { file, offset: 1, bytes: 100, buffer_offset: 0 }];
        let error = read_slot(&mut *backend, odd, slab.allocate(100).unwrap()).unwrap_err();
        assert!(
            matches!(error, Error::Misaligned { .. }),
            "direct was asked for, so the rules are the same: {error}"
        );
    }
}

#[test]
fn a_file_opened_buffered_takes_odd_ranges() {
    for choice in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plain");
        let text: Vec<u8> = (0..200_000u64).map(|index| byte(8, index)).collect();
        std::fs::write(&path, &text).unwrap();
        let slab = slab(1 << 20);
        let mut backend = backend(choice, &slab);
        let op = FileOp::Open { path, create: false, direct: false };
        let opened = backend.file(op).unwrap();
        assert_eq!(opened.length_bytes(), 200_000);
        let range = FileRange { file: opened.file(), offset: 777, bytes: 150_001, buffer_offset: 5 };
        let slot = read_slot(&mut *backend, vec![range], slab.allocate(150_006).unwrap()).unwrap();
        assert!(contents(slot.parts())[5..] == text[777..777 + 150_001]);
    }
}
