//! Hosts that have no agent. The walk: what people ask for ([`record`]) stands in the store with its
//! secrets sealed; the [`queue`] plans a look at each, and whichever hub is free makes it: target,
//! look ([`RemoteCollector`]), the same way in as any agent's snapshot, and what is to be known of
//! it in one commit ([`looking`]); lists show what the last one saw ([`latest`]). While somebody watches one, it is looked at every few seconds
//! ([`live`]). [`keeper`] sees to it that the rest of the hub knows which hosts rest, and that
//! thresholds are rules.

pub(crate) mod import;
mod keeper;
pub(crate) mod latest;
mod live;
pub(crate) mod looking;
pub(crate) mod queue;
pub(crate) mod record;
mod thresholds;

pub(crate) use record::{Credentials, Server};

use crate::alerting::Alerting;
use crate::cache::Cache;
use crate::fleet::Fleet;
use crate::ingest::Pipeline;
use crate::live::Live;
use crate::vault::Vault;
use looking::HungUp;
use perfwatch_model::Clock;
use perfwatch_model::remote::RemoteCollector;
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{CommitError, Store, Write};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::collections::HashSet;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

/// Tests of connections at one time, beside the queue's own work.
const TESTS: usize = 5;

/// The room's doors to the rest of the hub.
pub(crate) struct Rooms {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) live: Arc<Live>,
    pub(crate) alerting: Arc<Alerting>,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) remote: Arc<dyn RemoteCollector>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) cache: Arc<Cache>,
}

/// Counted for the hub's own metrics.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    pub(crate) looks: Counter,
    pub(crate) failed: Counter,
}

impl Counts {
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register("looks", "Looks at hosts without an agent, tests and tries counted", self.looks.clone());
        r.register("looks_failed", "Looks that came to nothing", self.failed.clone());
    }
}

/// Servers.
pub(crate) struct Servers {
    rooms: Rooms,
    counts: Counts,
    /// Looks at one time.
    workers: usize,
    /// Something is to be done, or is to be done at another time.
    due: Notify,
    /// Something was changed that others must know.
    changed: Notify,
    /// Hosts that are looked at every few seconds, since somebody watches.
    watched: Mutex<HashSet<Uuid>>,
    tests: Semaphore,
    /// When looks were paused last, milliseconds since 1970.
    paused_ms: AtomicI64,
    /// Servers on the way to others, of a version, that let us in; and the turn of who tries first.
    proven: Mutex<HashSet<(Uuid, i64)>>,
    proving: tokio::sync::Mutex<()>,
    hung_up: HungUp,
}

impl Servers {
    pub(crate) fn new(rooms: Rooms, counts: Counts, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            rooms,
            counts,
            workers: workers.max(1),
            due: Notify::new(),
            changed: Notify::new(),
            watched: Mutex::default(),
            tests: Semaphore::new(TESTS),
            paused_ms: AtomicI64::new(0),
            proven: Mutex::default(),
            proving: tokio::sync::Mutex::default(),
            hung_up: HungUp::default(),
        })
    }

    /// Where things are kept.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.rooms.store
    }

    /// Writes down what people ask of the queue.
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Result<(), CommitError> {
        self.rooms.store.commit(writes).await
    }

    /// How many looks are made at one time.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// How many connections are held for the next look.
    pub(crate) fn held(&self) -> usize {
        self.rooms.remote.held()
    }

    /// The record of a row, where this build can read it.
    pub(crate) fn record(row: &ServerRow) -> Option<Server> {
        let record = serde_json::from_str(&row.body);
        record.inspect_err(|error| tracing::error!(server = %row.id, %error, "a server can't be read")).ok()
    }

    /// What credentials are for: sealed for one door, they open no other one.
    fn door(id: Uuid, server: &Server) -> Vec<u8> {
        let Server { address, port, user, jump, .. } = server;
        // Texts and numbers always serialise.
        serde_json::to_vec(&(id, address, port, user, jump)).unwrap_or_default()
    }

    /// What opens a server's door.
    pub(crate) fn unseal(&self, row: &ServerRow) -> Result<Credentials, String> {
        let sealed = row.secret.as_deref().ok_or("it has no credentials")?;
        let server = Self::record(row).ok_or("its record can't be read")?;
        let text =
            self.rooms.vault.open(&Self::door(row.id, &server), sealed).map_err(|error| error.to_string())?;
        serde_json::from_slice(&text).map_err(|_| "they can't be read".to_owned())
    }

    /// The same, sealed.
    pub(crate) fn seal(&self, id: Uuid, server: &Server, credentials: &Credentials) -> Option<Vec<u8>> {
        let text = serde_json::to_vec(credentials).ok()?;
        self.rooms.vault.seal(&Self::door(id, server), &text)
    }

    /// A server is another one now, or there is work to do.
    pub(crate) fn wake(&self, server: Option<Uuid>) {
        if let Some(server) = server {
            // What is held open was opened by what may not hold any more.
            self.rooms.remote.release(server);
        }
        self.changed.notify_one();
        self.due.notify_one();
    }
}
