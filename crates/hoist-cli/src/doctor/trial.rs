//! A block written to a directory and read back, by the way that stores use.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use hoist_io::memory::{self, Slab};
use hoist_io::{
    BackendChoice, Completion, Config, FileId, FileOp, FileRange, FileReply, IoThread, Obtained, Priority,
    Request, Transfer,
};

use super::Finding;

/// Written and read for the trial: the least that stores move.
const TRIAL_BYTES: u64 = 4096;
/// Two slots of a page each.
const SLAB_BYTES: u64 = 2 << 20;
/// A drive that does not answer so long is broken: NVMe's own timeout is 30 s (nvme_core.io_timeout).
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// A write and a read through one backend, compared.
pub fn examine(path: &Path, backend: BackendChoice) -> Finding {
    let way = if backend == BackendChoice::Pread { "pread" } else { "io_uring" };
    let name = format!("{}: 4 KiB written and read by {way}", path.display());
    match run(path, backend) {
        Ok(obtained) if obtained.files_buffered > 0 => {
            let cost = "every byte goes through the page cache";
            let found = format!("right, but buffered: {}", obtained.stepped_down.join("; "));
            Finding::degraded(name, found, cost, "name a directory on ext4 or xfs")
        }
        Ok(_) => Finding::ok(name, "right, by direct I/O"),
        Err(error) => {
            let mend = "name a directory on a local drive; what the kernel says of this one: dmesg";
            Finding::broken(name, error.to_string(), "no store works there", mend)
        }
    }
}

/// Writes a trial file, reads it back and compares.
fn run(path: &Path, backend: BackendChoice) -> Result<Obtained, Box<dyn std::error::Error>> {
    let slab = Slab::map(&memory::Config { budget_bytes: SLAB_BYTES, ..memory::Config::default() })?;
    let (Some(mut written), Some(empty)) = (slab.allocate(TRIAL_BYTES), slab.allocate(TRIAL_BYTES)) else {
        return Err("a new slab has no free pages".into());
    };
    for (number, byte) in written.parts_mut().flatten().enumerate() {
        *byte = (number / 256 * 7 + number) as u8;
    }
    let (sender, completions) = channel();
    let config = Config { backend, ..Config::default() };
    // The receiver lives until the thread has been closed.
    let io = IoThread::spawn("doctor", &config, slab, move |completion| drop(sender.send(completion)))?;
    let transfer = |file: FileId, transfer: Transfer| -> Result<Completion, Box<dyn std::error::Error>> {
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
    let write = transfer(file, Transfer::Write(written.share()))?;
    write.result?;
    let read = transfer(file, Transfer::Read(empty))?;
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
