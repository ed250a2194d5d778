//! Metrics of the agent about itself: health and duration of each collector, spool, CPU time and
//! memory.

use perfwatch_collect::{CollectError, Derived, Reading, Sample};
use perfwatch_model::{Clock, MetricDef, Unit::*};
use std::sync::Arc;
use std::time::Duration;

/// Definitions of the agent's self-metrics, part of the catalog.
pub const METRICS: &[MetricDef] = &[
    MetricDef::gauge("agent.collector.duration", Milliseconds, 2, "Duration of the last collector run.")
        .with_dimension("collector"),
    MetricDef::gauge(
        "agent.collector.success",
        Flag,
        0,
        "1 if the collector succeeded; absent if it has nothing to read.",
    )
    .with_dimension("collector"),
    MetricDef::gauge("agent.cpu", Percent, 2, "CPU usage of the agent, percent of one core.")
        .with_range(0.0, None),
    MetricDef::gauge("agent.memory", Bytes, 0, "Resident memory of the agent."),
    MetricDef::gauge("agent.spool.snapshots", Count, 0, "Snapshots waiting in the spool."),
    MetricDef::gauge("agent.spool.bytes", Bytes, 0, "Spool size on disk."),
    MetricDef::gauge(
        "agent.spool.dropped",
        Count,
        0,
        "Snapshots dropped from a full spool since the agent started.",
    )
    .rollup_last(),
    MetricDef::gauge("agent.ticks_missed", Count, 0, "Collection ticks missed since the agent started.")
        .rollup_last(),
];

/// Counters of the spool and the ticker.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AgentCounters {
    pub(crate) pending: u64,
    pub(crate) spool_bytes: u64,
    pub(crate) dropped: u64,
    pub(crate) missed_ticks: u64,
}

/// Derives the self-metrics; keeps the previous CPU time of the process for its rate.
#[derive(Default)]
pub(crate) struct SelfMetrics {
    /// Monotonic time and clock ticks of the previous snapshot.
    previous: Option<(Duration, u64)>,
}

impl SelfMetrics {
    /// Adds the self-metrics of the agent to a snapshot's samples.
    pub(crate) fn add(
        &mut self,
        derived: &mut Derived,
        reading: &Reading,
        counters: AgentCounters,
        clock: &dyn Clock,
    ) {
        let mut push = |name: &str, instance: &str, value: f64| {
            if let Some(metric) = METRICS.iter().find(|metric| metric.name == name) {
                derived.samples.push(Sample { metric, instance: Arc::from(instance), value });
            }
        };
        for part in &reading.parts {
            let duration_ms =
                if part.result.is_ok() { part.duration.as_secs_f64() * 1000.0 } else { f64::NAN };
            push("agent.collector.duration", part.collector, duration_ms);
            let success = match &part.result {
                Ok(part) => f64::from(u8::from(part.errors.is_empty())),
                Err(CollectError::NotAvailable) => f64::NAN,
                Err(_) => 0.0,
            };
            push("agent.collector.success", part.collector, success);
        }
        let now = clock.monotonic();
        let process = read_own_process();
        let cpu = match (self.previous, process) {
            (Some((previous, previous_ticks)), Some((ticks, _))) if now > previous => {
                to_f64(ticks.saturating_sub(previous_ticks)) / (now - previous).as_secs_f64()
            }
            _ => f64::NAN,
        };
        self.previous = process.map(|(ticks, _)| (now, ticks));
        push("agent.cpu", "", cpu);
        push("agent.memory", "", process.map_or(f64::NAN, |(_, bytes)| to_f64(bytes)));
        push("agent.spool.snapshots", "", to_f64(counters.pending));
        push("agent.spool.bytes", "", to_f64(counters.spool_bytes));
        push("agent.spool.dropped", "", to_f64(counters.dropped));
        push("agent.ticks_missed", "", to_f64(counters.missed_ticks));
    }
}

#[expect(clippy::cast_precision_loss, reason = "values stay far below 2^53")]
fn to_f64(value: u64) -> f64 {
    value as f64
}

/// Reads CPU clock ticks and resident bytes of this process, independent of the configured procfs.
fn read_own_process() -> Option<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // proc_pid_stat(5), counted from the state: utime 11, stime 12.
    let ticks = number(11)? + number(12)?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_ascii_whitespace().next()?.parse::<u64>().ok());
    Some((ticks, rss?.saturating_mul(1024)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_own_process_stats() {
        let (_, resident) = super::read_own_process().unwrap();
        assert!((1 << 20..8 << 30).contains(&resident));
    }
}
