//! Parses snapshot JSON that scripts post. Every error names the path of the invalid value.

use super::RESERVED;
use crate::fixed_point::{MAX_DECIMALS, MAX_SCALED, MISSING, scale};
use crate::printable::{is_hidden, printable, printable_within};
use crate::snapshot::{CollectorError, HostFacts, HostRef, ProcessRow, Snapshot};
use crate::{BootId, Catalog, Column, HostId, Shape, limits};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::Arc;

/// Maximum length of a path: a metric, an instance, and separators. Each level of nesting copies it.
const MAX_PATH_BYTES: usize = 512;

/// Error of reading a snapshot from JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct JsonError {
    /// Dotted path of the invalid value.
    pub path: String,
    /// Problem, and the expected value.
    pub message: String,
}

/// Snapshot with the host that its sender claims.
#[derive(Debug)]
pub struct ParsedSnapshot {
    /// Host named by the sender.
    pub host: HostRef,
    /// Parsed values, processes, facts and errors.
    pub snapshot: Snapshot,
}

fn json_error<T>(path: &str, message: impl Into<String>) -> Result<T, JsonError> {
    let (mut path, mut message) = (path.to_owned(), message.into());
    // Both may contain what the sender wrote.
    path.truncate(path.floor_char_boundary(MAX_PATH_BYTES));
    message.truncate(message.floor_char_boundary(limits::MAX_TEXT_BYTES));
    Err(JsonError { path, message })
}

/// Reads a snapshot from a JSON object. `now_ms` is the timestamp if the object has none.
///
/// A snapshot without `boot` and `seq` is identified by its timestamp, so that a repeated post is a
/// duplicate.
///
/// # Errors
/// Returns the path of the first invalid value.
pub fn read_snapshot(value: &Value, catalog: &Catalog, now_ms: i64) -> Result<ParsedSnapshot, JsonError> {
    let Value::Object(object) = value else {
        return json_error("(top)", format!("expected a JSON object, found {}", json_type_name(value)));
    };
    let name = match object.get("host") {
        Some(Value::String(name)) if !name.is_empty() => name.clone(),
        Some(_) => return json_error("host", "expected a non-empty host name"),
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
        return json_error(
            "interval_ms",
            format!("expected at most {}, found {interval_ms}", limits::MAX_INTERVAL_MS),
        );
    };
    let mut reader = SnapshotReader { catalog, columns: Vec::new(), values: Vec::new(), shape_bytes: 0 };
    for (key, value) in object.iter().filter(|(key, _)| !RESERVED.contains(&key.as_str())) {
        reader.visit(key, value, 1)?;
    }
    let mut seen = HashSet::with_capacity(reader.columns.len());
    if let Some(duplicate) =
        reader.columns.iter().find(|column| !seen.insert((&column.metric, &column.instance)))
    {
        return json_error(
            &duplicate.metric,
            format!("duplicate instance {:?} in one snapshot", duplicate.instance),
        );
    }
    drop(seen);
    let processes = match object.get("processes").and_then(|p| p.get("top")) {
        None | Some(Value::Null) => Vec::new(),
        Some(rows) => read_processes(rows)?,
    };
    let facts = match object.get("facts") {
        None | Some(Value::Null) => None,
        Some(facts) => match serde_json::from_value::<HostFacts>(facts.clone()) {
            Ok(facts) => Some(Arc::new(crate::wire::clean_facts(facts))),
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
    /// Size of the columns as they are stored.
    shape_bytes: usize,
}

impl SnapshotReader<'_> {
    fn visit(&mut self, path: &str, value: &Value, depth: usize) -> Result<(), JsonError> {
        if depth > limits::MAX_JSON_DEPTH {
            return json_error(path, "nested too deeply");
        }
        if path.len() > MAX_PATH_BYTES {
            return json_error(path, format!("path longer than {MAX_PATH_BYTES} bytes"));
        }
        match value {
            // Process rows are not samples; `read_processes` reads them.
            Value::Array(_) if path == "processes.top" => Ok(()),
            Value::Object(children) if self.catalog.is_instance_node(path) => {
                self.visit_instances(path, children)
            }
            Value::Object(children) => children.iter().try_for_each(|(key, child)| {
                let child_path = if key.is_empty() { path.to_owned() } else { format!("{path}.{key}") };
                self.visit(&child_path, child, depth + 1)
            }),
            _ => self.push_sample(path, path, "", value),
        }
    }

    fn visit_instances(&mut self, path: &str, instances: &Map<String, Value>) -> Result<(), JsonError> {
        for (instance, metrics) in instances {
            if instance.len() > limits::MAX_INSTANCE_BYTES {
                return json_error(
                    path,
                    format!("instance longer than {} bytes", limits::MAX_INSTANCE_BYTES),
                );
            }
            let instance_path = format!("{path}.{instance}");
            let Value::Object(metrics) = metrics else {
                return json_error(
                    &instance_path,
                    format!("expected an object of metrics, found {}", json_type_name(metrics)),
                );
            };
            for (leaf, value) in metrics {
                if leaf.len() > limits::MAX_METRIC_NAME_BYTES {
                    return json_error(&instance_path, "metric name is too long");
                }
                let value_path = format!("{instance_path}.{leaf}");
                // `cpu.core` contains cpu.core.usage, but `network.interface` contains
                // network.rx_bytes.
                let nested = format!("{path}.{leaf}");
                let group = path.rsplit_once('.').map_or("", |(group, _)| group);
                let name = match self.catalog.get(&nested) {
                    Some(_) => nested,
                    None if group.is_empty() => leaf.clone(),
                    None => format!("{group}.{leaf}"),
                };
                self.push_sample(&value_path, &name, instance, value)?;
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
            return json_error(path, format!("more than {} values", limits::MAX_COLUMNS));
        }
        check_name(path, metric)?;
        let (original, instance) = (instance, &*printable(instance));
        if instance.len() > limits::MAX_INSTANCE_BYTES {
            return json_error(path, format!("instance longer than {} bytes", limits::MAX_INSTANCE_BYTES));
        }
        let def = self.catalog.get(metric);
        let decimals = match (def, value.as_f64()) {
            (Some(def), _) => def.decimals,
            (None, value) => custom_decimals(value.unwrap_or_default()),
        };
        let scaled = match value {
            Value::Null => MISSING,
            Value::Number(number) => match scale_number(number, decimals) {
                MISSING => {
                    let message = format!("{number} is too large for the {decimals} decimals of the metric");
                    return json_error(path, message);
                }
                scaled => scaled,
            },
            Value::Bool(flag) => scale(f64::from(u8::from(*flag)), decimals),
            _ => return json_error(path, format!("expected a number, found {}", json_type_name(value))),
        };
        let column = Column {
            metric: def.map_or_else(|| metric.to_owned().into(), |def| def.name.into()),
            dimension: match def {
                Some(def) if !instance.is_empty() => def.dimension.into(),
                Some(_) => "".into(),
                None if instance.is_empty() => "".into(),
                None => dimension_from_path(path, original).into(),
            },
            instance: instance.into(),
            decimals,
        };
        // The encoding of a column adds at most 14 bytes to its texts.
        self.shape_bytes += column.metric.len() + column.dimension.len() + column.instance.len() + 14;
        if self.shape_bytes > limits::MAX_SHAPE_BYTES {
            return json_error(path, format!("names take more than {} bytes", limits::MAX_SHAPE_BYTES));
        }
        self.columns.push(column);
        self.values.push(scaled);
        Ok(())
    }
}

/// Decimals of a metric without definition: as many as a value of this magnitude can have. Microseconds keep
/// their precision, and petabytes are exact. The magnitude alone decides, so that the shape of a host rarely
/// changes.
fn custom_decimals(value: f64) -> u8 {
    let is_exact = |decimals: &u8| scale(value, *decimals) != MISSING;
    [MAX_DECIMALS, Catalog::UNKNOWN_DECIMALS].into_iter().find(is_exact).unwrap_or(0)
}

/// Scales a number; [`MISSING`] if it is too large. Integers stay exact above 2^53.
fn scale_number(number: &serde_json::Number, decimals: u8) -> i64 {
    match number.as_i64() {
        Some(integer) => {
            let scaled = integer.checked_mul(10_i64.pow(u32::from(decimals)));
            scaled.filter(|scaled| scaled.unsigned_abs() <= MAX_SCALED.unsigned_abs()).unwrap_or(MISSING)
        }
        None => number.as_f64().map_or(MISSING, |value| scale(value, decimals)),
    }
}

/// Extracts the dimension: `network.interface.eth0.new_metric` of `eth0` → `interface`.
fn dimension_from_path(path: &str, instance: &str) -> String {
    let node = path.rfind(&format!(".{instance}.")).map_or(path, |end| &path[..end]);
    node.rsplit('.').next().unwrap_or_default().to_owned()
}

fn check_name(path: &str, metric: &str) -> Result<(), JsonError> {
    if metric.len() > limits::MAX_METRIC_NAME_BYTES {
        return json_error(path, format!("metric name longer than {} bytes", limits::MAX_METRIC_NAME_BYTES));
    }
    if !crate::wire::is_metric_name(metric) {
        return json_error(path, "invalid metric name; expected dotted words of a-z, 0-9 and _");
    }
    Ok(())
}

fn read_processes(rows: &Value) -> Result<Vec<ProcessRow>, JsonError> {
    let Value::Array(rows) = rows else {
        return json_error("processes.top", format!("expected a list, found {}", json_type_name(rows)));
    };
    if rows.len() > limits::MAX_PROCESSES {
        return json_error("processes.top", format!("expected at most {} processes", limits::MAX_PROCESSES));
    }
    rows.iter().enumerate().map(|(index, row)| read_process(index, row)).collect()
}

fn read_process(index: usize, row: &Value) -> Result<ProcessRow, JsonError> {
    let path = |key: &str| format!("processes.top.{index}.{key}");
    let unsigned = |key: &str| match row.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(value) => Ok(Some(value)),
            None => json_error(&path(key), format!("expected a non-negative integer, found {value}")),
        },
    };
    let unsigned32 = |key: &str| match unsigned(key)?.map(u32::try_from) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(_)) => json_error(&path(key), format!("expected at most {}", u32::MAX)),
    };
    let text = |key: &str| match row.get(key) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) if text.len() <= limits::MAX_TEXT_BYTES => Ok(text.as_str()),
        Some(_) => {
            json_error(&path(key), format!("expected text of at most {} bytes", limits::MAX_TEXT_BYTES))
        }
    };
    let printable_text = |key| text(key).map(|text| printable_within(text, limits::MAX_TEXT_BYTES));
    let Some(pid) = unsigned32("pid")? else {
        return json_error(&path("pid"), "pid is required");
    };
    let cpu = row.get("cpu_percent").map_or(Some(0.0), Value::as_f64);
    let Some(cpu) = cpu.filter(|cpu| (0.0..=1e8).contains(cpu)) else {
        return json_error(&path("cpu_percent"), "expected a non-negative percentage");
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range checked above")]
    Ok(ProcessRow {
        pid,
        parent_pid: unsigned32("parent_pid")?,
        name: printable_text("name")?.into(),
        user: printable_text("user")?.into(),
        command: printable_text("command")?.into(),
        state: text("state")?.chars().next().filter(|c| !is_hidden(*c)).unwrap_or('?'),
        cpu_tenths: (cpu * 10.0).round() as u32,
        memory_bytes: unsigned("memory_bytes")?.unwrap_or_default(),
        threads: unsigned32("threads")?.unwrap_or_default(),
        open_files: unsigned32("open_files")?,
        read_bytes: unsigned("read_bytes")?,
        write_bytes: unsigned("write_bytes")?,
        started_ms: unsigned("started_ms")?.and_then(|ms| i64::try_from(ms).ok()).unwrap_or_default(),
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
        return json_error("errors", format!("expected at most {} entries", limits::MAX_COLLECTOR_ERRORS));
    }
    let entry = |(collector, message): (&String, &Value)| match message {
        Value::String(text)
            if text.len() <= limits::MAX_TEXT_BYTES && collector.len() <= limits::MAX_TEXT_BYTES =>
        {
            Ok(CollectorError {
                collector: printable_within(collector, limits::MAX_TEXT_BYTES).into_owned(),
                message: printable_within(text, limits::MAX_TEXT_BYTES).into_owned(),
            })
        }
        _ => json_error(
            &format!("errors.{collector}"),
            format!("expected text of at most {} bytes", limits::MAX_TEXT_BYTES),
        ),
    };
    errors.iter().map(entry).collect()
}

/// Reads RFC 3339 text or a number. Numbers below 10^11 (the year 5138) are seconds, others
/// milliseconds.
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
            Some(number) => Ok(number),
            None => json_error(key, format!("expected a non-negative integer, found {value}")),
        },
    }
}

fn parse_text<T: std::str::FromStr>(value: &Value, path: &str, expected: &str) -> Result<T, JsonError> {
    match value.as_str().and_then(|text| text.parse().ok()) {
        Some(parsed) => Ok(parsed),
        None => json_error(path, format!("expected {expected}")),
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
