//! Self-metrics of the hub in the OpenMetrics text format, served at `/metrics`.

mod latency;
mod limits;
mod live_connections;
pub mod recorder;
pub mod response;
mod routes;
pub mod status;
pub mod text_format;

use latency::LatencyCounts;
pub use live_connections::LiveClient;
use live_connections::{LiveConnection, LiveConnections};
use perfwatch_agentless::AgentlessMetrics;
use perfwatch_alerting::AlertingMetrics;
use perfwatch_history::HistoryMetrics;
use perfwatch_http::connections::ConnectionCollector;
use perfwatch_http::poll_times::PollTimes;
use perfwatch_http::process_metrics::ProcessCollector;
use perfwatch_live::cache;
use perfwatch_live::live_stream::LiveStreamMetrics;
use perfwatch_model::Clock;
use perfwatch_model::task_runs::TaskRuns;
use perfwatch_workers::WorkerMetrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use response::{ConnectionListResponse, TaskListResponse, TaskResponse};
pub use routes::RouteTimes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabel {
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// State of a WebSocket connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Waits for the credential.
    Connecting,
    /// Has a valid credential and no subscription yet.
    Authenticated,
    /// Receives snapshots.
    Live,
    /// Closes because the hub shuts down.
    Draining,
}

impl ConnectionState {
    fn label(self) -> StateLabel {
        let state = match self {
            Self::Connecting => "connecting",
            Self::Authenticated => "authenticated",
            Self::Live => "live",
            Self::Draining => "draining",
        };
        StateLabel { state }
    }
}

/// Metrics of the hub and its components.
pub struct SelfMetrics {
    registry: Registry,
    snapshots: Family<OutcomeLabel, Counter>,
    samples: Counter,
    received_bytes: Counter,
    ingest_errors: Family<CodeLabel, Counter>,
    ingest_seconds: Histogram,
    websocket_connections: Family<StateLabel, Gauge>,
    /// Total of `websocket_connections`; not exported.
    open_connections: Gauge,
    disconnects: Family<ReasonLabel, Counter>,
    connection_seconds: Histogram,
    messages_sent: Counter,
    sent_bytes: Counter,
    dropped_snapshots: Counter,
    publish_delay_seconds: Histogram,
    /// Metrics of storage and its maintenance tasks.
    pub history: HistoryMetrics,
    /// Metrics of alerts and notifications.
    pub alerts: AlertingMetrics,
    /// Metrics of the cache in Redis.
    pub cache: cache::CacheMetrics,
    /// Metrics of the snapshots shared between hubs.
    pub mirror: LiveStreamMetrics,
    /// Metrics of SSH collections.
    pub servers: AgentlessMetrics,
    workers: WorkerMetrics,
    /// Poll times of requests.
    pub polls: PollTimes,
    hosts: Gauge,
    /// Last runs of the background tasks.
    pub tasks: TaskRuns,
    /// Requests of the last hour by route.
    pub routes: RouteTimes,
    connections: LiveConnections,
    next_connection: AtomicU64,
    ack_latency: LatencyCounts,
    delay_latency: LatencyCounts,
    /// Failed ingest requests, whatever their code.
    failed_requests: AtomicU64,
    evaluated: AtomicU64,
}

/// Maximum number of connections in a list.
const MAX_LISTED_CONNECTIONS: usize = 200;

/// Buckets of ingestion and publication times, in seconds.
const LATENCY_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// Buckets of connection lifetimes, in seconds: one second to ten hours.
const LIFETIME_BUCKETS: [f64; 6] = [1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0];

impl SelfMetrics {
    /// Creates and registers all metrics, with those of the worker pool. Polls are timed by the clock.
    pub fn new(workers: WorkerMetrics, clock: Arc<dyn Clock>) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            snapshots: Family::default(),
            samples: Counter::default(),
            received_bytes: Counter::default(),
            ingest_errors: Family::default(),
            ingest_seconds: Histogram::new(LATENCY_BUCKETS),
            websocket_connections: Family::default(),
            open_connections: Gauge::default(),
            disconnects: Family::default(),
            connection_seconds: Histogram::new(LIFETIME_BUCKETS),
            messages_sent: Counter::default(),
            sent_bytes: Counter::default(),
            dropped_snapshots: Counter::default(),
            publish_delay_seconds: Histogram::new(LATENCY_BUCKETS),
            history: HistoryMetrics::default(),
            alerts: AlertingMetrics::default(),
            cache: cache::CacheMetrics::default(),
            mirror: LiveStreamMetrics::default(),
            servers: AgentlessMetrics::default(),
            workers,
            polls: PollTimes::new(clock),
            hosts: Gauge::default(),
            tasks: TaskRuns::default(),
            routes: RouteTimes::default(),
            connections: LiveConnections::default(),
            next_connection: AtomicU64::new(0),
            ack_latency: LatencyCounts::default(),
            delay_latency: LatencyCounts::default(),
            failed_requests: AtomicU64::new(0),
            evaluated: AtomicU64::new(0),
        };
        // All components record their tasks in one list.
        metrics.history.tasks = metrics.tasks.clone();
        metrics.alerts.tasks = metrics.tasks.clone();
        metrics.servers.tasks = metrics.tasks.clone();
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        self.registry.register_collector(Box::new(ProcessCollector));
        self.registry.register_collector(Box::new(limits::LimitCollector));
        self.registry.register_collector(Box::new(ConnectionCollector));
        let r = self.registry.sub_registry_with_prefix("perfwatch");
        // The registry appends a period to each description.
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "Version of the hub", version);
        r.register("hosts", "Known hosts", self.hosts.clone());
        r.register(
            "ingest_snapshots",
            "Received snapshots by outcome (accepted, duplicate, rejected)",
            self.snapshots.clone(),
        );
        r.register("ingest_samples", "Samples in accepted snapshots", self.samples.clone());
        r.register_with_unit(
            "ingest_received",
            "Request body bytes before decompression",
            Unit::Bytes,
            self.received_bytes.clone(),
        );
        r.register("ingest_errors", "Ingest requests that failed, by error code", self.ingest_errors.clone());
        r.register_with_unit(
            "ingest_request_duration",
            "Time from the end of the request body to the acknowledgment",
            Unit::Seconds,
            self.ingest_seconds.clone(),
        );
        self.register_websocket();
        let r = self.registry.sub_registry_with_prefix("perfwatch");
        self.history.register(r);
        self.cache.register(r);
        self.mirror.register(r);
        self.alerts.register(r);
        self.servers.register(r);
        self.workers.register(r);
        self.polls.register(r);
    }

    fn register_websocket(&mut self) {
        let r = self.registry.sub_registry_with_prefix("perfwatch_websocket");
        r.register("connections", "WebSocket connections by state", self.websocket_connections.clone());
        r.register("disconnects", "Closed WebSocket connections by reason", self.disconnects.clone());
        r.register_with_unit(
            "connection_duration",
            "Lifetime of WebSocket connections",
            Unit::Seconds,
            self.connection_seconds.clone(),
        );
        r.register("messages_sent", "Messages sent to WebSocket clients", self.messages_sent.clone());
        r.register_with_unit("sent", "Bytes sent to WebSocket clients", Unit::Bytes, self.sent_bytes.clone());
        r.register(
            "dropped_snapshots",
            "Snapshots not sent because the client was too slow",
            self.dropped_snapshots.clone(),
        );
        r.register_with_unit(
            "publish_delay",
            "Time from acceptance of a snapshot to the client's socket",
            Unit::Seconds,
            self.publish_delay_seconds.clone(),
        );
    }

    fn count_snapshots(&self, outcome: &'static str, count: usize) {
        if count > 0 {
            self.snapshots.get_or_create(&OutcomeLabel { outcome }).inc_by(count as u64);
        }
    }

    /// Counts an accepted snapshot and its samples.
    pub fn accepted(&self, samples: usize) {
        self.count_snapshots("accepted", 1);
        self.samples.inc_by(samples as u64);
    }

    /// Counts snapshots that were stored before.
    pub fn duplicates(&self, count: usize) {
        self.count_snapshots("duplicate", count);
    }

    /// Counts permanently rejected snapshots.
    pub fn rejected(&self, count: usize) {
        self.count_snapshots("rejected", count);
    }

    /// Counts the bytes of a request as received.
    pub fn ingest_bytes(&self, bytes: usize) {
        self.received_bytes.inc_by(bytes as u64);
    }

    /// Counts a failed request. Error codes are constants of the hub, which bounds the number of labels.
    pub fn ingest_failed(&self, code: &str) {
        self.ingest_errors.get_or_create(&CodeLabel { code: code.to_owned() }).inc();
        self.failed_requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Records the duration of an ingest request.
    pub fn record_ingest_duration(&self, time: Duration) {
        self.ingest_seconds.observe(time.as_secs_f64());
        self.ack_latency.record(time);
    }

    /// Number of open WebSocket connections.
    pub fn websocket_clients(&self) -> usize {
        usize::try_from(self.open_connections.get()).unwrap_or_default()
    }

    /// Counts a snapshot whose rules were evaluated.
    pub fn record_evaluated(&self) {
        self.evaluated.fetch_add(1, Ordering::Relaxed);
    }

    fn record_message(&self, bytes: usize) {
        self.messages_sent.inc();
        self.sent_bytes.inc_by(bytes as u64);
    }

    fn record_dropped(&self, dropped: u64) {
        self.dropped_snapshots.inc_by(dropped);
    }

    /// Records the time from acceptance to the message to a client.
    pub fn record_publish_delay(&self, time: Duration) {
        self.publish_delay_seconds.observe(time.as_secs_f64());
        self.delay_latency.record(time);
    }

    /// Number of snapshots accepted since the start.
    pub fn accepted_total(&self) -> u64 {
        self.snapshots.get_or_create(&OutcomeLabel { outcome: "accepted" }).get()
    }

    fn rejected_total(&self) -> u64 {
        self.snapshots.get_or_create(&OutcomeLabel { outcome: "rejected" }).get()
    }

    /// Open WebSocket connections with what they receive.
    pub fn list_connections(&self, now_ms: i64) -> ConnectionListResponse {
        self.connections.list(now_ms, MAX_LISTED_CONNECTIONS)
    }

    /// Last runs of the background tasks.
    pub fn list_tasks(&self) -> TaskListResponse {
        let to_response = |(name, run): (&'static str, perfwatch_model::task_runs::TaskRun)| TaskResponse {
            name,
            last_ms: run.ended_ms,
            took_ms: run.took.as_secs_f64() * 1_000.0,
            next_ms: run.interval.map(|interval| {
                run.ended_ms.saturating_add(i64::try_from(interval.as_millis()).unwrap_or(i64::MAX))
            }),
            runs: run.runs,
            failures: run.failures,
            error: run.error,
        };
        TaskListResponse { tasks: self.tasks.list().into_iter().map(to_response).collect() }
    }

    /// Content of `/metrics` in OpenMetrics format.
    pub fn render(&self, hosts: usize) -> String {
        self.hosts.set(i64::try_from(hosts).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Guard that counts one WebSocket connection until it is dropped.
pub struct ConnectionGauge {
    metrics: Arc<SelfMetrics>,
    state: ConnectionState,
    started: tokio::time::Instant,
    reason: &'static str,
    number: u64,
    connection: Arc<LiveConnection>,
}

impl ConnectionGauge {
    /// Counts a connection that opens.
    pub fn new(metrics: Arc<SelfMetrics>, client: LiveClient) -> Self {
        let state = ConnectionState::Connecting;
        metrics.websocket_connections.get_or_create(&state.label()).inc();
        metrics.open_connections.inc();
        let number = metrics.next_connection.fetch_add(1, Ordering::Relaxed);
        let connection = metrics.connections.open(number, client);
        Self { metrics, state, started: tokio::time::Instant::now(), reason: "aborted", number, connection }
    }

    /// Counts a message to the client and its bytes.
    pub fn record_message(&self, bytes: usize) {
        self.metrics.record_message(bytes);
        self.connection.messages.fetch_add(1, Ordering::Relaxed);
        self.connection.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts snapshots that the client did not receive because it is slow.
    pub fn record_dropped(&self, dropped: u64) {
        self.metrics.record_dropped(dropped);
        self.connection.dropped.fetch_add(dropped, Ordering::Relaxed);
    }

    /// Sets the number of selected hosts; `None` for all.
    pub fn set_hosts(&self, hosts: Option<usize>) {
        self.connection.hosts.store(hosts.map_or(0, |hosts| hosts as u64 + 1), Ordering::Relaxed);
    }

    /// Changes the state of the connection.
    pub fn set(&mut self, state: ConnectionState) {
        self.metrics.websocket_connections.get_or_create(&self.state.label()).dec();
        self.metrics.websocket_connections.get_or_create(&state.label()).inc();
        self.state = state;
    }

    /// Closes the connection with a reason for the metrics.
    pub fn close(mut self, reason: &'static str) {
        self.reason = reason;
    }
}

impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        self.metrics.connections.close(self.number);
        self.metrics.websocket_connections.get_or_create(&self.state.label()).dec();
        self.metrics.open_connections.dec();
        self.metrics.disconnects.get_or_create(&ReasonLabel { reason: self.reason }).inc();
        self.metrics.connection_seconds.observe(self.started.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::SystemClock;
    use std::collections::HashMap;

    /// Endings of names with a unit, and units that are no base units of Prometheus.
    const BASE_UNITS: [&str; 4] = ["_seconds", "_bytes", "_ratio", "_info"];
    const OTHER_UNITS: [&str; 8] =
        ["_ms", "_milliseconds", "_minutes", "_hours", "_kb", "_mb", "_percent", "_kib"];

    #[test]
    fn exposition_follows_the_naming_rules() {
        let metrics = Arc::new(SelfMetrics::new(WorkerMetrics::default(), Arc::new(SystemClock::new())));
        metrics.accepted(3);
        metrics.ingest_failed("malformed_json");
        metrics.record_ingest_duration(Duration::from_millis(1));
        let client =
            LiveClient { actor: "user vera".to_owned(), address: "10.0.0.1".to_owned(), since_ms: 0 };
        let gauge = ConnectionGauge::new(metrics.clone(), client);
        gauge.record_message(0);
        gauge.record_dropped(3);
        gauge.set_hosts(Some(2));
        let list = metrics.list_connections(10_000);
        let open = &list.connections[0];
        assert_eq!((list.total, open.hosts, open.dropped, open.messages), (1, Some(2), 3, 1));
        gauge.close("client_closed");
        assert_eq!(metrics.list_connections(10_000).total, 0);
        let text = metrics.render(2);
        assert!(text.ends_with("# EOF\n"));
        let comments = |kind: &str| -> HashMap<&str, &str> {
            let lines = text.lines().filter_map(|line| line.strip_prefix("# ")?.strip_prefix(kind));
            lines.filter_map(|line| line.trim_start().split_once(' ')).collect()
        };
        let (help, types, units) = (comments("HELP "), comments("TYPE "), comments("UNIT "));
        assert!(help.len() > 25 && help.len() == types.len(), "{} of {}", help.len(), types.len());
        for (name, kind) in &types {
            assert!(name.starts_with("perfwatch_") || name.starts_with("process_"), "{name}");
            let description = help[name];
            assert!(description.ends_with('.') && !description.ends_with(".."), "{name}: {description}");
            assert!(
                !name.ends_with("_total") && !OTHER_UNITS.iter().any(|unit| name.ends_with(unit)),
                "{name}"
            );
            let unit = units.get(name).map_or_else(String::new, |unit| format!("_{unit}"));
            assert!(
                name.ends_with(&unit) && (unit.is_empty() || BASE_UNITS.contains(&&*unit)),
                "{name} {unit}"
            );
            assert!(*kind != "histogram" || unit == "_seconds", "{name}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let sample = line.split(['{', ' ']).next().unwrap();
            let counter = sample.strip_suffix("_total");
            let is_counter = counter.is_some_and(|name| types.get(name) == Some(&"counter"));
            assert_eq!(is_counter, sample.ends_with("_total"), "{line}");
        }
        for name in [
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_max_fds",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
            "process_virtual_memory_bytes",
            "perfwatch_build_info{version=\"",
            "perfwatch_hosts 2",
            "perfwatch_ingest_request_duration_seconds_bucket",
            "perfwatch_limit_refusals_total{limit=\"body_bytes\"} ",
            "perfwatch_ingest_snapshots_total{outcome=\"accepted\"} 1",
            "perfwatch_websocket_disconnects_total{reason=\"client_closed\"} 1",
            "perfwatch_websocket_sent_bytes_total 0",
            "perfwatch_redis_errors_total",
            "perfwatch_ssh_collections_total",
            "perfwatch_ssh_tests_refused_total",
            "perfwatch_worker_queued_jobs 0",
            "perfwatch_worker_run_duration_seconds_bucket",
            "perfwatch_worker_timeouts_total{kind=\"private_key\"} 0",
            "perfwatch_tsdb_blocks_sealed_total",
        ] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} in {text}");
        }
    }
}
