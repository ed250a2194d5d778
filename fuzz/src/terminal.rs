//! Responses of a hub to the terminal view, and times typed by its users.

use crate::ingest::{NOW_MS, catalog};
use crate::{MemoryBound, Target};
use jiff::tz::TimeZone;
use perfwatch_model::printable::is_hidden;
use perfwatch_terminal::{hub_json, time_input};

pub(crate) const HUB_RESPONSE: Target = Target {
    name: "hub_response",
    run: hub_response,
    seeds: || {
        [
            r#"{"messages":[{"type":"backfill","id":0,"hosts":[{"host":"x","shape":"y","interval_ms":2000,"columns":[{"metric":"cpu.usage","instance":"","decimals":2}],"t":[1795263132344],"v":[[1234]],"processes":[{"pid":7,"name":"job","cpu_percent":1.5}]}]}]}"#,
            r#"{"at_ms":1795263132344,"resolution_ms":2000,"snapshot":{"timestamp":"2026-11-21T10:00:00Z","host":"web-1","seq":7,"interval_ms":2000,"cpu":{"usage":12.34},"processes":{"top":[{"pid":1}]}}}"#,
            r#"{"t":[1,2],"series":[{"metric":"cpu.usage","instance":"","v":[1,null],"max":[2,3]}]}"#,
            r#"{"hosts":[{"id":"019aa3b0-0000-7000-8000-000000000001","name":"web-1","facts":null,"interval_ms":2000,"last_snapshot_ms":1}],"total":1,"now_ms":2}"#,
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    dictionary: &["{\"", "\":", "null", "[", "]", "\\u001b", "messages", "processes", "9223372036854775807"],
    max_len: 16 << 10,
    memory: MemoryBound { fixed_bytes: 128 << 10, per_byte: 256 },
};

pub(crate) const TYPED_TIME: Target = Target {
    name: "typed_time",
    run: typed_time,
    seeds: || {
        [
            "-1h",
            "14:30",
            "yesterday 9:05",
            "today 23:59:59",
            "2026-11-21 14:30",
            "2026-11-21T10:00:00Z",
            "now",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    dictionary: &["-", ":", "yesterday ", "today ", "T", "Z", "9999", "00", "h"],
    max_len: 128,
    memory: MemoryBound { fixed_bytes: 64 << 10, per_byte: 32 },
};

/// Texts of hosts contain no characters that control a terminal.
fn hub_response(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let mut is_accepted = false;
    let live = hub_json::decode_live(text, catalog()).ok().flatten();
    let recorded = hub_json::decode_snapshot(text, catalog()).ok().map(|frame| (*frame.snapshot).clone());
    for snapshot in live.into_iter().chain(recorded) {
        is_accepted = true;
        assert_eq!(snapshot.values.len(), snapshot.shape.columns().len());
        let rows = snapshot.processes.iter();
        let texts = rows.flat_map(|row| [&*row.name, &*row.user, &*row.command]);
        let instances = snapshot.shape.columns().iter().map(|column| &*column.instance);
        assert!(texts.chain(instances).all(|text| !text.contains(is_hidden)));
    }
    if let Ok(ribbon) = hub_json::decode_ribbon(text, 0, NOW_MS) {
        is_accepted = true;
        assert!(ribbon.cpu.len() == ribbon.times_ms.len() && ribbon.memory.len() == ribbon.times_ms.len());
        assert_eq!(ribbon.columns(&ribbon.cpu, 80).len(), 80);
    }
    is_accepted | hub_json::decode::<hub_json::HubHostList>(text).is_ok()
}

fn typed_time(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let at_ms = time_input::parse(text, NOW_MS, &TimeZone::UTC);
    if let Some(at_ms) = at_ms {
        assert!(!time_input::format_time(at_ms, NOW_MS, &TimeZone::UTC).is_empty());
    }
    at_ms.is_some()
}
