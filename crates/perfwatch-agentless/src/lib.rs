//! Hosts that have no agent. The walk: what people ask for ([`record`]) stands in the store with its
//! secrets sealed; the [`queue`] plans a look at each, and whichever hub is free makes it: target,
//! look ([`RemoteCollector`]), the same way in as any agent's snapshot, and what is to be known of
//! it in one commit ([`looking`]); lists show what the last one saw ([`latest`]). While somebody watches one, it is looked at every few seconds
//! ([`live`]). [`keeper`] sees to it that the rest of the hub knows which hosts rest, and that
//! thresholds are rules.

pub mod import;
mod on_demand;
mod reconciler;
pub mod runner;
pub mod scheduler;
pub mod server;
pub mod sink;
pub mod summary;
mod threshold_rules;

pub use server::{Credentials, Server};
pub use sink::SnapshotSink;

use perfwatch_alerting::Alerting;
use perfwatch_auth::encryption::Keyring;
use perfwatch_live::LiveFeed;
use perfwatch_live::cache::Cache;
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_model::Clock;
use perfwatch_model::remote_collector::RemoteCollector;
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{CommitError, Store, Write};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use runner::DisconnectTracker;
use std::collections::HashSet;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

/// Tests of connections at one time, beside the queue's own work.
const MAX_CONCURRENT_TESTS: usize = 5;

/// The room's doors to the rest of the hub.
pub struct AgentlessDeps {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub hosts: Arc<HostRegistry>,
    pub live_feed: Arc<LiveFeed>,
    pub alerting: Arc<Alerting>,
    /// Ingestion of the hub.
    pub sink: Arc<dyn SnapshotSink>,
    pub collector: Arc<dyn RemoteCollector>,
    pub keyring: Arc<Keyring>,
    pub cache: Arc<Cache>,
}

/// Counted for the hub's own metrics.
#[derive(Clone, Default)]
pub struct AgentlessMetrics {
    pub looks: Counter,
    pub failed: Counter,
}

impl AgentlessMetrics {
    pub fn register(&self, r: &mut Registry) {
        r.register("looks", "Looks at hosts without an agent, tests and tries counted", self.looks.clone());
        r.register("looks_failed", "Looks that came to nothing", self.failed.clone());
    }
}

/// Servers.
pub struct Agentless {
    deps: AgentlessDeps,
    counts: AgentlessMetrics,
    /// Looks at one time.
    workers: usize,
    /// Something is to be done, or is to be done at another time.
    wake: Notify,
    /// Something was changed that others must know.
    reconcile_wake: Notify,
    /// Hosts that are looked at every few seconds, since somebody watches.
    active_hosts: Mutex<HashSet<Uuid>>,
    test_permits: Semaphore,
    /// When looks were paused last, milliseconds since 1970.
    paused_since_ms: AtomicI64,
    /// Servers on the way to others, of a version, that let us in; and the turn of who tries first.
    verified_jumps: Mutex<HashSet<(Uuid, i64)>>,
    verify_lock: tokio::sync::Mutex<()>,
    disconnects: DisconnectTracker,
}

impl Agentless {
    pub fn new(rooms: AgentlessDeps, counts: AgentlessMetrics, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            deps: rooms,
            counts,
            workers: workers.max(1),
            wake: Notify::new(),
            reconcile_wake: Notify::new(),
            active_hosts: Mutex::default(),
            test_permits: Semaphore::new(MAX_CONCURRENT_TESTS),
            paused_since_ms: AtomicI64::new(0),
            verified_jumps: Mutex::default(),
            verify_lock: tokio::sync::Mutex::default(),
            disconnects: DisconnectTracker::default(),
        })
    }

    /// Where things are kept.
    pub fn store(&self) -> &dyn Store {
        &*self.deps.store
    }

    /// Writes down what people ask of the queue.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<(), CommitError> {
        self.deps.store.commit(writes).await
    }

    /// How many looks are made at one time.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// How many connections are held for the next look.
    pub fn open_connections(&self) -> usize {
        self.deps.collector.open_connections()
    }

    /// The record of a row, where this build can read it.
    pub fn from_row(row: &ServerRow) -> Option<Server> {
        let record = serde_json::from_str(&row.body);
        record
            .inspect_err(|error| tracing::error!(server = %row.id, %error, "failed to parse a server record"))
            .ok()
    }

    /// What credentials are for: sealed for one door, they open no other one.
    fn credentials_aad(id: Uuid, server: &Server) -> Vec<u8> {
        let Server { address, port, user, jump, .. } = server;
        // Texts and numbers always serialise.
        serde_json::to_vec(&(id, address, port, user, jump)).unwrap_or_default()
    }

    /// What opens a server's door.
    pub fn decrypt_credentials(&self, row: &ServerRow) -> Result<Credentials, String> {
        let sealed = row.encrypted_credentials.as_deref().ok_or("no credentials")?;
        let server = Self::from_row(row).ok_or("server record is unreadable")?;
        let text = self
            .deps
            .keyring
            .decrypt(&Self::credentials_aad(row.id, &server), sealed)
            .map_err(|error| error.to_string())?;
        serde_json::from_slice(&text).map_err(|_| "credentials cannot be decrypted".to_owned())
    }

    /// The same, sealed.
    pub fn encrypt_credentials(
        &self,
        id: Uuid,
        server: &Server,
        credentials: &Credentials,
    ) -> Option<Vec<u8>> {
        let text = serde_json::to_vec(credentials).ok()?;
        self.deps.keyring.encrypt(&Self::credentials_aad(id, server), &text)
    }

    /// A server is another one now, or there is work to do.
    pub fn notify_changed(&self, server: Option<Uuid>) {
        if let Some(server) = server {
            // What is held open was opened by what may not hold any more.
            self.deps.collector.close_connection(server);
        }
        self.reconcile_wake.notify_one();
        self.wake.notify_one();
    }
}
