//! Order and filter of the process table.

use perfwatch_model::ProcessRow;
use std::cmp::Reverse;

/// Column by which the process table is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcessOrder {
    /// CPU usage, largest first.
    #[default]
    Cpu,
    /// Resident memory, largest first.
    Memory,
    /// Bytes read from and written to storage, largest first.
    Io,
    /// Name in alphabetical order.
    Name,
    /// Process id in ascending order.
    Pid,
}

impl ProcessOrder {
    /// All orders, in the order of the key `s`.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Memory, Self::Io, Self::Name, Self::Pid];

    /// Name on the command line and in messages.
    pub fn label(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Io => "io",
            Self::Name => "name",
            Self::Pid => "pid",
        }
    }

    /// Order with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.label() == text)
    }

    /// Order after this order, starting again after the last.
    pub(crate) fn next(self) -> Self {
        let index = Self::ALL.iter().position(|order| *order == self).unwrap_or(0);
        Self::ALL[(index + 1) % Self::ALL.len()]
    }
}

/// Bytes per second read from and written to storage; `None` without permission.
pub(crate) fn io_bytes(row: &ProcessRow) -> Option<u64> {
    match (row.read_bytes, row.write_bytes) {
        (None, None) => None,
        (read, write) => Some(read.unwrap_or(0).saturating_add(write.unwrap_or(0))),
    }
}

/// Rows that match the filter, sorted. The filter matches parts of name, command line and user, ignoring case, and
/// whole process ids.
pub(crate) fn select_rows<'a>(
    rows: &'a [ProcessRow],
    order: ProcessOrder,
    is_reversed: bool,
    filter: &str,
) -> Vec<&'a ProcessRow> {
    let filter = filter.trim().to_lowercase();
    let matches = |row: &&ProcessRow| {
        filter.is_empty()
            || [&row.name, &row.command, &row.user].iter().any(|text| text.to_lowercase().contains(&filter))
            || row.pid.to_string() == filter
    };
    let mut selected: Vec<&ProcessRow> = rows.iter().filter(matches).collect();
    match order {
        ProcessOrder::Cpu => {
            selected.sort_by_key(|row| (Reverse(row.cpu_tenths), Reverse(row.memory_bytes), row.pid));
        }
        ProcessOrder::Memory => selected.sort_by_key(|row| (Reverse(row.memory_bytes), row.pid)),
        ProcessOrder::Io => {
            selected.sort_by_key(|row| (Reverse(io_bytes(row)), Reverse(row.cpu_tenths), row.pid));
        }
        ProcessOrder::Name => selected.sort_by_cached_key(|row| (row.name.to_lowercase(), row.pid)),
        ProcessOrder::Pid => selected.sort_by_key(|row| row.pid),
    }
    if is_reversed {
        selected.reverse();
    }
    selected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(
        pid: u32,
        name: &str,
        user: &str,
        cpu_tenths: u32,
        memory_bytes: u64,
        io: Option<u64>,
    ) -> ProcessRow {
        ProcessRow {
            pid,
            name: name.into(),
            user: user.into(),
            command: format!("/usr/bin/{name} --serve").into(),
            cpu_tenths,
            memory_bytes,
            read_bytes: io,
            ..ProcessRow::default()
        }
    }

    #[test]
    fn rows_are_sorted_and_filtered() {
        let rows = [
            row(1, "init", "root", 0, 30, Some(0)),
            row(20, "Postgres", "postgres", 500, 20, None),
            row(3, "nginx", "www", 500, 90, Some(7)),
        ];
        for (order, is_reversed, filter, expected) in [
            (ProcessOrder::Cpu, false, "", &[3, 20, 1][..]),
            (ProcessOrder::Cpu, true, "", &[1, 20, 3]),
            (ProcessOrder::Memory, false, "", &[3, 1, 20]),
            (ProcessOrder::Io, false, "", &[3, 1, 20]),
            (ProcessOrder::Name, false, "", &[1, 3, 20]),
            (ProcessOrder::Pid, false, "", &[1, 3, 20]),
            (ProcessOrder::Cpu, false, "POST", &[20]),
            (ProcessOrder::Cpu, false, "--serve", &[3, 20, 1]),
            (ProcessOrder::Cpu, false, "www", &[3]),
            (ProcessOrder::Cpu, false, "20", &[20]),
            (ProcessOrder::Cpu, false, "2", &[]),
            (ProcessOrder::Cpu, false, " nginx ", &[3]),
        ] {
            let pids: Vec<u32> =
                select_rows(&rows, order, is_reversed, filter).iter().map(|row| row.pid).collect();
            assert_eq!(pids, expected, "{order:?} {filter:?}");
        }
    }

    #[test]
    fn order_names_round_trip_and_cycle() {
        let mut order = ProcessOrder::default();
        for expected in ["cpu", "memory", "io", "name", "pid", "cpu"] {
            assert_eq!(order.label(), expected);
            assert_eq!(ProcessOrder::parse(expected), Some(order));
            order = order.next();
        }
        assert_eq!(ProcessOrder::parse("size"), None);
    }
}
