//! Tests of reading and writing snapshot JSON.

use super::super::write_snapshot;
use super::*;
use crate::catalog::{MetricDef, Unit};
use serde_json::json;

const NOW: i64 = 1_763_720_000_000;

fn catalog() -> Catalog {
    Catalog::new([
        MetricDef::ratio("cpu.usage", Unit::Percent, 2, ""),
        MetricDef::ratio("cpu.core.usage", Unit::Percent, 1, "").with_dimension("core"),
        MetricDef::rate("network.rx_bytes", Unit::BytesPerSecond, 0, "").with_dimension("interface"),
        MetricDef::gauge("processes.total", Unit::Count, 0, ""),
    ])
}

fn parse(value: &Value) -> Result<ParsedSnapshot, JsonError> {
    read_snapshot(value, &catalog(), NOW)
}

#[test]
fn reads_nested_metrics_instances_and_processes() {
    let parsed = parse(&json!({
        "timestamp": "2026-11-21T10:00:00.250Z", "host": "web-1",
        "cpu": {"usage": 12.345, "core": {"0": {"usage": 7.77}, "1": {"usage": null}}},
        "network": {"interface": {"eth0.100": {"rx_bytes": 1000, "new_metric": 5}}},
        "processes": {"total": 3, "top": [{"pid": 7, "name": "x", "cpu_percent": 99.96, "open_files": 4}]},
        "future": {"thing": 1.5},
        "errors": {"disk": "no such file"},
    }))
    .unwrap();
    let snapshot = &parsed.snapshot;
    assert_eq!(parsed.host.name, "web-1");
    assert_eq!(snapshot.at_ms, 1_795_255_200_250);
    assert_eq!(snapshot.seq, 1_795_255_200_250);
    assert_eq!(snapshot.value("cpu.usage", ""), Some(12.35));
    assert_eq!(snapshot.value("cpu.core.usage", "0"), Some(7.8));
    assert_eq!(snapshot.value("cpu.core.usage", "1"), None);
    assert_eq!(snapshot.value("network.rx_bytes", "eth0.100"), Some(1000.0));
    // Metrics without definition are accepted with default precision, with or without instance.
    assert_eq!(snapshot.value("network.new_metric", "eth0.100"), Some(5.0));
    assert_eq!(snapshot.value("future.thing", ""), Some(1.5));
    assert_eq!(snapshot.processes[0].cpu_tenths, 1000);
    assert_eq!(snapshot.processes[0].open_files, Some(4));
    assert_eq!(snapshot.errors[0].collector, "disk");
}

/// Finding L8: texts of a script.
#[test]
fn hidden_characters_of_scripts_are_escaped() {
    let hidden = "\x1b]0;x\u{202e}";
    let parsed = parse(&json!({
        "host": "h", "network": {"interface": {hidden: {"rx_bytes": 1, "other": 2}}},
        "facts": {"os": hidden}, "errors": {hidden: hidden},
        "processes": {"top": [{"pid": 1, "name": hidden, "user": hidden, "command": hidden, "state": "\u{1b}"}]},
    }));
    let snapshot = parsed.unwrap().snapshot;
    let (row, error, facts) = (&snapshot.processes[0], &snapshot.errors[0], snapshot.facts.as_ref().unwrap());
    let columns = snapshot.shape.columns().iter().map(|column| &*column.instance);
    for text in [&*row.name, &row.user, &row.command, &error.collector, &error.message, &facts.os]
        .into_iter()
        .chain(columns)
    {
        assert_eq!(text, "\\u{1b}]0;x\\u{202e}");
    }
    assert_eq!(row.state, '?');
}

/// Finding M2: a snapshot is within the limits of what the store reads, and an error does not repeat the body.
#[test]
fn long_names_are_rejected_with_a_short_error() {
    let long = "x".repeat(1 << 20);
    let children: serde_json::Map<String, Value> =
        (0..8_000).map(|n| (format!("{:a<90}{n}", ""), json!(1))).collect();
    let instances: serde_json::Map<String, Value> =
        (0..8_000).map(|n| (format!("{n}{}", "i".repeat(200)), json!({ "rx_bytes": 1 }))).collect();
    for body in [
        json!({ "host": "h", &*long: { "a": children } }),
        json!({ "host": "h", "a": { &*long: children } }),
        json!({ "host": "h", "network": { "interface": { &*long: { "a": 1 } } } }),
        json!({ "host": "h", "network": { "interface": { "eth0": { &*long: 1 } } } }),
        json!({ "host": "h", "a": long }),
        json!({ "host": "h", "processes": { "top": [{ "pid": children }] } }),
        json!({ "host": "h", "network": { "interface": instances } }),
    ] {
        let error = parse(&body).unwrap_err();
        assert!(error.to_string().len() < 2_000, "{error}");
    }
}

#[test]
fn json_round_trips() {
    let mut first = parse(&json!({
        "timestamp": NOW, "host": "häst \"1\"", "boot": "6ccd780c-baba-1026-9564-5b8c656024db", "seq": 9,
        "interval_ms": 2000, "cpu": {"usage": 0.05, "core": {"0": {"usage": 100}}},
        "network": {"interface": {"eth0": {"rx_bytes": 1}, "a\"b": {"rx_bytes": 2}}},
        "facts": {"os": "Debian", "cores": 2},
        "processes": {"total": 1, "top": [{"pid": 1, "name": "in it", "state": "S", "read_bytes": 12}]},
    }))
    .unwrap();
    let id = HostId::generate();
    first.host.id = Some(id);
    let mut text = String::new();
    write_snapshot(&mut text, id, &first.host, &first.snapshot);
    let parsed = parse(&serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!(parsed.host, first.host);
    let by_name = |s: &Snapshot| {
        let mut all: Vec<_> = s.shape.columns().iter().cloned().zip(s.values.iter().copied()).collect();
        all.sort_by(|a, b| (&a.0.metric, &a.0.instance).cmp(&(&b.0.metric, &b.0.instance)));
        all
    };
    assert_eq!(by_name(&parsed.snapshot), by_name(&first.snapshot));
    assert_eq!(parsed.snapshot.processes, first.snapshot.processes);
    assert_eq!(parsed.snapshot.facts, first.snapshot.facts);
    assert_eq!((parsed.snapshot.seq, parsed.snapshot.boot), (9, first.snapshot.boot));
}

#[test]
fn empty_snapshot_is_valid_json() {
    let parsed = parse(&json!({"host": "empty"})).unwrap();
    let mut text = String::new();
    write_snapshot(&mut text, HostId::generate(), &parsed.host, &parsed.snapshot);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["processes"]["top"], json!([]));
}

#[test]
fn errors_name_the_path() {
    let deep = (0..40).fold(json!(1), |inner, _| json!({ "a": inner }));
    let many: Value =
        (0..limits::MAX_COLUMNS + 1).map(|n| (format!("m{n}"), json!(1))).collect::<Map<_, _>>().into();
    for (value, path) in [
        (json!([1]), "(top)"),
        (json!({}), "host"),
        (json!({"host": ""}), "host"),
        (json!({"host": 5}), "host"),
        (json!({"host": "h", "host_id": "nope"}), "host_id"),
        (json!({"host": "h", "timestamp": "yesterday"}), "timestamp"),
        (json!({"host": "h", "timestamp": -5}), "timestamp"),
        (json!({"host": "h", "seq": -1}), "seq"),
        (json!({"host": "h", "seq": 1.5}), "seq"),
        (json!({"host": "h", "interval_ms": 1u64 << 40}), "interval_ms"),
        (json!({"host": "h", "cpu": {"usage": "NaN"}}), "cpu.usage"),
        (json!({"host": "h", "cpu": {"usage": [1]}}), "cpu.usage"),
        (json!({"host": "h", "cpu": {"core": {"0": 5}}}), "cpu.core.0"),
        (json!({"host": "h", "CPU": 5}), "CPU"),
        (json!({"host": "h", "x": deep}), "x.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a"),
        (json!({"host": "h", "x": many}), "x.m9998"),
        (json!({"host": "h", "processes": {"top": 5}}), "processes.top"),
        (json!({"host": "h", "processes": {"top": [{}]}}), "processes.top.0.pid"),
        (
            json!({"host": "h", "processes": {"top": [{"pid": 1, "cpu_percent": -1}]}}),
            "processes.top.0.cpu_percent",
        ),
        (
            json!({"host": "h", "processes": {"top": [{"pid": 1, "threads": 1u64 << 40}]}}),
            "processes.top.0.threads",
        ),
        (json!({"host": "h", "errors": {"x": 5}}), "errors.x"),
        (json!({"host": "h", "facts": {"cores": "two"}}), "facts"),
    ] {
        let error = parse(&value).map(|_| ()).unwrap_err();
        if path == "x.m9998" {
            assert!(error.message.contains("more than 8192 values"), "{error}");
        } else {
            assert_eq!(error.path, path, "{error}");
        }
    }
}

#[test]
fn numbers_are_exact_or_rejected() {
    let value = |metric: &str, number: &str| -> Result<Option<f64>, String> {
        let json: Value = serde_json::from_str(&format!(r#"{{"host":"a","{metric}":{number}}}"#)).unwrap();
        parse(&json).map(|parsed| parsed.snapshot.value(metric, "")).map_err(|error| error.to_string())
    };
    for (number, expected) in [
        ("0.000001", 1e-6),
        ("-273.15", -273.15),
        ("1e15", 1e15),
        ("22517998136852480", 22_517_998_136_852_480.0),
        ("-4000000000000000000", -4e18),
        ("123456.789012", 123_456.789_012),
    ] {
        assert_eq!(value("custom", number), Ok(Some(expected)), "{number}");
    }
    for (metric, number, decimals) in [
        ("custom", "5000000000000000000", 0),
        ("custom", "18446744073709551615", 0),
        ("custom", "-1e300", 0),
        ("cpu.usage", "1e17", 2),
    ] {
        let message = value(metric, number).unwrap_err();
        assert!(message.contains(&format!("too large for the {decimals} decimals")), "{message}");
    }
}
