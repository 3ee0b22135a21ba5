//! Whether a file lies in the page cache, so that what is measured of it would be memory.

use std::fs::File;
use std::io::IoSliceMut;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::io::Random;

/// Pages that are looked at: a file of which half is cached is missed once in 10^11 times.
const SAMPLES: u64 = 64;
const PAGE_BYTES: u64 = 4096;
/// Above this share of them a file is said to be cached: a few pages may have been read by others, such as a backup.
pub const SHARE_MAX: f64 = 0.1;

/// The share of the file's pages that lie in the page cache; none where the file system cannot tell. Asks for a read that
/// must not wait (RWF_NOWAIT, preadv2(2)): the kernel answers it from the page cache, or not at all. Each time of asking
/// has a `seed` of its own.
pub fn cached_share(file: &File, bytes: u64, seed: u64) -> Option<f64> {
    // A page that is asked for and not there is read ahead all the same, and without this many more with it.
    fadvise(file, 0, None, Advice::Random).ok()?;
    let (mut random, mut cached) = (Random(seed), 0);
    for _ in 0..SAMPLES {
        let offset = random.below((bytes / PAGE_BYTES).max(1)) * PAGE_BYTES;
        let mut byte = [0];
        match preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT) {
            Ok(_) => cached += 1,
            Err(Errno::AGAIN) => {}
            Err(_) => return None,
        }
    }
    // Only advice: what is on its way stays, one page for each sample at most.
    let _ = fadvise(file, 0, None, Advice::DontNeed);
    Some(cached as f64 / SAMPLES as f64)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_cached_until_the_kernel_forgets_it_and_asking_does_not_cache_it() {
        let mut file = tempfile::tempfile_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        let bytes = 32 << 20;
        file.write_all(&vec![7; bytes as usize]).unwrap();
        let Some(share) = cached_share(&file, bytes, 0) else {
            return println!("skipped: this file system does not tell");
        };
        assert_eq!(share, 1.0);
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        for seed in 1..6 {
            let share = cached_share(&file, bytes, seed).unwrap();
            assert!(share < SHARE_MAX, "{share} at the {seed}. time of asking");
        }
    }
}
