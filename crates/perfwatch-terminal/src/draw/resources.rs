//! Rows of the resources: CPU, memory, load, pressure, disks and network.

use super::painter::{MIN_WIDE_WIDTH, Painter};
use crate::view::View;
use perfwatch_model::Unit;
use perfwatch_model::value_format::format_value;
use ratatui::style::Style;

/// Width of the bar of a resource.
const METER_LEN: u16 = 18;
/// Width of a core as a bar with its number.
const CORE_CELL_LEN: u16 = 24;
/// Width of a core as a character with its number.
const CORE_LEVEL_LEN: u16 = 9;
/// Maximum number of rows with bars of cores.
const MAX_CORE_ROWS: u16 = 4;

/// Share of the time from which a rare mode of the processor is shown, percent.
const MIN_RARE_PERCENT: f64 = 0.05;

/// Value of a metric without instances.
pub(crate) fn value(view: &View, metric: &str) -> Option<f64> {
    view.frame.as_ref()?.snapshot.value(metric, "")
}

/// Value of a metric as text; a dash if it is missing.
pub(crate) fn format_metric(view: &View, metric: &str, unit: Unit) -> String {
    format_value(value(view, metric).unwrap_or(f64::NAN), Some(unit))
}

/// Instances of a metric with their values, in the order of the snapshot.
pub(crate) fn instances<'a>(view: &'a View, metric: &str) -> Vec<(&'a str, f64)> {
    let Some(frame) = &view.frame else { return Vec::new() };
    let (columns, values) = (frame.snapshot.shape.columns(), &frame.snapshot.values);
    let matching = columns.iter().zip(values).filter(|(column, _)| column.metric == metric);
    matching
        .filter_map(|(column, scaled)| {
            Some((&*column.instance, perfwatch_model::unscale(*scaled, column.decimals)?))
        })
        .collect()
}

/// Usage of each core, by number.
pub(crate) fn cores(view: &View) -> Vec<(&str, f64)> {
    sorted_by_number(instances(view, "cpu.core.usage"))
}

/// Sorts cores by number; the instances of a snapshot are in the order of their text.
fn sorted_by_number(mut cores: Vec<(&str, f64)>) -> Vec<(&str, f64)> {
    cores.sort_by_key(|(core, _)| core.parse().unwrap_or(u32::MAX));
    cores
}

/// Modes of the processor with their metrics; those that are rare only where they take time.
pub(crate) fn cpu_modes(view: &View) -> impl Iterator<Item = (&'static str, &'static str)> {
    const MODES: [(&str, &str, bool); 7] = [
        ("user", "cpu.user", false),
        ("nice", "cpu.nice", true),
        ("system", "cpu.system", false),
        ("irq", "cpu.irq", true),
        ("softirq", "cpu.softirq", true),
        ("iowait", "cpu.iowait", false),
        ("steal", "cpu.steal", false),
    ];
    let is_shown = |metric: &str, is_rare: bool| {
        !is_rare || value(view, metric).is_some_and(|percent| percent >= MIN_RARE_PERCENT)
    };
    MODES
        .into_iter()
        .filter(move |(_, metric, is_rare)| is_shown(metric, *is_rare))
        .map(|(name, metric, _)| (name, metric))
}

/// Instance with the largest value.
pub(crate) fn largest<'a>(instances: &[(&'a str, f64)]) -> Option<(&'a str, f64)> {
    instances.iter().copied().max_by(|(_, a), (_, b)| a.total_cmp(b))
}

/// Draws a labeled bar with its percentage. Returns the column for the details.
fn draw_meter(view: &View, painter: &mut Painter<'_>, row: u16, label: &str, metric: &str) -> u16 {
    let x = painter.label(row, label);
    let percent = value(view, metric);
    let x = painter.meter(x, row, METER_LEN, percent.unwrap_or(0.0));
    let style = painter.theme.level(percent.unwrap_or(0.0));
    painter.text(x, row, &format!("{:>7}", format_metric(view, metric, Unit::Percent)), style);
    x + 9
}

pub(super) fn draw_cpu(view: &View, painter: &mut Painter<'_>, row: u16) {
    let x = draw_meter(view, painter, row, "CPU", "cpu.usage");
    let mode = |(name, metric): (&str, &str)| {
        let percent = value(view, metric).map_or("–".to_owned(), |percent| format!("{percent:.1}"));
        format!("{name} {percent}")
    };
    let modes: Vec<String> = cpu_modes(view).map(mode).collect();
    painter.text(x, row, &modes.join("  "), Style::new());
}

/// Number of columns of bars, if all cores fit into [`MAX_CORE_ROWS`] rows.
fn core_columns(count: usize, width: u16) -> Option<u16> {
    let columns = (width / CORE_CELL_LEN).max(1);
    let fits = width >= MIN_WIDE_WIDTH && count <= usize::from(columns * MAX_CORE_ROWS);
    fits.then_some(columns)
}

/// Number of rows of the cores.
pub(super) fn core_rows(view: &View, painter: &Painter<'_>) -> u16 {
    let count = instances(view, "cpu.core.usage").len();
    let rows = match core_columns(count, painter.area().width) {
        Some(columns) => count.div_ceil(usize::from(columns)),
        None => usize::from(count > 0),
    };
    u16::try_from(rows).unwrap_or(u16::MAX)
}

pub(super) fn draw_cores(view: &View, painter: &mut Painter<'_>, row: u16) {
    let area = painter.area();
    let cores = cores(view);
    if let Some(columns) = core_columns(cores.len(), area.width) {
        for (index, (core, percent)) in cores.iter().enumerate() {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            let (x, y) = (area.x + index % columns * CORE_CELL_LEN, row + index / columns);
            painter.text_within(x, y, 3, &format!("{core:>3}"), painter.theme.label());
            let end = painter.meter(x + 4, y, CORE_CELL_LEN - 11, *percent);
            painter.text_within(end, y, 5, &format!("{percent:>4.0}%"), painter.theme.level(*percent));
        }
        return;
    }
    let x = painter.label(row, "Cores");
    let available = area.right().saturating_sub(x);
    let has_numbers = cores.len() <= usize::from(available / CORE_LEVEL_LEN);
    let step = if has_numbers { CORE_LEVEL_LEN } else { 1 };
    for (index, (core, percent)) in cores.iter().enumerate().take(usize::from(available / step)) {
        let x = x + u16::try_from(index).unwrap_or(u16::MAX) * step;
        let style = painter.theme.level(*percent);
        if has_numbers {
            let end = painter.text_within(x, row, 3, core, painter.theme.label());
            painter.level(end, row, *percent, style);
            painter.text(end + 1, row, &format!("{percent:.0}%"), style);
        } else {
            painter.level(x, row, *percent, style);
        }
    }
}

pub(super) fn draw_memory(view: &View, painter: &mut Painter<'_>, row: u16) {
    let x = draw_meter(view, painter, row, "Memory", "memory.used_percent");
    let bytes = |metric| format_metric(view, metric, Unit::Bytes);
    let text =
        format!("{} of {}, {} cached", bytes("memory.used"), bytes("memory.total"), bytes("memory.cached"));
    painter.text(x, row, &text, Style::new());
}

pub(super) fn draw_swap(view: &View, painter: &mut Painter<'_>, row: u16) {
    let x = draw_meter(view, painter, row, "Swap", "swap.used_percent");
    let bytes = |metric| format_metric(view, metric, Unit::Bytes);
    painter.text(x, row, &format!("{} of {}", bytes("swap.used"), bytes("swap.total")), Style::new());
}

pub(super) fn draw_load(view: &View, painter: &mut Painter<'_>, row: u16) {
    let x = painter.label(row, "Load");
    let load = ["load.1m", "load.5m", "load.15m"]
        .map(|metric| value(view, metric).map_or("–".to_owned(), |load| format!("{load:.2}")));
    let x = painter.text(x, row, &load.join("  "), Style::new());
    let pressures =
        [("cpu", "pressure.cpu.some"), ("memory", "pressure.memory.some"), ("io", "pressure.io.some")];
    if pressures.iter().all(|(_, metric)| value(view, metric).is_none()) {
        return;
    }
    let mut x = painter.text(x + 3, row, "Pressure", painter.theme.label());
    for (name, metric) in pressures {
        let text = format!("{name} {}", format_metric(view, metric, Unit::Percent));
        x = painter.text(x + 2, row, &text, painter.theme.level(value(view, metric).unwrap_or(0.0)));
    }
}

pub(super) fn draw_tasks(view: &View, painter: &mut Painter<'_>, row: u16) {
    let x = painter.label(row, "Tasks");
    let counts = [
        ("processes", "processes.total"),
        ("threads", "processes.threads"),
        ("running", "processes.running"),
        ("blocked", "processes.blocked"),
    ];
    let counts = counts.map(|(name, metric)| format!("{} {name}", format_metric(view, metric, Unit::Count)));
    painter.text(x, row, &counts.join("  "), Style::new());
}

pub(super) fn draw_disk(view: &View, painter: &mut Painter<'_>, row: u16) {
    let x = painter.label(row, "Disk");
    let rate = |metric| format_metric(view, metric, Unit::BytesPerSecond);
    let text = format!("read {}  write {}", rate("disk.total.read_bytes"), rate("disk.total.write_bytes"));
    let mut x = painter.text(x, row, &text, Style::new());
    for (metric, state) in [("disk.utilization", "busy"), ("filesystem.used_percent", "full")] {
        if let Some((instance, percent)) = largest(&instances(view, metric)) {
            let percent_text = format_value(percent, Some(Unit::Percent));
            let text = format!("{} {percent_text} {state}", shorten(instance, 16));
            x = painter.text(x + 3, row, &text, painter.theme.level(percent));
        }
    }
}

pub(super) fn draw_network(view: &View, painter: &mut Painter<'_>, row: u16) {
    let x = painter.label(row, "Network");
    let rate = |metric| format_metric(view, metric, Unit::BytesPerSecond);
    let text =
        format!("received {}  sent {}", rate("network.total.rx_bytes"), rate("network.total.tx_bytes"));
    let x = painter.text(x, row, &text, Style::new());
    if value(view, "tcp.established").is_some() {
        let text = format!("{} TCP connections", format_metric(view, "tcp.established", Unit::Count));
        painter.text(x + 3, row, &text, Style::new());
    }
}

pub(super) fn draw_errors(view: &View, painter: &mut Painter<'_>, row: u16) {
    let Some(frame) = &view.frame else { return };
    let errors: Vec<String> =
        frame.snapshot.errors.iter().map(|error| format!("{}: {}", error.collector, error.message)).collect();
    let x = painter.label(row, "Errors");
    painter.text(x, row, &errors.join("; "), painter.theme.warning());
}

/// Text in at most `width` characters. The start of a longer text is replaced by an ellipsis, because paths
/// differ at their end.
pub(super) fn shorten(text: &str, width: usize) -> String {
    match text.chars().count().checked_sub(width) {
        None | Some(0) => text.to_owned(),
        Some(excess) => format!("…{}", text.chars().skip(excess + 1).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_in_the_order_of_their_numbers() {
        let cores = sorted_by_number(vec![("0", 1.0), ("10", 2.0), ("2", 3.0)]);
        assert_eq!(cores, [("0", 1.0), ("2", 3.0), ("10", 2.0)]);
    }
}
