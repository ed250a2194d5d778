//! The hub about itself, as Prometheus text at `/metrics`.

use perfwatch_agentless::AgentlessMetrics;
use perfwatch_alerting::AlertingMetrics;
use perfwatch_history::HistoryMetrics;
use perfwatch_live::cache;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Code {
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Where a live connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    Connecting,
    Authenticated,
    Live,
    Draining,
}

impl ConnectionState {
    fn label(self) -> State {
        let state = match self {
            Self::Connecting => "connecting",
            Self::Authenticated => "authenticated",
            Self::Live => "live",
            Self::Draining => "draining",
        };
        State { state }
    }
}

/// All of the hub's own metrics.
pub(crate) struct SelfMetrics {
    registry: Registry,
    snapshots: Family<Outcome, Counter>,
    samples: Counter,
    ingest_bytes: Counter,
    ingest_errors: Family<Code, Counter>,
    ingest_seconds: Histogram,
    websocket_connections: Family<State, Gauge>,
    open_connections: Gauge,
    disconnects: Family<Reason, Counter>,
    connection_seconds: Histogram,
    messages_sent: Counter,
    sent_bytes: Counter,
    dropped_snapshots: Counter,
    live_delay_seconds: Histogram,
    /// Counted by history's tasks.
    pub(crate) history: HistoryMetrics,
    /// Counted as alerts come and go.
    pub(crate) alerts: AlertingMetrics,
    /// Counted as Redis does not answer.
    pub(crate) cache: cache::CacheMetrics,
    /// Counted as hosts are looked at.
    pub(crate) servers: AgentlessMetrics,
    hosts: Gauge,
    memory: Gauge,
    open_fds: Gauge,
    cpu_seconds: Gauge<f64, AtomicU64>,
}

const DELAYS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

impl SelfMetrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("perfwatch"),
            snapshots: Family::default(),
            samples: Counter::default(),
            ingest_bytes: Counter::default(),
            ingest_errors: Family::default(),
            ingest_seconds: Histogram::new(DELAYS),
            websocket_connections: Family::default(),
            open_connections: Gauge::default(),
            disconnects: Family::default(),
            connection_seconds: Histogram::new([1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0]),
            messages_sent: Counter::default(),
            sent_bytes: Counter::default(),
            dropped_snapshots: Counter::default(),
            live_delay_seconds: Histogram::new(DELAYS),
            history: HistoryMetrics::default(),
            alerts: AlertingMetrics::default(),
            cache: cache::CacheMetrics::default(),
            servers: AgentlessMetrics::default(),
            hosts: Gauge::default(),
            memory: Gauge::default(),
            open_fds: Gauge::default(),
            cpu_seconds: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "ingest_snapshots",
            "Received snapshots by outcome (accepted, duplicate, rejected).",
            self.snapshots.clone(),
        );
        r.register("ingest_samples", "Samples in accepted snapshots.", self.samples.clone());
        r.register_with_unit(
            "ingest_received",
            "Request body bytes before decompression.",
            Unit::Bytes,
            self.ingest_bytes.clone(),
        );
        r.register(
            "ingest_errors",
            "Ingest requests that failed, by error code.",
            self.ingest_errors.clone(),
        );
        r.register_with_unit(
            "ingest_request",
            "Time from the end of the request body to the acknowledgment.",
            Unit::Seconds,
            self.ingest_seconds.clone(),
        );
        r.register("live_connections", "WebSocket connections by state.", self.websocket_connections.clone());
        r.register("live_closed", "Closed WebSocket connections by reason.", self.disconnects.clone());
        r.register_with_unit(
            "live_connection",
            "Lifetime of WebSocket connections.",
            Unit::Seconds,
            self.connection_seconds.clone(),
        );
        r.register("live_messages", "Messages sent to WebSocket clients.", self.messages_sent.clone());
        r.register_with_unit(
            "live_sent",
            "Bytes sent to WebSocket clients.",
            Unit::Bytes,
            self.sent_bytes.clone(),
        );
        r.register(
            "live_missed",
            "Snapshots not sent because the client was too slow.",
            self.dropped_snapshots.clone(),
        );
        r.register_with_unit(
            "live_delay",
            "Time from acceptance of a snapshot to the client's socket.",
            Unit::Seconds,
            self.live_delay_seconds.clone(),
        );
        self.history.register(r);
        self.cache.register(r);
        self.alerts.register(r);
        self.servers.register(r);
        r.register("hosts", "Known hosts.", self.hosts.clone());
        r.register_with_unit(
            "process_resident_memory",
            "Resident memory size in bytes.",
            Unit::Bytes,
            self.memory.clone(),
        );
        r.register("process_open_handles", "Number of open file descriptors.", self.open_fds.clone());
        r.register_with_unit(
            "process_cpu",
            "Total user and system CPU time in seconds.",
            Unit::Seconds,
            self.cpu_seconds.clone(),
        );
    }

    fn snapshots(&self, outcome: &'static str, count: usize) {
        if count > 0 {
            self.snapshots.get_or_create(&Outcome { outcome }).inc_by(count as u64);
        }
    }

    pub(crate) fn accepted(&self, samples: usize) {
        self.snapshots("accepted", 1);
        self.samples.inc_by(samples as u64);
    }

    pub(crate) fn duplicates(&self, count: usize) {
        self.snapshots("duplicate", count);
    }

    pub(crate) fn rejected(&self, count: usize) {
        self.snapshots("rejected", count);
    }

    pub(crate) fn ingest_bytes(&self, bytes: usize) {
        self.ingest_bytes.inc_by(bytes as u64);
    }

    /// Codes are the hub's own, so that there are never many.
    pub(crate) fn ingest_failed(&self, code: &str) {
        self.ingest_errors.get_or_create(&Code { code: code.to_owned() }).inc();
    }

    pub(crate) fn record_ingest_duration(&self, time: Duration) {
        self.ingest_seconds.observe(time.as_secs_f64());
    }

    pub(crate) fn live_clients(&self) -> usize {
        usize::try_from(self.open_connections.get()).unwrap_or_default()
    }

    pub(crate) fn record_message(&self, bytes: usize) {
        self.messages_sent.inc();
        self.sent_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn record_dropped(&self, missed: u64) {
        self.dropped_snapshots.inc_by(missed);
    }

    pub(crate) fn record_publish_delay(&self, time: Duration) {
        self.live_delay_seconds.observe(time.as_secs_f64());
    }

    /// Snapshots accepted since start.
    pub(crate) fn accepted_total(&self) -> u64 {
        self.snapshots.get_or_create(&Outcome { outcome: "accepted" }).get()
    }

    /// The text of `/metrics`.
    pub(crate) fn render(&self, hosts: usize) -> String {
        self.hosts.set(i64::try_from(hosts).unwrap_or(i64::MAX));
        if let Some(own) = ProcessMetrics::read() {
            self.memory.set(i64::try_from(own.resident_bytes).unwrap_or(i64::MAX));
            self.open_fds.set(i64::try_from(own.handles).unwrap_or(i64::MAX));
            self.cpu_seconds.set(own.cpu_seconds);
        }
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// This process as the kernel sees it.
pub(crate) struct ProcessMetrics {
    pub(crate) resident_bytes: u64,
    pub(crate) handles: u64,
    pub(crate) cpu_seconds: f64,
}

impl ProcessMetrics {
    pub(crate) fn read() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?.split_ascii_whitespace().next()?.parse::<u64>().ok()
        })?;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let words: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // proc_pid_stat(5), counted from the state: utime and stime in 1/100 s.
        let ticks = |at: usize| words.get(at)?.parse::<u32>().ok();
        let handles = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        Some(Self {
            resident_bytes: resident.saturating_mul(1024),
            handles,
            cpu_seconds: f64::from(ticks(11)?.saturating_add(ticks(12)?)) / 100.0,
        })
    }
}

/// One live connection in the gauges, wherever its task ends.
pub(crate) struct ConnectionGauge {
    metrics: Arc<SelfMetrics>,
    state: ConnectionState,
    began: tokio::time::Instant,
    reason: &'static str,
}

impl ConnectionGauge {
    pub(crate) fn new(metrics: Arc<SelfMetrics>) -> Self {
        let state = ConnectionState::Connecting;
        metrics.websocket_connections.get_or_create(&state.label()).inc();
        metrics.open_connections.inc();
        Self { metrics, state, began: tokio::time::Instant::now(), reason: "aborted" }
    }

    pub(crate) fn set(&mut self, state: ConnectionState) {
        self.metrics.websocket_connections.get_or_create(&self.state.label()).dec();
        self.metrics.websocket_connections.get_or_create(&state.label()).inc();
        self.state = state;
    }

    pub(crate) fn close(mut self, reason: &'static str) {
        self.reason = reason;
    }
}

impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        self.metrics.websocket_connections.get_or_create(&self.state.label()).dec();
        self.metrics.open_connections.dec();
        self.metrics.disconnects.get_or_create(&Reason { reason: self.reason }).inc();
        self.metrics.connection_seconds.observe(self.began.elapsed().as_secs_f64());
    }
}
