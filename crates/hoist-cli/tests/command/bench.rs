//! Whole runs over small models.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{MODEL, config, folder, run, write_model};
use serde_json::Value;

/// Shapes of 2.8 M parameters (45 MB of state) that are cut into pieces and packed into bundles.
const SMALL: [&str; 8] = [
    "model.layers=2",
    "model.hidden=256",
    "model.heads=4",
    "model.vocab=4000",
    "model.context=128",
    "device.budget=4 MiB",
    "host.budget=24 MiB",
    "run.steps=2",
];

fn bench<'a>(config: &'a str, sets: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["bench", config, "--json", "report.json"];
    args.extend(sets.iter().flat_map(|set| ["--set", set]));
    args
}

fn report(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap()
}

#[test]
fn a_training_run_is_checked_and_cleans_up() {
    let folder = folder();
    let text = run(folder.path(), &bench(&config("quickstart.toml"), &SMALL), 0);
    assert!(text.contains("step time") && text.contains("0 bytes wrong"), "{text}");
    let report = report(folder.path());
    assert_eq!(report["partial"], false);
    assert_eq!(report["summary"]["steps"], 2);
    assert_eq!(report["summary"]["mismatches"], 0);
    // Each of three steps reads 2 bytes twice, and 14 in the optimizer, of every parameter.
    let parameters = report["model"]["bytes"].as_u64().unwrap() / 16;
    assert!(report["summary"]["verified_bytes"].as_u64().unwrap() >= 3 * 18 * parameters, "{report:#}");
    for tier in ["device", "host"] {
        let tier = &report["summary"]["tiers"][tier];
        assert!(tier["peak_bytes"].as_u64() <= tier["budget_bytes"].as_u64(), "{report:#}");
    }
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["report.json"]);
}

#[test]
fn a_kept_store_can_be_verified() {
    let folder = folder();
    run(folder.path(), &bench(&config("quickstart.toml"), &[&SMALL[..], &["store.keep=true"]].concat()), 0);
    assert!(run(folder.path(), &["ls", "hoist-quickstart"], 0).contains("h.1.mlp.c_fc.weight.momentum"));
    assert!(run(folder.path(), &["verify", "hoist-quickstart"], 0).contains(" 0 bad"));
    let text = run(folder.path(), &bench(&config("quickstart.toml"), &SMALL), 1);
    assert!(text.contains("holds a store already"), "{text}");
}

#[test]
fn other_ways_of_running_are_checked_too() {
    for set in ["store.durability=none", "prefetch.enabled=false", "io.backend=pread", "device.budget=64 MiB"]
    {
        let folder = folder();
        run(folder.path(), &bench(&config("quickstart.toml"), &[&SMALL[..], &[set]].concat()), 0);
        assert_eq!(report(folder.path())["summary"]["mismatches"], 0, "{set}");
    }
}

#[test]
fn a_model_file_is_compared_byte_by_byte() {
    let folder = folder();
    write_model(folder.path().join("model.safetensors"), MODEL);
    let bytes: usize = MODEL.iter().map(|(_, bytes)| bytes).sum();
    // Below the largest tensor, which must be read in pieces then.
    for budget in ["device.budget=64 MiB", "device.budget=4 MiB"] {
        let sets = ["model.safetensors=model.safetensors", budget, "run.steps=2"];
        run(folder.path(), &bench(&config("safetensors.toml"), &sets), 0);
        let report = report(folder.path());
        assert_eq!(report["summary"]["mismatches"], 0);
        assert_eq!(report["summary"]["verified_bytes"].as_u64(), Some(3 * bytes as u64));
    }
}

#[test]
fn an_interrupted_run_ends_soon_with_a_partial_report() {
    let folder = folder();
    // So many steps take longer than anybody waits.
    let sets = [&SMALL[..], &["run.steps=100000", "store.keep=true"]].concat();
    let mut child = Command::new(env!("CARGO_BIN_EXE_hoist"))
        .current_dir(folder.path())
        .args(bench(&config("quickstart.toml"), &sets))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(stderr);
    assert!(lines.any(|line| line.unwrap().starts_with("step 2 ")), "the run ended before its second step");
    let begin = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let status = child.wait().unwrap();
    // The promise of the command itself, and as much again for a machine that is busy with other tests.
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}: {rest:?}", begin.elapsed());
    assert_eq!(status.code(), Some(1), "{rest:?}");
    let report = report(folder.path());
    assert_eq!(report["partial"], true);
    assert!(
        report["summary"]["steps"].as_u64().is_some_and(|steps| (1..100_000).contains(&steps)),
        "{report:#}"
    );
    assert!(run(folder.path(), &["verify", "hoist-quickstart"], 0).contains(" 0 bad"));
}
