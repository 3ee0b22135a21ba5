//! `hoist bench` over a small model, in every way that a config can ask for.

use serde_json::Value;

use crate::command::{SMALL, bench, config, folder, number, report, run};

/// What a process may use beside its budgets.
const BESIDE_BYTES: u64 = 96 << 20;

/// Keys that users of the report rely on.
const KEYS: &str = "schema partial machine config model.tensors model.bytes summary.steps \
    summary.step_seconds.min summary.step_seconds.median summary.step_seconds.max summary.roofline_seconds \
    summary.bound_seconds summary.bound_resource summary.efficiency summary.stall_seconds.nvme_read \
    summary.stall_seconds.nvme_write summary.stall_seconds.h2d summary.stall_seconds.d2h \
    summary.stall_seconds.host_full summary.stall_seconds.device_full summary.tiers.device.budget_bytes \
    summary.tiers.device.peak_bytes summary.tiers.host.budget_bytes summary.tiers.host.peak_bytes \
    summary.nvme.read_bytes_per_step summary.nvme.write_bytes_per_step summary.nvme.min_read_bytes_per_step \
    summary.nvme.min_write_bytes_per_step summary.verified_bytes summary.mismatches summary.peak_rss_bytes \
    endurance.written_bytes_per_step endurance.written_bytes_per_day";

/// What must hold of the report of any whole run.
pub fn assert_sound(report: &Value) {
    for key in KEYS.split_whitespace() {
        let value = report.pointer(&format!("/{}", key.replace('.', "/")));
        assert!(value.is_some_and(|value| !value.is_null()), "{key} is not in {report:#}");
    }
    assert_eq!(report["partial"], false, "{report:#}");
    assert_eq!(number(report, "/summary/mismatches"), 0, "{report:#}");
    assert_eq!(report["summary"]["steps"], report["config"]["run"]["steps"]);
    let mut budgets = BESIDE_BYTES;
    for tier in ["device", "host"] {
        let budget = number(report, &format!("/config/{tier}/budget"));
        assert_eq!(number(report, &format!("/summary/tiers/{tier}/budget_bytes")), budget);
        let peak = number(report, &format!("/summary/tiers/{tier}/peak_bytes"));
        assert!((1..=budget).contains(&peak), "{tier}: {peak} of {budget}");
        budgets += budget;
    }
    let peak = number(report, "/summary/peak_rss_bytes");
    assert!(peak <= budgets, "the process had {peak} bytes, and may have {budgets}");
    for direction in ["read", "write"] {
        let bytes = |name: &str| number(report, &format!("/summary/nvme/{name}{direction}_bytes_per_step"));
        // What memory holds when the measured steps begin may differ from what it holds when they end.
        let carried = (budgets - BESIDE_BYTES) / number(report, "/summary/steps");
        assert!(bytes("") + carried >= bytes("min_"), "fewer bytes than the least: {report:#}");
    }
    let seconds = |key: &str| report["summary"][key].as_f64().unwrap();
    assert!(seconds("roofline_seconds") > 0.0, "{report:#}");
    assert!(seconds("bound_seconds") >= seconds("roofline_seconds"), "{report:#}");
}

/// What must hold of the pace: a day's bytes are a step's times as many steps as a day has, of the shortest step at most
/// and of the longest at least, and the steps and days until TBW are of the same pace.
fn assert_paced(report: &Value) {
    let value = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap();
    let endurance = |key: &str| value(&format!("/endurance/{key}"));
    let step_bytes = endurance("written_bytes_per_step");
    let day = |seconds: &str| step_bytes * 86_400.0 / value(&format!("/summary/step_seconds/{seconds}"));
    let day_bytes = endurance("written_bytes_per_day");
    // Less than a byte a step is rounded away.
    let near = 1.0 + 1e-6;
    assert!(day("max") / near <= day_bytes && day_bytes <= day("min") * near, "{report:#}");
    for all in [endurance("steps_until_tbw") * step_bytes, endurance("days_until_tbw") * day_bytes] {
        let part = all / endurance("tbw_bytes");
        assert!((1.0 - part).abs() < 0.01, "{part} of TBW: {report:#}");
    }
}

/// A training run with these overrides; both of its phases move and check every byte of the model.
fn train(sets: &[&str]) -> Value {
    let folder = folder();
    let config = config("quickstart.toml");
    let text = run(folder.path(), &bench(&config, &[&SMALL[..], sets].concat()), 0);
    assert!(text.contains("step time") && text.contains("0 bytes wrong"), "{text}");
    let report = report(folder.path());
    assert_sound(&report);
    // Of every parameter, each step reads 2 bytes forward, 2 backward and 14 in the optimizer.
    let steps = number(&report, "/config/run/steps") + number(&report, "/config/run/warmup");
    let parameters = number(&report, "/model/bytes") / 16;
    assert!(number(&report, "/summary/verified_bytes") >= steps * 18 * parameters, "{report:#}");
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["report.json"], "a run leaves nothing but its report");
    report
}

#[test]
fn a_model_that_is_larger_than_memory_streams() {
    let report = train(&["device.budget=4 MiB", "host.budget=24 MiB", "run.seed=1"]);
    // Every step writes all that is durable, 12 bytes of every parameter; and the host is too small to keep it.
    let durable = number(&report, "/model/bytes") / 16 * 12;
    assert!(number(&report, "/summary/nvme/write_bytes_per_step") >= durable, "{report:#}");
    assert!(number(&report, "/summary/nvme/min_read_bytes_per_step") >= durable / 3, "{report:#}");
    assert!(number(&report, "/summary/links/h2d_bytes_per_step") > 0, "{report:#}");
    assert!(number(&report, "/summary/links/d2h_bytes_per_step") > 0, "{report:#}");
}

#[test]
fn it_streams_without_promises_after_a_crash() {
    let sets = ["device.budget=6 MiB", "host.budget=17 MiB", "run.seed=2", "store.durability=none"];
    train(&[&sets[..], &["run.warmup=3"]].concat());
}

#[test]
fn it_streams_as_one_of_several_ranks() {
    train(&["device.budget=6 MiB", "host.budget=17 MiB", "run.seed=5", "store.rank=1", "store.world_size=2"]);
}

#[test]
fn it_streams_without_fetching_ahead() {
    train(&["device.budget=4 MiB", "host.budget=20 MiB", "run.seed=3", "prefetch.enabled=false"]);
}

#[test]
fn it_streams_without_either_through_threads_that_call_pread() {
    let sets = ["device.budget=16 MiB", "host.budget=24 MiB", "run.seed=4", "prefetch.enabled=false"];
    let pread = ["store.durability=none", "io.backend=pread", "io.block_size=256 KiB", "io.queue_depth=4"];
    train(&[sets, pread].concat());
}

#[test]
fn what_fits_is_read_once() {
    let report =
        train(&["device.budget=32 MiB", "host.budget=80 MiB", "run.seed=6", "store.durability=none"]);
    assert_eq!(number(&report, "/summary/nvme/min_read_bytes_per_step"), 0);
    assert_eq!(number(&report, "/summary/nvme/read_bytes_per_step"), 0, "{report:#}");
    for key in ["tbw_bytes", "steps_until_tbw", "days_until_tbw", "warning"] {
        assert!(report["endurance"][key].is_null(), "nobody asked: {report:#}");
    }
}

#[test]
fn the_drives_last_as_long_as_their_pace_lets_them() {
    let folder = folder();
    let config = config("quickstart.toml");
    let drives = ["device.budget=4 MiB", "host.budget=24 MiB", "store.nvme_path=[\"one\", \"two\"]"];
    for steps in ["run.steps=1", "run.steps=3"] {
        let sets = [&SMALL[..], &drives, &[steps, "endurance.tbw=600 GB"]].concat();
        let text = run(folder.path(), &bench(&config, &sets), 0);
        assert!(text.contains("600.0 GB (the sum over the drives)"), "{text}");
        assert!(text.contains("\nWARNING: 600.0 GB are written in"), "{text}");
        let report = report(folder.path());
        assert_sound(&report);
        assert_paced(&report);
        assert_eq!(report["endurance"]["tbw_bytes"], 600_000_000_000_u64);
        assert_eq!(report["config"]["endurance"]["tbw"], 600_000_000_000_u64);
        // Each step writes all that is durable, and a block at least to the journal of each directory.
        let least = number(&report, "/model/bytes") / 16 * 12 + 2 * 4096;
        assert!(number(&report, "/endurance/written_bytes_per_step") >= least, "{report:#}");
    }
}

#[test]
fn several_directories_are_one_store_that_can_be_kept() {
    let folder = folder();
    let config = config("quickstart.toml");
    let kept = ["device.budget=4 MiB", "host.budget=24 MiB", "store.keep=true"];
    let sets = [&SMALL[..], &kept, &["store.nvme_path=[\"one\", \"two\"]"]].concat();
    run(folder.path(), &bench(&config, &sets), 0);
    assert_sound(&report(folder.path()));
    assert!(run(folder.path(), &["ls", "one", "two"], 0).contains("h.1.mlp.c_fc.weight.momentum"));
    assert!(run(folder.path(), &["verify", "one", "two"], 0).contains(" 0 bad"));
    let text = run(folder.path(), &bench(&config, &sets), 1);
    assert!(text.contains("holds a store already"), "{text}");
}
