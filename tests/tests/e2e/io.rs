//! `hoist io` over a small file, in every mode.

use std::time::Duration;

use serde_json::Value;

use crate::command::{folder, number, report, run};
use crate::interrupt::Running;

const MIB: u64 = 1 << 20;

/// Keys that users of the report rely on, of each direction and of all.
const KEYS: &str =
    "schema partial machine.kernel config.rw cpu_seconds_per_gib backend stepped_down memory_bytes";
const DIRECTION_KEYS: &str = "bytes seconds bytes_per_second operations_per_second latency_seconds.p50 \
    latency_seconds.p99 latency_seconds.p999 latency_seconds.max";

/// A run with these flags in a folder of its own, which is empty afterwards but for the report.
fn io(flags: &[&str]) -> Value {
    let folder = folder();
    run(folder.path(), &[&["io", ".", "--json", "report.json"], flags].concat(), 0);
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["report.json"], "{flags:?}");
    let report = report(folder.path());
    for key in KEYS.split_whitespace() {
        assert!(!value(&report, key).is_null(), "{key} is not in {report:#}");
    }
    assert_eq!(report["partial"], false);
    assert!(value(&report, "stepped_down").is_array());
    assert!(value(&report, "cpu_seconds_per_gib").as_f64().unwrap() > 0.0, "{report:#}");
    report
}

fn value<'a>(report: &'a Value, key: &str) -> &'a Value {
    report.pointer(&format!("/{}", key.replace('.', "/"))).unwrap_or(&Value::Null)
}

/// The bytes of each direction, after a look at what else is said of it: 0 where it did not run.
fn bytes(report: &Value) -> [u64; 2] {
    ["read", "write"].map(|direction| {
        if report.get(direction).is_none() {
            return 0;
        }
        for key in DIRECTION_KEYS.split_whitespace() {
            let value = value(report, &format!("{direction}.{key}")).as_f64();
            assert!(value.is_some_and(|value| value > 0.0), "{direction}.{key} in {report:#}");
        }
        let latency =
            |name: &str| value(report, &format!("{direction}.latency_seconds.{name}")).as_f64().unwrap();
        assert!(latency("p50") <= latency("p99") && latency("p999") <= latency("max"), "{report:#}");
        number(report, &format!("/{direction}/bytes"))
    })
}

#[test]
fn every_request_is_done_once_in_every_mode() {
    let requests = ["--size", "8 MiB", "--block-size", "256 KiB", "--requests"];
    let with = |more: &[&str]| bytes(&io(&[&requests[..], more].concat()));
    assert_eq!(with(&["12:1 MiB", "--rw", "read"]), [12 * MIB, 0]);
    assert_eq!(with(&["12:1 MiB", "--rw", "write"]), [0, 12 * MIB]);
    assert_eq!(with(&["12:1 MiB:random", "--rw", "mixed"]), [6 * MIB, 6 * MIB]);
    assert_eq!(with(&["500:4 KiB", "--rw", "randread"]), [500 * 4096, 0]);
    assert_eq!(with(&["3:7 MiB", "--rw", "randwrite", "--queue-depth", "3"]), [0, 21 * MIB]);
    let report = io(&[&requests[..], &["12:1 MiB", "--backend", "pread"]].concat());
    assert_eq!((bytes(&report), &report["backend"]), ([12 * MIB, 0], &Value::from("pread")));
}

#[test]
fn time_ends_a_run_too() {
    let reads = bytes(&io(&["--size", "4 MiB", "--seconds", "0.1"]));
    assert!(reads[0] > 0 && reads[0].is_multiple_of(4 * MIB) && reads[1] == 0, "{reads:?}");
    let both = bytes(&io(&["--size", "4 MiB", "--seconds", "0.1", "--rw", "mixed"]));
    assert!(both[0] == both[1] && both[0] > 0, "{both:?}");
}

#[test]
fn directories_are_measured_at_once_and_kept_files_are_used_again() {
    let folder = folder();
    for name in ["a", "b"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let args = ["io", "a", "b", "--requests", "8:1 MiB", "--keep", "--json", "report.json"];
    run(folder.path(), &args, 0);
    assert_eq!(bytes(&report(folder.path())), [16 * MIB, 0]);
    let file = folder.path().join("a/hoist-io.data");
    let contents = std::fs::read(&file).unwrap();
    assert_eq!(contents.len() as u64, 8 * MIB);
    assert!(contents.chunks(4096).all(|part| part.iter().any(|byte| *byte != 0)), "a hole");
    run(folder.path(), &args, 0);
    assert!(std::fs::read(&file).unwrap() == contents, "a read changed the file");
}

#[test]
fn all_mistakes_are_named_at_once() {
    let folder = folder();
    let text = run(folder.path(), &["io", "nowhere", "--rw", "reed", "--size", "3", "--backend", "aio"], 2);
    for name in ["4 problems", "nowhere", "--rw", "--size", "--backend", "randread", "tokio-uring"] {
        assert!(text.contains(name), "{name} is not in {text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_interrupted_run_ends_soon_with_a_partial_report_and_no_file() {
    for said in ["making", "measuring"] {
        let folder = folder();
        let args = ["io", ".", "--size", "64 MiB", "--seconds", "1000", "--json", "report.json"];
        let mut running = Running::start(folder.path(), &args);
        running.wait_for(said);
        // In the middle of what was said, or a little after it: both must do.
        std::thread::sleep(Duration::from_millis(20));
        running.interrupt();
        assert_eq!(report(folder.path())["partial"], true, "{said}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{said}: only the report is left");
    }
}
