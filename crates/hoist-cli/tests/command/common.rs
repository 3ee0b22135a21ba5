//! What tests of the command share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use safetensors::tensor::{Dtype, TensorView};
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

/// Contents that follow from name and place, and are never zeros alone.
fn bytes_of(name: &str, bytes: usize) -> Vec<u8> {
    let seed = name.bytes().fold(7_u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte)));
    (0..bytes as u32).map(|place| ((place ^ seed).wrapping_mul(0x9E37_79B9) >> 24) as u8).collect()
}

/// Writes a model file with tensors of these names and lengths, and metadata.
pub fn write_model(path: PathBuf, tensors: &[(&str, usize)]) -> PathBuf {
    let contents: Vec<(&str, Vec<u8>)> =
        tensors.iter().map(|&(name, bytes)| (name, bytes_of(name, bytes))).collect();
    let views: BTreeMap<&str, TensorView<'_>> = contents
        .iter()
        .map(|(name, bytes)| (*name, TensorView::new(Dtype::U8, vec![bytes.len()], bytes).unwrap()))
        .collect();
    let metadata = std::collections::HashMap::from([("format".to_owned(), "test".to_owned())]);
    std::fs::write(&path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
    path
}

/// A model with layers that a small device must take in pieces.
pub const MODEL: &[(&str, usize)] = &[
    ("embed.weight", 5 << 20),
    ("layers.0.bias", 511),
    ("layers.0.weight", 1_500_000),
    ("layers.0.empty", 0),
    ("layers.1.bias", 4097),
    ("layers.1.weight", (1 << 20) - 1),
    ("layers.10.weight", (1 << 20) + 1),
    ("layers.2.weight", 1 << 20),
    ("norm.weight", 1),
];
