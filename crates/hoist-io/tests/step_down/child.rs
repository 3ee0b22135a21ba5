//! This program, run again with less.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// Set for a child: the folder that it may use.
const FOLDER: &str = "HOIST_STEP_DOWN_FOLDER";

/// The user and group `nobody` of most systems; any user without capabilities would do.
pub const NOBODY: u32 = 65534;

/// The folder, for a child; none in the program that was called.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Whether this process may become another user.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs the test `name` (its whole path) in a child that `restrict` has made poorer, with a folder in a temporary
/// place. It must succeed, and must have run.
pub fn run(name: &str, restrict: impl FnOnce(&mut Command)) {
    let folder = tempfile::tempdir().unwrap();
    if is_root() {
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // By its link, which a user finds who may not enter the folders above it.
    let mut command = Command::new("/proc/self/exe");
    command.args([name, "--exact", "--nocapture"]).env(FOLDER, folder.path()).current_dir("/");
    restrict(&mut command);
    let output = command.output().unwrap();
    let text =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
}

/// The child is a user without capabilities, if this process can make it one.
pub fn drop_rights(command: &mut Command) {
    if is_root() {
        // std does setgroups, setgid and setuid, and exec gives another user than root no capabilities.
        command.uid(NOBODY).gid(NOBODY);
    }
}

/// The child runs with what `call` sets: 0 or less than 0, with an errno.
pub fn set(command: &mut Command, call: impl Fn() -> libc::c_int + Send + Sync + 'static) {
    let checked = move || if call() < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: between fork and exec the closure does one system call or two by functions of libc that take no lock and
    // allocate nothing (prctl, setrlimit), on memory of its own.
    unsafe { command.pre_exec(checked) };
}
