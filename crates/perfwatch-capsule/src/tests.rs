//! Tests of the format: a golden file that the dashboard reads too, round trips, and hostile files.

use crate::container::{Section, SectionWriter, encode};
use crate::document::{CapsuleDocument, CapsuleHost, IncidentPart, Masks};
use crate::limits::MAX_SECTION_BYTES;
use crate::mask::Masker;
use crate::processes::ProcessWriter;
use crate::series::{Rows, SeriesWriter};
use crate::{Capsule, CapsuleError, decode_processes, decode_series};
use perfwatch_model::{Column, HostFacts, MISSING, ProcessRow, Shape};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

const START_MS: i64 = 1_795_000_000_000;

fn column(metric: &'static str, dimension: &'static str, instance: &'static str, decimals: u8) -> Column {
    Column { metric: metric.into(), dimension: dimension.into(), instance: instance.into(), decimals }
}

fn text_section(content: &[u8]) -> Section {
    let mut section = SectionWriter::new();
    section.write(content).unwrap();
    section.finish().unwrap()
}

fn process(pid: u32, name: &str, user: &str, command: &str) -> ProcessRow {
    ProcessRow {
        pid,
        parent_pid: Some(1).filter(|_| pid > 1),
        name: name.into(),
        user: user.into(),
        command: command.into(),
        state: 'S',
        cpu_tenths: 123,
        memory_bytes: 5 << 30,
        threads: 4,
        open_files: Some(0),
        read_bytes: None,
        write_bytes: Some(1_000),
        started_ms: START_MS - 1_000,
    }
}

/// Document of a host that an alert names.
fn document() -> CapsuleDocument {
    let host_id = "0190c9a0-0000-7000-8000-000000000001";
    let alert = json!({
        "id": "0190c9a0-0000-7000-8000-000000000002", "rule": "0190c9a0-0000-7000-8000-000000000003",
        "rule_name": "CPU usage", "host": host_id, "host_name": "db-03", "instance": "", "metric": "cpu.usage",
        "severity": "critical", "summary": "CPU of db-03 above 90%", "runbook": "", "silenced": false,
        "pending_since_ms": START_MS, "fired_ms": START_MS + 2_000, "resolved_ms": null, "value": 93.5,
        "threshold": 90.0, "peak_value": 99.0, "resolve_reason": null,
        "largest_consumer": null,
        "explanation": {
            "resource": "cpu", "from_ms": START_MS, "to_ms": START_MS + 2_000, "baseline_from_ms": START_MS - 60_000,
            "consumers": [{
                "pid": 7, "name": "postgres", "user": "alice", "command": "postgres -D /home/alice",
                "current": 93.0, "baseline": null,
            }],
            "movers": [{ "metric": "cpu.usage", "instance": "", "current": 93.0, "baseline": 5.0, "score": 9.0 }],
        },
    });
    let event = json!({
        "kind": "gap", "from_ms": START_MS + 4_000, "to_ms": START_MS + 10_000, "severity": null,
        "incident": null, "text": "", "detail": "host_off", "actor": "", "before": "", "after": "",
    });
    let entry = |kind: &str, actor: &str, text: &str| json!({ "at_ms": START_MS + 2_000, "kind": kind, "actor": actor, "text": text });
    CapsuleDocument {
        title: "CPU saturation on db-03".to_owned(),
        note: "<script>alert(1)</script> & \"quotes\"".to_owned(),
        created_ms: START_MS + 60_000,
        created_by: "user mira".to_owned(),
        created_with: "0.1.0".to_owned(),
        from_ms: START_MS,
        to_ms: START_MS + 60_000,
        masked: Masks::default(),
        units: [("cpu.usage".to_owned(), "percent".to_owned())].into(),
        hosts: vec![CapsuleHost {
            id: host_id.to_owned(),
            name: "db-03".to_owned(),
            tags: vec!["role=db".to_owned()],
            facts: Some(HostFacts { os: "Debian 13".to_owned(), cores: 4, ..HostFacts::default() }),
            interval_ms: 2_000,
            rows: 0,
            series: Vec::new(),
            process_rows: 0,
            events: vec![event],
            alerts: vec![alert.clone()],
        }],
        incidents: vec![IncidentPart {
            incident: json!({
                "id": "0190c9a0-0000-7000-8000-000000000004", "title": "db-03: CPU usage",
                "severity": "critical", "state": "open", "phase": "open", "opened_ms": START_MS + 2_000,
                "quiet_since_ms": null, "reopen_count": 0, "firing_count": 1, "silenced_until_ms": null,
                "ack": { "by": "user mira", "at_ms": START_MS + 3_000, "until_ms": null, "note": "" },
                "alerts": [alert],
            }),
            timeline: vec![
                entry("fired", "", "db-03: CPU usage"),
                entry("comment", "user mira", "alice started a job on DB-03"),
            ],
        }],
    }
}

/// Writes a capsule with two tables of different columns, missing values, large values, and processes.
fn write(mut document: CapsuleDocument, masks: Masks) -> Vec<u8> {
    let hosts: Vec<_> = document.hosts.iter().map(|host| (host.id.clone(), host.name.clone())).collect();
    let mut masker = Masker::new(masks, &hosts);
    let (mut series, mut processes) = (SeriesWriter::new(), ProcessWriter::new());
    let shape = Shape::new(vec![
        column("cpu.usage", "", "", 1),
        column("filesystem.used_percent", "mount", "/home/alice", 1),
        column("memory.used", "", "", 0),
    ]);
    let (at_ms, interval_ms) = ([START_MS, START_MS + 2_000, START_MS + 4_000], [2_000; 3]);
    let columns =
        [vec![51, MISSING, 935], vec![MISSING; 3], vec![8_000_000_000, i64::MAX, -9_007_199_254_740_993]];
    series.add(&Rows { shape: &shape, at_ms: &at_ms, interval_ms: &interval_ms, columns: &columns }).unwrap();
    let shape = Shape::new(vec![column("cpu.usage", "", "", 1), column("custom.queue", "", "", 3)]);
    let columns = [vec![42], vec![-1_500]];
    series
        .add(&Rows { shape: &shape, at_ms: &[START_MS + 10_000], interval_ms: &[6_000], columns: &columns })
        .unwrap();
    let rows = [
        vec![process(1, "systemd", "root", ""), process(7, "postgres", "alice", "postgres -D /home/alice")],
        vec![process(7, "postgres", "alice", "postgres -D /home/alice")],
        Vec::new(),
        vec![process(8, "mysql", "bob", "mysql -psecret")],
    ];
    for (at_ms, rows) in [0, 2_000, 4_000, 10_000].iter().zip(rows) {
        let rows: Vec<_> = rows.iter().map(|row| masker.process(row)).collect();
        processes.add(START_MS + at_ms, &rows).unwrap();
    }
    let host = &mut document.hosts[0];
    (host.rows, host.process_rows) = (series.rows(), processes.rows);
    let series_section;
    (series_section, host.series) = series.finish().unwrap();
    masker.document(&mut document);
    let json = text_section(&serde_json::to_vec(&document).unwrap());
    encode(&[json, series_section, processes.finish().unwrap()]).unwrap()
}

/// Everything that a capsule contains, as the dashboard's test compares it.
fn dump(file: &[u8]) -> Value {
    let capsule = Capsule::parse(file).unwrap();
    let hosts = (0..capsule.document().hosts.len()).map(|index| {
        let series = capsule.series(index).unwrap();
        let values = |column: &Vec<i64>| -> Vec<Option<i64>> {
            column.iter().map(|value| Some(*value).filter(|value| *value != MISSING)).collect()
        };
        let samples = capsule.processes(index).unwrap().samples.into_iter().map(|sample| {
            let row = sample.process;
            json!({
                "at_ms": sample.at_ms, "pid": row.pid, "parent_pid": row.parent_pid, "name": row.name,
                "user": row.user, "command": row.command, "state": row.state.to_string(),
                "cpu_tenths": row.cpu_tenths, "memory_bytes": row.memory_bytes, "threads": row.threads,
                "open_files": row.open_files, "read_bytes": row.read_bytes, "write_bytes": row.write_bytes,
                "started_ms": row.started_ms,
            })
        });
        json!({
            "at_ms": series.at_ms, "interval_ms": series.interval_ms,
            "columns": series.columns.iter().map(values).collect::<Vec<_>>(),
            "processes": samples.collect::<Vec<_>>(),
        })
    });
    json!({ "document": capsule.document(), "hosts": hosts.collect::<Vec<_>>() })
}

/// `small.pwcap` is a file of format 1 and must remain readable; compression may change, so that newly written
/// files are compared by content only.
#[test]
fn golden_file_is_decoded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golden");
    let (file, json) = (folder.join("small.pwcap"), folder.join("small.json"));
    let written = write(document(), Masks::default());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&file, &written).unwrap();
        std::fs::write(&json, serde_json::to_string_pretty(&dump(&written)).unwrap() + "\n").unwrap();
    }
    let expected: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(dump(&std::fs::read(file).unwrap()), expected);
    assert_eq!(dump(&written), expected);
}

#[test]
fn values_and_processes_survive_encoding() {
    let file = write(document(), Masks::default());
    let capsule = Capsule::parse(&file).unwrap();
    let series = capsule.series(0).unwrap();
    assert_eq!(series.at_ms, [0, 2_000, 4_000, 10_000].map(|ms| START_MS + ms));
    assert_eq!(series.interval_ms, [2_000, 2_000, 2_000, 6_000]);
    assert_eq!(series.columns[0], [51, MISSING, 935, 42]);
    assert_eq!(series.columns[1], [MISSING; 4]);
    assert_eq!(series.columns[2], [8_000_000_000, i64::MAX, -9_007_199_254_740_993, MISSING]);
    assert_eq!(series.columns[3], [MISSING, MISSING, MISSING, -1_500]);
    let processes = capsule.processes(0).unwrap().samples;
    assert_eq!(processes.len(), 4);
    assert_eq!(processes[2].at_ms, START_MS + 2_000);
    assert_eq!(processes[2].process, process(7, "postgres", "alice", "postgres -D /home/alice"));
    capsule.verify().unwrap();
}

#[test]
fn file_names_are_plain() {
    for (title, expected) in [
        ("CPU of db-03 above 90 %", "CPU-of-db-03-above-90.pwcap"),
        ("web.example.com", "web.example.com.pwcap"),
        ("../../etc/passwd", "etc-passwd.pwcap"),
        (".bashrc", "bashrc.pwcap"),
        ("..", "capsule.pwcap"),
        ("\u{202e}💥\n", "capsule.pwcap"),
        ("", "capsule.pwcap"),
    ] {
        assert_eq!(
            CapsuleDocument { title: title.to_owned(), ..document() }.file_name(),
            expected,
            "{title:?}"
        );
    }
}

#[test]
fn secrets_are_masked_without_request() {
    assert!(!dump(&write(document(), Masks::default())).to_string().contains("secret"));
}

#[test]
fn masked_names_occur_nowhere() {
    let users = Masks { users: true, ..Masks::default() };
    let text = dump(&write(document(), users)).to_string();
    for name in ["alice", "bob", "mira", "-D /home"] {
        assert!(!text.contains(name), "{name}: {text}");
    }
    assert!(text.contains("db-03") && text.contains("/home/user-"), "{text}");
    let hosts = Masks { hosts: true, ..Masks::default() };
    let text = dump(&write(document(), hosts)).to_string();
    for name in ["db-03", "DB-03", "role=db", "0190c9a0-0000-7000-8000-000000000001", "-D /home"] {
        assert!(!text.contains(name), "{name}: {text}");
    }
    assert!(text.contains("CPU saturation on host-1") && text.contains("alice"), "{text}");
    let commands = Masks { commands: true, ..Masks::default() };
    let text = dump(&write(document(), commands)).to_string();
    assert!(!text.contains("-D /home") && text.contains("alice") && text.contains("db-03"), "{text}");
}

#[test]
fn masked_terms_remain() {
    let mut document = document();
    document.hosts[0].alerts[0]["explanation"]["consumers"][0]["user"] = "usage".into();
    let file = write(document, Masks { users: true, ..Masks::default() });
    let masked = dump(&file);
    let alert = &masked["document"]["hosts"][0]["alerts"][0];
    assert_eq!(alert["metric"], "cpu.usage");
    assert_eq!(alert["explanation"]["consumers"][0]["name"], "postgres");
}

/// Each damaged byte and each truncation is an error, and never a panic or another content.
#[test]
fn damaged_files_are_refused() {
    let file = write(document(), Masks::default());
    for index in 0..file.len() {
        let mut damaged = file.clone();
        damaged[index] ^= 0x40;
        assert!(Capsule::parse(&damaged).is_err(), "byte {index}");
        assert!(Capsule::parse(&file[..index]).is_err(), "{index} bytes");
    }
    let longer = [&file[..], b"x"].concat();
    assert_eq!(Capsule::parse(&longer).err(), Some(CapsuleError::Truncated));
    assert_eq!(Capsule::parse(b"PK\x03\x04 another file").err(), Some(CapsuleError::NotACapsule));
    let mut newer = file;
    newer[8] = 2;
    assert_eq!(Capsule::parse(&newer).err(), Some(CapsuleError::UnsupportedVersion(2)));
}

/// Rewrites the declared size of a section, with valid checksums.
fn with_declared_len(section: &Section, len: u32) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    let mut file = encode(std::slice::from_ref(section)).unwrap();
    file[16..20].copy_from_slice(&len.to_le_bytes());
    let hash = Sha256::digest(&file[..52]);
    file[52..84].copy_from_slice(&hash);
    file
}

#[test]
fn wrong_sizes_and_bombs_are_refused() {
    let zeros = text_section(&vec![0; 1 << 20]);
    for len in [0, 1, (1 << 20) - 1, (1 << 20) + 1] {
        let file = with_declared_len(&zeros, len);
        assert_eq!(Capsule::parse(&file).err(), Some(CapsuleError::Invalid("compressed section")), "{len}");
    }
    let len = u32::try_from(MAX_SECTION_BYTES).unwrap() + 1;
    assert_eq!(Capsule::parse(&with_declared_len(&zeros, len)).err(), Some(CapsuleError::TooLarge("bytes")));
    let mut section = SectionWriter::new();
    section.write(&vec![0; MAX_SECTION_BYTES]).unwrap();
    assert_eq!(section.write(&[0]), Err(CapsuleError::TooLarge("bytes")));
}

#[test]
fn counts_above_limits_are_refused() {
    let with = |change: fn(&mut CapsuleDocument)| {
        let mut document = document();
        change(&mut document);
        CapsuleDocument::parse(&serde_json::to_vec(&document).unwrap()).err()
    };
    assert_eq!(with(|_| {}), None);
    assert_eq!(with(|document| document.to_ms = document.from_ms), Some(CapsuleError::Invalid("window")));
    assert_eq!(with(|document| document.hosts[0].rows = 1 << 30), Some(CapsuleError::TooLarge("values")));
    assert_eq!(
        with(|document| document.hosts[0].process_rows = 1 << 30),
        Some(CapsuleError::TooLarge("processes"))
    );
    assert_eq!(
        with(|document| document.hosts = vec![document.hosts[0].clone(); 51]),
        Some(CapsuleError::TooLarge("hosts"))
    );
    assert_eq!(CapsuleDocument::parse(b"{}").err(), Some(CapsuleError::Invalid("document")));
}

proptest! {
    /// Any rows are decoded to themselves.
    #[test]
    fn rows_are_decoded_to_themselves(
        steps in prop::collection::vec((0..5_000_i64, 1..10_000_i64), 1..40),
        values in prop::collection::vec(any::<Option<i64>>(), 120),
    ) {
        let shape =
            Shape::new(vec![column("a", "", "", 0), column("b", "x", "1", 2), column("b", "x", "2", 2)]);
        let at_ms: Vec<i64> = steps
            .iter()
            .scan(START_MS, |at_ms, (step_ms, _)| {
                *at_ms += step_ms;
                Some(*at_ms)
            })
            .collect();
        let interval_ms: Vec<i64> = steps.iter().map(|(_, interval_ms)| *interval_ms).collect();
        let columns: Vec<Vec<i64>> = (0..3)
            .map(|column| {
                (0..at_ms.len()).map(|row| values[column * 40 + row].unwrap_or(MISSING)).collect()
            })
            .collect();
        let (first, second) = (at_ms.len() / 2, at_ms.len());
        let mut writer = SeriesWriter::new();
        for (from, to) in [(0, first), (first, second)] {
            let part: Vec<Vec<i64>> = columns.iter().map(|column| column[from..to].to_vec()).collect();
            let (at_ms, interval_ms) = (&at_ms[from..to], &interval_ms[from..to]);
            writer.add(&Rows { shape: &shape, at_ms, interval_ms, columns: &part }).unwrap();
        }
        let (section, names) = writer.finish().unwrap();
        prop_assert_eq!(names.len(), 3);
        let file = encode(&[section]).unwrap();
        let content = crate::container::decode(&file).unwrap()[0].content(MAX_SECTION_BYTES).unwrap();
        let decoded = decode_series(&content, at_ms.len(), 3).unwrap();
        prop_assert_eq!(decoded.at_ms, at_ms);
        prop_assert_eq!(decoded.interval_ms, interval_ms);
        prop_assert_eq!(decoded.columns, columns);
    }

    /// Any bytes are decoded or refused.
    #[test]
    fn any_sections_are_decoded_or_refused(content in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_series(&content, 50, 20);
        let _ = decode_processes(&content, 50);
    }
}
