//! The command as its users call it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// No call here takes more than seconds: one that hangs ends and fails its test.
pub const CALL_MAX: Duration = Duration::from_secs(120);

/// The built command. Cargo builds it for the tests of its own crate, which are part of the workspace's, and not for
/// these alone.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).expect("deps/ in a folder").join("hoist");
    let remedy =
        "test the whole workspace, or build it with cargo build -p hoist-cli (--release as these tests)";
    assert!(path.is_file(), "{} is not there: {remedy}", path.display());
    let built = path.metadata().unwrap().modified().unwrap();
    if newest(&repository().join("crates")).is_some_and(|changed| changed > built) {
        // Seen with a failure. It is no failure itself: cargo knows better which file is in which program.
        println!("note: {} is older than a source: {remedy}", path.display());
    }
    path
}

/// When a file below `folder` was changed last.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let times = entries.filter_map(|entry| match entry.path() {
        path if path.is_dir() => newest(&path),
        path => path.metadata().and_then(|file| file.modified()).ok(),
    });
    times.max()
}

/// Runs the command in `folder`; it must end with `status`. Gives back what it printed: both streams.
pub fn run(folder: &Path, args: &[&str], status: i32) -> String {
    let mut command = Command::new(binary());
    let output = command.current_dir(folder).args(args).timeout(CALL_MAX).output().unwrap();
    let text =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
    text
}

/// A folder on the disk that the target folder is on: /tmp may be memory, which has no direct I/O.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A config of this repository.
pub fn config(name: &str) -> String {
    repository().join("config").join(name).to_str().unwrap().to_owned()
}

/// The arguments of a bench with these overrides, which leaves its report in the folder.
pub fn bench<'a>(config: &'a str, sets: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["bench", config, "--json", "report.json"];
    args.extend(sets.iter().flat_map(|set| ["--set", set]));
    args
}

/// The report that a bench left in the folder.
pub fn report(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap()
}

/// A number of the report.
pub fn number(report: &Value, pointer: &str) -> u64 {
    let value = report.pointer(pointer).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("no whole number at {pointer}: {report:#}"))
}

/// Shapes of 3 M parameters (48 MB of state) that are cut into pieces and packed into bundles.
pub const SMALL: [&str; 6] = [
    "model.layers=2",
    "model.hidden=256",
    "model.heads=4",
    "model.vocab=5000",
    "model.context=128",
    "run.steps=2",
];
