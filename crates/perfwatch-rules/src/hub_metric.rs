//! Self-metrics of the hub: recorded in its history every ten seconds, and evaluated by `hub` rules.

use perfwatch_model::Unit;
use serde::{Deserialize, Serialize};

/// Self-metric of the hub that a rule can evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HubMetric {
    /// CPU time of the hub, of all processors.
    CpuUsage,
    /// Resident memory of the hub.
    ResidentMemory,
    /// Hosts that the hub knows.
    HostCount,
    /// Accepted snapshots per second.
    IngestRate,
    /// Accepted samples per second.
    SampleRate,
    /// Received bytes of ingest requests per second.
    ReceivedRate,
    /// Rejected snapshots per second.
    RejectedRate,
    /// Failed ingest requests per second.
    IngestErrorRate,
    /// Median time until a batch is durable.
    AckP50,
    /// Time until a batch is durable that 1 % exceed.
    AckP99,
    /// Snapshots per second that rules evaluated.
    EvaluationRate,
    /// Open WebSocket connections.
    WebsocketClients,
    /// Messages per second to WebSocket clients.
    LiveMessageRate,
    /// Bytes per second to WebSocket clients.
    LiveSentRate,
    /// Snapshots per second that slow WebSocket clients missed.
    LiveDropRate,
    /// Time from the acceptance of a snapshot to its last WebSocket client that 1 % exceed.
    LiveDelayP99,
    /// HTTP requests per second.
    RequestRate,
    /// HTTP responses with a status of 500 or more, per second.
    RequestErrorRate,
    /// Time to the start of a response that 1 % exceed.
    RequestP99,
    /// Delivered notifications per second.
    SentNotificationRate,
    /// Notifications that wait for their delivery.
    PendingNotifications,
    /// Used disk space of the store.
    StoreUsed,
    /// Size of the files or relations of the store.
    StoreDisk,
    /// Failed operations of the cache in Redis per second.
    RedisErrorRate,
    /// Longest time for which a request occupied a serving thread, of the last one to two minutes.
    LongestPoll,
    /// Collection jobs that are due and wait for a worker.
    WaitingCollections,
    /// Equals 1 while ingestion is blocked, else 0.
    IngestBlocked,
    /// Used part of the disk budget, in percent.
    DiskBudgetUsed,
    /// Number of notifications that failed permanently in the last 24 hours.
    FailedNotifications,
    /// Number of hosts with several senders in the last hour.
    SenderConflicts,
}

/// Definition of a self-metric.
#[derive(Debug, Clone, Copy)]
pub struct HubMetricDef {
    /// Metric.
    pub metric: HubMetric,
    /// Name of its series in the history of the hubs.
    pub series: &'static str,
    /// Decimals of the recorded values.
    pub decimals: u8,
    /// Unit of the values.
    pub unit: Unit,
    /// Name in the texts of alerts.
    pub label: &'static str,
    /// Description in the documentation.
    pub help: &'static str,
}

const fn def(
    metric: HubMetric,
    (series, decimals): (&'static str, u8),
    unit: Unit,
    label: &'static str,
    help: &'static str,
) -> HubMetricDef {
    HubMetricDef { metric, series, decimals, unit, label, help }
}

/// All self-metrics, in the order of [`HubMetric`].
pub const HUB_METRICS: [HubMetricDef; 30] = {
    use HubMetric as M;
    use Unit::{Bytes, BytesPerSecond, Count, Flag, Milliseconds, PerSecond, Percent};
    [
        def(
            M::CpuUsage,
            ("hub.cpu.usage", 1),
            Percent,
            "CPU usage of the hub",
            "CPU time of the hub, of all processors.",
        ),
        def(
            M::ResidentMemory,
            ("hub.memory.resident", 0),
            Bytes,
            "memory of the hub",
            "Resident memory of the hub.",
        ),
        def(M::HostCount, ("hub.hosts", 0), Count, "known hosts", "Hosts that the hub knows."),
        def(
            M::IngestRate,
            ("hub.ingest.snapshots", 2),
            PerSecond,
            "accepted snapshots",
            "Accepted snapshots per second.",
        ),
        def(
            M::SampleRate,
            ("hub.ingest.samples", 1),
            PerSecond,
            "accepted samples",
            "Accepted samples per second.",
        ),
        def(
            M::ReceivedRate,
            ("hub.ingest.received", 0),
            BytesPerSecond,
            "received data",
            "Received bytes of ingest requests per second.",
        ),
        def(
            M::RejectedRate,
            ("hub.ingest.rejected", 2),
            PerSecond,
            "rejected snapshots",
            "Rejected snapshots per second.",
        ),
        def(
            M::IngestErrorRate,
            ("hub.ingest.errors", 2),
            PerSecond,
            "failed ingest requests",
            "Failed ingest requests per second.",
        ),
        def(
            M::AckP50,
            ("hub.ingest.ack_p50", 2),
            Milliseconds,
            "median acknowledgment time",
            "Median time until a batch is durable.",
        ),
        def(
            M::AckP99,
            ("hub.ingest.ack_p99", 2),
            Milliseconds,
            "99th percentile of acknowledgment times",
            "Time until a batch is durable that 1 % exceed.",
        ),
        def(
            M::EvaluationRate,
            ("hub.alerting.evaluated", 2),
            PerSecond,
            "snapshots evaluated by rules",
            "Snapshots per second that rules evaluated.",
        ),
        def(
            M::WebsocketClients,
            ("hub.live.clients", 0),
            Count,
            "WebSocket connections",
            "Open WebSocket connections.",
        ),
        def(
            M::LiveMessageRate,
            ("hub.live.messages", 2),
            PerSecond,
            "WebSocket messages",
            "Messages per second to WebSocket clients.",
        ),
        def(
            M::LiveSentRate,
            ("hub.live.sent", 0),
            BytesPerSecond,
            "WebSocket data",
            "Bytes per second to WebSocket clients.",
        ),
        def(
            M::LiveDropRate,
            ("hub.live.dropped", 2),
            PerSecond,
            "snapshots dropped for slow clients",
            "Snapshots per second that slow WebSocket clients missed.",
        ),
        def(
            M::LiveDelayP99,
            ("hub.live.delay_p99", 2),
            Milliseconds,
            "99th percentile of live delays",
            "Time from the acceptance of a snapshot to its last WebSocket client that 1 % exceed.",
        ),
        def(
            M::RequestRate,
            ("hub.http.requests", 2),
            PerSecond,
            "HTTP requests",
            "HTTP requests per second.",
        ),
        def(
            M::RequestErrorRate,
            ("hub.http.errors", 3),
            PerSecond,
            "failed HTTP requests",
            "HTTP responses with a status of 500 or more, per second.",
        ),
        def(
            M::RequestP99,
            ("hub.http.p99", 2),
            Milliseconds,
            "99th percentile of HTTP response times",
            "Time to the start of a response that 1 % exceed.",
        ),
        def(
            M::SentNotificationRate,
            ("hub.notifications.sent", 3),
            PerSecond,
            "sent notifications",
            "Delivered notifications per second.",
        ),
        def(
            M::PendingNotifications,
            ("hub.notifications.pending", 0),
            Count,
            "pending notifications",
            "Notifications that wait for their delivery.",
        ),
        def(
            M::StoreUsed,
            ("hub.store.used", 0),
            Bytes,
            "used disk space of the store",
            "Used disk space of the store.",
        ),
        def(
            M::StoreDisk,
            ("hub.store.disk", 0),
            Bytes,
            "size of the store",
            "Size of the files or relations of the store.",
        ),
        def(
            M::RedisErrorRate,
            ("hub.redis.errors", 2),
            PerSecond,
            "Redis errors",
            "Failed operations of the cache in Redis per second.",
        ),
        def(
            M::LongestPoll,
            ("hub.runtime.longest_poll", 2),
            Milliseconds,
            "longest poll of a serving thread",
            "Longest time for which a request occupied a serving thread, of the last one to two minutes.",
        ),
        def(
            M::WaitingCollections,
            ("hub.collections.waiting", 0),
            Count,
            "waiting collections",
            "Collection jobs that are due and wait for a worker.",
        ),
        def(
            M::IngestBlocked,
            ("hub.rules.ingest_blocked", 0),
            Flag,
            "ingestion blocked",
            "Equals 1 while ingestion is blocked, else 0.",
        ),
        def(
            M::DiskBudgetUsed,
            ("hub.rules.disk_budget_used", 1),
            Percent,
            "disk budget used",
            "Used part of the disk budget, in percent.",
        ),
        def(
            M::FailedNotifications,
            ("hub.rules.failed_notifications", 0),
            Count,
            "failed notifications",
            "Number of notifications that failed permanently in the last 24 hours.",
        ),
        def(
            M::SenderConflicts,
            ("hub.rules.sender_conflicts", 0),
            Count,
            "hosts with several senders",
            "Number of hosts with several senders in the last hour.",
        ),
    ]
};

impl HubMetric {
    /// Definition of the metric.
    pub fn def(self) -> &'static HubMetricDef {
        &HUB_METRICS[self as usize]
    }

    /// Returns whether the timers of alerting measure the metric; the recorder measures the others.
    pub fn is_measured_by_alerting(self) -> bool {
        matches!(
            self,
            Self::IngestBlocked | Self::DiskBudgetUsed | Self::FailedNotifications | Self::SenderConflicts
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_have_the_order_of_the_metrics() {
        let mut series: Vec<&str> = HUB_METRICS.iter().map(|def| def.series).collect();
        for (index, def) in HUB_METRICS.iter().enumerate() {
            assert_eq!(def.metric as usize, index, "{}", def.series);
            assert_eq!(def.metric.def().series, def.series);
        }
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), HUB_METRICS.len());
    }
}
