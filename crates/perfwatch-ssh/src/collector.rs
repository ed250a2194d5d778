//! `RemoteCollector` over SSH; keeps connections open for the next collection, at most one per
//! server.

use crate::connect_trace::{ConnectTrace, StageTimeouts, failure};
use crate::keys;
use crate::session::{Session, SessionContext};
use crate::snapshot::{self, CaptureReading, PreviousReading, RATE_INTERVAL};
use perfwatch_model::remote_collector::{
    CollectRequest, Collected, CollectionFailure, CollectionOutcome, CollectionStage, FailureCause,
    RemoteCollector, SshAuth, SshTarget,
};
use perfwatch_model::{Clock, OutboundPolicy};
use perfwatch_workers::{PoolConfig, WorkError, WorkKind, WorkRequest, WorkerPool};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// SSH implementation of [`RemoteCollector`]. Keeps a connection open if the next collection is near.
pub struct SshCollector {
    clock: Arc<dyn Clock>,
    pub(crate) timeouts: StageTimeouts,
    slots: Mutex<HashMap<Uuid, Arc<HostSlot>>>,
    open_connections: Arc<AtomicUsize>,
    workers: Arc<WorkerPool>,
    policy: OutboundPolicy,
}

/// Cached connection of a server; its lock is held during a collection.
#[derive(Default)]
struct HostSlot {
    connection: tokio::sync::Mutex<Option<CachedConnection>>,
}

/// Open connection between two collections.
struct CachedConnection {
    session: Session,
    /// Fingerprint of the target; a target with other credentials gets a new connection.
    target_fingerprint: u64,
    /// Monotonic time at which the connection is closed unless it is used again.
    expires_at: Duration,
    /// Counter of open connections, decremented on drop.
    open_connections: Arc<AtomicUsize>,
}

impl Drop for CachedConnection {
    fn drop(&mut self) {
        self.open_connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SshCollector {
    /// Collector with a new worker pool.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let workers = Arc::new(WorkerPool::new(clock.clone(), PoolConfig::default()));
        Self::with_workers(clock, workers)
    }

    /// Connects only to the addresses of a policy, and to the machine of the hub, which may be collected, too.
    #[must_use]
    pub fn with_policy(mut self, policy: OutboundPolicy) -> Self {
        self.policy = policy.with_loopback();
        self
    }

    fn context(&self) -> SessionContext<'_> {
        SessionContext { workers: &self.workers, policy: &self.policy }
    }

    /// Collector without open connections and with default timeouts. Keys are opened and captures are
    /// parsed in the worker pool.
    pub fn with_workers(clock: Arc<dyn Clock>, workers: Arc<WorkerPool>) -> Self {
        Self {
            clock,
            timeouts: StageTimeouts::default(),
            slots: Mutex::default(),
            open_connections: Arc::default(),
            workers,
            policy: OutboundPolicy::default().with_loopback(),
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<HostSlot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn collect(&self, request: CollectRequest) -> CollectionOutcome {
        let mut trace = ConnectTrace::new(&*self.clock, self.timeouts, request.observer.as_deref());
        let result = self.collect_traced(&request, &mut trace).await;
        self.remove_idle_slot(request.target.server_id);
        CollectionOutcome { steps: trace.steps, host_keys: trace.host_keys, result }
    }

    /// Removes the slot of a server if it has no connection and no other user.
    fn remove_idle_slot(&self, server_id: Uuid) {
        let mut slots = self.slots();
        let is_idle = |slot: &Arc<HostSlot>| {
            Arc::strong_count(slot) == 1 && slot.connection.try_lock().is_ok_and(|cached| cached.is_none())
        };
        if slots.get(&server_id).is_some_and(is_idle) {
            slots.remove(&server_id);
        }
    }

    /// Number of slots, with or without a connection.
    #[cfg(test)]
    pub(crate) fn slot_count(&self) -> usize {
        self.slots().len()
    }

    async fn collect_traced(
        &self,
        request: &CollectRequest,
        trace: &mut ConnectTrace<'_>,
    ) -> Result<Collected, CollectionFailure> {
        if request.force_new_connection {
            let mut session = Session::open(&request.target, self.context(), trace).await?;
            return self.collect_on(&mut session, request, trace).await;
        }
        let slot = self.slots().entry(request.target.server_id).or_default().clone();
        let mut cached = slot.connection.lock().await;
        let target_fingerprint = target_fingerprint(&request.target);
        let mut session = match cached.take() {
            Some(mut connection)
                if connection.target_fingerprint == target_fingerprint && !connection.session.is_closed() =>
            {
                match self.collect_on(&mut connection.session, request, trace).await {
                    // The cached connection was lost before this collection: not a failure of the host.
                    Err(failure) if failure.cause == FailureCause::ConnectionClosed => {
                        trace.steps.clear();
                        drop(connection);
                        Session::open(&request.target, self.context(), trace).await?
                    }
                    result => {
                        if result.is_ok() {
                            self.keep_connection(&mut cached, &slot, request, connection);
                        }
                        return result;
                    }
                }
            }
            other => {
                drop(other);
                Session::open(&request.target, self.context(), trace).await?
            }
        };
        let collected = self.collect_on(&mut session, request, trace).await?;
        self.open_connections.fetch_add(1, Ordering::Relaxed);
        let connection = CachedConnection {
            session,
            target_fingerprint,
            expires_at: Duration::ZERO,
            open_connections: self.open_connections.clone(),
        };
        self.keep_connection(&mut cached, &slot, request, connection);
        Ok(collected)
    }

    /// Caches a connection for the requested time and closes it afterwards.
    fn keep_connection(
        &self,
        cached: &mut Option<CachedConnection>,
        slot: &Arc<HostSlot>,
        request: &CollectRequest,
        mut connection: CachedConnection,
    ) {
        let expires_at = self.clock.monotonic() + request.keep_alive;
        if expires_at < connection.expires_at {
            // An earlier request needs the connection for longer, and its task closes it.
            *cached = Some(connection);
            return;
        }
        if request.keep_alive.is_zero() {
            return;
        }
        connection.expires_at = expires_at;
        *cached = Some(connection);
        let (slot, keep_alive) = (Arc::downgrade(slot), request.keep_alive);
        tokio::spawn(async move {
            tokio::time::sleep(keep_alive).await;
            if let Some(slot) = slot.upgrade() {
                let mut cached = slot.connection.lock().await;
                // A later request may have extended the time.
                drop(cached.take_if(|connection| connection.expires_at <= expires_at));
            }
        });
    }

    /// Collects on an open session. Runs the probe twice if there is no usable previous reading.
    async fn collect_on(
        &self,
        session: &mut Session,
        request: &CollectRequest,
        trace: &mut ConnectTrace<'_>,
    ) -> Result<Collected, CollectionFailure> {
        let (mut reading, mut now_ms) = self.read_capture(session, request, trace).await?;
        let previous = request.counter_state.as_deref().and_then(PreviousReading::decode);
        let mut previous =
            previous.filter(|previous| reading.can_derive_from(previous, request.max_counter_age));
        if previous.is_none() {
            previous = Some(reading.to_previous());
            tokio::time::sleep(RATE_INTERVAL).await;
            (reading, now_ms) = self.read_capture(session, request, trace).await?;
        }
        let interval_ms = u32::try_from(request.interval.as_millis()).unwrap_or(u32::MAX);
        let work = move || reading.to_collected(previous, now_ms, interval_ms);
        self.run_work(request.target.server_id, 0, work).await
    }

    async fn read_capture(
        &self,
        session: &mut Session,
        request: &CollectRequest,
        trace: &mut ConnectTrace<'_>,
    ) -> Result<(CaptureReading, i64), CollectionFailure> {
        let now_ms = self.clock.wall_ms();
        let output = session.run_probe(trace).await?;
        let input_bytes = output.len();
        let work = move || snapshot::parse_capture(&output);
        Ok((self.run_work(request.target.server_id, input_bytes, work).await?, now_ms))
    }

    /// Runs parsing in the worker pool, where it delays no other task. A panic fails one collection only.
    async fn run_work<T: Send + 'static>(
        &self,
        server_id: Uuid,
        input_bytes: usize,
        work: impl FnOnce() -> Result<T, CollectionFailure> + Send + 'static,
    ) -> Result<T, CollectionFailure> {
        let principal = server_id.to_string();
        let request = WorkRequest { kind: WorkKind::Capture, principal: &principal, input_bytes };
        let result = self.workers.run(request, |_| work()).await;
        result.unwrap_or_else(|error| {
            let cause = match error {
                WorkError::TimedOut(_) | WorkError::QueueFull | WorkError::ShareExceeded => {
                    FailureCause::TimedOut
                }
                WorkError::InputTooLarge(_) => FailureCause::OutputTooLarge,
                WorkError::Failed => FailureCause::Internal,
            };
            Err(failure(CollectionStage::Read, cause, format!("parsing the capture: {error}")))
        })
    }
}

/// Hash of addresses and credentials: distinguishes targets without storing their secrets.
fn target_fingerprint(target: &SshTarget) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut next = Some(target);
    while let Some(target) = next {
        (&target.address, target.port, &target.user, &target.pinned_host_key).hash(&mut hasher);
        match &target.auth {
            SshAuth::Password(password) => password.expose_secret().hash(&mut hasher),
            SshAuth::Key { key, passphrase } => {
                let passphrase = passphrase.as_ref().map(|text| text.expose_secret());
                (key.expose_secret(), passphrase).hash(&mut hasher);
            }
        }
        next = target.jump.as_deref();
    }
    hasher.finish()
}

impl RemoteCollector for SshCollector {
    fn collect(
        &self,
        request: CollectRequest,
    ) -> Pin<Box<dyn Future<Output = CollectionOutcome> + Send + '_>> {
        Box::pin(self.collect(request))
    }

    fn open_private_key(
        &self,
        key: &SecretString,
        passphrase: Option<&SecretString>,
    ) -> Result<SecretString, String> {
        keys::open_private_key(key, passphrase)
    }

    fn close_connection(&self, server_id: Uuid) {
        self.slots().remove(&server_id);
    }

    fn open_connections(&self) -> usize {
        self.open_connections.load(Ordering::Relaxed)
    }
}
