//! Snapshots for tests: a host with eight cores, two disks, and hostile names.

use crate::frame::{HostFrame, Ribbon};
use perfwatch_model::{BootId, CollectorError, Column, HostFacts, ProcessRow, Shape, Snapshot, scale};
use std::sync::Arc;

/// 2026-07-15 08:20:30 UTC.
pub(crate) const NOW_MS: i64 = 1_784_103_630_000;

const MIB: f64 = 1_048_576.0;

/// Values with metric, instance and value.
fn values() -> Vec<(&'static str, String, f64)> {
    let mut all: Vec<(&'static str, String, f64)> = [
        ("cpu.usage", 42.5),
        ("cpu.user", 30.1),
        ("cpu.system", 10.0),
        ("cpu.iowait", 2.4),
        ("cpu.steal", 0.0),
        ("load.1m", 3.25),
        ("load.5m", 2.5),
        ("load.15m", 1.75),
        ("memory.total", 16_000.0 * MIB),
        ("memory.used", 12_480.0 * MIB),
        ("memory.used_percent", 78.0),
        ("memory.available", 3_520.0 * MIB),
        ("memory.cached", 2_000.0 * MIB),
        ("swap.total", 2_048.0 * MIB),
        ("swap.used", 64.0 * MIB),
        ("swap.used_percent", 3.1),
        ("pressure.cpu.some", 1.2),
        ("pressure.memory.some", 0.0),
        ("pressure.io.some", 12.5),
        ("network.total.rx_bytes", 1.5 * MIB),
        ("network.total.tx_bytes", 300.0 * 1_024.0),
        ("disk.total.read_bytes", 0.0),
        ("disk.total.write_bytes", 24.0 * MIB),
        ("processes.total", 213.0),
        ("processes.threads", 611.0),
        ("processes.running", 3.0),
        ("processes.blocked", 1.0),
        ("system.uptime", 273_600.0),
        ("tcp.established", 45.0),
    ]
    .map(|(metric, value)| (metric, String::new(), value))
    .to_vec();
    for (core, usage) in [3.0, 100.0, 55.5, 20.0, 92.0, 0.0, 12.0, 60.0].into_iter().enumerate() {
        all.push(("cpu.core.usage", core.to_string(), usage));
    }
    for (device, read, write, busy, latency) in
        [("nvme0n1", 0.0, 24.0 * MIB, 93.5, 1.25), ("sda", 0.0, 0.0, 0.0, f64::NAN)]
    {
        all.push(("disk.read_bytes", device.to_owned(), read));
        all.push(("disk.write_bytes", device.to_owned(), write));
        all.push(("disk.utilization", device.to_owned(), busy));
        all.push(("disk.write_latency", device.to_owned(), latency));
    }
    for (mount, used, available) in
        [("/", 81.0, 9_000.0 * MIB), ("/var/lib/\u{1b}[2Jdata", 12.0, 90_000.0 * MIB)]
    {
        all.push(("filesystem.used_percent", mount.to_owned(), used));
        all.push(("filesystem.available", mount.to_owned(), available));
    }
    for (interface, rx, tx) in [("eth0", 1.5 * MIB, 300.0 * 1_024.0), ("wg0", 0.0, 0.0)] {
        all.push(("network.rx_bytes", interface.to_owned(), rx));
        all.push(("network.tx_bytes", interface.to_owned(), tx));
    }
    all
}

fn processes() -> Vec<ProcessRow> {
    let row =
        |pid, name: &str, user: &str, command: &str, cpu_tenths, mib: u64, io: Option<u64>| ProcessRow {
            pid,
            parent_pid: None,
            name: name.into(),
            user: user.into(),
            command: command.into(),
            state: if cpu_tenths > 900 { 'R' } else { 'S' },
            cpu_tenths,
            memory_bytes: mib << 20,
            threads: 4,
            open_files: io.map(|_| 31),
            read_bytes: io,
            write_bytes: io.map(|bytes| bytes * 3),
            started_ms: NOW_MS - 7_200_000,
        };
    vec![
        row(1, "systemd", "root", "/sbin/init splash", 0, 12, Some(0)),
        row(4_711, "postgres", "postgres", "postgres: checkpointer", 1_234, 2_100, Some(8 << 20)),
        row(
            815,
            "java",
            "app",
            "/usr/bin/java -Xmx8g -jar /srv/app/service.jar --port 8080 --verbose",
            876,
            6_144,
            None,
        ),
        row(
            99_999,
            "evil\u{1b}]0;title\u{7}",
            "mallory",
            "\u{1b}[2J\u{202e}rm\n-rf \u{9b}31m",
            55,
            1,
            Some(100),
        ),
        row(77, "名前の長いプロセス", "ünïcode", "名前の長いプロセス --全角の引数", 12, 64, Some(0)),
        row(2, "kthreadd", "root", "", 0, 0, None),
    ]
}

/// Snapshot with all kinds of values.
pub(crate) fn snapshot_at(at_ms: i64) -> Snapshot {
    let (mut columns, mut scaled) = (Vec::new(), Vec::new());
    for (metric, instance, value) in values() {
        let dimension = if instance.is_empty() { "" } else { "instance" };
        columns.push(Column {
            metric: metric.into(),
            dimension: dimension.into(),
            instance: instance.into(),
            decimals: 2,
        });
        scaled.push(scale(value, 2));
    }
    Snapshot {
        boot: BootId::default(),
        seq: 7,
        at_ms,
        interval_ms: 1_000,
        shape: Arc::new(Shape::new(columns)),
        values: scaled,
        processes: processes(),
        facts: Some(Arc::new(HostFacts {
            os: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            kernel: "6.1.0".to_owned(),
            cpu_model: "Example CPU".to_owned(),
            cores: 8,
            ..HostFacts::default()
        })),
        errors: vec![CollectorError {
            collector: "disk".to_owned(),
            message: "/proc/diskstats: \u{1b}[31mdenied".to_owned(),
        }],
    }
}

/// Frame of [`snapshot_at`].
pub(crate) fn frame_at(at_ms: i64) -> HostFrame {
    HostFrame::from_snapshot(Arc::new(snapshot_at(at_ms)))
}

/// Ribbon of 15 minutes before a time with a gap of three minutes.
pub(crate) fn ribbon_until(to_ms: i64) -> Ribbon {
    let mut ribbon = Ribbon { from_ms: to_ms - 900_000, to_ms, ..Ribbon::default() };
    for second in (0..900).step_by(2).filter(|second| !(300..480).contains(second)) {
        ribbon.times_ms.push(ribbon.from_ms + second * 1_000);
        ribbon.cpu.push(Some((second % 100) as f64));
        ribbon.memory.push(Some(60.0 + second as f64 / 50.0));
    }
    ribbon
}
