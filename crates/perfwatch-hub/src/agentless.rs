//! Hosts that have no agent. The walk: what people ask for ([`record`]) stands in the store with its
//! secrets sealed; the [`queue`] plans a look at each, and whichever hub is free makes it: target,
//! look ([`RemoteCollector`]), the same way in as any agent's snapshot, and what is to be known of
//! it in one commit ([`looking`]); lists show what the last one saw ([`latest`]). While somebody watches one, it is looked at every few seconds
//! ([`live`]). [`keeper`] sees to it that the rest of the hub knows which hosts rest, and that
//! thresholds are rules.

pub(crate) mod import;
mod on_demand;
mod reconciler;
pub(crate) mod runner;
pub(crate) mod scheduler;
pub(crate) mod server;
pub(crate) mod summary;
mod threshold_rules;

pub(crate) use server::{Credentials, Server};

use crate::alerting::Alerting;
use crate::cache::Cache;
use crate::encryption::Keyring;
use crate::host_registry::HostRegistry;
use crate::ingest::Pipeline;
use crate::live::LiveFeed;
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
pub(crate) struct AgentlessDeps {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hosts: Arc<HostRegistry>,
    pub(crate) live_feed: Arc<LiveFeed>,
    pub(crate) alerting: Arc<Alerting>,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) collector: Arc<dyn RemoteCollector>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) cache: Arc<Cache>,
}

/// Counted for the hub's own metrics.
#[derive(Clone, Default)]
pub(crate) struct AgentlessMetrics {
    pub(crate) looks: Counter,
    pub(crate) failed: Counter,
}

impl AgentlessMetrics {
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register("looks", "Looks at hosts without an agent, tests and tries counted", self.looks.clone());
        r.register("looks_failed", "Looks that came to nothing", self.failed.clone());
    }
}

/// Servers.
pub(crate) struct Agentless {
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
    pub(crate) fn new(rooms: AgentlessDeps, counts: AgentlessMetrics, workers: usize) -> Arc<Self> {
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
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.deps.store
    }

    /// Writes down what people ask of the queue.
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Result<(), CommitError> {
        self.deps.store.commit(writes).await
    }

    /// How many looks are made at one time.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// How many connections are held for the next look.
    pub(crate) fn open_connections(&self) -> usize {
        self.deps.collector.open_connections()
    }

    /// The record of a row, where this build can read it.
    pub(crate) fn from_row(row: &ServerRow) -> Option<Server> {
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
    pub(crate) fn decrypt_credentials(&self, row: &ServerRow) -> Result<Credentials, String> {
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
    pub(crate) fn encrypt_credentials(
        &self,
        id: Uuid,
        server: &Server,
        credentials: &Credentials,
    ) -> Option<Vec<u8>> {
        let text = serde_json::to_vec(credentials).ok()?;
        self.deps.keyring.encrypt(&Self::credentials_aad(id, server), &text)
    }

    /// A server is another one now, or there is work to do.
    pub(crate) fn notify_changed(&self, server: Option<Uuid>) {
        if let Some(server) = server {
            // What is held open was opened by what may not hold any more.
            self.deps.collector.close_connection(server);
        }
        self.reconcile_wake.notify_one();
        self.wake.notify_one();
    }
}
