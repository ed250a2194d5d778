//! Renders a snapshot as text for a terminal.

use perfwatch_model::Snapshot;
use std::fmt::Write as _;

fn format_bytes(value: Option<f64>) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let Some(mut value) = value else { return "–".to_owned() };
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

fn format_number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// Renders header, resources, file systems, top processes and collector errors.
pub(super) fn render_screen(name: &str, snapshot: &Snapshot) -> String {
    let get = |metric: &str| snapshot.value(metric, "");
    let mut out = String::new();
    // Writing to a String cannot fail.
    if let Some(facts) = &snapshot.facts {
        let _ = writeln!(
            out,
            "{name}   {} · Linux {} · {} × {}",
            facts.os, facts.kernel, facts.cores, facts.cpu_model
        );
    }
    let uptime = get("system.uptime").unwrap_or_default();
    let _ = writeln!(
        out,
        "up {:.0} d {:.0} h   load {} {} {}   {} processes, {} threads\n",
        (uptime / 86400.0).floor(),
        (uptime % 86400.0 / 3600.0).floor(),
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
        let _ = writeln!(out, "\n{}: {}", error.collector, error.message);
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
            column.instance,
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
        let command: String = command.chars().take(60).collect();
        #[expect(clippy::cast_precision_loss, reason = "rendered with one decimal place")]
        let memory = format_bytes(Some(row.memory_bytes as f64));
        let cpu = f64::from(row.cpu_tenths) / 10.0;
        let _ = writeln!(
            out,
            "{:>7}  {:<10} {cpu:>6.1}  {memory:>10}  {:>4}  {command}",
            row.pid, row.user, row.threads
        );
    }
}
