//! Faults of single tries: between the table of blocks and the kernel, so that what meets them is the code that meets
//! the kernel's own.

use super::{FaultKind, Faults, Short, State};
use crate::core::Part;
use crate::error::Operation;
use crate::files::OpenFile;

/// Sectors of direct I/O: what short transfers are counted in.
const SECTOR_BYTES: u64 = hoist_memory::SECTOR_BYTES as u64;

/// What a short transfer ends behind a sector with: the smallest sector that drives have.
const ODD_BYTES: u64 = 512;

/// What becomes of a try.
pub(crate) enum Meeting {
    /// The kernel gets it, perhaps shorter than it was.
    HandOver(Part),
    /// The kernel does not get it, and this is the result.
    Answer(i32),
}

/// A try whose result is to be said otherwise.
#[derive(Clone, Copy)]
struct Claim {
    moved_bytes: u64,
    said_bytes: u64,
}

/// The faults of one backend's blocks.
pub(crate) struct BlockFaults {
    faults: Faults,
    /// By place in the block table.
    claims: Vec<Option<Claim>>,
}

impl BlockFaults {
    pub(crate) fn new(faults: &Faults, depth: usize) -> BlockFaults {
        BlockFaults { faults: faults.clone(), claims: vec![None; depth] }
    }

    /// Decides about a try.
    pub(crate) fn meet(&mut self, part: Part, file: &OpenFile) -> Meeting {
        let mut state = self.faults.lock();
        let bytes = part.offset..part.offset + part.bytes;
        let of_block = |kind: &FaultKind| !matches!(kind, FaultKind::Latency(_));
        let said_bytes = match state.strike(of_block, part.operation, file.path(), &bytes) {
            Some(FaultKind::Eio) => return Meeting::Answer(-libc::EIO),
            Some(FaultKind::Eintr) => return Meeting::Answer(-libc::EINTR),
            Some(FaultKind::Eagain) => return Meeting::Answer(-libc::EAGAIN),
            Some(FaultKind::Short(short)) if part.operation != Operation::Sync => {
                state.shorten(short, part.bytes)
            }
            Some(FaultKind::Short(_) | FaultKind::Latency(_)) | None => part.bytes,
        };
        let said_bytes = match state.take_space(&part, said_bytes) {
            Some(bytes) => bytes,
            None => return Meeting::Answer(-libc::ENOSPC),
        };
        drop(state);
        self.hand_over(part, said_bytes, file.aligned)
    }

    /// A direct transfer moves whole sectors, so what is said beyond the last whole one was not moved: whoever goes on
    /// behind it leaves bytes out, and a test sees it.
    fn hand_over(&mut self, part: Part, said_bytes: u64, aligned: bool) -> Meeting {
        if said_bytes == part.bytes {
            return Meeting::HandOver(part);
        }
        let moved_bytes = if aligned { said_bytes / SECTOR_BYTES * SECTOR_BYTES } else { said_bytes };
        if moved_bytes == 0 {
            // Less than a block, which is 1 GiB at most.
            return Meeting::Answer(said_bytes as i32);
        }
        self.claims[part.block] = Some(Claim { moved_bytes, said_bytes });
        Meeting::HandOver(Part { bytes: moved_bytes, ..part })
    }

    /// What to say of the kernel's result.
    pub(crate) fn on_result(&mut self, place: usize, result: i32) -> i32 {
        match self.claims[place].take() {
            Some(claim) if i64::from(result) == claim.moved_bytes as i64 => claim.said_bytes as i32,
            _ => result,
        }
    }
}

impl State {
    /// How many of the bytes a short transfer says to have moved.
    fn shorten(&mut self, short: Short, bytes: u64) -> u64 {
        let sectors = bytes / SECTOR_BYTES;
        match short {
            Short::None => 0,
            _ if sectors < 2 => bytes,
            Short::First => SECTOR_BYTES,
            Short::Middle => sectors / 2 * SECTOR_BYTES,
            Short::Last => (sectors - 1) * SECTOR_BYTES,
            Short::Odd => (1 + self.draw() % (sectors - 1)) * SECTOR_BYTES + ODD_BYTES,
        }
    }

    /// Takes space for a write, as much as there is; None when there is none.
    fn take_space(&mut self, part: &Part, bytes: u64) -> Option<u64> {
        let Some(space_bytes) = &mut self.space_bytes else { return Some(bytes) };
        if part.operation != Operation::Write || bytes == 0 {
            return Some(bytes);
        }
        let taken_bytes = bytes.min(*space_bytes / SECTOR_BYTES * SECTOR_BYTES);
        *space_bytes -= taken_bytes;
        (taken_bytes > 0).then_some(taken_bytes).or_else(|| {
            self.hits += 1;
            None
        })
    }
}
