//! A range as text, hour by hour, so that a year streams through little memory.

use super::read::{JoinedSeries, bucket_snapshot};
use super::{History, HistoryConfig, HistoryMetrics};
use perfwatch_model::{Clock, HostId, HostRef, MISSING, fixed_point, json, time_expression};
use perfwatch_store::{BlockContent, HostRecord, Store, StoreError};
use perfwatch_tsdb::{Buckets, Projection, SeriesSelector, Table, Tier, query};
use std::fmt::Write as _;
use std::sync::Arc;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `time,metric,instance,value,min,max`, a line a value.
    Csv,
    /// A snapshot a line, as `/ingest/metrics` takes it.
    JsonLines,
}

/// What to write of which host.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// Id or name.
    pub host: String,
    /// `raw`, `1m` or `1h`.
    pub tier: String,
    /// `csv` or `jsonl`.
    pub format: String,
    /// Metrics, groups or instances, as the API takes them; none means all.
    pub metrics: Vec<String>,
    /// From and to as the API takes them.
    pub from: String,
    /// Up to here.
    pub to: String,
}

/// Writes history of one host straight from a store, without a hub.
///
/// # Errors
/// A host, time, tier or format that is none; a store that does not answer; a full disk.
pub async fn export(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    request: &ExportRequest,
    out: &mut (dyn std::io::Write + Send),
) -> Result<(), ExportError> {
    let no = |what: String| ExportError::Request(what);
    let hosts = store.list_hosts().await?;
    let named = |host: &&HostRecord| host.name == request.host || host.id.to_string() == request.host;
    let host =
        hosts.iter().find(named).ok_or_else(|| no(format!("there is no host {:?}", request.host)))?.clone();
    let now_ms = clock.wall_ms();
    let time = |key, text: &str| {
        time_expression::parse(text, now_ms).ok_or_else(|| {
            no(format!("{key}: invalid time {text:?}; expected {}", time_expression::EXPECTED))
        })
    };
    let format = Format::parse(Some(&request.format)).ok_or_else(|| no("format: csv or jsonl".to_owned()))?;
    let tier = parse_tier(Some(&request.tier)).ok_or_else(|| no("tier: raw, 1m or 1h".to_owned()))?;
    let names = request.metrics.iter().map(|name| SeriesSelector::parse(name)).collect();
    let history = History::open(store, clock, HistoryConfig::default(), HistoryMetrics::default()).await?;
    let mut export = Export {
        history,
        host: host.id,
        name: host.name,
        tier,
        wanted: projection_for(names, format),
        format,
        from_ms: time("from", &request.from)?,
        to_ms: time("to", &request.to)?,
        header_written: false,
    };
    while let Some(piece) = export.next().await {
        out.write_all(piece?.as_bytes())?;
    }
    Ok(())
}

/// Why an export ends early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Something that was asked for can't be.
    #[error("{0}")]
    Request(String),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The text can't be written.
    #[error(transparent)]
    Write(#[from] std::io::Error),
}

impl Format {
    /// By its name; CSV if none is given.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("csv") => Some(Self::Csv),
            Some("jsonl") => Some(Self::JsonLines),
            Some(_) => None,
        }
    }
}

/// By its name; raw if none is given.
pub fn parse_tier(text: Option<&str>) -> Option<Tier> {
    match text {
        None => Some(Tier::Raw),
        Some(text) => Tier::ALL.into_iter().find(|tier| tier.name() == text),
    }
}

/// All of a host, or some series; processes and notes where rows are whole.
pub fn projection_for(names: Vec<SeriesSelector>, format: Format) -> Arc<Projection> {
    let all = names.is_empty();
    let whole = all && format == Format::JsonLines;
    Arc::new(Projection {
        all_columns: all,
        series: names,
        sequences: true,
        processes: whole,
        annotations: whole,
    })
}

/// An export under way.
pub struct Export {
    pub history: Arc<History>,
    pub host: HostId,
    pub name: String,
    pub tier: Tier,
    pub wanted: Arc<Projection>,
    pub format: Format,
    pub from_ms: i64,
    pub to_ms: i64,
    pub header_written: bool,
}

/// The first line of CSV.
const HEADER: &str = "time,metric,instance,value,min,max\n";

impl Export {
    /// The next piece of text; none at the end.
    pub async fn next(&mut self) -> Option<Result<String, StoreError>> {
        let mut out = String::new();
        if !std::mem::replace(&mut self.header_written, true) && self.format == Format::Csv {
            out.push_str(HEADER);
        }
        while self.from_ms < self.to_ms && out.len() < 1 << 16 {
            // Coarse rows come in longer stretches: about as many rows.
            let reach = self.tier.window_ms();
            let to_ms = (end_of_chunk(self.from_ms, reach)).min(self.to_ms);
            let joined = self.history.read(self.host, self.tier, (self.from_ms, to_ms), &self.wanted).await;
            match joined {
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
        let (mut ticks, mut buckets) = (joined.unsealed.clone(), Vec::new());
        for piece in &joined.sealed.slices {
            match &piece.content {
                Ok(BlockContent::Raw(table)) => ticks.push(table.clone()),
                Ok(BlockContent::Buckets(part)) => buckets.push(part.slice(piece.from_ms, piece.to_ms)),
                Err(_) => {}
            }
        }
        if self.tier != Tier::Raw {
            // What is not rolled up yet is rolled up for this answer.
            let fresh =
                ticks.iter().map(|table| Buckets::from_table(table, self.tier.width_ms(), self.from_ms));
            buckets.extend(fresh.map(|part| part.slice(self.from_ms, to_ms)));
            buckets = buckets.iter().map(|part| part.downsample(self.tier.width_ms())).collect();
            ticks.clear();
        }
        for part in Buckets::merge(&buckets) {
            self.write_buckets(out, &part);
        }
        for table in Table::merge(&ticks, self.from_ms) {
            self.write_ticks(out, &table, to_ms);
        }
    }

    fn write_ticks(&self, out: &mut String, table: &Table, to_ms: i64) {
        for row in (0..table.len()).filter(|row| table.at_ms[*row] < to_ms) {
            if self.format == Format::JsonLines {
                self.write_line(out, &table.snapshot(row));
                continue;
            }
            for (column, values) in table.shape.columns().iter().zip(&table.columns) {
                if values[row] != MISSING {
                    write_line_start(out, table.at_ms[row], column);
                    fixed_point::write_scaled(out, values[row], column.decimals);
                    out.push_str(",,\n");
                }
            }
        }
    }

    fn write_buckets(&self, out: &mut String, buckets: &Buckets) {
        for row in 0..buckets.len() {
            if self.format == Format::JsonLines {
                self.write_line(out, &bucket_snapshot(buckets, row, self.tier));
                continue;
            }
            for (column, values) in buckets.shape.columns().iter().zip(&buckets.columns) {
                let figures = &values.0[row];
                let Some(average) = query::average(figures, column.decimals) else {
                    continue;
                };
                write_line_start(out, buckets.start_ms[row], column);
                // Writing to a String can't fail.
                let _ = write!(out, "{:.*},", usize::from(column.decimals) + 2, average);
                fixed_point::write_scaled(out, figures.min, column.decimals);
                out.push(',');
                fixed_point::write_scaled(out, figures.max, column.decimals);
                out.push('\n');
            }
        }
    }

    fn write_line(&self, out: &mut String, snapshot: &perfwatch_model::Snapshot) {
        let host = HostRef { id: Some(self.host), name: self.name.clone() };
        json::write_snapshot(out, self.host, &host, snapshot);
        out.push('\n');
    }
}

fn end_of_chunk(from_ms: i64, reach_ms: i64) -> i64 {
    perfwatch_tsdb::rollup::bucket_start(from_ms, reach_ms) + reach_ms
}

fn write_line_start(out: &mut String, at_ms: i64, column: &perfwatch_model::Column) {
    json::write_time(out, at_ms);
    let _ = write!(out, ",{},{},", column.metric, quoted(&column.instance));
}

/// A field as RFC 4180 writes it.
fn quoted(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}
