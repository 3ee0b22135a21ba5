use proptest::prelude::*;

use super::*;

const QUICKSTART: &str = include_str!("../../../../config/quickstart.toml");
const SAFETENSORS: &str = include_str!("../../../../config/safetensors.toml");

fn keys(result: Result<Config, Vec<Problem>>) -> Vec<String> {
    result.expect_err("problems").into_iter().map(|problem| problem.key).collect()
}

fn sets(sets: &[&str]) -> Vec<String> {
    sets.iter().map(|&set| set.to_owned()).collect()
}

#[test]
fn quickstart_is_gpt2_small() {
    let config = parse("quickstart", QUICKSTART, &[]).unwrap();
    let shapes = Gpt2 { layers: 12, hidden: 768, heads: 12, vocab: 50257, context: 1024 };
    assert_eq!(config.model, Model::Gpt2(shapes));
    assert_eq!(config.device.budget_bytes, 128 << 20);
    assert_eq!(config.host.budget_bytes, 512 << 20);
    assert_eq!((config.run.warmup, config.run.steps), (1, 5));
    assert_eq!(config.store.durability, Durability::Step);
}

#[test]
fn safetensors_needs_only_its_file() {
    assert_eq!(keys(parse("safetensors", SAFETENSORS, &[])), ["model.safetensors"]);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let config = parse("safetensors", SAFETENSORS, &sets(&[&format!("model.safetensors={path}")])).unwrap();
    assert_eq!(config.model, Model::Safetensors { path: path.into() });
    assert_eq!(config.device.budget_bytes, 64 << 20);
}

#[test]
fn all_problems_come_at_once() {
    for text in [QUICKSTART, SAFETENSORS] {
        let sets = sets(&[
            "host.bugdet=\"1 GiB\"",
            "device.budget=12 parsecs",
            "model.safetensors=/nowhere.safetensors",
        ]);
        let problems = parse("config", text, &sets).expect_err("problems");
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 3, "{shown:?}");
        assert!(
            shown.iter().any(|p| p.contains("host.bugdet") && p.contains("\"host.budget\"")),
            "{shown:?}"
        );
        assert!(shown.iter().any(|p| p.contains("12 parsecs") && p.contains("128 MiB")), "{shown:?}");
        assert!(shown.iter().any(|p| p.contains("/nowhere.safetensors")), "{shown:?}");
    }
}

#[test]
fn what_is_not_built_yet_says_so() {
    let sets = sets(&["device.kind=cuda", "placement.policy=lru"]);
    let problems = parse("config", QUICKSTART, &sets).expect_err("problems");
    assert_eq!(problems.len(), 2);
    assert!(problems.iter().all(|problem| problem.what.contains("is not built yet")), "{problems:?}");
}

#[test]
fn automatic_device_says_what_it_became() {
    let config = parse("config", QUICKSTART, &sets(&["device.kind=auto"])).unwrap();
    assert_eq!(config.device.kind, "emulated");
    assert_eq!(config.notes.len(), 1);
}

#[test]
fn values_out_of_range_are_problems() {
    for (set, key) in [
        ("model.heads=7", "model.heads"),
        ("model.layers=0", "model.layers"),
        ("run.steps=-1", "run.steps"),
        ("io.block_size=5000 B", "io.block_size"),
        ("io.queue_depth=0", "io.queue_depth"),
        ("compute.io_ratio=nan", "compute.io_ratio"),
        ("store.nvme_path=[\"a\", \"a\"]", "store.nvme_path"),
        ("store.keep=perhaps", "store.keep"),
        ("model.kind=gpt3", "model.kind"),
        ("store.world_size=0", "store.world_size"),
        ("store.rank=1", "store.rank"),
        ("store.rank=-1", "store.rank"),
        ("endurance.tbw=600", "endurance.tbw"),
        ("endurance.tbw=0 TB", "endurance.tbw"),
        ("endurance.tbw=[\"600 TB\"]", "endurance.tbw"),
        ("endurance.twb=600 TB", "endurance.twb"),
    ] {
        assert_eq!(keys(parse("config", QUICKSTART, &sets(&[set]))), [key], "{set}");
    }
}

#[test]
fn a_rank_is_one_of_those_there_are() {
    let store = |set: &[&str]| parse("config", QUICKSTART, &sets(set)).map(|config| config.store);
    let ranks = |set: &[&str]| store(set).map(|store| (store.rank, store.world_size)).unwrap();
    assert_eq!(ranks(&[]), (0, 1));
    assert_eq!(ranks(&["store.world_size=4"]), (0, 4));
    assert_eq!(ranks(&["store.rank=3", "store.world_size=4"]), (3, 4));
    let problems = store(&["store.rank=4", "store.world_size=4"]).expect_err("problems");
    assert!(problems[0].to_string().contains("rank 4 of 4 is none"), "{}", problems[0]);
    // Without the number of ranks nobody can say whether it is one of them.
    assert_eq!(store(&["store.rank=4", "store.world_size=many"]).expect_err("problems").len(), 1);
}

#[test]
fn endurance_is_asked_for_in_the_units_of_data_sheets() {
    let tbw = |set: &[&str]| parse("config", QUICKSTART, &sets(set)).unwrap().endurance.tbw_bytes;
    assert_eq!(tbw(&[]), None);
    assert_eq!(tbw(&["endurance.tbw=600 TB"]), Some(600_000_000_000_000));
    let problems =
        parse("config", QUICKSTART, &sets(&["endurance.tbw=much", "run.steps=0"])).expect_err("problems");
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown.iter().any(|p| p.contains("\"much\"") && p.contains("\"600 TB\"")), "{shown:?}");
}

#[test]
fn broken_toml_names_its_line() {
    let problems = parse("my.toml", "[device]\nbudget = = 3\n", &[]).expect_err("problems");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().contains("line 2"), "{}", problems[0]);
}

/// TOML-like text: known and unknown names, values of every type.
fn toml_text() -> impl Strategy<Value = String> {
    let section =
        prop_oneof![Just("device"), Just("store"), Just("model"), Just("io"), Just("[x"), Just("run")];
    let name = prop_oneof![
        Just("budget"),
        Just("nvme_path"),
        Just("kind"),
        Just("layers"),
        Just("\"q\".é"),
        Just("steps")
    ];
    let value = prop_oneof![
        Just("\"12 parsecs\"".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        Just("[[1, 2], {a = 1}]".to_owned()),
        Just("1979-05-27T07:32:00Z".to_owned()),
        "[0-9]{1,25} ?[kKMGTPE]?i?B?(/s)?".prop_map(|text| format!("\"{text}\"")),
        ".{0,12}",
    ];
    let entry = (section, name, value).prop_map(|(s, n, v)| format!("[{s}]\n{n} = {v}\n{s}.{n} = {v}\n"));
    proptest::collection::vec(entry, 0..4).prop_map(|entries| entries.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}", set in ".{0,40}") {
        let _ = parse("any", &text, std::slice::from_ref(&set));
        let _ = parse("any", QUICKSTART, &[set]);
    }

    #[test]
    fn no_toml_makes_it_panic(text in toml_text(), value in ".{0,30}") {
        let _ = parse("any", &text, &[]);
        for key in ["device.budget", "store.nvme_path", "model", "model.safetensors", "run.steps", "compute.io_ratio"] {
            let _ = parse("any", QUICKSTART, &[format!("{key}={value}")]);
        }
    }
}
