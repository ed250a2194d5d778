//! Metrics of the agent about itself: health and duration of each collector, spool, CPU time and
//! memory.

use perfwatch_collect::{CollectError, Derived, Reading, Sample};
use perfwatch_model::{Clock, MetricDef, Unit::*};
use rustix::param::page_size;
use rustix::time::{ClockId, clock_gettime};
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
    /// Monotonic time and CPU time of the process at the previous snapshot.
    previous: Option<(Duration, Duration)>,
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
        let cpu_time = cpu_time();
        let cpu = match self.previous {
            Some((previous, previous_cpu_time)) if now > previous => {
                cpu_time.saturating_sub(previous_cpu_time).as_secs_f64() / (now - previous).as_secs_f64()
                    * 100.0
            }
            _ => f64::NAN,
        };
        self.previous = Some((now, cpu_time));
        push("agent.cpu", "", cpu);
        push("agent.memory", "", resident_bytes().map_or(f64::NAN, to_f64));
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

/// CPU time of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Reads the resident bytes of this process, independent of the configured procfs.
fn resident_bytes() -> Option<u64> {
    // proc_pid_statm(5): size and resident size in pages.
    let statm = std::fs::read("/proc/self/statm").ok()?;
    let pages = std::str::from_utf8(&statm).ok()?.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?;
    Some(pages.saturating_mul(page_size() as u64))
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_own_process_stats() {
        assert!((1 << 20..8 << 30).contains(&super::resident_bytes().unwrap()));
        let before = super::cpu_time();
        let mut sum = 0_u64;
        while super::cpu_time() == before {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
