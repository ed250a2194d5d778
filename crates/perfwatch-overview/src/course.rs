//! Course of the visible hosts over the last 24 hours: sums, bands and health.

use crate::day::{BUCKET_MS, DAY_METRICS, HostDay, MAX_BUCKETS, bucket_of};
use crate::fleet::FleetHost;
use crate::response::OverviewHistoryResponse;
use crate::view::{VisibleHosts, band, mean};
use perfwatch_alerting::Alert;
use perfwatch_model::HostId;
use perfwatch_rules::rule::Severity;
use std::collections::HashMap;

/// Number of states of a host: healthy, warning, critical, unknown.
pub(crate) const MAX_LEVELS: usize = 4;

/// Level of an alert in the health of a host; `None` if it does not count.
pub(crate) fn level_of(severity: Severity) -> Option<u8> {
    match severity {
        Severity::Critical => Some(2),
        Severity::Warning => Some(1),
        Severity::Info => None,
    }
}

/// Worst severity of each bucket of a host, from its alerts; 0 without an alert.
type Severities = [u8; MAX_BUCKETS];

/// Worst alert of every host in every bucket from `first`.
fn severities(alerts: &[Alert], first: i64) -> HashMap<HostId, Severities> {
    let mut by_host: HashMap<HostId, Severities> = HashMap::new();
    for alert in alerts {
        let Some(level) = level_of(alert.severity) else { continue };
        let from = (bucket_of(alert.fired_ms) - first).max(0);
        let to = alert.resolved_ms.map_or(i64::MAX, |at_ms| bucket_of(at_ms) - first);
        let slots = by_host.entry(alert.host).or_insert([0; MAX_BUCKETS]);
        for (offset, slot) in slots.iter_mut().enumerate() {
            let offset = i64::try_from(offset).unwrap_or_default();
            if (from..=to).contains(&offset) {
                *slot = (*slot).max(level);
            }
        }
    }
    by_host
}

/// Newest value of a metric of [`DAY_METRICS`].
fn newest(host: &FleetHost, metric: usize) -> Option<f64> {
    let values = host.values.as_ref()?;
    [values.cpu, values.memory, values.rx, values.tx][metric]
}

/// Sum without the parts that are missing; `None` if all are.
fn sum(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>().round())
}

impl OverviewHistoryResponse {
    /// Appends a step: the values of its hosts by metric of [`DAY_METRICS`], and the number of hosts by level.
    pub(crate) fn push_step(
        &mut self,
        [cpu, memory, rx, tx]: [Vec<f64>; DAY_METRICS.len()],
        levels: [usize; MAX_LEVELS],
    ) {
        self.hosts.push(cpu.len());
        self.cpu.push(mean(&cpu));
        let (p5, p95) = band(cpu);
        self.cpu_p5.push(p5);
        self.cpu_p95.push(p95);
        self.memory.push(mean(&memory));
        self.rx.push(sum(&rx));
        self.tx.push(sum(&tx));
        let health = &mut self.health;
        let lists = [&mut health.healthy, &mut health.warning, &mut health.critical, &mut health.unknown];
        lists.into_iter().zip(levels).for_each(|(list, count)| list.push(count));
    }
}

/// Builds the course of the last 24 hours.
pub(crate) fn build(
    visible: &VisibleHosts<'_>,
    days: &HashMap<HostId, HostDay>,
    alerts: &[Alert],
    now_ms: i64,
) -> OverviewHistoryResponse {
    let last = bucket_of(now_ms);
    let first = last - MAX_BUCKETS as i64 + 1;
    let by_host = severities(alerts, first);
    let mut response = OverviewHistoryResponse {
        step_ms: BUCKET_MS,
        t: (first..=last).map(|bucket| bucket * BUCKET_MS).collect(),
        ..OverviewHistoryResponse::default()
    };
    for (offset, bucket) in (first..=last).enumerate() {
        let metric = |metric: usize| -> Vec<f64> {
            let day = |host: &FleetHost| days.get(&host.host.record.id)?.mean(bucket, metric);
            // Until the first sample of the current step, the newest values stand for it.
            let value =
                |host: &&FleetHost| day(host).or_else(|| newest(host, metric).filter(|_| bucket == last));
            visible.0.iter().filter_map(value).collect()
        };
        let mut counts = [0; MAX_LEVELS];
        for host in &visible.0 {
            let record = &host.host.record;
            // A host has no state before it joined.
            if bucket_of(record.first_seen_ms) > bucket {
                continue;
            }
            let has_data = days.get(&record.id).is_some_and(|day| day.contains_bucket(bucket))
                || (bucket == last && host.values.is_some());
            match by_host.get(&record.id).map_or(0, |slots| slots[offset]) {
                2 => counts[2] += 1,
                1 => counts[1] += 1,
                _ if has_data => counts[0] += 1,
                _ => counts[3] += 1,
            }
        }
        response.push_step(std::array::from_fn(metric), counts);
    }
    response
}
