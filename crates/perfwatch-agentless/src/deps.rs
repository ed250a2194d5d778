//! Dependencies of agentless collection, provided by the hub.

use crate::sink::SnapshotSink;
use perfwatch_alerting::Alerting;
use perfwatch_auth::encryption::Keyring;
use perfwatch_live::LiveFeed;
use perfwatch_live::cache::Cache;
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_model::Clock;
use perfwatch_model::remote_collector::RemoteCollector;
use perfwatch_store::Store;
use perfwatch_workers::WorkerPool;
use std::sync::Arc;

/// Dependencies of [`Agentless`](crate::Agentless); each service receives those that it uses.
pub struct AgentlessDeps {
    /// Servers, collections and the collection queue.
    pub store: Arc<dyn Store>,
    /// Clock of the hub: schedules, leases and durations.
    pub clock: Arc<dyn Clock>,
    /// Registry of hosts; the reconciler sets the collection interval of agentless hosts in it.
    pub hosts: Arc<HostRegistry>,
    /// Hosts whose pages are open.
    pub live_feed: Arc<LiveFeed>,
    /// Rules that are derived from thresholds.
    pub alerting: Arc<Alerting>,
    /// Ingestion of the hub.
    pub sink: Arc<dyn SnapshotSink>,
    /// SSH implementation of the collection.
    pub collector: Arc<dyn RemoteCollector>,
    /// Keys that encrypt the credentials.
    pub keyring: Arc<Keyring>,
    /// Pool that opens private keys and parses imports.
    pub workers: Arc<WorkerPool>,
    /// Cache of summaries and totals.
    pub cache: Arc<Cache>,
}
