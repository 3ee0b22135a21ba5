//! The open files of a backend, and the operations on files and folders.

use crate::config::ALIGNMENT_BYTES;
use crate::cut::Cut;
use crate::error::Operation;
use crate::{Error, FileId, FileOp, FileRange, FileReply, Obtained};
use hoist_memory::AlignedBuffer;
use rustix::fs::{Advice, AtFlags, FallocateFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

/// Files open at a time: half of the usual limit of 1024 descriptors per process (`ulimit -n`), so that this limit,
/// which says what it is, comes first.
pub(crate) const FILES_MAX: u32 = 512;

pub(crate) struct OpenFile {
    fd: OwnedFd,
    path: Arc<Path>,
    /// Whether transfers fill the page cache with what does not belong there.
    leaves_cached: bool,
    /// Whether ranges must be aligned: where direct I/O was asked for, got or not, so that a mistake shows everywhere.
    pub(crate) aligned: bool,
    /// Whether it is only read.
    pub(crate) is_read: bool,
    /// Whether its ranges begin and end anywhere, and its transfers do not: then these go through other memory.
    pub(crate) bounced: bool,
    /// Where it lies in the ring's table of files, if it does.
    pub(crate) place: Option<u32>,
}

impl OpenFile {
    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Whether a range can be moved to or from memory of `capacity_bytes`.
    pub(crate) fn check(&self, range: &FileRange, capacity_bytes: u64) -> Result<(), Error> {
        let FileRange { offset, bytes, buffer_offset, .. } = *range;
        let path = || self.path.clone();
        let fits = |start: u64, limit: u64| start.checked_add(bytes).is_some_and(|end| end <= limit);
        if !fits(buffer_offset, capacity_bytes) || !fits(offset, i64::MAX as u64) {
            return Err(Error::OutOfRange { path: path(), offset, bytes, buffer_offset, capacity_bytes });
        }
        let alignment_bytes = ALIGNMENT_BYTES;
        if self.aligned && !(offset | bytes | buffer_offset).is_multiple_of(alignment_bytes) {
            return Err(Error::Misaligned { path: path(), offset, bytes, buffer_offset, alignment_bytes });
        }
        Ok(())
    }

    /// Where direct I/O was asked for and refused, what was moved must not stay in the page cache: it would push out
    /// what belongs there, beyond any budget. Only advice, so its result does not matter.
    pub(crate) fn forget_cached(&self, cut: &Cut) {
        if !self.leaves_cached {
            return;
        }
        let _ = match cut.operation {
            Operation::Read => {
                rustix::fs::fadvise(&self.fd, cut.offset, NonZeroU64::new(cut.bytes), Advice::DontNeed)
            }
            // Dirty pages stay; they go when the file is synced.
            Operation::Write => Ok(()),
            Operation::Sync => rustix::fs::fadvise(&self.fd, 0, None, Advice::DontNeed),
        };
    }
}

/// Open files by number. A number is never used again, so that a stale one is found.
#[derive(Default)]
pub(crate) struct Files {
    table: Vec<Option<OpenFile>>,
    open: u32,
}

impl Files {
    pub(crate) fn get(&self, file: FileId) -> Result<&OpenFile, Error> {
        let found = self.table.get(file.0 as usize).and_then(Option::as_ref);
        found.ok_or(Error::UnknownFile { file: file.0 })
    }

    /// Where a file lies in the ring's table; none for a file that is not open.
    pub(crate) fn place(&self, file: FileId) -> Option<u32> {
        self.get(file).ok().and_then(|file| file.place)
    }

    /// Notes where an open file lies in the ring's table.
    pub(crate) fn set_place(&mut self, file: FileId, place: Option<u32>) {
        if let Some(Some(open)) = self.table.get_mut(file.0 as usize) {
            open.place = place;
        }
    }

    /// A file of a request under way, which cannot have been closed.
    pub(crate) fn used(&self, file: FileId) -> &OpenFile {
        self.get(file).unwrap_or_else(|_| panic!("a request uses {file:?}, which is not open"))
    }

    pub(crate) fn execute(&mut self, op: FileOp, obtained: &mut Obtained) -> Result<FileReply, Error> {
        match op {
            FileOp::Open { path, create, direct } => {
                let kind = Kind::Own { create, direct };
                return self.open(&path, kind, obtained);
            }
            FileOp::OpenRead { path } => return self.open(&path, Kind::OwnRead, obtained),
            FileOp::OpenSource { path } => return self.open(&path, Kind::Source, obtained),
            FileOp::Close(file) => {
                self.get(file)?;
                self.table[file.0 as usize] = None;
                self.open -= 1;
            }
            FileOp::Allocate { file, offset, bytes } => {
                let file = self.get(file)?;
                let call = || rustix::fs::fallocate(&file.fd, FallocateFlags::empty(), offset, bytes);
                retry(call).map_err(|errno| failed("allocate", &file.path, errno))?;
            }
            FileOp::Truncate { file, bytes } => {
                let file = self.get(file)?;
                let call = || rustix::fs::ftruncate(&file.fd, bytes);
                retry(call).map_err(|errno| failed("truncate", &file.path, errno))?;
            }
            FileOp::Rename { from, to } => {
                rustix::fs::rename(&from, &to).map_err(|errno| failed("rename", &from, errno))?;
            }
            FileOp::Remove { path } => {
                rustix::fs::unlink(&path).map_err(|errno| failed("remove", &path, errno))?;
            }
            FileOp::SyncDir { path } => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::open(&path, flags, Mode::empty())
                    .and_then(|folder| retry(|| rustix::fs::fsync(&folder)))
                    .map_err(|errno| failed("sync the folder", &path, errno))?;
            }
            FileOp::Length { file } => {
                let file = self.get(file)?;
                let stat = rustix::fs::fstat(&file.fd).map_err(|errno| failed("stat", &file.path, errno))?;
                return Ok(FileReply::Length(stat.st_size as u64));
            }
        }
        Ok(FileReply::Done)
    }

    fn open(&mut self, path: &Path, kind: Kind, obtained: &mut Obtained) -> Result<FileReply, Error> {
        if self.open >= FILES_MAX {
            return Err(Error::TooManyFiles { path: path.to_owned(), limit: FILES_MAX });
        }
        let (create, direct) = match kind {
            Kind::Own { create, direct } => (create, direct),
            Kind::OwnRead | Kind::Source => (false, true),
        };
        let mut flags = kind.access() | OFlags::CLOEXEC;
        flags.set(OFlags::CREATE, create);
        let plain = |flags| retry(|| rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR));
        let fd = plain(flags).map_err(|errno| failed("open", path, errno))?;
        let bytes = rustix::fs::fstat(&fd).map_err(|errno| failed("stat", path, errno))?.st_size as u64;
        // tmpfs accepts O_DIRECT and goes on using the page cache, which it is made of and forgets nothing of.
        let is_memory = rustix::fs::fstatfs(&fd).is_ok_and(|found| found.f_type == libc::TMPFS_MAGIC);
        let opened = direct.then(|| match is_memory {
            true => Err("tmpfs has no direct I/O".to_owned()),
            false => open_direct(path, kind.access()),
        });
        let (fd, is_direct) = match opened {
            None => (fd, false),
            Some(Ok(fd)) => {
                obtained.files_direct += 1;
                (fd, true)
            }
            Some(Err(cause)) => {
                obtained.files_buffered += 1;
                obtained.step_down(format!("buffered instead of direct I/O: {}: {cause}", path.display()));
                // Read-ahead is hoist's own business; the kernel's would fill the page cache with what nobody asked for.
                let _ = rustix::fs::fadvise(&fd, 0, None, Advice::Random);
                (fd, false)
            }
        };
        let file = FileId(self.table.len() as u32);
        let leaves_cached = direct && !is_direct && !is_memory;
        self.table.push(Some(OpenFile {
            fd,
            path: Arc::from(path),
            leaves_cached,
            aligned: direct && kind != Kind::Source,
            is_read: kind.access() == OFlags::RDONLY,
            bounced: is_direct && kind == Kind::Source,
            place: None,
        }));
        self.open += 1;
        Ok(FileReply::Opened { file, bytes, direct: is_direct })
    }
}

/// Whose a file is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The caller's.
    Own { create: bool, direct: bool },
    /// The caller's, and not to be changed.
    OwnRead,
    /// Somebody else's.
    Source,
}

impl Kind {
    fn access(self) -> OFlags {
        match self {
            Kind::Own { .. } => OFlags::RDWR,
            Kind::OwnRead | Kind::Source => OFlags::RDONLY,
        }
    }
}

/// Opens `path` once more, for direct I/O that works, or says why there is none.
fn open_direct(path: &Path, access: OFlags) -> Result<OwnedFd, String> {
    let flags = access | OFlags::CLOEXEC | OFlags::DIRECT;
    let fd = retry(|| rustix::fs::open(path, flags, Mode::empty()))
        .map_err(|errno| format!("O_DIRECT: {errno}"))?;
    // STATX_DIOALIGN (Linux 6.1) says what the file takes; zeros say that it takes none, and a file system that does
    // not know the question is tried instead.
    if let Ok(found) = rustix::fs::statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        && found.stx_mask & StatxFlags::DIOALIGN.bits() != 0
    {
        let align_bytes = found.stx_dio_offset_align.max(found.stx_dio_mem_align);
        return match align_bytes {
            0 => Err("STATX_DIOALIGN says that the file has no direct I/O".to_owned()),
            _ if u64::from(align_bytes) > ALIGNMENT_BYTES => Err(format!(
                "direct I/O needs an alignment of {align_bytes} bytes, more than {ALIGNMENT_BYTES}"
            )),
            _ => Ok(fd),
        };
    }
    let mut sector = AlignedBuffer::new(ALIGNMENT_BYTES as usize).map_err(|error| error.to_string())?;
    match retry(|| rustix::io::pread(&fd, &mut sector[..], 0)) {
        Ok(_) => Ok(fd),
        Err(errno) => Err(format!("a direct trial read of {ALIGNMENT_BYTES} bytes: {errno}")),
    }
}

/// Calls again when a signal came in between. Each signal is one retry, so this ends.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

fn failed(operation: &'static str, path: &Path, errno: Errno) -> Error {
    Error::File { operation, path: path.to_owned(), source: errno.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call for each block that could do nothing: the page cache is where such a file is.
    #[test]
    fn memory_as_a_file_system_is_not_asked_to_forget() {
        const SHARED_MEMORY: &str = "/dev/shm";
        if !rustix::fs::statfs(SHARED_MEMORY).is_ok_and(|found| found.f_type == libc::TMPFS_MAGIC) {
            return println!("skipped: {SHARED_MEMORY} is no tmpfs here");
        }
        let folder = tempfile::tempdir_in(SHARED_MEMORY).unwrap();
        let (mut files, mut obtained) = (Files::default(), Obtained::default());
        let open = FileOp::Open { path: folder.path().join("data"), create: true, direct: true };
        let file = files.execute(open, &mut obtained).unwrap().file();
        assert_eq!(obtained.files_buffered, 1);
        assert!(!files.used(file).leaves_cached);
    }
}
