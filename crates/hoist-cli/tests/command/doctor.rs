//! What `hoist doctor` says of machines and directories.

use std::path::Path;

use serde_json::Value;

use crate::common::{folder, run};

/// The lines that a call left in `doctor.json`.
fn lines(folder: &Path) -> Vec<Value> {
    let text = std::fs::read(folder.join("doctor.json")).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()["lines"].as_array().unwrap().clone()
}

#[test]
fn a_doctor_examines_what_it_is_given() {
    let folder = folder();
    let text = run(folder.path(), &["doctor", ".", "--json", "doctor.json"], 0);
    for name in [
        "kernel",
        "io_uring",
        "lockable memory",
        "huge pages",
        "free memory",
        "memory limit",
        "GPU library",
        ".: file system",
        ".: free space",
        ".: direct I/O",
        ".: 4 KiB written and read by pread",
    ] {
        assert!(text.contains(&format!(" {name}: ")), "{name} in {text}");
    }
    let lines = lines(folder.path());
    assert_eq!(lines.len(), text.lines().count(), "{text}");
    for line in lines {
        let shown = text.lines().find(|shown| shown.contains(line["name"].as_str().unwrap())).unwrap();
        assert!(shown.starts_with(line["state"].as_str().unwrap()), "{line} is {shown}");
        assert!(shown.contains(line["found"].as_str().unwrap()), "{line} is {shown}");
        let well = line["state"] == "ok";
        assert_eq!((line["cost"].is_null(), line["mend"].is_null()), (well, well), "{line}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a trial file was left");
}

#[test]
fn what_is_broken_has_status_1_and_is_written_too() {
    let folder = folder();
    let text = run(folder.path(), &["doctor", "nowhere", "/sys/kernel", "--json", "doctor.json"], 1);
    assert!(text.contains("2 things are broken"), "{text}");
    let lines = lines(folder.path());
    let broken: Vec<_> = lines.iter().filter(|line| line["state"] == "broken").collect();
    assert_eq!(broken.len(), 2, "{text}");
    assert_eq!(
        (broken[0]["name"].as_str(), broken[0]["mend"].as_str()),
        (Some("nowhere"), Some("mkdir -p nowhere"))
    );
    assert_eq!(broken[1]["name"], "/sys/kernel: writing");
}

/// Kills: a panic when nobody reads what is printed, and silence when it cannot be written.
#[test]
fn a_reader_may_leave_and_a_full_disk_is_told() {
    let doctor = |out: std::process::Stdio| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hoist"));
        command.arg("doctor").stdout(out).output().unwrap()
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let left = doctor(writer.into());
    assert!(left.status.success(), "{left:?}");
    let full = doctor(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into());
    let said = String::from_utf8_lossy(&full.stderr).into_owned();
    assert!(full.status.code() == Some(1) && said.contains("standard output: No space left"), "{full:?}");
}
