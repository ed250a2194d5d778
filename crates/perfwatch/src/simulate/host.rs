//! Simulated host: a load with daily cycle and bursts, from which all metrics of the catalog are
//! derived.

use fastrand::Rng;
use perfwatch_model::{
    BootId, Catalog, Column, HostFacts, HostId, MetricDef, ProcessRow, Rollup, Shape, Snapshot, Unit, scale,
};
use std::sync::Arc;
use uuid::Uuid;

/// Instances of the dimension `device`.
const DISKS: [&str; 2] = ["nvme0n1", "sda"];
/// Instances of the dimension `mount`.
const MOUNTS: [&str; 3] = ["/", "/boot", "/srv"];
/// Instances of the dimension `interface`.
const INTERFACES: [&str; 2] = ["eth0", "lo"];
/// Instances of the dimension `collector`.
const COLLECTORS: [&str; 6] = ["cpu", "disk", "memory", "network", "processes", "sockets"];
/// Name, user and command line of the simulated processes.
const PROCESS_TEMPLATES: [(&str, &str, &str); 10] = [
    ("postgres", "postgres", "postgres: writer process"),
    ("nginx", "www-data", "nginx: worker process"),
    ("java", "app", "/usr/bin/java -Xmx4g -jar /opt/app/service.jar"),
    ("redis-server", "redis", "/usr/bin/redis-server 127.0.0.1:6379"),
    ("node", "app", "node /opt/front/server.js"),
    ("systemd", "root", "/sbin/init"),
    ("sshd", "root", "sshd: /usr/sbin/sshd -D"),
    ("kworker/u8:1", "root", ""),
    ("python3", "batch", "python3 /opt/batch/report.py --daily"),
    ("perfwatch-agent", "perfwatch", "/usr/bin/perfwatch-agent"),
];

/// Simulated host with the state of its random walk.
pub struct SimHost {
    /// Identity, derived from seed and number.
    pub id: HostId,
    /// Name such as `web-0000`.
    pub name: String,
    /// Hardware and operating system, constant.
    pub facts: Arc<HostFacts>,
    boot: BootId,
    shape: Arc<Shape>,
    /// Metric of each column, with a random constant (0 to 1) that differentiates the instances.
    columns: Vec<(MetricDef, f64)>,
    rng: Rng,
    cores: f64,
    memory: f64,
    base_load: f64,
    load: f64,
    burst_ticks: u32,
    loads: [f64; 3],
    memory_used: f64,
    seq: u64,
}

fn instances(dimension: &str, cores: usize) -> Vec<String> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    match dimension {
        "" => vec![String::new()],
        "core" => (0..cores).map(|core| core.to_string()).collect(),
        "device" => owned(&DISKS),
        "interface" => owned(&INTERFACES),
        "mount" => owned(&MOUNTS),
        "collector" => owned(&COLLECTORS),
        other => vec![format!("{other}0")],
    }
}

impl SimHost {
    /// Creates the host with this number in the fleet of this seed.
    pub fn new(catalog: &Catalog, seed: u64, number: usize) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number as u64);
        let cores = [2, 4, 8, 16][rng.usize(..4)];
        let mut columns = Vec::new();
        let mut shape = Vec::new();
        for def in catalog.metrics() {
            for instance in instances(def.dimension, cores) {
                let dimension = if instance.is_empty() { "" } else { def.dimension };
                shape.push(Column {
                    metric: def.name.into(),
                    dimension: dimension.into(),
                    instance: instance.into(),
                    decimals: def.decimals,
                });
                columns.push((*def, rng.f64()));
            }
        }
        let memory = (1u64 << (32 + rng.u32(..5))) as f64;
        let facts = HostFacts {
            os: "Debian GNU/Linux 12 (bookworm)".into(),
            kernel: "6.1.0-28-amd64".into(),
            arch: "x86_64".into(),
            cpu_model: "Simulated CPU".into(),
            cores: u32::try_from(cores).unwrap_or(1),
            memory_bytes: memory as u64,
            boot_time_ms: 0,
            agent_version: env!("CARGO_PKG_VERSION").into(),
        };
        let kind = ["web", "db", "cache", "batch", "edge"][number % 5];
        Self {
            id: HostId(Uuid::from_u64_pair(
                0x0199_0000_0000_7000 | (seed & 0xfff),
                0x8000_0000_0000_0000 | number as u64,
            )),
            name: format!("{kind}-{number:04}"),
            facts: Arc::new(facts),
            boot: BootId(Uuid::from_u64_pair(seed, number as u64)),
            shape: Arc::new(Shape::new(shape)),
            columns,
            cores: cores as f64,
            memory,
            base_load: 0.02 + 0.35 * rng.f64() * rng.f64(),
            load: 0.1,
            burst_ticks: 0,
            loads: [0.1; 3],
            memory_used: 0.3 + 0.4 * rng.f64(),
            seq: 0,
            rng,
        }
    }

    /// Column schema of all snapshots.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// Advances the simulation and returns the next snapshot.
    pub fn tick(&mut self, at_ms: i64, interval_ms: u32) -> Snapshot {
        self.step(at_ms, interval_ms);
        let columns = std::mem::take(&mut self.columns);
        let values = self.scaled_values(&columns);
        self.columns = columns;
        let snapshot = Snapshot {
            boot: self.boot,
            seq: self.seq,
            at_ms,
            interval_ms,
            shape: self.shape.clone(),
            values,
            processes: self.processes(at_ms),
            facts: (self.seq == 0).then(|| self.facts.clone()),
            errors: Vec::new(),
        };
        self.seq += 1;
        snapshot
    }

    /// Advances load and memory: daily cycle with its maximum at 14:00, random walk, occasional bursts.
    fn step(&mut self, at_ms: i64, interval_ms: u32) {
        let hour = (at_ms % 86_400_000) as f64 / 3_600_000.0;
        let day = 1.0 + 0.6 * ((hour - 14.0) / 24.0 * std::f64::consts::TAU).cos();
        if self.burst_ticks == 0 && self.rng.u32(..400) == 0 {
            self.burst_ticks = self.rng.u32(3..60);
        }
        self.burst_ticks = self.burst_ticks.saturating_sub(1);
        let target = if self.burst_ticks > 0 { 0.9 } else { self.base_load * day };
        self.load += (target - self.load) * 0.3 + (self.rng.f64() - 0.5) * 0.04 * (0.2 + self.load);
        self.load = self.load.clamp(0.001, 1.0);
        for (load, seconds) in self.loads.iter_mut().zip([60.0, 300.0, 900.0]) {
            let share = (f64::from(interval_ms) / 1_000.0 / seconds).min(1.0);
            *load += (self.load * 1.1 - *load) * share;
        }
        self.memory_used = (self.memory_used + (self.rng.f64() - 0.5) * 0.002).clamp(0.1, 0.95);
    }

    fn scaled_values(&mut self, columns: &[(MetricDef, f64)]) -> Vec<i64> {
        columns
            .iter()
            .map(|(def, constant)| {
                let value = self.value(def, *constant);
                scale(value.clamp(def.min, def.max.unwrap_or(f64::MAX)), def.decimals)
            })
            .collect()
    }

    fn value(&mut self, def: &MetricDef, constant: f64) -> f64 {
        let (load, cores, memory) = (self.load, self.cores, self.memory);
        let rng = &mut self.rng;
        let jitter = |rng: &mut Rng, share: f64| 1.0 + (rng.f64() - 0.5) * share;
        let pages = |bytes: f64| (bytes / 4_096.0).round() * 4_096.0;
        match def.name {
            "cpu.usage" => load * 100.0,
            "cpu.user" => load * 72.0,
            "cpu.system" => load * 22.0,
            "cpu.iowait" => load * 4.0 * rng.f64(),
            "cpu.softirq" => load * 1.5 * rng.f64(),
            "cpu.idle" => 100.0 - load * 100.0,
            "cpu.core.usage" => load * 100.0 * jitter(rng, 0.8),
            "cpu.cores" => cores,
            "load.1m" => self.loads[0] * cores,
            "load.5m" => self.loads[1] * cores,
            "load.15m" => self.loads[2] * cores,
            "memory.total" => memory,
            "memory.used" => pages(memory * self.memory_used),
            "memory.used_percent" => self.memory_used * 100.0,
            "memory.available" => pages(memory * (1.0 - self.memory_used)),
            "memory.free" => pages(memory * (1.0 - self.memory_used) * 0.4 * jitter(rng, 0.01)),
            "memory.cached" => pages(memory * (1.0 - self.memory_used) * 0.5),
            "memory.dirty" => pages(2e6 * rng.f64()),
            "memory.committed" => pages(memory * self.memory_used * 1.3),
            "filesystem.size" => 1e11 * (1.0 + constant.floor()),
            "filesystem.used_percent" => 20.0 + 60.0 * constant + self.seq as f64 * 1e-5,
            "filesystem.available" | "filesystem.used" => {
                pages(5e10 * constant + (self.seq / 15) as f64 * 65_536.0)
            }
            "system.uptime" => 1e5 + self.seq as f64 * 2.0,
            "network.up" => 1.0,
            "network.speed" => 1_000.0,
            "agent.collector.success" => 1.0,
            "processes.running" => (load * cores).round(),
            "cpu.nice"
            | "cpu.irq"
            | "cpu.steal"
            | "processes.blocked"
            | "processes.zombie"
            | "processes.stopped"
            | "agent.spool.snapshots"
            | "agent.spool.bytes"
            | "agent.ticks_missed"
            | "filesystem.unresponsive"
            | "filesystem.read_only"
            | "memory.oom_kills" => 0.0,
            _ if def.unit == Unit::Flag => 1.0,
            _ => self.default_value(def, constant),
        }
    }

    /// Value of a metric without a rule in [`Self::value`], by its unit.
    fn default_value(&mut self, def: &MetricDef, constant: f64) -> f64 {
        let load = self.load;
        let rng = &mut self.rng;
        // About a third of real gauges never change.
        if constant < 0.3 && def.rollup == Rollup::Last {
            return (constant * 100.0).floor();
        }
        match def.unit {
            // Mostly zero, more often positive under load.
            Unit::Percent if rng.f64() > load + constant => 0.0,
            Unit::Percent => 30.0 * load * rng.f64(),
            Unit::Bytes => ((constant * 1e5).floor() + f64::from(rng.u32(..4))) * 4_096.0,
            Unit::BytesPerSecond if constant < 0.5 && rng.f64() > load => 0.0,
            Unit::BytesPerSecond => 5e6 * load * constant * -rng.f64().max(1e-9).ln(),
            Unit::PerSecond if constant < 0.6 && rng.f64() > load => 0.0,
            Unit::PerSecond => (3_000.0 * load * constant * (0.8 + 0.4 * rng.f64())).round(),
            Unit::Count => (20.0 + 300.0 * constant).floor() + f64::from(rng.u32(..3)),
            Unit::Milliseconds if rng.f64() > load + 0.2 => 0.0,
            Unit::Milliseconds => 0.05 + 4.0 * constant * rng.f64(),
            Unit::Celsius => 35.0 + 30.0 * load,
            Unit::Megahertz => 800.0 + 2_800.0 * load,
            _ => (constant * 1_000.0).floor(),
        }
    }

    fn processes(&mut self, at_ms: i64) -> Vec<ProcessRow> {
        let mut remaining = self.load * self.cores * 1_000.0;
        let mut row = |(index, (name, user, command)): (usize, &(&str, &str, &str))| {
            let share = remaining * 0.5 * self.rng.f64();
            remaining -= share;
            ProcessRow {
                pid: 100 + u32::try_from(index).unwrap_or_default() * 37,
                // The Java service starts Redis and Node; the first process starts the others.
                parent_pid: Some(if matches!(index, 3 | 4) { 100 + 2 * 37 } else { 1 }),
                name: (*name).into(),
                user: (*user).into(),
                command: (*command).into(),
                state: if share > 300.0 { 'R' } else { 'S' },
                cpu_tenths: share as u32,
                memory_bytes: (1 << 26) * (index as u64 + 1) + u64::from(self.rng.u32(..3)) * 4_096,
                threads: 1 + u32::try_from(index).unwrap_or_default(),
                open_files: Some(20 + self.rng.u32(..2)),
                read_bytes: Some(0),
                write_bytes: Some(if self.rng.f64() < self.load { self.rng.u64(..1_000_000) } else { 0 }),
                started_ms: at_ms - at_ms % 86_400_000 - 86_400_000 * (index as i64 % 3),
            }
        };
        let mut rows: Vec<ProcessRow> = PROCESS_TEMPLATES.iter().enumerate().map(&mut row).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.cpu_tenths));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulation_is_deterministic_and_valid() {
        let catalog = perfwatch_collect::catalog(perfwatch_agent::METRICS);
        let (mut first, mut second) = (SimHost::new(&catalog, 7, 3), SimHost::new(&catalog, 7, 3));
        let mut other = SimHost::new(&catalog, 8, 3);
        for n in 0..500 {
            let at = 1_763_719_200_000 + n * 2_000;
            let snapshot = first.tick(at, 2_000);
            assert_eq!(snapshot, second.tick(at, 2_000));
            assert_ne!(snapshot.values, other.tick(at, 2_000).values);
            for (value, column) in snapshot.values.iter().zip(snapshot.shape.columns()) {
                let def = catalog.get(&column.metric).unwrap();
                let value = perfwatch_model::unscale(*value, column.decimals).unwrap();
                assert!(value >= def.min && def.max.is_none_or(|max| value <= max), "{} {value}", def.name);
            }
        }
    }
}
