//! Plain mode for screen readers and pipes: sentences instead of a drawing, and typed commands instead of keys.

use crate::draw::{
    command, cores, cpu_modes, describe_empty, describe_state, format_metric, instances, largest, to_f64,
    value,
};
use crate::process_table::io_bytes;
use crate::time_input;
use crate::view::{Key, View};
use perfwatch_model::printable::printable;
use perfwatch_model::value_format::{format_bytes, format_value};
use perfwatch_model::{ProcessRow, Unit};

/// Maximum number of processes in a report.
const MAX_PLAIN_PROCESSES: usize = 10;
/// Maximum number of cores that a report lists; the busiest core stands for more.
const MAX_PLAIN_CORES: usize = 16;

/// Commands of the plain mode.
pub(crate) const COMMANDS: &str = "\
Commands, each followed by Enter:
b, f: previous, next snapshot. B, F: jump back, forward. l: live. Space: pause, continue.
A time such as -1h, 14:30 or yesterday 14:30: go to the time.
/TEXT: filter the processes. /: all processes. s: next order. c, m, i, n, p: sort by CPU, memory, I/O, name, PID.
?: this help. q: quit.";

/// Report of the displayed snapshot, a sentence per line.
pub(crate) fn report(view: &View) -> Vec<String> {
    let mut lines = vec![format!("{}: {}.", view.host, describe_state(view).0)];
    if view.frame.is_none() {
        lines.push("Waiting for the first snapshot.".to_owned());
        return clean(&lines);
    }
    let percent = |metric| format_metric(view, metric, Unit::Percent);
    let bytes = |metric| format_metric(view, metric, Unit::Bytes);
    let rate = |metric| format_metric(view, metric, Unit::BytesPerSecond);
    let number = |metric| value(view, metric).map_or("–".to_owned(), |value| format!("{value:.2}"));
    let mode = |(name, metric): (&str, &'static str)| {
        format!("{} {}", name.replace("iowait", "I/O wait"), percent(metric))
    };
    let modes: Vec<String> = cpu_modes(view).map(mode).collect();
    lines.push(format!("CPU {}: {}.", percent("cpu.usage"), modes.join(", ")));
    lines.extend(cores_line(view));
    lines.push(format!("Load {}, {}, {}.", number("load.1m"), number("load.5m"), number("load.15m")));
    lines.push(format!(
        "Memory {}: {} of {} used, {} cached.",
        percent("memory.used_percent"),
        bytes("memory.used"),
        bytes("memory.total"),
        bytes("memory.cached")
    ));
    if value(view, "swap.total").is_some() {
        lines.push(format!(
            "Swap {}: {} of {}.",
            percent("swap.used_percent"),
            bytes("swap.used"),
            bytes("swap.total")
        ));
    }
    if value(view, "pressure.cpu.some").is_some() {
        lines.push(format!(
            "Pressure: CPU {}, memory {}, I/O {}.",
            percent("pressure.cpu.some"),
            percent("pressure.memory.some"),
            percent("pressure.io.some")
        ));
    }
    let (read, write) = (rate("disk.total.read_bytes"), rate("disk.total.write_bytes"));
    lines.push(format!("Disk: read {read}, write {write}."));
    lines.extend(largest_line(view, "Disk", "disk.utilization", "busy"));
    lines.extend(largest_line(view, "File system", "filesystem.used_percent", "full"));
    let (received, sent) = (rate("network.total.rx_bytes"), rate("network.total.tx_bytes"));
    lines.push(format!("Network: received {received}, sent {sent}."));
    for error in view.frame.iter().flat_map(|frame| &frame.snapshot.errors) {
        lines.push(format!("Collector {} failed: {}.", error.collector, error.message));
    }
    lines.extend(process_lines(view));
    clean(&lines)
}

/// Text for a terminal: no control characters.
fn clean(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| printable(line).into_owned()).collect()
}

fn cores_line(view: &View) -> Option<String> {
    let cores = cores(view);
    if cores.is_empty() {
        return None;
    }
    if cores.len() > MAX_PLAIN_CORES {
        let (core, percent) = largest(&cores)?;
        return Some(format!("{} cores, the busiest is {core} at {percent:.0} %.", cores.len()));
    }
    let cores: Vec<String> = cores.iter().map(|(core, percent)| format!("{core}: {percent:.0} %")).collect();
    Some(format!("Cores {}.", cores.join(", ")))
}

/// Sentence about the instance with the largest percentage.
fn largest_line(view: &View, kind: &str, metric: &str, state: &str) -> Option<String> {
    let (instance, percent) = largest(&instances(view, metric))?;
    Some(format!("{kind} {instance}: {} {state}.", format_value(percent, Some(Unit::Percent))))
}

fn process_lines(view: &View) -> Vec<String> {
    let rows = view.rows();
    if rows.is_empty() {
        return vec![format!("{}.", describe_empty(view).trim_end_matches('.'))];
    }
    let displayed = &rows[view.scroll.min(rows.len() - 1)..];
    let displayed = &displayed[..displayed.len().min(MAX_PLAIN_PROCESSES)];
    let filter = match view.filter.trim() {
        "" => String::new(),
        filter => format!(" that match {filter:?}"),
    };
    let heading =
        format!("{} of {} processes{filter}, by {}:", displayed.len(), rows.len(), view.order.label());
    std::iter::once(heading).chain(displayed.iter().map(|row| process_line(row))).collect()
}

fn process_line(row: &ProcessRow) -> String {
    let io = io_bytes(row).map_or(String::new(), |bytes| format!(", I/O {}/s", format_bytes(to_f64(bytes))));
    format!(
        "{}, PID {}, user {}, CPU {:.1} %, memory {}{io}: {}",
        row.name,
        row.pid,
        row.user,
        f64::from(row.cpu_tenths) / 10.0,
        format_bytes(to_f64(row.memory_bytes)),
        command(row)
    )
}

/// Keys of a typed line; `None` if the line is no command.
pub(crate) fn parse_command(line: &str, view: &View) -> Option<Vec<Key>> {
    let line = line.trim_end_matches(['\r', '\n']);
    let prompt = |key: char, text: &str| {
        let text = text.chars().map(Key::Char);
        [Key::Char(key), Key::Clear].into_iter().chain(text).chain([Key::Enter]).collect()
    };
    if let Some(filter) = line.strip_prefix('/') {
        return Some(prompt('/', filter.trim()));
    }
    match line {
        "" => return Some(Vec::new()),
        "b" => return Some(vec![Key::Left]),
        "f" => return Some(vec![Key::Right]),
        "B" => return Some(vec![Key::PageUp]),
        "F" => return Some(vec![Key::PageDown]),
        _ => {}
    }
    let mut characters = line.chars();
    if let (Some(key @ ('l' | ' ' | 's' | 'c' | 'm' | 'i' | 'n' | 'p' | 'r' | '?' | 'q')), None) =
        (characters.next(), characters.next())
    {
        return Some(vec![Key::Char(key)]);
    }
    let time = line.strip_prefix("g ").unwrap_or(line).trim();
    time_input::parse(time, view.now_ms, &view.zone).map(|_| prompt('g', time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{SeekTarget, SourceRequest, SourceUpdate};
    use crate::test_data::{NOW_MS, frame_at};
    use crate::view::{ViewEffect, ViewEvent};
    use jiff::tz::TimeZone;

    fn view() -> View {
        let mut view = View::new("web-1", NOW_MS, TimeZone::UTC);
        view.reduce(ViewEvent::Source(SourceUpdate::Live(frame_at(NOW_MS))));
        view
    }

    #[test]
    fn report_is_text_without_controls() {
        let lines = report(&view());
        assert_eq!(lines[0], "web-1: LIVE 08:20:30.");
        assert_eq!(lines[1], "CPU 42.5 %: user 30.1 %, system 10 %, I/O wait 2.4 %, steal 0 %.");
        assert_eq!(lines[2], "Cores 0: 3 %, 1: 100 %, 2: 56 %, 3: 20 %, 4: 92 %, 5: 0 %, 6: 12 %, 7: 60 %.");
        assert_eq!(lines[7], "Disk: read 0 B/s, write 24 MiB/s.");
        assert_eq!(lines[8..10], ["Disk nvme0n1: 93.5 % busy.", "File system /: 81 % full."]);
        assert_eq!(lines[12], "6 of 6 processes, by cpu:");
        assert_eq!(
            lines[13],
            "postgres, PID 4711, user postgres, CPU 123.4 %, memory 2.05 GiB, I/O 32 MiB/s: postgres: checkpointer"
        );
        assert!(lines.iter().all(|line| !line.contains(perfwatch_model::printable::is_hidden)), "{lines:?}");
        assert!(report(&View::new("web-1", NOW_MS, TimeZone::UTC))[1].starts_with("Waiting"));
    }

    #[test]
    fn typed_lines_are_keys() {
        let mut view = view();
        for (line, expected) in [
            ("q", Some(vec![Key::Char('q')])),
            ("b\n", Some(vec![Key::Left])),
            (" ", Some(vec![Key::Char(' ')])),
            ("", Some(vec![])),
            ("/ab", Some(vec![Key::Char('/'), Key::Clear, Key::Char('a'), Key::Char('b'), Key::Enter])),
            ("quit now", None),
            ("z", None),
        ] {
            assert_eq!(parse_command(line, &view), expected, "{line:?}");
        }
        let mut effects = Vec::new();
        for key in parse_command("-1h", &view).unwrap() {
            effects = view.reduce(ViewEvent::Key(key));
        }
        let target = SeekTarget::At(NOW_MS - 3_600_000);
        assert_eq!(effects, [ViewEffect::Request(SourceRequest::Seek(target))]);
        assert!(view.prompt.is_none());
    }
}
