//! Calls and configs that are wrong, and the exit status that says so.

use crate::common::{config, folder, run};

#[test]
fn a_wrong_call_has_status_2() {
    let folder = folder();
    run(folder.path(), &["fly"], 2);
    run(folder.path(), &["bench"], 2);
    run(folder.path(), &["import", "model.safetensors"], 2);
    run(folder.path(), &["ls"], 2);
    run(folder.path(), &["--help"], 0);
}

#[test]
fn every_problem_of_a_config_is_named_at_once() {
    let folder = folder();
    let (quickstart, model) = (config("quickstart.toml"), "model.safetensors=nowhere.safetensors");
    let sets = ["--set", "host.bugdet=1 GiB", "--set", "device.budget=12 parsecs", "--set", model];
    let text = run(folder.path(), &[&["bench", &quickstart][..], &sets].concat(), 2);
    for shown in
        ["3 problems", "host.bugdet", "\"host.budget\"", "12 parsecs", "128 MiB", "nowhere.safetensors"]
    {
        assert!(text.contains(shown), "{shown} in {text}");
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "something was made before the config was right"
    );
}

#[test]
fn a_config_that_cannot_be_read_has_status_2() {
    let folder = folder();
    assert!(run(folder.path(), &["bench", "nowhere.toml"], 2).contains("nowhere.toml"));
    std::fs::write(folder.path().join("broken.toml"), "[device\n").unwrap();
    assert!(run(folder.path(), &["bench", "broken.toml"], 2).contains("line 1"));
}

#[test]
fn a_model_that_is_none_has_status_1() {
    let folder = folder();
    std::fs::write(folder.path().join("model.safetensors"), "not a model").unwrap();
    let text = run(folder.path(), &["import", "model.safetensors", "--store", "store"], 1);
    assert!(text.contains("model.safetensors"), "{text}");
    let set = "model.safetensors=model.safetensors";
    let text = run(folder.path(), &["bench", &config("safetensors.toml"), "--set", set], 1);
    assert!(text.contains("model.safetensors"), "{text}");
}

#[test]
fn a_store_that_is_none_has_status_1() {
    let folder = folder();
    for args in [&["ls", "nowhere"][..], &["verify", "nowhere"], &["export", "--store", "nowhere", "out"]] {
        let text = run(folder.path(), args, 1);
        assert!(
            text.starts_with("hoist: ") && text.contains("nowhere") && text.lines().count() == 1,
            "{text}"
        );
    }
}
