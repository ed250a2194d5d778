//! Exports a time range of a host as CSV or JSON lines.
//!
//! The text is produced in chunks, window by window, so that a year needs little memory.

use super::export_text::{CsvText, escape_terminal_codes};
use super::read::{JoinedSeries, bucket_snapshot};
use super::task::{CancelOnDrop, run_blocking};
use super::{History, HistoryConfig, HistoryMetrics};
use perfwatch_model::limits::MAX_READ_CELLS;
use perfwatch_model::{Clock, HostId, HostRef, json, time_expression};
use perfwatch_store::{BlockContent, HeldPermits, HostRecord, ReadBounds, Store, StoreError};
use perfwatch_tsdb::rollup::bucket_start;
use perfwatch_tsdb::{Buckets, Projection, SeriesSelector, Table, Tier};
use std::collections::VecDeque;
use std::sync::Arc;

/// Columns of a CSV export.
const CSV_HEADER: [&str; 6] = ["time", "metric", "instance", "value", "min", "max"];
/// Size of a chunk of text: windows are added until it is reached.
const TARGET_CHUNK_BYTES: usize = 1 << 16;

/// Maximum number of values in memory at the same time, unless a single second has more.
const MAX_PART_CELLS: usize = 256 << 10;
/// Memory in bytes that an export needs: the values of a part, their names, and a chunk of text.
pub const EXPORT_MEMORY_BYTES: usize = 8 << 20;

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
    let range = (time("from", &request.from)?, time("to", &request.to)?);
    let projection = projection_for(selectors, format);
    let mut export = Export::new(history, (host.id, host.name), tier, projection, format, range);
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
        group: None,
    })
}

/// Rows that were read and are not written yet.
enum PendingRows {
    Rows(Table),
    Buckets(Buckets),
}

/// Export in progress. It holds the rows of one part of the range at a time; each call of [`Export::next`]
/// returns the next piece of text.
pub struct Export {
    history: Arc<History>,
    host: HostId,
    tier: Tier,
    projection: Arc<Projection>,
    to_ms: i64,
    /// Start of the range that is not read yet.
    from_ms: i64,
    /// Length of the parts that are read, once a window had too many values.
    pub(crate) part_ms: Option<i64>,
    cancel: CancelOnDrop,
    held: Option<HeldPermits>,
    /// Moves to the blocking thread pool while rows are written.
    writer: Option<ExportWriter>,
}

impl Export {
    /// Export of a host, with its name in JSON lines, over a range (exclusive end, Unix milliseconds).
    pub fn new(
        history: Arc<History>,
        (host, name): (HostId, String),
        tier: Tier,
        projection: Arc<Projection>,
        format: Format,
        (from_ms, to_ms): (i64, i64),
    ) -> Self {
        let (pending, header_written) = (VecDeque::new(), false);
        let writer = Some(ExportWriter { host, name, tier, format, pending, next_row: 0, header_written });
        let cancel = CancelOnDrop(Arc::default());
        let held = None;
        Self { history, host, tier, projection, to_ms, from_ms, part_ms: None, cancel, held, writer }
    }

    /// Same export, which holds permits until it is dropped and its last read has ended.
    pub fn with_permits(self, held: HeldPermits) -> Self {
        Self { held: Some(held), ..self }
    }

    /// Next piece of text, or `None` at the end. An error ends the export.
    pub async fn next(&mut self) -> Option<Result<String, StoreError>> {
        let mut out = String::new();
        while out.len() < TARGET_CHUNK_BYTES {
            let is_written = self.writer.as_ref()?.pending.is_empty();
            let joined = match is_written && self.from_ms < self.to_ms {
                true => match self.read_part().await {
                    Ok(part) => Some(part),
                    Err(error) => return self.fail(error),
                },
                false => None,
            };
            let mut writer = self.writer.take()?;
            if is_written && joined.is_none() && writer.header_written {
                self.writer = Some(writer);
                break;
            }
            let write = move || {
                if let Some((joined, range)) = joined {
                    writer.add(joined, range);
                }
                writer.write(&mut out);
                (writer, out)
            };
            match run_blocking(write).await {
                Ok((writer, text)) => (self.writer, out) = (Some(writer), text),
                Err(error) => return self.fail(error),
            }
        }
        (!out.is_empty()).then_some(Ok(out))
    }

    fn fail(&mut self, error: StoreError) -> Option<Result<String, StoreError>> {
        self.writer = None;
        Some(Err(error))
    }

    /// Reads the next part of the range: a window, or less if the window has too many values.
    async fn read_part(&mut self) -> Result<(JoinedSeries, (i64, i64)), StoreError> {
        let (from_ms, min_ms) = (self.from_ms, self.tier.width_ms().max(1_000));
        // Coarser tiers have longer windows: the number of rows per window is similar.
        let window_end_ms = end_of_window(from_ms, self.tier).min(self.to_ms);
        loop {
            let part_ms = self.part_ms.unwrap_or(i64::MAX).max(min_ms);
            let to_ms = bucket_start(from_ms.saturating_add(part_ms), min_ms).min(window_end_ms);
            // At the end of the representable time.
            let to_ms = if to_ms > from_ms { to_ms } else { self.to_ms };
            let is_divisible = to_ms - from_ms > min_ms;
            let max_cells = if is_divisible { MAX_PART_CELLS } else { MAX_READ_CELLS };
            let (cancelled, held) = (self.cancel.0.clone(), self.held.clone());
            let bounds = ReadBounds { max_cells, trim: true, cancelled, held, ..ReadBounds::default() };
            let range = (from_ms, to_ms);
            match self.history.read_bounded(self.host, self.tier, range, &self.projection, &bounds).await {
                Err(StoreError::TooLarge(_)) if is_divisible => {
                    self.part_ms = Some(((to_ms - from_ms) / 2).max(min_ms));
                }
                result => {
                    self.from_ms = to_ms;
                    return Ok((result?, range));
                }
            }
        }
    }
}

/// Writes rows as text.
struct ExportWriter {
    host: HostId,
    /// Name of the host in JSON lines.
    name: String,
    tier: Tier,
    format: Format,
    pending: VecDeque<PendingRows>,
    /// First row of the first pending rows that is not written.
    next_row: usize,
    header_written: bool,
}

impl ExportWriter {
    /// Adds the rows of a part of the range.
    fn add(&mut self, joined: JoinedSeries, (from_ms, to_ms): (i64, i64)) {
        let (mut tables, mut buckets) = (joined.unsealed, Vec::new());
        for slice in joined.sealed.slices {
            match slice.content {
                Ok(BlockContent::Raw(table)) => tables.push(table),
                Ok(BlockContent::Buckets(stored)) => buckets.push(stored.slice(slice.from_ms, slice.to_ms)),
                Err(_) => {}
            }
        }
        if self.tier != Tier::Raw {
            // Rows that are not rolled up yet are rolled up for this export.
            let width_ms = self.tier.width_ms();
            let computed = tables.iter().map(|table| Buckets::from_table(table, width_ms, from_ms));
            buckets.extend(computed.map(|computed| computed.slice(from_ms, to_ms)));
            buckets = buckets.iter().map(|buckets| buckets.downsample(width_ms)).collect();
            tables.clear();
        }
        self.pending.extend(Buckets::merge(&buckets).into_iter().map(PendingRows::Buckets));
        self.pending.extend(Table::merge(tables, from_ms).into_iter().map(PendingRows::Rows));
    }

    /// Writes pending rows until the text is long enough.
    fn write(&mut self, out: &mut String) {
        if !std::mem::replace(&mut self.header_written, true) && self.format == Format::Csv {
            let mut csv = CsvText::default();
            csv.write(CSV_HEADER);
            csv.append_to(out);
        }
        while out.len() < TARGET_CHUNK_BYTES
            && let Some(rows) = self.pending.front()
        {
            let row = self.next_row;
            let len = match rows {
                PendingRows::Rows(table) => table.len(),
                PendingRows::Buckets(buckets) => buckets.len(),
            };
            if row >= len {
                self.pending.pop_front();
                self.next_row = 0;
                continue;
            }
            self.next_row += 1;
            let snapshot = match (self.format, rows) {
                (Format::Csv, rows) => {
                    let mut csv = CsvText::default();
                    match rows {
                        PendingRows::Rows(table) => csv.write_row(table, row),
                        PendingRows::Buckets(buckets) => csv.write_bucket(buckets, row),
                    }
                    csv.append_to(out);
                    continue;
                }
                (Format::JsonLines, PendingRows::Rows(table)) => table.snapshot(row),
                (Format::JsonLines, PendingRows::Buckets(buckets)) => {
                    bucket_snapshot(buckets, row, self.tier)
                }
            };
            let (host, mut line) = (HostRef { id: Some(self.host), name: self.name.clone() }, String::new());
            json::write_snapshot(&mut line, self.host, &host, &snapshot);
            out.push_str(&escape_terminal_codes(&line));
            out.push('\n');
        }
    }
}

fn end_of_window(from_ms: i64, tier: Tier) -> i64 {
    bucket_start(from_ms, tier.window_ms()).saturating_add(tier.window_ms())
}
