//! Makes the file that is measured: whole, with contents that are not zeros, and on the drive.

use std::path::Path;

use hoist_io::{BackendChoice, Config, FileOp};

use super::drive::{Drive, Error, Memory};
use super::files::{data, part};
use super::order::{Direction, Turn};
use crate::bench::Progress;
use crate::contents::{Contents, Kind};
use crate::interrupt::Interrupt;

/// Of one request: with 1 MiB blocks, 32 deep, 16 of these are under way, in 64 MiB of memory.
const REQUEST_BYTES: u64 = 4 << 20;

/// Requests that making a file of this size takes.
pub fn requests(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(REQUEST_BYTES)
}

/// Makes the file in `directory`, unless one of this size or more is there. It has its name only when it is whole: one
/// that was left in the middle would be read as holes, which cost no drive anything. An interrupted one is not whole.
///
/// # Errors
/// When the file cannot be made or written.
pub fn fill(
    directory: &Path,
    size_bytes: u64,
    io: &Config,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<(), Error> {
    let (data, part) = (data(directory), part(directory));
    if data.metadata().is_ok_and(|found| found.is_file() && found.len() >= size_bytes) {
        return Ok(());
    }
    let (mut drive, _) =
        write(&part, size_bytes, io.backend, interrupt, |_| interrupt.is_set(), || progress.advance())?;
    if !interrupt.is_set() {
        drive.sync()?;
        drive.file(|_| FileOp::Rename { from: part, to: data })?;
    }
    drive.close()?;
    Ok(())
}

/// Writes a file from its beginning, until it is whole or `over`, told how much has been asked for, says that it is enough. Gives back the drive and how
/// much of the file there is.
///
/// # Errors
/// When the file cannot be made or written.
pub fn write(
    path: &Path,
    size_bytes: u64,
    backend: BackendChoice,
    interrupt: &Interrupt,
    over: impl Fn(u64) -> bool,
    mut done: impl FnMut(),
) -> Result<(Drive, u64), Error> {
    // How the file is made is no part of the measurement: as fast as it goes.
    let io = Config { backend, ..Config::default() };
    let request_bytes = REQUEST_BYTES.min(size_bytes);
    let mut drive =
        Drive::open(path, true, &io, Memory::new(request_bytes, None, io.block_size, io.queue_depth))?;
    // What another run may have left.
    drive.file(|file| FileOp::Truncate { file, bytes: 0 })?;
    // First writes to allocated extents cost more than later ones: they are done here.
    drive.file(|file| FileOp::Allocate { file, offset: 0, bytes: size_bytes })?;
    let contents = Contents::new(Kind::Bits, 0, 0);
    let mut offset = 0;
    drive.keep_busy(
        interrupt,
        |slot| {
            let bytes = request_bytes.min(size_bytes - offset);
            if bytes == 0 || over(offset) {
                return None;
            }
            let mut at = offset;
            for bytes in slot.parts_mut() {
                contents.fill(bytes, at);
                at += bytes.len() as u64;
            }
            let turn = Turn { direction: Direction::Write, offset, bytes };
            offset += bytes;
            Some(turn)
        },
        |_| done(),
    )?;
    Ok((drive, offset))
}
