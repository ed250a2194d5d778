//! What the agent says of itself: each collector's health and cost, the spool, its own
//! processor time and memory.

use perfwatch_collect::{CollectError, Derived, Point, Reading};
use perfwatch_model::{Clock, MetricDef, Unit::*};
use std::sync::Arc;
use std::time::Duration;

/// The agent's own lines of the catalogue.
pub const METRICS: &[MetricDef] = &[
    MetricDef::gauge("agent.collector.duration", Milliseconds, 2, "Time the collector took.").by("collector"),
    MetricDef::gauge(
        "agent.collector.ok",
        Flag,
        0,
        "1 when the collector read all it wanted; absent where it has nothing to read.",
    )
    .by("collector"),
    MetricDef::gauge("agent.cpu", Percent, 2, "The agent's own processor time, of one core.")
        .range(0.0, None),
    MetricDef::gauge("agent.memory", Bytes, 0, "The agent's own resident memory."),
    MetricDef::gauge("agent.spool.snapshots", Count, 0, "Snapshots that wait to be acked."),
    MetricDef::gauge("agent.spool.bytes", Bytes, 0, "Disk space the spool takes."),
    MetricDef::gauge(
        "agent.spool.dropped",
        Count,
        0,
        "Snapshots lost to a full spool since the agent started.",
    )
    .last(),
    MetricDef::gauge("agent.ticks_skipped", Count, 0, "Ticks that came too late since the agent started.")
        .last(),
];

/// What the spool and the ticker counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) pending: u64,
    pub(crate) spool_bytes: u64,
    pub(crate) dropped: u64,
    pub(crate) skipped: u64,
}

/// Remembers what is needed for rates of the own process.
#[derive(Default)]
pub(crate) struct SelfMetrics {
    before: Option<(Duration, u64)>,
}

impl SelfMetrics {
    /// Adds the agent's own samples.
    pub(crate) fn add(
        &mut self,
        derived: &mut Derived,
        reading: &Reading,
        counts: Counts,
        clock: &dyn Clock,
    ) {
        let mut push = |name: &str, instance: &str, value: f64| {
            if let Some(metric) = METRICS.iter().find(|metric| metric.name == name) {
                derived.points.push(Point { metric, instance: Arc::from(instance), value });
            }
        };
        for part in &reading.parts {
            let took = if part.result.is_ok() { part.took.as_secs_f64() * 1000.0 } else { f64::NAN };
            push("agent.collector.duration", part.collector, took);
            let ok = match &part.result {
                Ok(part) => f64::from(u8::from(part.complaints.is_empty())),
                Err(CollectError::NoData) => f64::NAN,
                Err(_) => 0.0,
            };
            push("agent.collector.ok", part.collector, ok);
        }
        let now = clock.monotonic();
        let own = own_process();
        let cpu = match (self.before, own) {
            (Some((then, before)), Some((ticks, _))) if now > then => {
                float(ticks.saturating_sub(before)) / (now - then).as_secs_f64()
            }
            _ => f64::NAN,
        };
        self.before = own.map(|(ticks, _)| (now, ticks));
        push("agent.cpu", "", cpu);
        push("agent.memory", "", own.map_or(f64::NAN, |(_, bytes)| float(bytes)));
        push("agent.spool.snapshots", "", float(counts.pending));
        push("agent.spool.bytes", "", float(counts.spool_bytes));
        push("agent.spool.dropped", "", float(counts.dropped));
        push("agent.ticks_skipped", "", float(counts.skipped));
    }
}

#[expect(clippy::cast_precision_loss, reason = "below 2^53 by far")]
fn float(value: u64) -> f64 {
    value as f64
}

/// Clock ticks used and bytes resident of this process, whatever root the agent watches.
fn own_process() -> Option<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let words: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| words.get(at)?.parse::<u64>().ok();
    // proc_pid_stat(5), counted from the state: utime 11, stime 12, rss 21 in pages.
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
    fn knows_its_own_process() {
        let (_, resident) = super::own_process().unwrap();
        assert!((1 << 20..8 << 30).contains(&resident));
    }
}
