//! Direct I/O on a file of a directory: whether it opens, and what it must be aligned to.

use std::fmt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, open, statx};

use super::Finding;

/// What stores align to; files that need more are buffered.
const ALIGNMENT_BYTES: u32 = 4096;

/// What a file that is not direct costs.
const COST: &str =
    "every byte goes through the page cache: one copy more, and memory beyond the budgets while it lasts";

/// What direct I/O must be aligned to, and who says so.
#[derive(Debug, PartialEq, Eq)]
enum Alignment {
    /// The file system (statx, STATX_DIOALIGN, Linux 6.1): of memory and of offsets. Zeros: no direct I/O.
    File { memory_bytes: u32, offset_bytes: u32 },
    /// The drive's queue in sysfs.
    Drive { bytes: u32 },
    /// Nobody.
    Unknown,
}

impl Alignment {
    /// The largest of them, where somebody says.
    fn bytes(&self) -> Option<u32> {
        match *self {
            Alignment::File { memory_bytes, offset_bytes } => Some(memory_bytes.max(offset_bytes)),
            Alignment::Drive { bytes } => Some(bytes),
            Alignment::Unknown => None,
        }
    }
}

impl fmt::Display for Alignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Alignment::File { memory_bytes, offset_bytes } => {
                write!(
                    f,
                    "aligned to {memory_bytes} in memory and {offset_bytes} in the file (STATX_DIOALIGN)"
                )
            }
            Alignment::Drive { bytes } => {
                write!(f, "aligned to {bytes} (the drive's logical block, by sysfs)")
            }
            Alignment::Unknown => write!(f, "nobody says the alignment; {ALIGNMENT_BYTES} is tried below"),
        }
    }
}

/// Opens `file`, which lies in `directory`, and asks.
pub fn examine(directory: &Path, file: &Path) -> Finding {
    let name = format!("{}: direct I/O", directory.display());
    let mend = "name a directory on ext4 or xfs";
    let direct = match open(file, OFlags::RDWR | OFlags::CLOEXEC | OFlags::DIRECT, Mode::empty()) {
        Ok(direct) => direct,
        Err(error) => return Finding::degraded(name, format!("O_DIRECT is refused: {error}"), COST, mend),
    };
    // tmpfs takes the flag and goes on using the page cache, which it is made of.
    if crate::report::file_system(directory) == "tmpfs" {
        return Finding::degraded(name, "tmpfs has none", COST, mend);
    }
    judge(name, &alignment(&direct), mend)
}

fn judge(name: String, alignment: &Alignment, mend: &str) -> Finding {
    match alignment.bytes() {
        Some(0) => Finding::degraded(name, "STATX_DIOALIGN says that there is none", COST, mend),
        Some(bytes) if bytes > ALIGNMENT_BYTES => {
            let found = format!("{alignment}, more than the {ALIGNMENT_BYTES} that stores use");
            Finding::degraded(name, found, COST, mend)
        }
        _ => Finding::ok(name, alignment.to_string()),
    }
}

fn alignment(file: &rustix::fd::OwnedFd) -> Alignment {
    let Ok(found) = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return Alignment::Unknown;
    };
    if found.stx_mask & StatxFlags::DIOALIGN.bits() != 0 {
        let (memory_bytes, offset_bytes) = (found.stx_dio_mem_align, found.stx_dio_offset_align);
        return Alignment::File { memory_bytes, offset_bytes };
    }
    let drive = format!("/sys/dev/block/{}:{}", found.stx_dev_major, found.stx_dev_minor);
    // A partition's queue is its drive's.
    let queues = ["queue", "../queue"].map(|queue| format!("{drive}/{queue}/logical_block_size"));
    let sizes = queues.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
    sizes.map(|bytes| Alignment::Drive { bytes }).next().unwrap_or(Alignment::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn what_a_store_can_align_to_is_well() {
        let judge = |memory_bytes, offset_bytes| {
            judge("x".to_owned(), &Alignment::File { memory_bytes, offset_bytes }, "move")
        };
        assert_eq!(judge(4, 512).state, State::Ok);
        assert_eq!(judge(4, 4096).found, "aligned to 4 in memory and 4096 in the file (STATX_DIOALIGN)");
        assert_eq!(judge(512, 16384).state, State::Degraded);
        assert!(judge(0, 0).found.contains("none"));
    }

    #[test]
    fn what_nobody_says_is_tried() {
        let line = judge("x".to_owned(), &Alignment::Unknown, "move");
        assert_eq!(line.state, State::Ok);
        assert!(line.found.contains("nobody says"), "{}", line.found);
        assert_eq!(judge("x".to_owned(), &Alignment::Drive { bytes: 512 }, "move").state, State::Ok);
    }
}
