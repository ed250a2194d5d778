//! Tests of snapshots: unique series, limits, and the property that every hub accepts them.

use super::*;
use crate::linux::COLLECTORS;
use crate::{
    CollectError, CollectorOptions, Deriver, Part, PartReading, ProcessDetail, Raw, RawProcess, RawSample,
    Reading,
};
use perfwatch_model::{MISSING, unscale, wire};
use proptest::prelude::*;
use std::time::Duration;

fn metric(name: &str) -> &'static MetricDef {
    COLLECTORS.iter().flat_map(|collector| collector.metrics).find(|metric| metric.name == name).unwrap()
}

fn sample(name: &str, instance: &str) -> Sample {
    Sample { metric: metric(name), instance: instance.into(), value: 1.0 }
}

fn build(samples: Vec<Sample>) -> Snapshot {
    let derived = Derived { samples, ..Derived::default() };
    SnapshotBuilder::default().build(BootId::default(), 1, 1_795_000_000_000, 2_000, derived)
}

/// Decodes a snapshot as the hub does.
fn decode(snapshot: &Snapshot) -> Result<Snapshot, wire::WireError> {
    let shape = Arc::new(wire::decode_shape(wire::encode_shape(&snapshot.shape))?);
    assert_eq!(shape.id(), snapshot.shape.id());
    let bytes = wire::encode_snapshot(snapshot);
    assert!(bytes.len() <= limits::MAX_SNAPSHOT_BYTES, "{}", bytes.len());
    wire::decode_snapshot(bytes, &|_| Some(shape.clone()), &|text| text.into())
}

fn instances(snapshot: &Snapshot, metric: &str) -> Vec<String> {
    let columns = snapshot.shape.columns().iter().filter(|column| column.metric == metric);
    columns.map(|column| column.instance.to_string()).collect()
}

#[test]
fn doubled_and_long_names_stay_different() {
    let long = "x".repeat(300);
    let snapshot = build(vec![
        sample("temperature.sensor", "nvme"),
        sample("temperature.sensor", "nvme"),
        sample("temperature.sensor", "nvme #2"),
        sample("temperature.sensor", "nvme"),
        sample("temperature.sensor", &format!("{long}1")),
        sample("temperature.sensor", &format!("{long}2")),
        sample("cpu.usage", ""),
        sample("cpu.usage", ""),
    ]);
    let names = instances(&snapshot, "temperature.sensor");
    assert_eq!(names[..4], ["nvme", "nvme #2", "nvme #2 #2", "nvme #3"]);
    assert!(names[4] != names[5] && names[4].len() <= limits::MAX_INSTANCE_BYTES, "{names:?}");
    assert_eq!(instances(&snapshot, "cpu.usage"), [""]);
    assert_eq!(snapshot.value("snapshot.columns_dropped", ""), Some(1.0));
    assert_eq!(snapshot.errors[0].message, "second value left out: 1 cpu.usage");
    assert_eq!(decode(&snapshot).unwrap(), snapshot);
}

#[test]
fn layout_is_reused_while_the_series_stay_the_same() {
    let mut builder = SnapshotBuilder::default();
    let mut shape = |samples: &[Sample]| {
        let derived = Derived { samples: samples.to_vec(), ..Derived::default() };
        builder.build(BootId::default(), 1, 0, 0, derived).shape
    };
    let samples = vec![sample("temperature.sensor", "a"), sample("temperature.sensor", "a")];
    let first = shape(&samples);
    assert!(Arc::ptr_eq(&first, &shape(&samples)));
    // Equal text, other allocation.
    let copy: Vec<Sample> =
        samples.iter().map(|s| Sample { instance: s.instance.to_string().into(), ..s.clone() }).collect();
    assert!(Arc::ptr_eq(&first, &shape(&copy)));
    assert!(!Arc::ptr_eq(&first, &shape(&samples[..1])));
}

#[test]
fn columns_of_a_large_host_are_dropped_by_rank() {
    let mut samples =
        vec![sample("cpu.usage", ""), sample("disk.total.read_bytes", ""), sample("system.uptime", "")];
    samples.extend([sample("temperature.sensor", "a"), sample("temperature.sensor", "b")]);
    let mut push = |dimension: &str, count: usize, name: &dyn Fn(usize) -> String| {
        for number in 0..count {
            let metrics = COLLECTORS.iter().flat_map(|collector| collector.metrics);
            let metrics = metrics.filter(|metric| metric.dimension == dimension);
            let instance: Arc<str> = name(number).into();
            samples.extend(metrics.map(|metric| Sample { metric, instance: instance.clone(), value: 1.0 }));
        }
    };
    push("interface", 2_000, &|n| format!("eth{n}"));
    push("core", 2_048, &|n| n.to_string());
    push("device", 500, &|n| format!("sd{n}"));
    push("mount", 3_000, &|n| format!("/mnt/a-long-name-of-a-mount-point/{n}"));
    let total = samples.len();
    let snapshot = build(samples);
    assert_eq!(decode(&snapshot).unwrap(), snapshot);
    let columns = snapshot.shape.columns().len();
    assert!((limits::MAX_COLUMNS - 1_000..=limits::MAX_COLUMNS).contains(&columns), "{columns}");
    for (metric, count) in [
        ("cpu.usage", 1),
        ("disk.total.read_bytes", 1),
        ("system.uptime", 1),
        ("disk.read_bytes", 500),
        ("disk.write_bytes", 500),
        ("filesystem.used_percent", 3_000),
        ("filesystem.size", 3_000),
        ("temperature.sensor", 2),
        ("filesystem.available", 0),
        ("network.rx_bytes", 0),
        ("cpu.core.usage", 0),
    ] {
        assert_eq!(instances(&snapshot, metric).len(), count, "{metric}");
    }
    let dropped = total + 1 - columns;
    assert_eq!(
        snapshot.value("snapshot.columns_dropped", ""),
        Some(f64::from(u32::try_from(dropped).unwrap()))
    );
    let message = &snapshot.errors[0].message;
    assert!(message.starts_with(&format!("{dropped} of {total} columns left out")), "{message}");
    assert!(
        message.contains("2000 network.rx_bytes") && message.contains("2048 cpu.core.usage"),
        "{message}"
    );
}

#[test]
fn long_names_of_a_large_host_are_within_the_limit_in_bytes() {
    let mount = |n: usize| format!("/{}{n}", "very-long-name/".repeat(15));
    let samples: Vec<Sample> = (0..7_000).map(|n| sample("filesystem.used_percent", &mount(n))).collect();
    let snapshot = build(samples);
    assert_eq!(decode(&snapshot).unwrap(), snapshot);
    assert!(snapshot.shape.columns().len() > 3_000);
}

#[test]
fn texts_are_within_the_limits() {
    let long = "ä".repeat(100_000);
    let row = ProcessRow {
        name: long.as_str().into(),
        user: long.as_str().into(),
        command: long.as_str().into(),
        ..ProcessRow::default()
    };
    let error = CollectorError { collector: "disk".into(), message: long.clone() };
    let derived = Derived {
        processes: vec![row; 300],
        facts: Some(HostFacts { os: long.clone(), cpu_model: long, ..HostFacts::default() }),
        errors: vec![error; 100],
        ..Derived::default()
    };
    let snapshot = SnapshotBuilder::default().build(BootId::default(), 1, 0, u32::MAX, derived);
    assert_eq!(decode(&snapshot).unwrap(), snapshot);
    assert!(snapshot.processes.len() > 100 && snapshot.errors.len() == limits::MAX_COLLECTOR_ERRORS);
    assert_eq!(snapshot.interval_ms, limits::MAX_INTERVAL_MS);
}

/// Finding L8: texts of this host, or of an agentless host.
#[test]
fn hidden_characters_are_escaped() {
    let hidden = "\x1b]0;x\u{202e}";
    let text: Arc<str> = hidden.into();
    let row = ProcessRow {
        name: text.clone(),
        user: text.clone(),
        command: text,
        state: '\u{9b}',
        ..ProcessRow::default()
    };
    let derived = Derived {
        samples: vec![sample("temperature.sensor", hidden), sample("temperature.sensor", hidden)],
        processes: vec![row],
        facts: Some(HostFacts { os: hidden.to_owned(), ..HostFacts::default() }),
        errors: vec![CollectorError { collector: hidden.to_owned(), message: hidden.to_owned() }],
    };
    let snapshot = SnapshotBuilder::default().build(BootId::default(), 1, 0, 1_000, derived);
    let escaped = "\\u{1b}]0;x\\u{202e}";
    assert_eq!(instances(&snapshot, "temperature.sensor"), [escaped.to_owned(), format!("{escaped} #2")]);
    let (row, error) = (&snapshot.processes[0], &snapshot.errors[0]);
    let facts = snapshot.facts.as_ref().unwrap();
    for text in [&*row.name, &row.user, &row.command, &error.collector, &error.message, &facts.os] {
        assert_eq!(text, escaped);
    }
    assert_eq!(row.state, '?');
    assert_eq!(decode(&snapshot).unwrap(), snapshot);
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z0-9]{0,4}",
        1 => Just(String::new()),
        1 => "\\PC{0,8}",
        1 => "[\\x00-\\x1f\\x7f-\\x9f]{0,4}",
        1 => (200_usize..400).prop_map(|length| "ß".repeat(length)),
    ]
}

fn any_raw() -> impl Strategy<Value = Raw> {
    let number = || prop_oneof![2 => 0..1_000_u64, 1 => any::<u64>(), 1 => Just(u64::MAX)];
    prop_oneof![
        any::<f64>().prop_map(Raw::Gauge),
        (-1e4..1e4).prop_map(Raw::Gauge),
        number().prop_map(Raw::Counter),
        (number(), number(), number()).prop_map(|(numerator, denominator, max_rate)| Raw::Ratio {
            numerator,
            denominator,
            max_rate
        }),
    ]
}

fn any_process() -> impl Strategy<Value = RawProcess> {
    let numbers = (any::<u32>(), any::<u64>(), any::<u64>(), any::<i64>(), any::<Option<(u64, u64)>>());
    (any_text(), any_text(), any::<char>(), numbers).prop_map(|(name, command, state, numbers)| RawProcess {
        name: name.into(),
        state,
        detail: Some(Arc::new(ProcessDetail { user: command.as_str().into(), command: command.into() })),
        pid: numbers.0 % 100,
        cpu_ticks: numbers.1,
        start_ticks: numbers.2 % 2,
        memory_bytes: numbers.2,
        started_ms: numbers.3,
        io: numbers.4,
        ..RawProcess::default()
    })
}

fn any_part() -> impl Strategy<Value = PartReading> {
    let sample = (any::<prop::sample::Index>(), any_text(), any_raw());
    let part = (
        0..COLLECTORS.len(),
        prop::collection::vec(sample, 0..60),
        prop::collection::vec(any_process(), 0..30),
        prop::collection::vec(any_text(), 0..4),
        any::<bool>(),
    );
    part.prop_map(|(collector, samples, mut processes, errors, has_failed)| {
        let collector = &COLLECTORS[collector];
        let samples = samples.into_iter().filter(|_| !collector.metrics.is_empty());
        let samples = samples.map(|(metric, instance, raw)| RawSample {
            metric: &collector.metrics[metric.index(collector.metrics.len())],
            instance: instance.into(),
            raw,
        });
        processes.sort_by_key(|process| process.pid);
        processes.dedup_by_key(|process| process.pid);
        let facts = HostFacts { os: errors.concat(), ..HostFacts::default() };
        let part = Part { samples: samples.collect(), processes, facts: Some(facts), errors };
        let result =
            if has_failed { Err(CollectError::Failed("x".repeat(5_000))) } else { Ok(Arc::new(part)) };
        PartReading {
            collector: collector.name,
            started_at: Duration::ZERO,
            duration: Duration::ZERO,
            result,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_reading_is_a_snapshot_that_the_hub_accepts(
        readings in prop::collection::vec(prop::collection::vec(any_part(), 0..8), 1..4),
    ) {
        let catalog = crate::catalog(&[]);
        let (mut deriver, mut builder) = (Deriver::default(), SnapshotBuilder::default());
        for (number, mut parts) in readings.into_iter().enumerate() {
            let monotonic = Duration::from_secs(number as u64);
            parts.iter_mut().for_each(|part| part.started_at = monotonic);
            let reading = Reading { boot: BootId::default(), wall_ms: 0, monotonic, parts };
            let options = CollectorOptions { top_processes: 200, ..CollectorOptions::default() };
            let derived = deriver.derive(&reading, &options);
            let snapshot = builder.build(reading.boot, number as u64, 0, 1_000, derived);
            let decoded = decode(&snapshot);
            prop_assert_eq!(decoded.as_ref(), Ok(&snapshot));
            for (column, &value) in snapshot.shape.columns().iter().zip(&snapshot.values) {
                let def = catalog.get(&column.metric).unwrap();
                let is_allowed = |value: f64| value >= def.min && def.max.is_none_or(|max| value <= max);
                prop_assert!(value == MISSING || unscale(value, column.decimals).is_some_and(is_allowed));
            }
        }
    }
}
