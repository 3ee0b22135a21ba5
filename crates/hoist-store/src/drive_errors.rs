//! Which errors are a drive's, so that another may do what it could not.

use crate::Error;

impl Error {
    /// Whether another directory may do what this one could not.
    pub(crate) fn may_be_the_drives(&self) -> bool {
        use hoist_io::Error as Io;
        let Error::Io(error) = self else { return false };
        matches!(error, Io::Transfer { .. } | Io::Stuck { .. } | Io::EndOfFile { .. } | Io::Stopped { .. })
    }

    /// Whether a drive, or its thread, is at its end: what it has failed it will fail again.
    pub(crate) fn is_drives_end(&self) -> bool {
        use rustix::io::Errno;
        // What the block layer answers (blk_status_t in block/blk-core.c), and a file system that has made itself
        // read-only after an error.
        const ENDS: [Errno; 9] = [
            Errno::IO,
            Errno::NXIO,
            Errno::NODEV,
            Errno::NOLINK,
            Errno::REMOTEIO,
            Errno::NODATA,
            Errno::TIMEDOUT,
            Errno::ILSEQ,
            Errno::ROFS,
        ];
        match self {
            Error::Io(hoist_io::Error::Transfer { source, .. }) => {
                source.raw_os_error().is_some_and(|errno| ENDS.iter().any(|end| end.raw_os_error() == errno))
            }
            Error::Io(error) => matches!(
                error,
                hoist_io::Error::Stuck { .. }
                    | hoist_io::Error::EndOfFile { .. }
                    | hoist_io::Error::Stopped { .. }
            ),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_not_a_drives_end() {
        use rustix::io::Errno;
        let transfer = |errno: Errno| {
            let (operation, path) = (hoist_io::Operation::Write, std::path::Path::new("/nvme/0000.seg"));
            let source = errno.into();
            Error::from(hoist_io::Error::Transfer {
                operation,
                path: path.into(),
                offset: 0,
                bytes: 4096,
                attempts: 1,
                source,
            })
        };
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::NOMEM, Errno::AGAIN, Errno::INVAL, Errno::FAULT] {
            let error = transfer(errno);
            assert!(error.may_be_the_drives() && !error.is_drives_end(), "{error}");
        }
        let stopped = Error::from(hoist_io::Error::Stopped { cause: String::new() });
        for error in [transfer(Errno::IO), transfer(Errno::ROFS), stopped] {
            assert!(error.may_be_the_drives() && error.is_drives_end(), "{error}");
        }
        let abandoned = Error::from(hoist_io::Error::Abandoned { id: 1 });
        assert!(!abandoned.may_be_the_drives() && !abandoned.is_drives_end());
    }
}
