//! Makes the file that is measured: whole, with contents that are not zeros, and on the drive.

use std::io::ErrorKind;
use std::path::Path;

use hoist_io::{BackendChoice, Config, FileOp};

use super::drive::{Drive, Error, Memory};
use super::files::{data, part};
use super::order::{Direction, Turn};
use crate::bench::Progress;
use crate::config::units::format_bytes;
use crate::contents::{Contents, Kind};
use crate::interrupt::Interrupt;

/// Of one request: with 1 MiB blocks, 32 deep, 9 of these are under way, in 36 MiB of memory.
const REQUEST_BYTES: u64 = 4 << 20;

/// Requests that making a file of this size takes.
pub fn requests(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(REQUEST_BYTES)
}

/// Makes the file in `directory`, unless one of this size or more is there. It has its name only when it is whole: one
/// that was left in the middle would be read as holes, which cost no drive anything. An interrupted one is not whole.
/// What a link of either name points to is not ours to overwrite: the link is replaced.
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
    if data.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() >= size_bytes) {
        return Ok(());
    }
    match std::fs::remove_file(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(format!("removing {}: {error}", part.display()).into());
        }
        _ => {}
    }
    check_room(directory, size_bytes)?;
    let (mut drive, _) =
        write(&part, size_bytes, io.backend, interrupt, |_| interrupt.is_set(), || progress.advance())?;
    if !interrupt.is_set() {
        drive.sync()?;
        drive.file(|_| FileOp::Rename { from: part, to: data })?;
    }
    drive.close()?;
    Ok(())
}

/// Without this a file that does not fit takes all there is, from everybody else on the drive too, before it is refused.
fn check_room(directory: &Path, size_bytes: u64) -> Result<(), Error> {
    let found = rustix::fs::statvfs(directory)?;
    let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
    if size_bytes <= free_bytes {
        return Ok(());
    }
    let (size, free) = (format_bytes(size_bytes), format_bytes(free_bytes));
    Err(format!("a file of {size} is asked for, and {free} are free; make room, or give a smaller --size")
        .into())
}

/// Writes a file from its beginning, until it is whole or `over`, told how much has been asked for, says that it is
/// enough. Gives back the drive and how much of the file there is.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// More than any file may have, so that nothing is filled up where this is not looked at.
    #[test]
    fn a_file_that_does_not_fit_is_refused_before_it_takes_all_the_room() {
        let folder = tempfile::tempdir().unwrap();
        let (interrupt, progress) = (Interrupt::default(), Progress::new(1));
        let filled = fill(folder.path(), 1 << 62, &Config::default(), &interrupt, &progress);
        let error = filled.unwrap_err().to_string();
        assert!(error.contains("4.0 EiB is asked for") && error.contains("make room"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// Kills: a file of the user's that is overwritten through a link of our name.
    #[test]
    fn links_are_replaced_and_what_they_point_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mine = folder.path().join("mine");
        let bytes = vec![1; 8192];
        std::fs::write(&mine, &bytes).unwrap();
        for link in [data(folder.path()), part(folder.path())] {
            std::os::unix::fs::symlink(&mine, link).unwrap();
        }
        let (interrupt, progress) = (Interrupt::default(), Progress::new(1));
        fill(folder.path(), 8192, &Config::default(), &interrupt, &progress).unwrap();
        assert_eq!(std::fs::read(&mine).unwrap(), bytes);
        let made = data(folder.path()).symlink_metadata().unwrap();
        assert!(made.is_file() && made.len() == 8192 && !part(folder.path()).exists());
    }
}
