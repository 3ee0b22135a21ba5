//! Real file systems that fill up: small ones, mounted where nobody else sees them. In a process of its own and without the
//! harness, as only a process of one thread may make itself a user namespace (unshare(2)).
//!
//! Kills: an ENOSPC that is tried again, that ends the backend or another request, or that a later write still gets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use hoist_io::memory::{Slab, Slot};
use hoist_io::{
    Backend, BackendChoice, Completion, Config, Error, FileId, FileOp, FileRange, Operation, Priority,
    Request, Transfer, Wait, open,
};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const REQUEST_BYTES: u64 = 256 << 10;

/// Requests of each kind: reads, writes of what is there, writes that need space.
const REQUESTS: u64 = 16;

/// What is left when the requests come: enough for the first of the last kind, not for all.
const ROOM_BYTES: u64 = 1 << 20;

/// The file systems: room for the files and what fills it up, and what ext4 needs itself.
const DISK_BYTES: u64 = 48 << 20;

/// The eight bytes at `offset` of the file that step `step` writes.
fn word(step: u64, offset: u64) -> [u8; 8] {
    (step << 40 ^ offset).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()
}

/// What a file gets at `place` of its requests.
fn filled(slab: &Arc<Slab>, step: u64, place: u64) -> Slot {
    let mut slot = slab.allocate(REQUEST_BYTES).unwrap();
    let mut offset = place * REQUEST_BYTES;
    for eight in slot.parts_mut().flat_map(|part| part.chunks_exact_mut(8)) {
        eight.copy_from_slice(&word(step, offset));
        offset += 8;
    }
    slot
}

fn holds(slot: &Slot, step: u64, place: u64) -> bool {
    let words = slot.parts().flat_map(|part| part.chunks_exact(8));
    words.zip((place * REQUEST_BYTES..).step_by(8)).all(|(found, offset)| found == word(step, offset))
}

/// Mounts that go with this process.
fn own_mounts() -> Result<(), String> {
    // SAFETY: these take nothing and cannot fail.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    let flags = if user == 0 { libc::CLONE_NEWNS } else { libc::CLONE_NEWNS | libc::CLONE_NEWUSER };
    // SAFETY: concerns this process alone, which has one thread.
    if unsafe { libc::unshare(flags) } != 0 {
        return Err(format!("unshare: {}", std::io::Error::last_os_error()));
    }
    if user != 0 {
        let write =
            |file: &str, text: String| std::fs::write(file, text).map_err(|error| format!("{file}: {error}"));
        write("/proc/self/setgroups", "deny".into())?;
        write("/proc/self/uid_map", format!("0 {user} 1"))?;
        write("/proc/self/gid_map", format!("0 {group} 1"))?;
    }
    call("mount", &["--make-rprivate", "/"])
}

fn call(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let said = || format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    if output.status.success() { Ok(()) } else { Err(said()) }
}

/// A mounted file system, until it is dropped.
struct Disk {
    mounted: PathBuf,
    _folder: tempfile::TempDir,
}

impl Disk {
    fn mount(kind: &str) -> Result<Disk, String> {
        let folder = tempfile::tempdir().unwrap();
        let (mounted, image) = (folder.path().join("mounted"), folder.path().join("image"));
        std::fs::create_dir(&mounted).unwrap();
        let at = mounted.to_str().unwrap();
        if kind == "tmpfs" {
            call("mount", &["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "none", at])?;
        } else {
            std::fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
            let image = image.to_str().unwrap();
            call("mkfs.ext4", &["-q", "-F", "-m", "0", image])?;
            call("mount", &["-o", "loop", image, at])?;
        }
        Ok(Disk { mounted, _folder: folder })
    }

    /// Takes all the space but this much.
    fn leave(&self, path: &Path, left_bytes: u64) {
        let free = rustix::fs::statvfs(&self.mounted).unwrap();
        let bytes = free.f_bavail * free.f_frsize - left_bytes;
        let mut file = std::fs::File::create(path).unwrap();
        for start in (0..bytes).step_by(REQUEST_BYTES as usize) {
            let end = bytes.min(start + REQUEST_BYTES);
            let words: Vec<u8> = (start..end).step_by(8).flat_map(|offset| word(3, offset)).collect();
            file.write_all(&words).unwrap();
        }
        file.sync_all().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = call("umount", &[self.mounted.to_str().unwrap()]) {
            eprintln!("{error}");
        }
    }
}

/// A backend with two files on the disk.
struct Load {
    backend: Box<dyn Backend>,
    slab: Arc<Slab>,
    kept: FileId,
    grown: FileId,
}

impl Load {
    fn start(choice: BackendChoice, disk: &Disk) -> Load {
        let memory = hoist_memory::Config {
            budget_bytes: 3 * REQUESTS * REQUEST_BYTES,
            page_bytes: 64 << 10,
            ..Default::default()
        };
        let slab = Slab::map(&memory).unwrap();
        let config = Config { backend: choice, block_size: 64 << 10, queue_depth: 8 };
        let mut backend = open(&config, &slab).unwrap();
        let mut file = |name: &str| {
            let path = disk.mounted.join(name);
            backend.file(FileOp::Open { path, create: true, direct: true }).unwrap().file()
        };
        let (kept, grown) = (file("kept"), file("grown"));
        Load { backend, slab, kept, grown }
    }

    fn push(&mut self, id: u64, file: FileId, place: u64, transfer: Transfer) {
        let offset = place * REQUEST_BYTES;
        let ranges = vec![FileRange { file, offset, bytes: REQUEST_BYTES, buffer_offset: 0 }];
        self.backend.push(Request { id, priority: Priority::Prefetch, ranges, transfer });
    }

    fn push_write(&mut self, id: u64, file: FileId, step: u64, place: u64) {
        let slot = filled(&self.slab, step, place);
        self.push(id, file, place, Transfer::Write(slot.share()));
    }

    fn push_read(&mut self, id: u64, file: FileId, place: u64) {
        let slot = filled(&self.slab, 9, place);
        self.push(id, file, place, Transfer::Read(slot));
    }

    fn reap(&mut self, count: u64) -> Vec<Completion> {
        let mut done = Vec::new();
        while (done.len() as u64) < count {
            self.backend.reap(Wait::UntilSomething, &mut done).unwrap();
        }
        done
    }

    /// Reads, writes of what is there and writes that need space, by turns; which of the last found none.
    fn run_full(&mut self) -> Vec<u64> {
        for place in 0..REQUESTS {
            self.push_write(place, self.grown, 2, place);
            self.push_read(REQUESTS + place, self.kept, place);
            self.push_write(2 * REQUESTS + place, self.kept, 1, place);
        }
        let mut refused = Vec::new();
        for Completion { id, transfer, result, .. } in self.reap(3 * REQUESTS) {
            match (id / REQUESTS, result) {
                (0, Err(Error::Transfer { operation: Operation::Write, source, attempts: 1, .. })) => {
                    assert_eq!(source.raw_os_error(), Some(libc::ENOSPC));
                    refused.push(id);
                }
                (kind, result) => {
                    result.unwrap_or_else(|error| panic!("request {id} of kind {kind}: {error}"));
                    let Transfer::Read(slot) = transfer else { continue };
                    assert!(holds(&slot, 1, id % REQUESTS), "request {id} has wrong bytes");
                }
            }
        }
        refused
    }
}

/// A disk that is full in the middle of the work, and then is not.
fn fill_up(choice: BackendChoice, disk: &Disk) {
    let mut load = Load::start(choice, disk);
    (0..REQUESTS).for_each(|place| load.push_write(place, load.kept, 1, place));
    load.reap(REQUESTS).into_iter().for_each(|done| done.result.unwrap());
    let ballast = disk.mounted.join("ballast");
    disk.leave(&ballast, ROOM_BYTES);

    let refused = load.run_full();
    let allocate = FileOp::Allocate { file: load.grown, offset: 0, bytes: DISK_BYTES };
    let Err(Error::File { source, .. }) = load.backend.file(allocate) else { panic!("there was space") };
    assert_eq!(source.raw_os_error(), Some(libc::ENOSPC));
    println!("{choice:?}: {} of {REQUESTS} requests found no space", refused.len());
    assert!((1..REQUESTS as usize).contains(&refused.len()), "{refused:?}");

    load.backend.file(FileOp::Remove { path: ballast }).unwrap();
    refused.iter().for_each(|place| load.push_write(*place, load.grown, 2, *place));
    load.reap(refused.len() as u64).into_iter().for_each(|done| done.result.unwrap());
    (0..REQUESTS).for_each(|place| load.push_read(place, load.grown, place));
    for Completion { id, transfer, result, .. } in load.reap(REQUESTS) {
        result.unwrap();
        let Transfer::Read(slot) = transfer else { panic!("another transfer") };
        assert!(holds(&slot, 2, id), "place {id} has wrong bytes");
    }
    drop(load.backend);
    assert_eq!(load.slab.pages_free(), load.slab.pages());
}

fn main() {
    if let Err(why) = own_mounts() {
        return println!("skipped: no file system can be mounted here: {why}");
    }
    for kind in ["ext4", "tmpfs"] {
        for choice in [BackendChoice::Uring, BackendChoice::TokioUring, BackendChoice::Pread] {
            match Disk::mount(kind) {
                Ok(disk) => {
                    println!("{kind}");
                    fill_up(choice, &disk);
                }
                Err(why) => println!("{kind} is skipped: {why}"),
            }
        }
    }
}
