//! Golden tests: each capture in `fixtures/hosts` must produce the content of its `.expected` file.
//! `NAME.1.capture` and `NAME.2.capture` are two captures of a host, 2 s apart. Set
//! `UPDATE_GOLDEN=1` to rewrite the files.

use crate::{
    Capture, CollectorCache, CollectorOptions, CollectorSet, CounterState, Derived, Deriver, Sample,
    SnapshotBuilder, read_all,
};
use perfwatch_model::{ManualClock, unscale};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/hosts")
}

fn read(name: &str) -> Option<Capture> {
    let bytes = std::fs::read(folder().join(format!("{name}.capture"))).ok()?;
    Some(Capture::parse(&bytes).unwrap())
}

/// Formats the last snapshot of a host, a line per sample, process, error and fact.
fn format_host(name: &str) -> String {
    let captures = match read(name) {
        Some(single) => vec![single],
        None => [1, 2].map(|n| read(&format!("{name}.{n}")).unwrap()).to_vec(),
    };
    let set = CollectorSet::new(&[], CollectorOptions { top_processes: 4, ..CollectorOptions::default() });
    let clock = ManualClock::starting_at(1_763_720_000_000);
    let (mut deriver, mut builder, mut text) =
        (Deriver::default(), SnapshotBuilder::default(), String::new());
    for capture in &captures {
        // An empty cache each time, as if another worker ran the next collection.
        let reading = read_all(capture, &set, &mut CollectorCache::default(), &clock);
        let derived = deriver.derive(&reading, &set.options);
        let snapshot = builder.build(reading.boot, 1, reading.wall_ms, 2000, derived);
        clock.advance(Duration::from_secs(2));
        text.clear();
        for (column, &value) in snapshot.shape.columns().iter().zip(&snapshot.values) {
            let instance =
                if column.instance.is_empty() { String::new() } else { format!("{{{}}}", column.instance) };
            let value = unscale(value, column.decimals).map_or("-".to_owned(), |value| value.to_string());
            let _ = writeln!(text, "{}{instance} {value}", column.metric);
        }
        for row in &snapshot.processes {
            let _ = writeln!(text, "process {row:?}");
        }
        for error in &snapshot.errors {
            let _ = writeln!(text, "error {}: {}", error.collector, error.message);
        }
        let _ = writeln!(text, "facts {:?}", builder.facts());
    }
    text
}

#[test]
fn fixture_hosts_match_golden_output() {
    let files =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files
        .filter_map(|file| {
            Some(file.strip_suffix(".capture")?.trim_end_matches(".1").trim_end_matches(".2").to_owned())
        })
        .collect();
    names.sort();
    names.dedup();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let path = folder().join(format!("{name}.expected"));
        let actual = format_host(&name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &actual).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        for (actual, expected) in actual.lines().zip(expected.lines()) {
            assert_eq!(actual, expected, "{name}");
        }
        assert_eq!(actual.lines().count(), expected.lines().count(), "{name}");
    }
}

#[test]
fn resumed_counter_state_derives_equal_rates() {
    for name in ["debian12-vm", "raspberry-pi"] {
        let [first, second] = [1, 2].map(|n| read(&format!("{name}.{n}")).unwrap());
        let set =
            CollectorSet::new(&[], CollectorOptions { top_processes: 4, ..CollectorOptions::default() });
        let clock = ManualClock::starting_at(1_763_720_000_000);
        let mut deriver = Deriver::default();
        deriver.derive(&read_all(&first, &set, &mut CollectorCache::default(), &clock), &set.options);
        let json = serde_json::to_string(&CounterState::from_deriver(&deriver)).unwrap();
        clock.advance(Duration::from_secs(2));
        let reading = read_all(&second, &set, &mut CollectorCache::default(), &clock);
        let state: CounterState = serde_json::from_str::<Option<CounterState>>(&json).unwrap().unwrap();
        let (expected, resumed) =
            (deriver.derive(&reading, &set.options), state.into_deriver().derive(&reading, &set.options));
        let present = |derived: &Derived| -> Vec<Sample> {
            derived.samples.iter().filter(|sample| !sample.value.is_nan()).cloned().collect()
        };
        assert!(present(&expected).iter().any(|s| s.metric.name == "cpu.usage" && s.value > 0.0));
        assert_eq!(present(&expected), present(&resumed), "{name}");
        assert_eq!(expected.processes, resumed.processes, "{name}");
    }
}
