//! Models in several files, as the Hugging Face hub has them.

use std::path::Path;

use hoist::{Access, Config, Engine, Mode, Order, Phase, Tier};

use crate::bench::assert_sound;
use crate::command::{bench, config, folder, number, report, run};
use crate::model::{self, LAYERS};

const INDEX: &str = "hub/model.safetensors.index.json";

/// Leaves a model in one file, `one.safetensors`, and the same in shards, in `hub`. Gives the names of the shards.
fn write_both(path: &Path) -> Vec<String> {
    model::write(&path.join("one.safetensors"), &LAYERS);
    std::fs::create_dir(path.join("hub")).unwrap();
    run(path, &["import", "one.safetensors", "--store", "first"], 0);
    let args = ["export", "--store", "first", "--max-shard-size", "2 MiB", "hub/model.safetensors"];
    let text = run(path, &args, 0);
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(path.join(INDEX)).unwrap()).unwrap();
    let files = index["weight_map"].as_object().unwrap().values();
    let shards: std::collections::BTreeSet<_> = files.map(|file| file.as_str().unwrap().to_owned()).collect();
    assert!(text.contains(&format!("{} files", shards.len())) && text.contains(INDEX), "{text}");
    assert!(shards.len() > 2, "{shards:?}");
    shards.into_iter().collect()
}

#[test]
fn shards_are_imported_by_their_directory_and_by_their_index() {
    let folder = folder();
    let path = folder.path();
    write_both(path);
    for (model, store, out) in [("hub", "second", "a.safetensors"), (INDEX, "third", "b.safetensors")] {
        assert!(!run(path, &["import", model, "--store", store], 0).contains("total_size"));
        assert!(run(path, &["verify", store], 0).contains(" 0 bad"));
        let text = run(path, &["export", "--store", store, out], 0);
        assert_eq!(text, format!("exported to {out}\n"));
        model::assert_same(&path.join("one.safetensors"), &path.join(out));
    }
}

#[test]
fn an_engine_imports_shards() {
    let folder = folder();
    let path = folder.path();
    write_both(path);
    let engine =
        Engine::import(Config::new(path.join("store"), 32 << 20, 16 << 20), &path.join("hub")).unwrap();
    for (name, bytes) in LAYERS.into_iter().filter(|(_, bytes)| *bytes > 0) {
        let whole = engine.whole(engine.tensor(name).unwrap(), Mode::Read);
        let access = Access::new(name, Phase::Forward, Tier::Device, vec![whole]);
        let order = engine.declare(Order { accesses: vec![access] }).unwrap();
        engine.begin_step(order).unwrap();
        let lease = engine.acquire(0).unwrap();
        let found: Vec<u8> = lease.parts(0).flatten().copied().collect();
        assert!(found == model::bytes_of(name, bytes), "{name} has other bytes");
        drop(lease);
        engine.commit_step(&hoist::Scalars::default()).unwrap().wait().unwrap();
    }
    engine.close().unwrap();
}

#[test]
fn shards_are_compared_byte_by_byte() {
    let folder = folder();
    write_both(folder.path());
    let sets = ["model.safetensors=hub", "device.budget=4 MiB", "host.budget=16 MiB", "run.steps=2"];
    run(folder.path(), &bench(&config("safetensors.toml"), &sets), 0);
    let report = report(folder.path());
    assert_sound(&report);
    assert_eq!(number(&report, "/summary/verified_bytes"), 3 * number(&report, "/model/bytes"));
}

#[test]
fn what_is_wrong_with_shards_is_said_in_one_line() {
    let folder = folder();
    let path = folder.path();
    let shards = write_both(path);
    let index = std::fs::read_to_string(path.join(INDEX)).unwrap();
    // A total that is wrong is a warning.
    let total = index.lines().find(|line| line.contains("total_size")).unwrap();
    std::fs::write(path.join(INDEX), index.replace(total, "\"total_size\": 7")).unwrap();
    let text = run(path, &["import", "hub", "--store", "second"], 0);
    assert!(text.contains("WARN") && text.contains("total_size=7"), "{text}");

    let args = ["export", "--store", "second", "--max-shard-size", "2 MiB", "hub/model.safetensors"];
    let text = run(path, &args, 1);
    assert!(text.starts_with("hoist: ") && text.contains("is there already"), "{text}");

    std::fs::remove_file(path.join("hub").join(&shards[1])).unwrap();
    for model in ["hub", INDEX] {
        let text = run(path, &["import", model, "--store", "third"], 1);
        assert!(text.contains(&shards[1]) && text.contains(INDEX) && text.lines().count() == 1, "{text}");
    }
    let text = run(path, &bench(&config("safetensors.toml"), &["model.safetensors=hub"]), 1);
    assert!(text.contains(&shards[1]), "{text}");
    assert!(!path.join("third").exists());
}

#[test]
fn a_size_of_shards_that_is_none_has_status_2() {
    let folder = folder();
    for size in ["5", "5 GBit", "0 B", "5 parsecs", ""] {
        let text = run(folder.path(), &["export", "--store", "nowhere", "--max-shard-size", size, "out"], 2);
        assert!(text.contains("--max-shard-size") && text.contains("5 GB"), "{text}");
    }
}
