//! Self-metrics of the worker pool.

use crate::WorkError;
use crate::kind::WorkKind;
use perfwatch_model::limit_table;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusalLabel {
    kind: &'static str,
    reason: &'static str,
}

/// Buckets of run times, in seconds.
const RUN_TIME_BUCKETS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 20.0];

/// Queue, run time, timeouts and refusals of the pool.
#[derive(Clone)]
pub struct WorkerMetrics {
    queued: Gauge,
    running: Gauge,
    stuck: Gauge,
    run_time: Family<KindLabel, Histogram, fn() -> Histogram>,
    timeouts: Family<KindLabel, Counter>,
    refusals: Family<RefusalLabel, Counter>,
}

fn run_time_histogram() -> Histogram {
    Histogram::new(RUN_TIME_BUCKETS)
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self {
            queued: Gauge::default(),
            running: Gauge::default(),
            stuck: Gauge::default(),
            run_time: Family::new_with_constructor(run_time_histogram as fn() -> Histogram),
            timeouts: Family::default(),
            refusals: Family::default(),
        }
    }
}

impl WorkerMetrics {
    /// Registers the metrics. All kinds of work are exposed from the start, as 0.
    pub fn register(&self, registry: &mut Registry) {
        for kind in WorkKind::ALL.map(WorkKind::name) {
            drop(self.run_time.get_or_create(&KindLabel { kind }));
            drop(self.timeouts.get_or_create(&KindLabel { kind }));
        }
        let r = registry.sub_registry_with_prefix("worker");
        r.register("queued_jobs", "Jobs that wait for a worker thread", self.queued.clone());
        r.register("running_jobs", "Jobs on worker threads", self.running.clone());
        r.register("stuck_jobs", "Running jobs that exceeded their time limit", self.stuck.clone());
        r.register_with_unit(
            "run_duration",
            "Run time of jobs by kind of work",
            Unit::Seconds,
            self.run_time.clone(),
        );
        r.register("timeouts", "Jobs that exceeded their time limit", self.timeouts.clone());
        r.register("refusals", "Jobs that were refused, by kind of work and reason", self.refusals.clone());
    }

    pub(crate) fn set_load(&self, queued: usize, running: usize, stuck: usize) {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.queued.set(gauge(queued));
        self.running.set(gauge(running));
        self.stuck.set(gauge(stuck));
    }

    pub(crate) fn record_run(&self, kind: WorkKind, duration: Duration) {
        self.run_time.get_or_create(&KindLabel { kind: kind.name() }).observe(duration.as_secs_f64());
    }

    pub(crate) fn record_error(&self, kind: WorkKind, error: WorkError) {
        let kind = kind.name();
        let reason = match error {
            WorkError::TimedOut(_) => {
                limit_table::JOB_TIME.refuse();
                self.timeouts.get_or_create(&KindLabel { kind }).inc();
                return;
            }
            WorkError::InputTooLarge(_) => "input_too_large",
            WorkError::ShareExceeded => "share_exceeded",
            WorkError::QueueFull => "queue_full",
            WorkError::Failed => "failed",
        };
        self.refusals.get_or_create(&RefusalLabel { kind, reason }).inc();
        match error {
            WorkError::InputTooLarge(_) => limit_table::JOB_BYTES.refuse(),
            WorkError::ShareExceeded => limit_table::WAITING_JOBS_PER_PRINCIPAL.refuse(),
            WorkError::QueueFull => limit_table::WAITING_JOBS.refuse(),
            WorkError::TimedOut(_) | WorkError::Failed => {}
        }
    }
}
