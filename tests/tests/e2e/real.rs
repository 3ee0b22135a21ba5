//! A model as people have them, where it is at hand: `HOIST_MODELS`, or `../shared/models` beside the repository.

use std::path::PathBuf;

use crate::bench::assert_sound;
use crate::command::{bench, config, folder, number, report, repository, run};
use crate::model;

/// Bytes of the tensors of all-MiniLM-L6-v2, and of the largest one.
const MODEL_BYTES: u64 = 90_856_960;
const LARGEST_BYTES: u64 = 46_881_792;

/// The model file, or `None` after saying why the test is skipped.
fn model_file() -> Option<PathBuf> {
    let models = std::env::var_os("HOIST_MODELS").map(PathBuf::from);
    let models = models.unwrap_or_else(|| repository().join("../shared/models"));
    let file = models.join("all-MiniLM-L6-v2/model.safetensors");
    if !file.is_file() {
        println!("skipped: there is no {} (HOIST_MODELS names another folder)", file.display());
        return None;
    }
    Some(file.canonicalize().unwrap())
}

fn forward(device_budget: u64) {
    let Some(file) = model_file() else { return };
    let folder = folder();
    let (file, budget) =
        (format!("model.safetensors={}", file.display()), format!("device.budget={device_budget} B"));
    let sets = [file.as_str(), budget.as_str(), "run.steps=2", "run.warmup=0"];
    run(folder.path(), &bench(&config("safetensors.toml"), &sets), 0);
    let report = report(folder.path());
    assert_sound(&report);
    assert_eq!(number(&report, "/model/tensors"), 104);
    assert_eq!(number(&report, "/model/bytes"), MODEL_BYTES);
    assert_eq!(number(&report, "/summary/verified_bytes"), 2 * MODEL_BYTES);
}

#[test]
fn a_real_model_streams_through_a_device_that_is_smaller() {
    forward(64 << 20);
}

#[test]
fn a_real_model_streams_through_a_device_that_is_smaller_than_a_tensor() {
    const { assert!((32 << 20) < LARGEST_BYTES) };
    forward(32 << 20);
}

#[test]
fn a_real_model_comes_back_as_it_was() {
    let Some(file) = model_file() else { return };
    let folder = folder();
    run(folder.path(), &["import", file.to_str().unwrap(), "--store", "store"], 0);
    run(folder.path(), &["export", "--store", "store", "out.safetensors"], 0);
    model::assert_same(&file, &folder.path().join("out.safetensors"));
}
