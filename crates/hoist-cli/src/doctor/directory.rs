//! A directory that a store may go to.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use hoist_io::memory::{self, Slab};
use hoist_io::{
    BackendChoice, Completion, Config, FileId, FileOp, FileRange, FileReply, IoThread, Obtained, Priority,
    Request, Transfer,
};

use super::{Finding, State};
use crate::config::units::format_bytes;
use crate::report::file_system;

/// What quickstart takes at most.
const FREE_BYTES_GOOD: u64 = 5 << 30;
/// Written and read for the trial: one page of the slab.
const TRIAL_BYTES: u64 = 1 << 20;
/// A drive that does not answer so long is broken: NVMe's own timeout is 30 s (nvme_core.io_timeout).
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// File system, space, and I/O by a real write and read.
pub fn examine(path: &Path) -> Vec<Finding> {
    let shown = path.display();
    if !path.is_dir() {
        let found = "there is no such directory";
        return vec![Finding::bad(State::Broken, format!("{shown}"), found, "make it, or name another")];
    }
    vec![
        Finding::ok(format!("{shown}: file system"), file_system(path)),
        free_space(path),
        with_backend(path, BackendChoice::Uring),
        with_backend(path, BackendChoice::Pread),
    ]
}

fn free_space(path: &Path) -> Finding {
    let what = format!("{}: free space", path.display());
    match rustix::fs::statvfs(path) {
        Ok(found) => {
            let bytes = found.f_bavail.saturating_mul(found.f_frsize);
            match bytes >= FREE_BYTES_GOOD {
                true => Finding::ok(what, format_bytes(bytes)),
                false => {
                    Finding::bad(State::Degraded, what, format_bytes(bytes), "quickstart takes up to 5 GiB")
                }
            }
        }
        Err(error) => {
            Finding::bad(State::Degraded, what, error.to_string(), "name a directory that can be read")
        }
    }
}

/// A write and a read through one backend, compared. Without io_uring hoist goes on with pread; without that, nothing.
fn with_backend(path: &Path, backend: BackendChoice) -> Finding {
    let (name, state, remedy) = match backend {
        BackendChoice::Pread => {
            ("pread", State::Broken, "name a directory on a local drive that can be written")
        }
        _ => {
            let remedy = "allow io_uring: sysctl kernel.io_uring_disabled=0, and a seccomp profile that lets it through";
            ("io_uring", State::Degraded, remedy)
        }
    };
    let what = format!("{}: {name}", path.display());
    match trial(path, backend) {
        Ok(obtained) if obtained.files_buffered > 0 => {
            let remedy = "use a file system with direct I/O, such as ext4 or xfs";
            Finding::bad(State::Degraded, what, obtained.to_string(), remedy)
        }
        Ok(obtained) if !obtained.stepped_down.is_empty() => Finding::bad(
            State::Degraded,
            what,
            obtained.to_string(),
            "raise ulimit -l if memory could not be registered",
        ),
        Ok(obtained) => Finding::ok(what, obtained.to_string()),
        Err(error) => Finding::bad(state, what, error.to_string(), remedy),
    }
}

/// Writes a trial file, reads it back and compares.
fn trial(path: &Path, backend: BackendChoice) -> Result<Obtained, Box<dyn std::error::Error>> {
    let slab = Slab::map(&memory::Config { budget_bytes: 2 * TRIAL_BYTES, ..memory::Config::default() })?;
    let (Some(mut written), Some(empty)) = (slab.allocate(TRIAL_BYTES), slab.allocate(TRIAL_BYTES)) else {
        return Err("a new slab has no free pages".into());
    };
    for (number, byte) in written.parts_mut().flatten().enumerate() {
        *byte = (number / 4096 * 7 + number) as u8;
    }
    let (sender, completions) = channel();
    let config = Config { backend, ..Config::default() };
    // The receiver lives until the thread has been closed.
    let io = IoThread::spawn("doctor", &config, slab, move |completion| drop(sender.send(completion)))?;
    let run = |file: FileId, transfer: Transfer| -> Result<Completion, Box<dyn std::error::Error>> {
        let ranges = vec![FileRange { file, offset: 0, bytes: TRIAL_BYTES, buffer_offset: 0 }];
        io.push(Request { id: 1, priority: Priority::Demand, ranges, transfer });
        completions.recv_timeout(ANSWER_MAX).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("no answer within {} s", ANSWER_MAX.as_secs()).into(),
            RecvTimeoutError::Disconnected => "the I/O thread has ended".into(),
        })
    };
    // Removed when dropped, whatever happens.
    let name = tempfile::Builder::new().prefix("hoist-doctor").tempfile_in(path)?.into_temp_path();
    let reply = io.file(FileOp::Open { path: name.to_path_buf(), create: true, direct: true })?;
    let FileReply::Opened { file, .. } = reply else { return Err("the file system opened no file".into()) };
    let write = run(file, Transfer::Write(written.share()))?;
    write.result?;
    let read = run(file, Transfer::Read(empty))?;
    read.result?;
    let (Transfer::Write(written), Transfer::Read(read)) = (write.transfer, read.transfer) else {
        return Err("a completion of something that was not asked for".into());
    };
    if !written.parts().flatten().eq(read.parts().flatten()) {
        return Err("what was read is not what was written".into());
    }
    let obtained = io.obtained();
    io.file(FileOp::Close(file))?;
    io.close()?;
    Ok(obtained)
}
