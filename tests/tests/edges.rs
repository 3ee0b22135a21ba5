//! Which crate may know which: the table of the design, checked against `cargo metadata`.
//!
//! The edges are what keeps each crate small enough to be understood by itself. Without this test one
//! line in a Cargo.toml would undo them unseen.

use std::path::Path;

use cargo_metadata::{DependencyKind, MetadataCommand, Package, TargetKind};

/// The whole table, with the crates that are planned: a crate and what it may depend on.
/// `hoist-store` stands above `hoist-io`, which stands above `hoist-memory`, so it may use both.
const MAY_DEPEND: [(&str, &[&str]); 14] = [
    ("hoist-plan", &[]),
    ("hoist-format", &[]),
    ("hoist-memory", &[]),
    ("hoist-optim", &[]),
    ("hoist-io", &["hoist-memory"]),
    ("hoist-store", &["hoist-format", "hoist-io", "hoist-memory"]),
    ("hoist-device", &["hoist-memory"]),
    ("hoist", &["hoist-plan", "hoist-memory", "hoist-store", "hoist-device", "hoist-optim"]),
    ("hoist-sim", &["hoist-plan"]),
    ("hoist-stress", &["hoist", "hoist-io", "hoist-store", "hoist-sim"]),
    ("hoist-cli", &["hoist", "hoist-io", "hoist-store", "hoist-sim", "hoist-stress"]),
    ("hoist-c", &["hoist"]),
    ("hoist-testkit", &["hoist-io", "hoist-store", "hoist-device"]),
    ("hoist-tests", &[]),
];

/// What a package under `examples/` may depend on, whatever it is called.
const EXAMPLES_MAY_DEPEND: &[&str] = &["hoist", "hoist-optim"];

/// Where `unsafe` may be written: at the borders to the kernel, the GPU, SIMD and C.
const MAY_USE_UNSAFE: [&str; 6] =
    ["hoist-memory", "hoist-io", "hoist-device", "hoist-optim", "hoist-c", "hoist-testkit"];

/// The one crate that knows the codec of the store's records, so that leaving it is one crate's work.
const BINCODE_HOME: &str = "hoist-format";

const FORBID: &str = "#![forbid(unsafe_code)]";

/// The packages of the workspace.
fn packages() -> Vec<Package> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata").packages
}

/// What is wrong with a crate's edges to other crates of the workspace.
fn edge_problems(name: &str, is_example: bool, depends_on: &[&str]) -> Vec<String> {
    let allowed = match MAY_DEPEND.iter().find(|(known, _)| *known == name) {
        Some((_, allowed)) => allowed,
        None if is_example => EXAMPLES_MAY_DEPEND,
        None => {
            return vec![format!("{name} is not in the table: add it here and to docs/architecture.md")];
        }
    };
    let is_ours = |other: &&&str| MAY_DEPEND.iter().any(|(known, _)| known == *other);
    let forbidden = depends_on.iter().filter(is_ours).filter(|other| !allowed.contains(other));
    forbidden
        .map(|other| {
            format!(
                "{name} depends on {other}, and may only on {allowed:?}: take the line out of its Cargo.toml \
                 and reach it through one of these, or decide otherwise in docs/decisions and here"
            )
        })
        .collect()
}

/// What is wrong with a crate's root file.
fn unsafe_problem(name: &str, path: &str, root: &str) -> Option<String> {
    let forbids = root.lines().any(|line| line.trim_end() == FORBID);
    (!MAY_USE_UNSAFE.contains(&name) && !forbids)
        .then(|| format!("{path}:1: {name} may not use unsafe: put `{FORBID}` below the crate's docs"))
}

/// Fails with every problem at once.
fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn crates_know_only_what_the_table_allows() {
    let problems: Vec<_> = packages()
        .iter()
        .flat_map(|package| {
            let is_example = package.manifest_path.components().any(|part| part.as_str() == "examples");
            let depends_on: Vec<_> = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != DependencyKind::Development)
                .map(|dependency| dependency.name.as_str())
                .collect();
            edge_problems(&package.name, is_example, &depends_on)
        })
        .collect();
    assert_none(&problems);
}

#[test]
fn the_codec_is_known_in_one_place() {
    let problems: Vec<_> = packages()
        .iter()
        .filter(|package| package.name.as_str() != BINCODE_HOME)
        .filter(|package| package.dependencies.iter().any(|dependency| dependency.name == "bincode"))
        .map(|package| {
            format!(
                "{}: only {BINCODE_HOME} may use bincode (docs/decisions/0001-bincode.md): add the record \
                 there and use its encode and decode",
                package.manifest_path
            )
        })
        .collect();
    assert_none(&problems);
}

#[test]
fn unsafe_stays_at_the_borders() {
    let mut problems = Vec::new();
    for package in packages() {
        let is_root = |kind: &TargetKind| matches!(kind, TargetKind::Lib | TargetKind::Bin);
        for target in package.targets.iter().filter(|target| target.kind.iter().any(is_root)) {
            let root = std::fs::read_to_string(&target.src_path).expect("a crate's root file");
            problems.extend(unsafe_problem(&package.name, target.src_path.as_str(), &root));
        }
    }
    assert_none(&problems);
}

#[test]
fn what_the_table_forbids_is_found() {
    assert_eq!(edge_problems("hoist-io", false, &["hoist-memory", "libc"]), [""; 0]);
    let found = edge_problems("hoist-plan", false, &["thiserror", "hoist-io"]);
    assert!(found.len() == 1 && found[0].contains("hoist-plan depends on hoist-io"), "{found:?}");
    let found = edge_problems("hoist-common", false, &[]);
    assert!(found.len() == 1 && found[0].contains("not in the table"), "{found:?}");
    assert_eq!(edge_problems("train-small", true, &["hoist", "hoist-optim"]), [""; 0]);
    assert_eq!(edge_problems("train-small", true, &["hoist-store"]).len(), 1);
    assert_eq!(edge_problems("hoist", false, &["hoist-testkit"]).len(), 1, "the test kit is for tests");
}

#[test]
fn a_crate_that_does_not_forbid_unsafe_is_found() {
    assert_eq!(unsafe_problem("hoist-io", "lib.rs", "//! Docs.\n"), None);
    assert_eq!(unsafe_problem("hoist", "lib.rs", "//! Docs.\n#![forbid(unsafe_code)]\n"), None);
    let found = unsafe_problem("hoist", "lib.rs", "//! Docs.\n// #![forbid(unsafe_code)]\n");
    assert!(found.is_some_and(|found| found.starts_with("lib.rs:1: hoist may not use unsafe")));
}
