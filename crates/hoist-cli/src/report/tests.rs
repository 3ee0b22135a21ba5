use std::path::Path;

use super::*;

fn report() -> Report {
    let config =
        crate::config::parse("quickstart", include_str!("../../../../config/quickstart.toml"), &[]).unwrap();
    let tier = Tier { budget_bytes: 128 << 20, peak_bytes: 100 << 20 };
    let summary = Summary {
        steps: 3,
        step_seconds: Spread::of(&[2.0, 1.5, 1.0]),
        compute_seconds: 1.2,
        roofline_seconds: 1.25,
        bound_seconds: 1.3,
        bound_resource: "nvme_write".into(),
        efficiency: Some(0.866),
        stall_seconds: Stalls { nvme_read: 0.3, host_full: 0.6, ..Stalls::default() },
        tiers: Tiers { device: tier, host: tier },
        nvme: Nvme {
            read_bytes_per_step: 3 << 30,
            write_bytes_per_step: 2 << 30,
            min_read_bytes_per_step: 3 << 29,
            min_write_bytes_per_step: 1 << 30,
        },
        links: Links { h2d_bytes_per_step: 1 << 29, d2h_bytes_per_step: 1 << 28 },
        verified_bytes: 9 << 30,
        mismatches: 0,
        peak_rss_bytes: 700 << 20,
    };
    let bandwidths = Bandwidths {
        nvme_read: 3e9,
        nvme_write: 1.5e9,
        nvme_mixed_read: 1.4e9,
        nvme_mixed_write: 1.1e9,
        h2d: 8e9,
        d2h: 8e9,
    };
    let model = Model { tensors: 740, bytes: 1_991_036_928 };
    let engine = Engine { emergency_evictions: 3, departures: 0 };
    let endurance = Endurance::of(3 * (2 << 30), &[2.0, 1.5, 1.0], Some(600_000_000_000_000));
    Report::new(Machine::here(Path::new("/")), config, model, bandwidths, summary, engine, endurance)
}

/// Every leaf of a JSON value as a dotted path.
fn leaves(prefix: &str, value: &serde_json::Value, paths: &mut Vec<String>) {
    match value.as_object() {
        Some(map) => map.iter().for_each(|(key, value)| leaves(&format!("{prefix}.{key}"), value, paths)),
        None => paths.push(prefix.trim_start_matches('.').to_owned()),
    }
}

#[test]
fn every_promised_key_is_there() {
    let json = serde_json::to_value(report()).unwrap();
    for key in [
        "schema",
        "partial",
        "machine",
        "config",
        "model/tensors",
        "model/bytes",
        "summary/steps",
        "summary/step_seconds/min",
        "summary/step_seconds/median",
        "summary/step_seconds/max",
        "summary/roofline_seconds",
        "summary/bound_seconds",
        "summary/bound_resource",
        "summary/efficiency",
        "summary/stall_seconds/nvme_read",
        "summary/stall_seconds/nvme_write",
        "summary/stall_seconds/h2d",
        "summary/stall_seconds/d2h",
        "summary/stall_seconds/host_full",
        "summary/stall_seconds/device_full",
        "summary/tiers/device/budget_bytes",
        "summary/tiers/device/peak_bytes",
        "summary/tiers/host/budget_bytes",
        "summary/tiers/host/peak_bytes",
        "summary/nvme/read_bytes_per_step",
        "summary/nvme/write_bytes_per_step",
        "summary/nvme/min_read_bytes_per_step",
        "summary/nvme/min_write_bytes_per_step",
        "summary/verified_bytes",
        "summary/mismatches",
        "summary/peak_rss_bytes",
        "endurance/written_bytes_per_step",
        "endurance/written_bytes_per_day",
        "endurance/tbw_bytes",
        "endurance/steps_until_tbw",
        "endurance/days_until_tbw",
        "endurance/warning",
        "config/device/budget",
        "config/store/nvme_path",
        "config/model/kind",
    ] {
        assert!(json.pointer(&format!("/{key}")).is_some_and(|value| !value.is_null()), "{key} in {json:#}");
    }
}

#[test]
fn every_key_is_described() {
    let described = include_str!("../../../../docs/report.md");
    let mut paths = Vec::new();
    leaves("", &serde_json::to_value(report()).unwrap(), &mut paths);
    for path in paths.iter().filter(|path| !path.starts_with("config.")) {
        assert!(described.contains(&format!("`{path}`")), "docs/report.md does not describe {path}");
    }
}

#[test]
fn fewer_steps_than_asked_are_a_partial_report() {
    let report = report();
    assert!(report.partial);
    let table = print(&report);
    assert!(table.starts_with("PARTIAL"), "{table}");
    for shown in [
        "1.500 s",
        "set by nvme_write",
        "host full 0.200 s, NVMe read 0.100 s",
        "100.0 MiB of 128.0 MiB",
        "3 units given up early",
        "2.1 GB a step, 123.7 TB a day",
        "\nWARNING: 600.0 TB are written in 4.9 days",
    ] {
        assert!(table.contains(shown), "{shown} in {table}");
    }
}

#[test]
fn a_spread_has_its_middle() {
    assert_eq!(Spread::of(&[]), None);
    assert_eq!(Spread::of(&[3.0, 1.0, 2.0, 10.0]), Some(Spread { min: 1.0, median: 2.5, max: 10.0 }));
}
