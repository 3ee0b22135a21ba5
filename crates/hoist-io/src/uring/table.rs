//! The ring's table of files: transfers name a place in it instead of a descriptor, which the kernel would have to look
//! up, and to hold, for each block.

use crate::files::FILES_MAX;
use crate::{Obtained, advice};
use io_uring::IoUring;
use std::os::fd::RawFd;

/// Which places of the table are free. The kernel holds the files in the others open until they are taken out, or the
/// ring is gone.
pub(super) struct FileTable {
    /// The next one to be used is the last. Empty where the kernel refused the table.
    free: Vec<u32>,
}

impl FileTable {
    /// Registers an empty table with a ring that has none. A refusal is a step down.
    pub(super) fn new(ring: &IoUring, obtained: &mut Obtained) -> FileTable {
        let free = match ring.submitter().register_files_sparse(FILES_MAX) {
            Ok(()) => (0..FILES_MAX).rev().collect(),
            Err(cause) => {
                let advice = advice::for_files(&cause);
                obtained.registration_advice.get_or_insert(advice);
                obtained.step_down(format!(
                    "unregistered files: IORING_REGISTER_FILES2 of {FILES_MAX} sparse places: {cause} ({advice})"
                ));
                Vec::new()
            }
        };
        FileTable { free }
    }

    /// Puts a file in. None where there is no table; a refusal for this file alone is a step down.
    pub(super) fn add(&mut self, ring: &IoUring, fd: RawFd, obtained: &mut Obtained) -> Option<u32> {
        let place = self.free.pop()?;
        match ring.submitter().register_files_update(place, &[fd]) {
            Ok(_) => {
                obtained.files_registered += 1;
                Some(place)
            }
            Err(cause) => {
                self.free.push(place);
                let advice = advice::for_files(&cause);
                obtained.step_down(format!(
                    "an unregistered file: IORING_REGISTER_FILES_UPDATE: {cause} ({advice})"
                ));
                None
            }
        }
    }

    /// Takes a file out that no transfer uses. Where that is refused the kernel holds the file open, and its place is
    /// free all the same: what is put there next replaces it.
    pub(super) fn remove(&mut self, ring: &IoUring, place: u32, obtained: &mut Obtained) {
        // The kernel's word for no file.
        const NONE: RawFd = -1;
        if let Err(cause) = ring.submitter().register_files_update(place, &[NONE]) {
            obtained.step_down(format!(
                "a closed file's space stays taken until its place in the ring is used again: \
                 IORING_REGISTER_FILES_UPDATE: {cause} ({})",
                advice::for_files(&cause)
            ));
        }
        self.free.push(place);
    }
}
