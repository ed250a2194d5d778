//! Process table of the displayed snapshot.

use super::painter::Painter;
use crate::process_table::{ProcessOrder, io_bytes};
use crate::time_input::format_time;
use crate::view::View;
use perfwatch_model::ProcessRow;
use perfwatch_model::value_format::format_bytes;
use ratatui::style::Style;

/// Width from which reads and writes have separate columns.
const MIN_IO_COLUMNS_WIDTH: u16 = 100;
/// Width from which threads, open files and start time have columns.
const MIN_DETAIL_WIDTH: u16 = 130;

/// Column of the table; the command line follows after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProcessColumn {
    Pid,
    User,
    State,
    Cpu,
    Memory,
    Threads,
    OpenFiles,
    Io,
    Read,
    Write,
    Started,
}

impl ProcessColumn {
    /// Columns that fit into a width.
    fn for_width(width: u16) -> Vec<Self> {
        let mut columns = vec![Self::Pid, Self::User, Self::State, Self::Cpu, Self::Memory];
        if width >= MIN_DETAIL_WIDTH {
            columns.extend([Self::Threads, Self::OpenFiles]);
        }
        if width >= MIN_IO_COLUMNS_WIDTH {
            columns.extend([Self::Read, Self::Write]);
        } else {
            columns.push(Self::Io);
        }
        if width >= MIN_DETAIL_WIDTH {
            columns.push(Self::Started);
        }
        columns
    }

    /// Heading, width, and the order that the heading marks.
    fn heading(self) -> (&'static str, usize, Option<ProcessOrder>) {
        match self {
            Self::Pid => ("PID", 7, Some(ProcessOrder::Pid)),
            Self::User => ("USER", 9, None),
            Self::State => ("S", 1, None),
            Self::Cpu => ("CPU%", 7, Some(ProcessOrder::Cpu)),
            Self::Memory => ("MEMORY", 10, Some(ProcessOrder::Memory)),
            Self::Threads => ("THREADS", 7, None),
            Self::OpenFiles => ("FILES", 6, None),
            Self::Io => ("I/O/s", 10, Some(ProcessOrder::Io)),
            Self::Read => ("READ/s", 10, Some(ProcessOrder::Io)),
            Self::Write => ("WRITE/s", 10, Some(ProcessOrder::Io)),
            Self::Started => ("STARTED", 19, None),
        }
    }

    fn format(self, row: &ProcessRow, view: &View) -> String {
        let count = |count: Option<u32>| count.map_or("–".to_owned(), |count| count.to_string());
        let bytes = |bytes: Option<u64>| bytes.map_or("–".to_owned(), |bytes| format_bytes(to_f64(bytes)));
        match self {
            Self::Pid => row.pid.to_string(),
            Self::User => row.user.to_string(),
            Self::State => row.state.to_string(),
            Self::Cpu => format!("{:.1}", f64::from(row.cpu_tenths) / 10.0),
            Self::Memory => bytes(Some(row.memory_bytes)),
            Self::Threads => count(Some(row.threads)),
            Self::OpenFiles => count(row.open_files),
            Self::Io => bytes(io_bytes(row)),
            Self::Read => bytes(row.read_bytes),
            Self::Write => bytes(row.write_bytes),
            Self::Started => format_time(row.started_ms, view.now_ms, &view.zone),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "displayed with three digits")]
pub(crate) fn to_f64(bytes: u64) -> f64 {
    bytes as f64
}

/// Command line, or the name in brackets for kernel threads.
pub(crate) fn command(row: &ProcessRow) -> String {
    if row.command.is_empty() { format!("[{}]", row.name) } else { row.command.to_string() }
}

/// Draws the heading and the rows between `first` and `last`, exclusive.
pub(super) fn draw(view: &View, painter: &mut Painter<'_>, first: u16, last: u16) {
    if first >= last {
        return;
    }
    let area = painter.area();
    let columns = ProcessColumn::for_width(area.width);
    let rows = view.rows();
    let mut x = area.x;
    for column in &columns {
        let (heading, width, order) = column.heading();
        let is_sorted = order == Some(view.order);
        let marker = if view.is_reversed != matches!(view.order, ProcessOrder::Name | ProcessOrder::Pid) {
            "▲"
        } else {
            "▼"
        };
        let heading = if is_sorted { format!("{heading}{marker}") } else { heading.to_owned() };
        x = write_cell(painter, x, first, *column, width, &heading, Style::new());
    }
    let total = view.frame.as_ref().map_or(0, |frame| frame.snapshot.processes.len());
    let is_by_name = view.order == ProcessOrder::Name;
    let marker = if !is_by_name {
        ""
    } else if view.is_reversed {
        "▼"
    } else {
        "▲"
    };
    let heading = match view.filter.trim() {
        "" => format!("COMMAND{marker}"),
        filter => format!("COMMAND{marker}  {} of {total} match {filter:?}", rows.len()),
    };
    painter.text(x, first, &heading, Style::new());
    painter.style_row(first, painter.theme.heading());
    if rows.is_empty() {
        painter.text(area.x, first + 1, &describe_empty(view), painter.theme.dim());
        return;
    }
    let scroll = view.scroll.min(rows.len() - 1);
    for (y, row) in (first + 1..last).zip(&rows[scroll..]) {
        let mut x = area.x;
        for column in &columns {
            let style = match column {
                ProcessColumn::Cpu => painter.theme.level(f64::from(row.cpu_tenths) / 10.0),
                _ => Style::new(),
            };
            x = write_cell(painter, x, y, *column, column.heading().1, &column.format(row, view), style);
        }
        painter.text(x, y, &command(row), Style::new());
    }
}

/// Reason for a table without rows.
pub(crate) fn describe_empty(view: &View) -> String {
    let Some(frame) = &view.frame else { return "Waiting for the first snapshot".to_owned() };
    if frame.is_rolled_up {
        return "Processes are recorded at full resolution only; this time has averages.".to_owned();
    }
    match (frame.snapshot.processes.is_empty(), view.filter.trim()) {
        (false, filter) if !filter.is_empty() => {
            format!("No process matches {filter:?} · Esc clears the filter")
        }
        _ => "No processes recorded".to_owned(),
    }
}

/// Writes a cell, right-aligned except texts. Returns the column of the next cell.
fn write_cell(
    painter: &mut Painter<'_>,
    x: u16,
    y: u16,
    column: ProcessColumn,
    width: usize,
    text: &str,
    style: Style,
) -> u16 {
    let columns = u16::try_from(width).unwrap_or(u16::MAX);
    let is_text = matches!(column, ProcessColumn::User | ProcessColumn::State);
    let aligned = if is_text { text.to_owned() } else { format!("{text:>width$}") };
    painter.text_within(x, y, columns, &aligned, style);
    x.saturating_add(columns + 1)
}
