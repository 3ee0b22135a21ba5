//! One block on its way: what to do with each result of the kernel. Pure.

use crate::error::Operation;

/// How often a block is tried without any progress: far more than a kernel that works needs (EINTR and EAGAIN on
/// files are rare, and were kernel bugs before 2023), and few enough that a broken one is reported at once.
pub(crate) const ATTEMPTS_MAX: u32 = 16;

/// How far a block is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    operation: Operation,
    bytes: u64,
    /// It is done when so many are moved: fewer where only whole sectors can be asked for and a file ends before.
    enough_bytes: u64,
    /// Moved for good: the next part begins here. A multiple of `alignment_bytes`.
    done_bytes: u64,
    /// The furthest byte that the kernel has ever reached.
    reached_bytes: u64,
    /// What the next part's start must be a multiple of; 1 without direct I/O.
    alignment_bytes: u64,
    /// Tries since the last progress.
    attempts: u32,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The block is done.
    Done,
    /// Hand over what is left, from [`Progress::done_bytes`] on.
    Again,
    /// The block failed.
    Failed(Failure),
}

/// Why a block failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Errno { errno: i32, attempts: u32 },
    EndOfFile { missing_bytes: u64 },
    Stuck { done_bytes: u64, attempts: u32 },
}

impl Progress {
    pub(crate) fn new(operation: Operation, bytes: u64, alignment_bytes: u64) -> Progress {
        let enough_bytes = bytes;
        Progress {
            operation,
            bytes,
            enough_bytes,
            done_bytes: 0,
            reached_bytes: 0,
            alignment_bytes,
            attempts: 0,
        }
    }

    /// The same, done when the first `enough_bytes` are moved.
    pub(crate) fn with_enough(self, enough_bytes: u64) -> Progress {
        Progress { enough_bytes, ..self }
    }

    pub(crate) fn done_bytes(&self) -> u64 {
        self.done_bytes
    }

    /// Takes what a read, write or fsync returned: bytes, or minus an errno.
    pub(crate) fn on_result(&mut self, result: i32) -> Next {
        self.attempts += 1;
        let attempts = self.attempts;
        if result < 0 {
            // ECANCELED is not ours, as nothing is ever cancelled: it is what a ring answers when a signal kept the
            // kernel from starting a worker for a transfer that needs one (measured under a storm of signals).
            let again =
                matches!(-result, libc::EINTR | libc::EAGAIN | libc::ECANCELED) && attempts < ATTEMPTS_MAX;
            return if again {
                Next::Again
            } else {
                Next::Failed(Failure::Errno { errno: -result, attempts })
            };
        }
        if self.operation == Operation::Sync {
            return Next::Done;
        }
        let end_bytes = self.done_bytes + result as u64;
        assert!(end_bytes <= self.bytes, "the kernel moved {result} bytes of {self:?}");
        self.reached_bytes = self.reached_bytes.max(end_bytes);
        if end_bytes >= self.enough_bytes {
            return Next::Done;
        }
        // A direct transfer may end off the alignment, at the end of a file above all. Going on from there would be
        // EINVAL: what lies behind the last multiple is moved once more.
        let aligned_bytes = end_bytes / self.alignment_bytes * self.alignment_bytes;
        if aligned_bytes > self.done_bytes {
            self.done_bytes = aligned_bytes;
            self.attempts = 0;
            return Next::Again;
        }
        match self.operation {
            Operation::Read if result == 0 || attempts >= ATTEMPTS_MAX => {
                Next::Failed(Failure::EndOfFile { missing_bytes: self.enough_bytes - self.reached_bytes })
            }
            Operation::Write if attempts >= ATTEMPTS_MAX => {
                Next::Failed(Failure::Stuck { done_bytes: self.reached_bytes, attempts })
            }
            _ => Next::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a kernel may do to one try: an errno, or that many of the bytes asked for.
    #[derive(Clone, Copy, Debug)]
    enum Kernel {
        Errno(i32),
        Share(u64),
    }

    fn kernel() -> impl Strategy<Value = Kernel> {
        prop_oneof![
            1 => prop_oneof![Just(libc::EINTR), Just(libc::EAGAIN), Just(libc::ECANCELED), Just(libc::EIO)].prop_map(Kernel::Errno),
            4 => (0..=100u64).prop_map(Kernel::Share),
        ]
    }

    proptest! {
        /// Whatever the kernel does, a block ends; Done means that every byte was moved; a part never begins off the
        /// alignment; only EINTR and EAGAIN are tried again.
        #[test]
        fn every_block_ends(
            read in any::<bool>(),
            sectors in 1..20u64,
            direct in any::<bool>(),
            script in proptest::collection::vec(kernel(), 0..200),
        ) {
            let operation = if read { Operation::Read } else { Operation::Write };
            let bytes = sectors * 4096;
            let alignment_bytes = if direct { 4096 } else { 1 };
            let mut progress = Progress::new(operation, bytes, alignment_bytes);
            let mut moved = vec![false; bytes as usize];
            // After the script the kernel only says EAGAIN: the limit must end it.
            let script = script.into_iter().chain(std::iter::repeat_n(Kernel::Errno(libc::EAGAIN), 100));
            for step in script {
                let from = progress.done_bytes();
                prop_assert_eq!(from % alignment_bytes, 0);
                let result = match step {
                    Kernel::Errno(errno) => -errno,
                    Kernel::Share(percent) => ((bytes - from) * percent / 100) as i32,
                };
                moved[from as usize..(from as usize + result.max(0) as usize)].fill(true);
                match progress.on_result(result) {
                    Next::Again => prop_assert_ne!(result, -libc::EIO),
                    Next::Done => {
                        prop_assert!(moved.iter().all(|byte| *byte));
                        return Ok(());
                    }
                    Next::Failed(Failure::EndOfFile { missing_bytes }) => {
                        prop_assert!(read);
                        let last = moved.iter().rposition(|byte| *byte).map_or(0, |last| last as u64 + 1);
                        prop_assert_eq!(missing_bytes, bytes - last);
                        return Ok(());
                    }
                    Next::Failed(Failure::Stuck { attempts, .. }) => {
                        prop_assert!(!read);
                        prop_assert_eq!(attempts, ATTEMPTS_MAX);
                        return Ok(());
                    }
                    Next::Failed(Failure::Errno { errno, attempts }) => {
                        prop_assert_eq!(errno, -result);
                        prop_assert!(errno == libc::EIO || attempts == ATTEMPTS_MAX);
                        return Ok(());
                    }
                }
            }
            prop_assert!(false, "still not ended: {progress:?}");
        }
    }

    #[test]
    fn an_unaligned_end_of_file_is_found_and_measured() {
        let mut progress = Progress::new(Operation::Read, 12288, 4096);
        assert_eq!(progress.on_result(8196), Next::Again);
        assert_eq!(progress.done_bytes(), 8192, "goes on from a multiple of the alignment");
        let mut next = Next::Again;
        for _ in 0..ATTEMPTS_MAX {
            assert_eq!(next, Next::Again);
            next = progress.on_result(4);
        }
        assert_eq!(next, Next::Failed(Failure::EndOfFile { missing_bytes: 12288 - 8196 }));
    }
}
