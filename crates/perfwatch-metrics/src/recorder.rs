//! Records the self-metrics of the hub in its own history, as instances of one host that no list shows.
//!
//! The rows pass the head, sealing, roll-up and retention as those of other hosts. They do not pass the ingestion
//! pipeline: the hub is no host with alerts, and a hub whose ingestion is blocked is seen by that gap.

use crate::SelfMetrics;
use crate::latency::{BUCKETS_LEN, quantile_ms};
use perfwatch_history::History;
use perfwatch_http::process_metrics::ProcessMetrics;
use perfwatch_model::column::Column;
use perfwatch_model::fixed_point::scale;
use perfwatch_model::{BootId, Clock, HostId, MISSING, Shape, Snapshot};
use perfwatch_rules::hub_metric::{HUB_METRICS, HubMetric, HubMetricDef};
use perfwatch_store::collection_jobs::CollectionJobs;
use perfwatch_store::outbox::Outbox;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Interval of the records.
pub const RECORD_INTERVAL: Duration = Duration::from_secs(10);
/// Name of the task in the list of tasks.
const TASK: &str = "hub_metrics";

/// Value of each metric.
type HubValues = [Option<f64>; HUB_METRICS.len()];

/// Counters at one time.
struct Counters {
    at: Duration,
    cpu_seconds: Option<f64>,
    /// Counters whose rates are recorded.
    totals: [u64; 13],
    ack: [u64; BUCKETS_LEN],
    delay: [u64; BUCKETS_LEN],
    http: [u64; BUCKETS_LEN],
}

/// Background task that records the metrics.
pub struct Recorder {
    metrics: Arc<SelfMetrics>,
    history: Arc<History>,
    clock: Arc<dyn Clock>,
    shape: Arc<Shape>,
    boot: BootId,
    seq: u64,
}

fn quantiles(now: &[u64; BUCKETS_LEN], before: &[u64; BUCKETS_LEN], quantile: f64) -> Option<f64> {
    quantile_ms(&std::array::from_fn(|bucket| now[bucket].saturating_sub(before[bucket])), quantile)
}

impl Recorder {
    /// Recorder of this hub, whose id is the instance of all series.
    pub fn new(metrics: Arc<SelfMetrics>, history: Arc<History>, clock: Arc<dyn Clock>) -> Self {
        let hub: Box<str> = history.backend().hub_id().into();
        let column = |def: HubMetricDef| Column {
            metric: def.series.into(),
            dimension: "hub".into(),
            instance: hub.clone(),
            decimals: def.decimals,
        };
        let shape = Arc::new(Shape::new(HUB_METRICS.map(column).into()));
        Self { metrics, history, clock, shape, boot: BootId::generate(), seq: 0 }
    }

    /// Records until cancelled. `hosts` returns the number of known hosts.
    pub async fn run(mut self, hosts: impl Fn() -> usize, stop: CancellationToken) {
        let mut ticks = interval(RECORD_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = self.read_counters();
        let mut was_failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = self.read_counters();
            if now.at.saturating_sub(before.at) < RECORD_INTERVAL / 2 {
                continue;
            }
            let snapshot = self.snapshot(&before, &now, hosts()).await;
            before = now;
            let result = self.history.append(HostId::HUBS, vec![Arc::new(snapshot)]).await;
            let took = self.clock.monotonic().saturating_sub(before.at);
            let error = result.as_ref().err().map(ToString::to_string);
            let run = (self.clock.wall_ms(), took);
            self.metrics.tasks.record(TASK, Some(RECORD_INTERVAL), run, error.clone());
            if let Some(error) = error.filter(|_| !was_failing) {
                tracing::warn!(error, "failed to record the metrics of the hub");
            }
            was_failing = result.is_err();
        }
    }

    fn read_counters(&self) -> Counters {
        let metrics = &self.metrics;
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            at: self.clock.monotonic(),
            cpu_seconds: ProcessMetrics::read().map(|process| process.cpu_seconds),
            totals: [
                metrics.accepted_total(),
                metrics.samples.get(),
                metrics.received_bytes.get(),
                metrics.rejected_total(),
                load(&metrics.failed_requests),
                load(&metrics.evaluated),
                metrics.messages_sent.get(),
                metrics.sent_bytes.get(),
                metrics.dropped_snapshots.get(),
                load(&metrics.routes.requests),
                load(&metrics.routes.errors),
                metrics.cache.redis_errors.get(),
                metrics.alerts.sent_notifications(),
            ],
            ack: metrics.ack_latency.read(),
            delay: metrics.delay_latency.read(),
            http: metrics.routes.latency.read(),
        }
    }

    /// Values of all metrics over the time between two readings, in the order of [`HUB_METRICS`].
    #[expect(clippy::cast_precision_loss, reason = "rates and counts")]
    async fn values(&self, before: &Counters, now: &Counters, hosts: usize) -> HubValues {
        let seconds = now.at.saturating_sub(before.at).as_secs_f64().max(0.001);
        let rate = |at: usize| Some(now.totals[at].saturating_sub(before.totals[at]) as f64 / seconds);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let cpu = now.cpu_seconds.zip(before.cpu_seconds).map(|(now, before)| (now - before) / seconds);
        let resident = ProcessMetrics::read().map(|process| process.resident_bytes as f64);
        let pending = Outbox::count_pending(self.history.backend()).await.ok().map(|count| count as f64);
        let now_ms = self.clock.wall_ms();
        let jobs = CollectionJobs::stats(self.history.backend(), now_ms, now_ms).await.ok();
        let usage = self.history.metrics.usage();
        let rules = self.metrics.alerts.hub_values();
        let rule = |metric| rules.iter().find(|(known, _)| *known == metric).map(|(_, value)| *value);
        [
            cpu.map(|used| (used / cores * 100.0).max(0.0)),
            resident,
            Some(hosts as f64),
            rate(0),
            rate(1),
            rate(2),
            rate(3),
            rate(4),
            quantiles(&now.ack, &before.ack, 0.5),
            quantiles(&now.ack, &before.ack, 0.99),
            rate(5),
            Some(self.metrics.websocket_clients() as f64),
            rate(6),
            rate(7),
            rate(8),
            quantiles(&now.delay, &before.delay, 0.99),
            rate(9),
            rate(10),
            quantiles(&now.http, &before.http, 0.99),
            rate(12),
            pending,
            Some(usage.used_bytes as f64),
            Some(usage.disk_bytes as f64),
            rate(11),
            Some(self.metrics.polls.longest().as_secs_f64() * 1_000.0),
            jobs.map(|jobs| jobs.waiting as f64),
            rule(HubMetric::IngestBlocked),
            rule(HubMetric::DiskBudgetUsed),
            rule(HubMetric::FailedNotifications),
            rule(HubMetric::SenderConflicts),
        ]
    }

    async fn snapshot(&mut self, before: &Counters, now: &Counters, hosts: usize) -> Snapshot {
        let values = self.values(before, now, hosts).await;
        let measured =
            HUB_METRICS.iter().zip(values).filter(|(def, _)| !def.metric.is_measured_by_alerting());
        let measured = measured.filter_map(|(def, value)| Some((def.metric, value?))).collect();
        self.metrics.alerts.set_recorded_values(now.at, measured);
        let scaled = self.shape.columns().iter().map(|column| {
            let at = HUB_METRICS.iter().position(|def| *def.series == *column.metric);
            at.and_then(|at| values[at]).map_or(MISSING, |value| scale(value, column.decimals))
        });
        let values = scaled.collect();
        self.seq += 1;
        let elapsed = now.at.saturating_sub(before.at).as_millis();
        Snapshot {
            boot: self.boot,
            seq: self.seq,
            at_ms: self.clock.wall_ms(),
            interval_ms: u32::try_from(elapsed).unwrap_or(u32::MAX),
            shape: self.shape.clone(),
            values,
            processes: Vec::new(),
            facts: None,
            errors: Vec::new(),
        }
    }
}
