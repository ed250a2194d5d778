//! Decodes responses of a hub: hosts, live messages, snapshots and series. The texts are external input:
//! malformed or too large responses are errors.

use crate::frame::{HostFrame, Ribbon};
use perfwatch_model::printable::printable_within;
use perfwatch_model::{
    BootId, Catalog, Column, HostFacts, HostId, MISSING, ProcessRow, Shape, Snapshot, json, limits,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Host of a hub.
#[derive(Clone, Debug, Deserialize)]
pub struct HubHost {
    /// Stable identifier.
    pub id: HostId,
    /// Display name.
    pub name: String,
    /// Properties, if the host has sent them.
    pub facts: Option<Arc<HostFacts>>,
    /// Expected time between two snapshots in milliseconds.
    pub interval_ms: u32,
    /// Time of the last snapshot, milliseconds since 1970.
    pub last_snapshot_ms: Option<i64>,
}

/// First page of the hosts of a hub.
#[derive(Clone, Debug, Deserialize)]
pub struct HubHostList {
    /// Hosts, sorted by name.
    pub hosts: Vec<HubHost>,
    /// Number of hosts on all pages.
    pub total: usize,
    /// Current time of the hub, milliseconds since 1970.
    pub now_ms: i64,
}

#[derive(Deserialize)]
struct LiveResponse {
    messages: Vec<LiveMessage>,
}

#[derive(Deserialize)]
struct LiveMessage {
    #[serde(default)]
    hosts: Vec<LiveEntry>,
}

/// Backfill of a shape: values by column, the processes of the newest row.
#[derive(Deserialize)]
struct LiveEntry {
    interval_ms: u32,
    columns: Vec<LiveColumn>,
    t: Vec<i64>,
    v: Vec<Vec<Option<i64>>>,
    #[serde(default)]
    processes: Value,
}

#[derive(Deserialize)]
struct LiveColumn {
    metric: String,
    instance: Option<String>,
    decimals: u8,
}

#[derive(Deserialize)]
struct SnapshotResponse {
    resolution_ms: i64,
    snapshot: Value,
}

#[derive(Deserialize)]
struct SeriesResponse {
    t: Vec<i64>,
    series: Vec<SeriesEntry>,
}

#[derive(Deserialize)]
struct SeriesEntry {
    metric: String,
    v: Vec<Option<f64>>,
    max: Option<Vec<Option<f64>>>,
}

/// Decodes a response.
///
/// # Errors
/// Fails if the text does not have the expected form.
pub fn decode<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("unexpected response: {error}"))
}

/// Newest snapshot of `GET /api/v1/live`; `None` if the response contains none.
///
/// # Errors
/// Fails if the response is malformed or exceeds the limits of a snapshot.
pub fn decode_live(text: &str, catalog: &Catalog) -> Result<Option<Snapshot>, String> {
    let response: LiveResponse = decode(text)?;
    let entries = response.messages.into_iter().flat_map(|message| message.hosts);
    let newest = entries.filter(|entry| !entry.t.is_empty()).max_by_key(|entry| entry.t.last().copied());
    newest.map(|entry| to_snapshot(entry, catalog)).transpose()
}

fn to_snapshot(entry: LiveEntry, catalog: &Catalog) -> Result<Snapshot, String> {
    let at_ms = entry.t.last().copied().unwrap_or_default();
    if entry.columns.len() != entry.v.len() || entry.columns.len() > limits::MAX_COLUMNS {
        return Err("unexpected response: number of columns".to_owned());
    }
    let values =
        entry.v.iter().map(|column| column.get(entry.t.len() - 1).copied().flatten().unwrap_or(MISSING));
    let values = values.collect();
    let columns = entry.columns.into_iter().map(|column| Column {
        metric: column.metric.into(),
        dimension: "".into(),
        instance: printable_within(&column.instance.unwrap_or_default(), limits::MAX_INSTANCE_BYTES).into(),
        decimals: column.decimals,
    });
    Ok(Snapshot {
        boot: BootId::default(),
        seq: 0,
        at_ms,
        interval_ms: entry.interval_ms,
        shape: Arc::new(Shape::new(columns.collect())),
        values,
        processes: decode_processes(&entry.processes, catalog)?,
        facts: None,
        errors: Vec::new(),
    })
}

/// Reads process rows with the checks of posted snapshots.
fn decode_processes(rows: &Value, catalog: &Catalog) -> Result<Vec<ProcessRow>, String> {
    let snapshot = json!({ "host": "live", "processes": { "top": rows } });
    let parsed = json::read_snapshot(&snapshot, catalog, 0)
        .map_err(|error| format!("unexpected response: {error}"))?;
    Ok(parsed.snapshot.processes)
}

/// Snapshot of `GET /api/v1/hosts/{id}/snapshot`.
///
/// # Errors
/// Fails if the response is malformed or exceeds the limits of a snapshot.
pub fn decode_snapshot(text: &str, catalog: &Catalog) -> Result<HostFrame, String> {
    let response: SnapshotResponse = decode(text)?;
    let parsed = json::read_snapshot(&response.snapshot, catalog, 0)
        .map_err(|error| format!("unexpected response: {error}"))?;
    // Averages of a roll-up belong to no boot and have no number.
    let is_rolled_up = parsed.snapshot.seq == 0 && parsed.snapshot.boot == BootId::default();
    Ok(HostFrame { snapshot: Arc::new(parsed.snapshot), resolution_ms: response.resolution_ms, is_rolled_up })
}

/// Ribbon from the series `cpu.usage` and `memory.used_percent` of `GET /api/v1/hosts/{id}/series`.
///
/// # Errors
/// Fails if the response is malformed.
pub fn decode_ribbon(text: &str, from_ms: i64, to_ms: i64) -> Result<Ribbon, String> {
    let response: SeriesResponse = decode(text)?;
    let count = response.t.len();
    let mut ribbon =
        Ribbon { from_ms, to_ms, times_ms: response.t, cpu: vec![None; count], memory: vec![None; count] };
    for series in response.series {
        let mut values = series.max.unwrap_or(series.v);
        values.resize(count, None);
        match series.metric.as_str() {
            "cpu.usage" => ribbon.cpu = values,
            "memory.used_percent" => ribbon.memory = values,
            _ => {}
        }
    }
    Ok(ribbon)
}

/// Encodes a text as a segment of a path or as a value of a query (RFC 3986).
pub fn encode_component(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::catalog::{MetricDef, Unit};
    use proptest::prelude::*;

    fn catalog() -> Catalog {
        Catalog::new([MetricDef::gauge("cpu.usage", Unit::Percent, 2, "Usage of all cores.")])
    }

    #[test]
    fn newest_live_snapshot_is_decoded() {
        let text = json!({ "messages": [
            { "type": "backfill", "id": 0, "hosts": [
                { "host": "x", "shape": "y", "interval_ms": 2000, "columns": [
                    { "metric": "cpu.usage", "instance": null, "decimals": 2 },
                    { "metric": "disk.utilization", "instance": "sd\u{1b}a", "decimals": 1 },
                  ], "t": [1000, 3000], "v": [[100, 1234], [5, null]],
                  "processes": [{ "pid": 7, "name": "a\u{1b}[2J", "state": "R", "cpu_percent": 12.5,
                                  "memory_bytes": 9, "threads": 2, "user": "u", "command": "", "started_ms": 5 }] },
                { "host": "x", "shape": "z", "interval_ms": 2000, "columns": [], "t": [2000], "v": [] },
            ] },
            { "type": "incident_counts", "revision": 1, "info": 0, "warning": 0, "critical": 0 },
        ] });
        let snapshot = decode_live(&text.to_string(), &catalog()).unwrap().unwrap();
        assert_eq!((snapshot.at_ms, snapshot.interval_ms), (3_000, 2_000));
        assert_eq!(snapshot.value("cpu.usage", ""), Some(12.34));
        assert_eq!(snapshot.value("disk.utilization", "sd\\u{1b}a"), None);
        let row = &snapshot.processes[0];
        assert_eq!((row.pid, row.cpu_tenths, &*row.name), (7, 125, "a\\u{1b}[2J"));
        let empty = r#"{"messages":[{"type":"backfill","id":0,"hosts":[]}]}"#;
        assert_eq!(decode_live(empty, &catalog()).unwrap(), None);
    }

    #[test]
    fn malformed_responses_are_errors() {
        let entry = |columns: &str, v: &str, processes: &str| {
            format!(
                r#"{{"messages":[{{"hosts":[{{"interval_ms":1,"columns":{columns},"t":[1],"v":{v},"processes":{processes}}}]}}]}}"#
            )
        };
        for text in [
            String::new(),
            "<html>".to_owned(),
            "[]".to_owned(),
            entry("[]", "[[1]]", "[]"),
            entry("[]", "[]", "5"),
            entry("[]", "[]", "[{}]"),
        ] {
            assert!(decode_live(&text, &catalog()).is_err(), "{text}");
            assert!(decode_snapshot(&text, &catalog()).is_err(), "{text}");
        }
        // A column with fewer values than times.
        let short = entry(r#"[{"metric":"a","decimals":200}]"#, "[[]]", "[]");
        assert_eq!(decode_live(&short, &catalog()).unwrap().unwrap().values, [MISSING]);
        assert!(decode_ribbon(r#"{"t":[1],"series":[{"metric":"cpu.usage"}]}"#, 0, 1).is_err());
    }

    #[test]
    fn recorded_snapshots_have_their_resolution() {
        let at = |seq: u64, resolution_ms: i64| {
            let snapshot = json!({ "host": "web", "timestamp": "2026-07-15T08:00:00Z", "seq": seq,
                "interval_ms": resolution_ms, "cpu": { "usage": 7.5 } });
            let text =
                json!({ "at_ms": 5, "resolution_ms": resolution_ms, "snapshot": snapshot }).to_string();
            decode_snapshot(&text, &catalog()).unwrap()
        };
        let raw = at(9, 2_000);
        assert_eq!((raw.resolution_ms, raw.is_rolled_up, raw.at_ms()), (2_000, false, 1_784_102_400_000));
        assert_eq!(raw.snapshot.value("cpu.usage", ""), Some(7.5));
        assert!(at(0, 60_000).is_rolled_up);
    }

    #[test]
    fn ribbon_prefers_maxima() {
        let text = r#"{"t":[10,20],"series":[
            {"metric":"cpu.usage","instance":"","v":[1.5,2],"min":[1,1],"max":[3,null]},
            {"metric":"memory.used_percent","instance":"","v":[50]},
            {"metric":"other","v":[]}]}"#;
        let ribbon = decode_ribbon(text, 0, 30).unwrap();
        assert_eq!((ribbon.cpu, ribbon.memory), (vec![Some(3.0), None], vec![Some(50.0), None]));
    }

    #[test]
    fn components_are_percent_encoded() {
        assert_eq!(encode_component("web-1.example_a~"), "web-1.example_a~");
        assert_eq!(encode_component("a/b ?ä#"), "a%2Fb%20%3F%C3%A4%23");
    }

    proptest! {
        /// No response panics, and texts of hosts contain no hidden characters.
        #[test]
        fn responses_never_panic(name in ".{0,20}", t in prop::collection::vec(any::<i64>(), 0..4),
                                 v in prop::collection::vec(prop::collection::vec(any::<Option<i64>>(), 0..4), 0..4),
                                 decimals: u8, cpu: f64) {
            let columns: Vec<Value> = v.iter()
                .map(|_| json!({ "metric": name, "instance": name, "decimals": decimals })).collect();
            let text = json!({ "messages": [{ "hosts": [{ "interval_ms": 1, "columns": columns, "t": t, "v": v,
                "processes": [{ "pid": 1, "name": name, "cpu_percent": cpu }] }] }] }).to_string();
            if let Ok(Some(snapshot)) = decode_live(&text, &catalog()) {
                let hidden = perfwatch_model::printable::is_hidden;
                prop_assert!(snapshot.processes.iter().all(|row| !row.name.contains(hidden)));
                prop_assert!(snapshot.shape.columns().iter().all(|column| !column.instance.contains(hidden)));
                let _ = snapshot.value(&name, &name);
            }
            let _ = decode_ribbon(&text, 0, 1);
            let _ = decode_snapshot(&text, &catalog());
        }
    }
}
