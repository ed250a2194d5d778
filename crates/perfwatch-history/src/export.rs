//! Exports a time range of a host as CSV or JSON lines.
//!
//! The text is produced in chunks, window by window, so that a year needs little memory.

use super::read::{JoinedSeries, bucket_snapshot};
use super::{History, HistoryConfig, HistoryMetrics};
use perfwatch_model::{
    Clock, Column, HostId, HostRef, MISSING, Snapshot, fixed_point, json, time_expression,
};
use perfwatch_store::{BlockContent, HostRecord, Store, StoreError};
use perfwatch_tsdb::rollup::bucket_start;
use perfwatch_tsdb::{Buckets, Projection, SeriesSelector, Table, Tier, query};
use std::borrow::Cow;
use std::sync::Arc;

/// Columns of a CSV export.
const CSV_HEADER: [&str; 6] = ["time", "metric", "instance", "value", "min", "max"];
/// Size of a chunk of text: windows are added until it is reached.
const TARGET_CHUNK_BYTES: usize = 1 << 16;

/// Text format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines of `time,metric,instance,value,min,max`, a line per value (RFC 4180).
    Csv,
    /// Snapshots in the format that `POST /ingest/metrics` accepts, a line per snapshot.
    JsonLines,
}

/// Arguments of an export from the command line.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// Id or name of the host.
    pub host: String,
    /// Resolution: `raw`, `1m` or `1h`.
    pub tier: String,
    /// Text format: `csv` or `jsonl`.
    pub format: String,
    /// Series selectors as in the API; empty for all series.
    pub metrics: Vec<String>,
    /// Start of the range, a time expression as in the API.
    pub from: String,
    /// End of the range, a time expression as in the API.
    pub to: String,
}

/// Finds the host with this id or name. An id takes precedence.
fn find_host(hosts: Vec<HostRecord>, id_or_name: &str) -> Result<HostRecord, String> {
    let id: Option<HostId> = id_or_name.parse().ok();
    if let Some(host) = hosts.iter().find(|host| Some(host.id) == id) {
        return Ok(host.clone());
    }
    let mut named: Vec<HostRecord> = hosts.into_iter().filter(|host| host.name == id_or_name).collect();
    match named.len() {
        0 | 1 => named.pop().ok_or_else(|| format!("host {id_or_name:?} not found")),
        _ => {
            let ids: Vec<HostId> = named.iter().map(|host| host.id).collect();
            Err(perfwatch_model::ambiguous_host_name(id_or_name, &ids))
        }
    }
}

/// Writes the history of a host from a store, without a running hub.
///
/// # Errors
/// Returns [`ExportError::Request`] for an unknown host, time, tier or format, [`ExportError::Store`] if the
/// store cannot be read, and [`ExportError::Write`] if the output cannot be written.
pub async fn export(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    request: &ExportRequest,
    out: &mut (dyn std::io::Write + Send),
) -> Result<(), ExportError> {
    let invalid = |message: String| ExportError::Request(message);
    let host = find_host(store.list_hosts().await?, &request.host).map_err(invalid)?;
    let now_ms = clock.wall_ms();
    let time = |key, text: &str| {
        time_expression::parse(text, now_ms).ok_or_else(|| {
            invalid(format!("{key}: invalid time {text:?}; expected {}", time_expression::EXPECTED))
        })
    };
    let format = Format::parse(Some(&request.format)).ok_or_else(|| {
        invalid(format!("format: invalid format {:?}; expected csv or jsonl", request.format))
    })?;
    let tier = parse_tier(Some(&request.tier))
        .ok_or_else(|| invalid(format!("tier: invalid tier {:?}; expected raw, 1m or 1h", request.tier)))?;
    let selectors = request.metrics.iter().map(|selector| SeriesSelector::parse(selector)).collect();
    let history = History::open(store, clock, HistoryConfig::default(), HistoryMetrics::default()).await?;
    let mut export = Export {
        history,
        host: host.id,
        name: host.name,
        tier,
        projection: projection_for(selectors, format),
        format,
        from_ms: time("from", &request.from)?,
        to_ms: time("to", &request.to)?,
        header_written: false,
    };
    while let Some(chunk) = export.next().await {
        out.write_all(chunk?.as_bytes())?;
    }
    Ok(())
}

/// Failure of an export from the command line.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Invalid argument of the request.
    #[error("{0}")]
    Request(String),
    /// Failed read of the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Failed write of the output.
    #[error(transparent)]
    Write(#[from] std::io::Error),
}

impl Format {
    /// Parses `csv` or `jsonl`; the default is CSV.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("csv") => Some(Self::Csv),
            Some("jsonl") => Some(Self::JsonLines),
            Some(_) => None,
        }
    }
}

/// Parses the name of a tier; the default is raw.
pub fn parse_tier(text: Option<&str>) -> Option<Tier> {
    match text {
        None => Some(Tier::Raw),
        Some(text) => Tier::ALL.into_iter().find(|tier| tier.name() == text),
    }
}

/// Projection of an export: the selected series, or all series. JSON lines of all series also contain
/// processes and annotations.
pub fn projection_for(selectors: Vec<SeriesSelector>, format: Format) -> Arc<Projection> {
    let all_columns = selectors.is_empty();
    let full = all_columns && format == Format::JsonLines;
    Arc::new(Projection {
        all_columns,
        series: selectors,
        sequences: true,
        processes: full,
        annotations: full,
    })
}

/// Export in progress. Each call of [`Export::next`] advances `from_ms`.
pub struct Export {
    /// History that is exported.
    pub history: Arc<History>,
    /// Host that is exported.
    pub host: HostId,
    /// Name of the host in JSON lines.
    pub name: String,
    /// Resolution of the rows.
    pub tier: Tier,
    /// Series and parts that are read; see [`projection_for`].
    pub projection: Arc<Projection>,
    /// Text format of the chunks.
    pub format: Format,
    /// Start of the remaining range, Unix milliseconds.
    pub from_ms: i64,
    /// End of the range (exclusive), Unix milliseconds.
    pub to_ms: i64,
    /// State of the CSV header: `true` after the first chunk, which contains it; initially `false`.
    pub header_written: bool,
}

impl Export {
    /// Next chunk of text, or `None` at the end. An error ends the export.
    pub async fn next(&mut self) -> Option<Result<String, StoreError>> {
        let mut out = String::new();
        if !std::mem::replace(&mut self.header_written, true) && self.format == Format::Csv {
            let mut csv = CsvText::default();
            csv.write(CSV_HEADER);
            csv.append_to(&mut out);
        }
        while self.from_ms < self.to_ms && out.len() < TARGET_CHUNK_BYTES {
            // Coarser tiers have longer windows: the number of rows per window is similar.
            let to_ms = end_of_window(self.from_ms, self.tier).min(self.to_ms);
            let range = (self.from_ms, to_ms);
            match self.history.read(self.host, self.tier, range, &self.projection).await {
                Ok(joined) => self.write(&mut out, &joined, to_ms),
                Err(error) => {
                    self.from_ms = self.to_ms;
                    return Some(Err(error));
                }
            }
            self.from_ms = to_ms;
        }
        (!out.is_empty()).then_some(Ok(out))
    }

    fn write(&self, out: &mut String, joined: &JoinedSeries, to_ms: i64) {
        let (mut tables, mut buckets) = (joined.unsealed.clone(), Vec::new());
        for slice in &joined.sealed.slices {
            match &slice.content {
                Ok(BlockContent::Raw(table)) => tables.push(table.clone()),
                Ok(BlockContent::Buckets(stored)) => buckets.push(stored.slice(slice.from_ms, slice.to_ms)),
                Err(_) => {}
            }
        }
        if self.tier != Tier::Raw {
            // Rows that are not rolled up yet are rolled up for this export.
            let width_ms = self.tier.width_ms();
            let computed = tables.iter().map(|table| Buckets::from_table(table, width_ms, self.from_ms));
            buckets.extend(computed.map(|computed| computed.slice(self.from_ms, to_ms)));
            buckets = buckets.iter().map(|buckets| buckets.downsample(width_ms)).collect();
            tables.clear();
        }
        let (buckets, tables) = (Buckets::merge(&buckets), Table::merge(&tables, self.from_ms));
        match self.format {
            Format::Csv => {
                let mut csv = CsvText::default();
                buckets.iter().for_each(|buckets| csv.write_buckets(buckets));
                tables.iter().for_each(|table| csv.write_rows(table, to_ms));
                csv.append_to(out);
            }
            Format::JsonLines => {
                for buckets in &buckets {
                    for row in 0..buckets.len() {
                        self.write_json_line(out, &bucket_snapshot(buckets, row, self.tier));
                    }
                }
                for table in &tables {
                    for row in rows_before(table, to_ms) {
                        self.write_json_line(out, &table.snapshot(row));
                    }
                }
            }
        }
    }

    fn write_json_line(&self, out: &mut String, snapshot: &Snapshot) {
        let host = HostRef { id: Some(self.host), name: self.name.clone() };
        json::write_snapshot(out, self.host, &host, snapshot);
        out.push('\n');
    }
}

/// Cell that spreadsheets show as text. A cell that begins like a formula gets an apostrophe, because
/// instances contain names that a host chooses (CWE-1236).
fn escape_formula(text: &str) -> Cow<'_, str> {
    // Spreadsheets also evaluate full-width operators, and skip leading tabs and line breaks.
    const FORMULA_STARTS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    let is_formula = text.trim_start_matches(' ').starts_with(FORMULA_STARTS);
    if is_formula { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// CSV records in memory. Writing to memory cannot fail.
struct CsvText(csv::Writer<Vec<u8>>);

impl Default for CsvText {
    fn default() -> Self {
        Self(csv::Writer::from_writer(Vec::new()))
    }
}

impl CsvText {
    fn write(&mut self, fields: [&str; 6]) {
        let _ = self.0.write_record(fields);
    }

    /// Writes a value with its time, minimum and maximum. Numbers may be negative and are not escaped.
    fn write_value(&mut self, time: &str, column: &Column, [value, min, max]: [&str; 3]) {
        let (metric, instance) = (escape_formula(&column.metric), escape_formula(&column.instance));
        self.write([time, &metric, &instance, value, min, max]);
    }

    fn write_rows(&mut self, table: &Table, to_ms: i64) {
        for row in rows_before(table, to_ms) {
            let time = time_text(table.at_ms[row]);
            for (column, values) in table.shape.columns().iter().zip(&table.columns) {
                if values[row] != MISSING {
                    let value = scaled_text(values[row], column);
                    self.write_value(&time, column, [&value, "", ""]);
                }
            }
        }
    }

    fn write_buckets(&mut self, buckets: &Buckets) {
        for row in 0..buckets.len() {
            let time = time_text(buckets.start_ms[row]);
            for (column, values) in buckets.shape.columns().iter().zip(&buckets.columns) {
                let stats = &values.0[row];
                let Some(average) = query::average(stats, column.decimals) else {
                    continue;
                };
                let average = format!("{average:.*}", usize::from(column.decimals) + 2);
                let (min, max) = (scaled_text(stats.min, column), scaled_text(stats.max, column));
                self.write_value(&time, column, [&average, &min, &max]);
            }
        }
    }

    fn append_to(self, out: &mut String) {
        out.push_str(&String::from_utf8_lossy(&self.0.into_inner().unwrap_or_default()));
    }
}

fn rows_before(table: &Table, to_ms: i64) -> impl Iterator<Item = usize> {
    (0..table.len()).filter(move |row| table.at_ms[*row] < to_ms)
}

fn end_of_window(from_ms: i64, tier: Tier) -> i64 {
    bucket_start(from_ms, tier.window_ms()) + tier.window_ms()
}

fn time_text(at_ms: i64) -> String {
    let mut text = String::new();
    json::write_time(&mut text, at_ms);
    text
}

fn scaled_text(value: i64, column: &Column) -> String {
    let mut text = String::new();
    fixed_point::write_scaled(&mut text, value, column.decimals);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{BootId, Shape};

    /// Rows of a snapshot at 1 s with a column per instance.
    fn csv_rows(instances: &[&str], values: &[i64]) -> String {
        let column = |instance: &&str| Column {
            metric: "disk.usage".into(),
            dimension: "mount".into(),
            instance: (*instance).into(),
            decimals: 2,
        };
        let snapshot = Snapshot {
            boot: BootId::default(),
            seq: 0,
            at_ms: 1_000,
            interval_ms: 0,
            shape: Arc::new(Shape::new(instances.iter().map(column).collect())),
            values: values.to_vec(),
            processes: vec![],
            facts: None,
            errors: vec![],
        };
        let mut csv = CsvText::default();
        for table in Table::from_snapshots(&[Arc::new(snapshot)]) {
            csv.write_rows(&table, 2_000);
        }
        let mut text = String::new();
        csv.append_to(&mut text);
        text
    }

    #[test]
    fn csv_cells_like_formulas_are_escaped() {
        for (instance, cell) in [
            ("=1+1", "'=1+1"),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            (" =1", "' =1"),
            ("＝1", "'＝1"),
            ("a=1", "a=1"),
            ("'x", "'x"),
        ] {
            let expected = format!("1970-01-01T00:00:01.000Z,disk.usage,{cell},-0.5,,\n");
            assert_eq!(csv_rows(&[instance], &[-50]), expected, "{instance:?}");
        }
    }

    #[test]
    fn csv_fields_are_quoted_if_necessary() {
        let instances = ["/", "a,b", "say \"x\"", "two\nlines", " space ", ""];
        assert_eq!(
            csv_rows(&instances, &[1_234, 1, 2, 3, MISSING, 0]),
            "1970-01-01T00:00:01.000Z,disk.usage,/,12.34,,\n\
             1970-01-01T00:00:01.000Z,disk.usage,\"a,b\",0.01,,\n\
             1970-01-01T00:00:01.000Z,disk.usage,\"say \"\"x\"\"\",0.02,,\n\
             1970-01-01T00:00:01.000Z,disk.usage,\"two\nlines\",0.03,,\n\
             1970-01-01T00:00:01.000Z,disk.usage,,0,,\n"
        );
    }
}
