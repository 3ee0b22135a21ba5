//! What tests of the command share.

use std::path::Path;

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use tempfile::TempDir;

/// The command, in `folder`.
pub fn hoist(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hoist"));
    command.current_dir(folder).args(args);
    command
}

/// Runs the command, which must end with `status`, and gives back what it printed: both streams.
pub fn run(folder: &Path, args: &[&str], status: i32) -> String {
    let assert: Assert = hoist(folder, args).assert();
    let output = assert.get_output();
    let text =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
    text
}

/// A folder on the disk that the target folder is on: /tmp may be memory, which has no direct I/O.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A config of this repository.
pub fn config(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config").join(name).to_str().unwrap().to_owned()
}
