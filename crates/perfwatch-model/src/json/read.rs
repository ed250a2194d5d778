//! JSON text → snapshot, for scripts that post their own. Every refusal names the path of
//! the value it is about.

use super::RESERVED;
use crate::fixed_point::{MISSING, scale};
use crate::snapshot::{CollectorError, HostFacts, HostRef, ProcessRow, Snapshot};
use crate::{BootId, Catalog, Column, HostId, Shape, limits};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::Arc;

/// Why a JSON value is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct JsonError {
    /// Where, dotted.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// A snapshot and who it says it is from.
#[derive(Debug)]
pub struct ParsedSnapshot {
    /// Who.
    pub host: HostRef,
    /// What.
    pub snapshot: Snapshot,
}

fn json_error<T>(path: &str, message: impl Into<String>) -> Result<T, JsonError> {
    Err(JsonError { path: path.to_owned(), message: message.into() })
}

/// Reads one object. `now_ms` is its time where it names none. A snapshot without `boot` and
/// `seq` is named by its time, so that posting it twice counts once.
///
/// # Errors
/// The first value that is not what a snapshot has there.
pub fn read_snapshot(value: &Value, catalog: &Catalog, now_ms: i64) -> Result<ParsedSnapshot, JsonError> {
    let Value::Object(object) = value else {
        return json_error("(top)", format!("expected a JSON object, found {}", json_type_name(value)));
    };
    let name = match object.get("host") {
        Some(Value::String(name)) if !name.is_empty() => name.clone(),
        Some(_) => return json_error("host", "expected the host's name"),
        None => return json_error("host", "host is required"),
    };
    let id = match object.get("host_id") {
        None | Some(Value::Null) => None,
        Some(value) => Some(parse_text::<HostId>(value, "host_id", "a UUID")?),
    };
    let at_ms = read_time(object.get("timestamp"), now_ms)?;
    let boot = match object.get("boot") {
        None | Some(Value::Null) => BootId::default(),
        Some(value) => parse_text(value, "boot", "a UUID")?,
    };
    let seq = read_u64(object, "seq", u64::try_from(at_ms).unwrap_or_default())?;
    let interval_ms = read_u64(object, "interval_ms", 0)?;
    let Ok(interval_ms) = u32::try_from(interval_ms) else {
        return json_error("interval_ms", "larger than a day");
    };
    let mut reader = SnapshotReader { catalog, columns: Vec::new(), values: Vec::new() };
    for (key, value) in object.iter().filter(|(key, _)| !RESERVED.contains(&key.as_str())) {
        reader.visit(key, value, 1)?;
    }
    let mut seen = HashSet::with_capacity(reader.columns.len());
    if let Some(twice) = reader.columns.iter().find(|column| !seen.insert((&column.metric, &column.instance)))
    {
        return json_error(&twice.metric, format!("stands twice in one snapshot {:?}", twice.instance));
    }
    drop(seen);
    let processes = match object.get("processes").and_then(|p| p.get("top")) {
        None | Some(Value::Null) => Vec::new(),
        Some(rows) => read_processes(rows)?,
    };
    let facts = match object.get("facts") {
        None | Some(Value::Null) => None,
        Some(facts) => match serde_json::from_value::<HostFacts>(facts.clone()) {
            Ok(facts) => Some(Arc::new(crate::wire::truncate_facts(facts))),
            Err(error) => return json_error("facts", error.to_string()),
        },
    };
    Ok(ParsedSnapshot {
        host: HostRef { id, name },
        snapshot: Snapshot {
            boot,
            seq,
            at_ms,
            interval_ms,
            shape: Arc::new(Shape::new(reader.columns)),
            values: reader.values,
            processes,
            facts,
            errors: read_errors(object.get("errors"))?,
        },
    })
}

struct SnapshotReader<'a> {
    catalog: &'a Catalog,
    columns: Vec<Column>,
    values: Vec<i64>,
}

impl SnapshotReader<'_> {
    fn visit(&mut self, path: &str, value: &Value, depth: usize) -> Result<(), JsonError> {
        if depth > limits::MAX_JSON_DEPTH {
            return json_error(path, "nested too deeply");
        }
        match value {
            // The rows beside the process counts are read on their own.
            Value::Array(_) if path == "processes.top" => Ok(()),
            Value::Object(children) if self.catalog.is_instance_node(path) => {
                self.visit_instances(path, children)
            }
            Value::Object(children) => children.iter().try_for_each(|(key, child)| {
                let below = if key.is_empty() { path.to_owned() } else { format!("{path}.{key}") };
                self.visit(&below, child, depth + 1)
            }),
            _ => self.push_sample(path, path, "", value),
        }
    }

    fn visit_instances(&mut self, path: &str, instances: &Map<String, Value>) -> Result<(), JsonError> {
        for (instance, metrics) in instances {
            let here = format!("{path}.{instance}");
            let Value::Object(metrics) = metrics else {
                return json_error(
                    &here,
                    format!("expected an object of metrics, found {}", json_type_name(metrics)),
                );
            };
            for (leaf, value) in metrics {
                let here = format!("{here}.{leaf}");
                // `cpu.core` holds cpu.core.usage, `network.interface` holds network.rx_bytes.
                let own = format!("{path}.{leaf}");
                let group = path.rsplit_once('.').map_or("", |(group, _)| group);
                let name = match self.catalog.get(&own) {
                    Some(_) => own,
                    None if group.is_empty() => leaf.clone(),
                    None => format!("{group}.{leaf}"),
                };
                self.push_sample(&here, &name, instance, value)?;
            }
        }
        Ok(())
    }

    fn push_sample(
        &mut self,
        path: &str,
        metric: &str,
        instance: &str,
        value: &Value,
    ) -> Result<(), JsonError> {
        if self.columns.len() >= limits::MAX_COLUMNS {
            return json_error(path, format!("more than {} values in one snapshot", limits::MAX_COLUMNS));
        }
        check_name(path, metric)?;
        if instance.len() > limits::MAX_INSTANCE_BYTES {
            return json_error(path, format!("instance longer than {} bytes", limits::MAX_INSTANCE_BYTES));
        }
        let def = self.catalog.get(metric);
        let decimals = def.map_or(Catalog::UNKNOWN_DECIMALS, |def| def.decimals);
        let scaled = match value {
            Value::Null => MISSING,
            Value::Number(number) => match number.as_f64().filter(|value| value.is_finite()) {
                Some(value) => scale(value, decimals),
                None => return json_error(path, format!("{number} is not a finite number")),
            },
            Value::Bool(flag) => scale(f64::from(u8::from(*flag)), decimals),
            _ => return json_error(path, format!("expected a number, found {}", json_type_name(value))),
        };
        self.columns.push(Column {
            metric: def.map_or_else(|| metric.to_owned().into(), |def| def.name.into()),
            dimension: match def {
                Some(def) if !instance.is_empty() => def.dimension.into(),
                Some(_) => "".into(),
                None if instance.is_empty() => "".into(),
                None => dimension_from_path(path, instance).into(),
            },
            instance: instance.into(),
            decimals,
        });
        self.values.push(scaled);
        Ok(())
    }
}

/// `network.interface.eth0.new_metric` of `eth0` → `interface`.
fn dimension_from_path(path: &str, instance: &str) -> String {
    let node = path.rfind(&format!(".{instance}.")).map_or(path, |at| &path[..at]);
    node.rsplit('.').next().unwrap_or_default().to_owned()
}

fn check_name(path: &str, metric: &str) -> Result<(), JsonError> {
    if metric.len() > limits::MAX_METRIC_NAME_BYTES {
        return json_error(path, format!("metric name longer than {} bytes", limits::MAX_METRIC_NAME_BYTES));
    }
    if !crate::wire::is_metric_name(metric) {
        return json_error(path, "metric names are dotted words of a-z, 0-9 and _");
    }
    Ok(())
}

fn read_processes(rows: &Value) -> Result<Vec<ProcessRow>, JsonError> {
    let Value::Array(rows) = rows else {
        return json_error("processes.top", format!("expected a list, found {}", json_type_name(rows)));
    };
    if rows.len() > limits::MAX_PROCESSES {
        return json_error("processes.top", format!("more than {} processes", limits::MAX_PROCESSES));
    }
    rows.iter().enumerate().map(|(index, row)| read_process(index, row)).collect()
}

fn read_process(index: usize, row: &Value) -> Result<ProcessRow, JsonError> {
    let path = |key: &str| format!("processes.top.{index}.{key}");
    let whole = |key: &str| match row.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(value) => Ok(Some(value)),
            None => json_error(&path(key), format!("expected a whole number from 0 up, found {value}")),
        },
    };
    let small = |key: &str| match whole(key)?.map(u32::try_from) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(_)) => json_error(&path(key), "too large"),
    };
    let text = |key: &str| match row.get(key) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) if text.len() <= limits::MAX_TEXT_BYTES => Ok(text.as_str()),
        Some(_) => {
            json_error(&path(key), format!("expected text of at most {} bytes", limits::MAX_TEXT_BYTES))
        }
    };
    let Some(pid) = small("pid")? else {
        return json_error(&path("pid"), "missing");
    };
    let cpu = row.get("cpu_percent").map_or(Some(0.0), Value::as_f64);
    let Some(cpu) = cpu.filter(|cpu| (0.0..=1e8).contains(cpu)) else {
        return json_error(&path("cpu_percent"), "expected a percentage from 0 up");
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
    Ok(ProcessRow {
        pid,
        name: text("name")?.into(),
        user: text("user")?.into(),
        command: text("command")?.into(),
        state: text("state")?.chars().next().unwrap_or('?'),
        cpu_tenths: (cpu * 10.0).round() as u32,
        memory_bytes: whole("memory_bytes")?.unwrap_or_default(),
        threads: small("threads")?.unwrap_or_default(),
        open_files: small("handles")?,
        read_bytes: whole("read_bytes")?,
        write_bytes: whole("write_bytes")?,
        started_ms: whole("started_ms")?.and_then(|ms| i64::try_from(ms).ok()).unwrap_or_default(),
    })
}

fn read_errors(errors: Option<&Value>) -> Result<Vec<CollectorError>, JsonError> {
    let Some(errors) = errors.filter(|errors| !errors.is_null()) else {
        return Ok(Vec::new());
    };
    let Value::Object(errors) = errors else {
        return json_error("errors", format!("expected an object, found {}", json_type_name(errors)));
    };
    if errors.len() > limits::MAX_COLLECTOR_ERRORS {
        return json_error("errors", format!("more than {} entries", limits::MAX_COLLECTOR_ERRORS));
    }
    let entry = |(collector, message): (&String, &Value)| match message {
        Value::String(text)
            if text.len() <= limits::MAX_TEXT_BYTES && collector.len() <= limits::MAX_TEXT_BYTES =>
        {
            Ok(CollectorError { collector: collector.clone(), message: text.clone() })
        }
        _ => json_error(&format!("errors.{collector}"), "expected a short text"),
    };
    errors.iter().map(entry).collect()
}

/// RFC 3339 text, or a number: seconds below 10^11 (that is the year 5138), else milliseconds.
fn read_time(value: Option<&Value>, now_ms: i64) -> Result<i64, JsonError> {
    const EXPECTED: &str =
        "expected RFC 3339 text (2026-11-21T10:00:00Z) or seconds or milliseconds since 1970";
    match value {
        None | Some(Value::Null) => Ok(now_ms),
        Some(Value::String(text)) => match text.parse::<jiff::Timestamp>() {
            Ok(at) => Ok(at.as_millisecond()),
            Err(_) => json_error("timestamp", EXPECTED),
        },
        Some(Value::Number(number)) => match number.as_f64().filter(|at| (0.0..1e15).contains(at)) {
            #[expect(clippy::cast_possible_truncation, reason = "range checked")]
            Some(at) => Ok((if at < 1e11 { at * 1000.0 } else { at }).round() as i64),
            None => json_error("timestamp", EXPECTED),
        },
        Some(_) => json_error("timestamp", EXPECTED),
    }
}

fn read_u64(object: &Map<String, Value>, key: &str, default: u64) -> Result<u64, JsonError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => match value.as_u64() {
            Some(whole) => Ok(whole),
            None => json_error(key, format!("expected a whole number from 0 up, found {value}")),
        },
    }
}

fn parse_text<T: std::str::FromStr>(value: &Value, path: &str, what: &str) -> Result<T, JsonError> {
    match value.as_str().and_then(|text| text.parse().ok()) {
        Some(parsed) => Ok(parsed),
        None => json_error(path, format!("expected {what}")),
    }
}

fn json_type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
