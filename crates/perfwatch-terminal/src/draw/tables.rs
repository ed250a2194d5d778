//! Tables of disks, file systems and network interfaces, beside each other on wide screens.

use super::painter::Painter;
use super::resources::{instances, shorten};
use crate::view::View;
use perfwatch_model::Unit;
use perfwatch_model::value_format::format_value;
use ratatui::style::Style;

/// Maximum number of rows of a table.
const MAX_TABLE_ROWS: usize = 5;
/// Width of a column with a value.
const VALUE_LEN: u16 = 12;

/// Column of a table: heading, metric and unit.
type ValueColumn = (&'static str, &'static str, Unit);

/// Table with a row for each instance.
struct DeviceTable {
    heading: &'static str,
    /// Metric that orders the rows, largest first.
    ordered_by: &'static str,
    columns: [ValueColumn; 3],
}

const TABLES: [DeviceTable; 3] = [
    DeviceTable {
        heading: "DISK",
        ordered_by: "disk.utilization",
        columns: [
            ("READ", "disk.read_bytes", Unit::BytesPerSecond),
            ("WRITE", "disk.write_bytes", Unit::BytesPerSecond),
            ("BUSY", "disk.utilization", Unit::Percent),
        ],
    },
    DeviceTable {
        heading: "FILE SYSTEM",
        ordered_by: "filesystem.used_percent",
        columns: [
            ("AVAILABLE", "filesystem.available", Unit::Bytes),
            ("INODES", "filesystem.inodes_used_percent", Unit::Percent),
            ("USED", "filesystem.used_percent", Unit::Percent),
        ],
    },
    DeviceTable {
        heading: "INTERFACE",
        ordered_by: "network.rx_bytes",
        columns: [
            ("RECEIVED", "network.rx_bytes", Unit::BytesPerSecond),
            ("SENT", "network.tx_bytes", Unit::BytesPerSecond),
            ("ERRORS", "network.rx_errors", Unit::PerSecond),
        ],
    },
];

/// Number of rows with headings; zero if no table has rows.
pub(super) fn height(view: &View) -> u16 {
    let rows = TABLES.iter().map(|table| instances(view, table.ordered_by).len().min(MAX_TABLE_ROWS));
    match rows.max().unwrap_or(0) {
        0 => 0,
        rows => u16::try_from(rows + 1).unwrap_or(u16::MAX),
    }
}

pub(super) fn draw(view: &View, painter: &mut Painter<'_>, row: u16) {
    let area = painter.area();
    let width = area.width / 3;
    for (index, table) in (0..).zip(&TABLES) {
        draw_table(table, view, painter, (area.x + index * width, row), width.saturating_sub(2));
    }
}

fn draw_table(table: &DeviceTable, view: &View, painter: &mut Painter<'_>, (x, row): (u16, u16), width: u16) {
    let name_width = width.saturating_sub(3 * VALUE_LEN);
    let label = painter.theme.label();
    painter.text_within(x, row, name_width, table.heading, label);
    for (index, (heading, ..)) in (0..).zip(&table.columns) {
        let x = x + name_width + index * VALUE_LEN;
        painter.text_within(x, row, VALUE_LEN, &format!("{heading:>12}"), label);
    }
    let mut rows = instances(view, table.ordered_by);
    rows.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    for (y, (instance, _)) in (row + 1..).zip(rows.iter().take(MAX_TABLE_ROWS)) {
        painter.text_within(x, y, name_width, &shorten(instance, usize::from(name_width)), Style::new());
        for (index, (_, metric, unit)) in (0..).zip(&table.columns) {
            let value = view.frame.as_ref().and_then(|frame| frame.snapshot.value(metric, instance));
            let text = format_value(value.unwrap_or(f64::NAN), Some(*unit));
            let style = match (unit, value) {
                (Unit::Percent, Some(percent)) => painter.theme.level(percent),
                _ => Style::new(),
            };
            let x = x + name_width + index * VALUE_LEN;
            painter.text_within(x, y, VALUE_LEN, &format!("{text:>12}"), style);
        }
    }
}
