//! `hoist tune` over directories on disk, in memory, and interrupted.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::command::{folder, report, run};
use crate::interrupt::Running;

/// What is in a directory, by name.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_found_for_two_directories_is_a_config_that_bench_reads() {
    let folder = folder();
    let directories = ["one", "it's \"the\" zweite Ö"];
    for name in directories {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("mine"), "mine").unwrap();
        // Of a run that was killed.
        std::fs::write(folder.path().join(name).join("hoist-tune.part"), "left").unwrap();
    }
    let flags = ["--seconds", "2", "--output", "tuned.toml", "--json", "report.json"];
    let begin = Instant::now();
    let text = run(folder.path(), &[&["tune"], &directories[..], &flags].concat(), 0);
    println!("{text}took {:?}", begin.elapsed());
    assert!(text.contains("of the best found") && !text.contains("PARTIAL"), "{text}");
    for name in directories {
        assert_eq!(names(&folder.path().join(name)), ["mine"]);
    }
    let tuned = report(folder.path());
    assert_eq!((&tuned["schema"], &tuned["partial"]), (&"hoist-tune/1".into(), &false.into()));
    assert!(tuned["chosen"]["worst_share"].as_f64().is_some_and(|share| share > 0.0 && share <= 1.0));
    assert_eq!(tuned["directories"].as_array().unwrap().len(), 2);
    for found in tuned["directories"].as_array().unwrap() {
        for direction in ["read", "write", "mixed"] {
            let rate = found[direction]["bytes_per_second"].as_f64();
            assert!(rate.is_some_and(|rate| rate > 0.0), "{direction} in {found:#}");
            assert!(found[direction]["best"]["block_size"].is_u64(), "{found:#}");
        }
    }
    assert!(tuned["candidates"].as_array().unwrap().len() > 5);

    // The config as it is, with what it does not say: it is right, and the run goes on to the model, which is none.
    std::fs::write(folder.path().join("model.safetensors"), "not a model").unwrap();
    let rest = ["model.safetensors=model.safetensors", "host.budget=24 MiB", "device.budget=4 MiB"]
        .map(|set| ["--set", set]);
    let text = run(folder.path(), &[&["bench", "tuned.toml"], rest.as_flattened()].concat(), 1);
    assert!(text.contains("model.safetensors"), "{text}");
    let config = std::fs::read_to_string(folder.path().join("tuned.toml")).unwrap();
    let backend = tuned["chosen"]["backend"].as_str().unwrap();
    let depth = &tuned["chosen"]["queue_depth"];
    for line in [format!("backend = \"{backend}\""), format!("queue_depth = {depth}")] {
        assert!(config.lines().any(|found| found == line), "{line} is not in {config}");
    }
}

#[test]
fn memory_is_refused_by_its_cause() {
    let shared = Path::new("/dev/shm");
    let folder = match tempfile::tempdir_in(shared) {
        Ok(folder) if is_tmpfs(shared) => folder,
        _ => return println!("skipped: {} is no tmpfs that can be written here", shared.display()),
    };
    let text = run(folder.path(), &["tune", ".", "--output", "tuned.toml", "--json", "report.json"], 1);
    assert!(text.contains("page cache") && text.contains("tmpfs has no direct I/O"), "{text}");
    assert!(!text.contains("best"), "numbers in {text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("hoist: ")).count(), 1, "{text}");
    assert!(names(folder.path()).is_empty());
}

fn is_tmpfs(path: &Path) -> bool {
    // TMPFS_MAGIC (statfs(2))
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == 0x0102_1994)
}

#[test]
fn a_wrong_call_measures_nothing_and_replaces_nothing() {
    let folder = folder();
    std::fs::write(folder.path().join("tuned.toml"), "mine").unwrap();
    let text = run(folder.path(), &["tune", ".", "nowhere", "--seconds", "31", "--output", "tuned.toml"], 2);
    for shown in ["3 problems", "nowhere", "--seconds", "--output tuned.toml", "--force"] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("tuned.toml")).unwrap(), "mine");
    assert_eq!(names(folder.path()), ["tuned.toml"]);
}

#[test]
fn an_interrupted_run_says_what_it_found_and_writes_no_config() {
    for said in ["making", "measuring"] {
        let folder = folder();
        let args = ["tune", ".", "--json", "report.json", "--output", "tuned.toml"];
        let mut running = Running::start(folder.path(), &args);
        running.wait_for(said);
        std::thread::sleep(Duration::from_millis(300));
        running.interrupt();
        assert_eq!(report(folder.path())["partial"], true, "{said}");
        assert_eq!(names(folder.path()), ["report.json"], "{said}");
    }
}
