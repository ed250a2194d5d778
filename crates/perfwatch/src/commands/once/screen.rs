//! Renders a snapshot as text for a terminal.

use crate::terminal::printable;
use perfwatch_model::value_format::{format_duration, format_value};
use perfwatch_model::{Snapshot, Unit};
use std::fmt::Write as _;

fn format_bytes(value: Option<f64>) -> String {
    format_value(value.unwrap_or(f64::NAN), Some(Unit::Bytes))
}

fn format_number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// Printable text in at most `width` characters. The start of a longer text is replaced by an ellipsis,
/// because paths differ at their end.
fn fit_end(text: &str, width: usize) -> String {
    let text = printable(text);
    match text.chars().count().checked_sub(width) {
        None | Some(0) => text.into_owned(),
        Some(excess) => format!("…{}", text.chars().skip(excess + 1).collect::<String>()),
    }
}

/// Printable text, cut after `width` characters.
fn fit_start(text: &str, width: usize) -> String {
    printable(text).chars().take(width).collect()
}

/// Renders header, resources, file systems, top processes and collector errors.
pub(super) fn render_screen(name: &str, snapshot: &Snapshot) -> String {
    let get = |metric: &str| snapshot.value(metric, "");
    let mut out = String::new();
    // Writing to a String cannot fail.
    if let Some(facts) = &snapshot.facts {
        let _ = writeln!(
            out,
            "{}   {} · Linux {} · {} × {}",
            printable(name),
            printable(&facts.os),
            printable(&facts.kernel),
            facts.cores,
            printable(&facts.cpu_model)
        );
    }
    let uptime = get("system.uptime").unwrap_or_default();
    let _ = writeln!(
        out,
        "up {}   load {} {} {}   {} processes, {} threads\n",
        format_duration(uptime),
        format_number(get("load.1m"), 2),
        format_number(get("load.5m"), 2),
        format_number(get("load.15m"), 2),
        format_number(get("processes.total"), 0),
        format_number(get("processes.threads"), 0)
    );
    write_resources(&mut out, snapshot);
    write_filesystems(&mut out, snapshot);
    write_processes(&mut out, snapshot);
    for error in &snapshot.errors {
        let _ = writeln!(out, "\n{}: {}", printable(&error.collector), printable(&error.message));
    }
    out
}

fn write_resources(out: &mut String, snapshot: &Snapshot) {
    let get = |metric: &str| snapshot.value(metric, "");
    let modes =
        [("user", "cpu.user"), ("system", "cpu.system"), ("iowait", "cpu.iowait"), ("steal", "cpu.steal")];
    let modes: Vec<String> =
        modes.iter().map(|(name, metric)| format!("{name} {}", format_number(get(metric), 1))).collect();
    let _ = writeln!(out, "CPU      {:>6} %   {}", format_number(get("cpu.usage"), 1), modes.join("  "));
    let _ = writeln!(
        out,
        "Memory   {:>6} %   {} of {} used, {} cached",
        format_number(get("memory.used_percent"), 1),
        format_bytes(get("memory.used")),
        format_bytes(get("memory.total")),
        format_bytes(get("memory.cached"))
    );
    if let Some(used) = get("swap.used_percent") {
        let _ = writeln!(
            out,
            "Swap     {used:>6.1} %   {} of {}",
            format_bytes(get("swap.used")),
            format_bytes(get("swap.total"))
        );
    }
    let rate = |metric: &str| format!("{}/s", format_bytes(get(metric)));
    let _ = writeln!(
        out,
        "Network           ↓ {:>12}   ↑ {:>12}",
        rate("network.total.rx_bytes"),
        rate("network.total.tx_bytes")
    );
    let _ = writeln!(
        out,
        "Disk           read {:>12}   write {:>8}",
        rate("disk.total.read_bytes"),
        rate("disk.total.write_bytes")
    );
}

fn write_filesystems(out: &mut String, snapshot: &Snapshot) {
    for column in snapshot.shape.columns().iter().filter(|column| column.metric == "filesystem.used_percent")
    {
        let get = |metric: &str| snapshot.value(metric, &column.instance);
        let used = format_number(get("filesystem.used_percent"), 1);
        let _ = writeln!(
            out,
            "{:<24} {used:>6} %   {} free",
            fit_end(&column.instance, 24),
            format_bytes(get("filesystem.available"))
        );
    }
}

fn write_processes(out: &mut String, snapshot: &Snapshot) {
    let _ = writeln!(
        out,
        "\n{:>7}  {:<10} {:>6}  {:>10}  {:>4}  COMMAND",
        "PID", "USER", "CPU %", "MEMORY", "THR"
    );
    for row in &snapshot.processes {
        let command =
            if row.command.is_empty() { format!("[{}]", row.name) } else { row.command.to_string() };
        let command = fit_start(&command, 60);
        #[expect(clippy::cast_precision_loss, reason = "rendered with one decimal place")]
        let memory = format_bytes(Some(row.memory_bytes as f64));
        let cpu = f64::from(row.cpu_tenths) / 10.0;
        let _ = writeln!(
            out,
            "{:>7}  {:<10} {cpu:>6.1}  {memory:>10}  {:>4}  {command}",
            row.pid,
            fit_start(&row.user, 10),
            row.threads
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{BootId, CollectorError, Column, HostFacts, ProcessRow, Shape};
    use std::sync::Arc;

    const HOSTILE: &str = "\x1b[2J\x1b]0;t\x07\n\r\u{9b}31m\u{202e}x";

    fn hostile_snapshot(mount: &str) -> Snapshot {
        let column = |metric: &'static str| Column {
            metric: metric.into(),
            dimension: "mount".into(),
            instance: mount.into(),
            decimals: 1,
        };
        let row = |command: &str| ProcessRow {
            pid: 7,
            name: HOSTILE.into(),
            user: HOSTILE.into(),
            command: command.into(),
            ..ProcessRow::default()
        };
        Snapshot {
            boot: BootId::generate(),
            seq: 1,
            at_ms: 0,
            interval_ms: 1000,
            shape: Arc::new(Shape::new(vec![
                column("filesystem.used_percent"),
                column("filesystem.available"),
            ])),
            values: vec![501, 10],
            processes: vec![row(""), row(HOSTILE)],
            facts: Some(Arc::new(HostFacts {
                os: HOSTILE.to_owned(),
                kernel: HOSTILE.to_owned(),
                cpu_model: HOSTILE.to_owned(),
                ..HostFacts::default()
            })),
            errors: vec![CollectorError { collector: HOSTILE.to_owned(), message: HOSTILE.to_owned() }],
        }
    }

    #[test]
    fn screen_of_hostile_names_has_no_controls() {
        let expected_lines = render_screen("web", &hostile_snapshot("/")).lines().count();
        let screen = render_screen(HOSTILE, &hostile_snapshot(HOSTILE));
        assert!(!screen.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{screen:?}");
        assert_eq!(screen.lines().count(), expected_lines);
        assert!(screen.contains("[\u{fffd}[2J"), "{screen}");
    }

    #[test]
    fn long_mount_points_keep_the_columns() {
        let long = format!("/var/lib/kubelet/pods/{}/volumes/data", "0".repeat(80));
        let percent_at = |mount: &str| {
            let screen = render_screen("web", &hostile_snapshot(mount));
            let line = screen.lines().find(|line| line.contains("50.1 %")).unwrap().to_owned();
            line.split("50.1").next().unwrap().chars().count()
        };
        assert_eq!(percent_at(&long), percent_at("/"));
        assert_eq!(fit_end(&long, 12), "…olumes/data");
        assert_eq!(fit_end("/home/ä", 7), "/home/ä");
    }
}
