//! The door of this crate: looks at hosts, and holds the connections that are soon needed again.
//! Of each host there is one at most.

use crate::connect_trace::{ConnectTrace, StageTimeouts, failure};
use crate::session::Session;
use crate::snapshot::{self, CaptureReading, PreviousReading, RATE_INTERVAL};
use perfwatch_model::Clock;
use perfwatch_model::remote_collector::{
    CollectRequest, Collected, CollectionFailure, CollectionOutcome, CollectionStage, FailureCause,
    RemoteCollector, SshAuth, SshTarget,
};
use secrecy::ExposeSecret as _;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as Turn, Semaphore};
use uuid::Uuid;

/// Captures that are read at one time: a hostile one takes memory.
const MAX_CONCURRENT_PARSES: usize = 2;

/// Looks by SSH.
pub struct SshCollector {
    clock: Arc<dyn Clock>,
    pub(crate) deadlines: StageTimeouts,
    slots: Mutex<HashMap<Uuid, Arc<HostSlot>>>,
    open_connections: Arc<AtomicUsize>,
    parse_permits: Semaphore,
}

/// A host's place; whoever has the turn looks.
#[derive(Default)]
struct HostSlot {
    connection: Turn<Option<CachedConnection>>,
}

/// A connection between two looks.
struct CachedConnection {
    session: Session,
    /// What it was made for: with other credentials, another one is made.
    target_fingerprint: u64,
    until: Duration,
    count: Arc<AtomicUsize>,
}

impl Drop for CachedConnection {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SshCollector {
    /// With nothing held.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            deadlines: StageTimeouts::default(),
            slots: Mutex::default(),
            open_connections: Arc::default(),
            parse_permits: Semaphore::new(MAX_CONCURRENT_PARSES),
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<HostSlot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn collect(&self, ask: CollectRequest) -> CollectionOutcome {
        let mut way = ConnectTrace::new(&*self.clock, self.deadlines);
        let result = self.collect_traced(&ask, &mut way).await;
        self.remove_idle_slot(ask.target.server_id);
        CollectionOutcome { steps: way.steps, host_keys: way.keys, result }
    }

    /// A place without a connection, and nobody there: gone.
    fn remove_idle_slot(&self, server: Uuid) {
        let mut slots = self.slots();
        let empty = |slot: &Arc<HostSlot>| {
            Arc::strong_count(slot) == 1 && slot.connection.try_lock().is_ok_and(|turn| turn.is_none())
        };
        if slots.get(&server).is_some_and(empty) {
            slots.remove(&server);
        }
    }

    /// Places that are known.
    #[cfg(test)]
    pub(crate) fn slot_count(&self) -> usize {
        self.slots().len()
    }

    async fn collect_traced(
        &self,
        ask: &CollectRequest,
        way: &mut ConnectTrace<'_>,
    ) -> Result<Collected, CollectionFailure> {
        if ask.force_new_connection {
            let mut session = Session::open(&ask.target, way).await?;
            return self.collect_on(&mut session, ask, way).await;
        }
        let slot = self.slots().entry(ask.target.server_id).or_default().clone();
        let mut turn = slot.connection.lock().await;
        let made_for = target_fingerprint(&ask.target);
        let mut session = match turn.take() {
            Some(mut held) if held.target_fingerprint == made_for && !held.session.is_closed() => {
                match self.collect_on(&mut held.session, ask, way).await {
                    // It was gone already when we came: that says nothing of the host.
                    Err(failure) if failure.cause == FailureCause::ConnectionClosed => {
                        way.steps.clear();
                        drop(held);
                        Session::open(&ask.target, way).await?
                    }
                    result => {
                        if result.is_ok() {
                            self.keep_connection(&mut turn, &slot, ask, held);
                        }
                        return result;
                    }
                }
            }
            other => {
                drop(other);
                Session::open(&ask.target, way).await?
            }
        };
        let seen = self.collect_on(&mut session, ask, way).await?;
        self.open_connections.fetch_add(1, Ordering::Relaxed);
        let held = CachedConnection {
            session,
            target_fingerprint: made_for,
            until: Duration::ZERO,
            count: self.open_connections.clone(),
        };
        self.keep_connection(&mut turn, &slot, ask, held);
        Ok(seen)
    }

    /// Keeps it, and lets go of it when its time is over.
    fn keep_connection(
        &self,
        turn: &mut Option<CachedConnection>,
        slot: &Arc<HostSlot>,
        ask: &CollectRequest,
        mut held: CachedConnection,
    ) {
        let until = self.clock.monotonic() + ask.keep_alive;
        if until < held.until {
            // Others need it for longer; their own end of it comes.
            *turn = Some(held);
            return;
        }
        if ask.keep_alive.is_zero() {
            return;
        }
        held.until = until;
        *turn = Some(held);
        let (slot, hold) = (Arc::downgrade(slot), ask.keep_alive);
        tokio::spawn(async move {
            tokio::time::sleep(hold).await;
            if let Some(slot) = slot.upgrade() {
                let mut turn = slot.connection.lock().await;
                // Unless it was used since.
                drop(turn.take_if(|held| held.until <= until));
            }
        });
    }

    /// Looks; twice where there is nothing yet to compare with.
    async fn collect_on(
        &self,
        session: &mut Session,
        ask: &CollectRequest,
        way: &mut ConnectTrace<'_>,
    ) -> Result<Collected, CollectionFailure> {
        let (mut read, mut now_ms) = self.read_capture(session, way).await?;
        let before = ask.counter_state.as_deref().and_then(PreviousReading::decode);
        let mut before = before.filter(|before| read.can_derive_from(before, ask.max_counter_age));
        if before.is_none() {
            before = Some(read.into_previous());
            tokio::time::sleep(RATE_INTERVAL).await;
            (read, now_ms) = self.read_capture(session, way).await?;
        }
        let interval_ms = u32::try_from(ask.interval.as_millis()).unwrap_or(u32::MAX);
        run_blocking(move || read.into_collected(before, now_ms, interval_ms)).await
    }

    async fn read_capture(
        &self,
        session: &mut Session,
        way: &mut ConnectTrace<'_>,
    ) -> Result<(CaptureReading, i64), CollectionFailure> {
        let now_ms = self.clock.wall_ms();
        let output = session.run_probe(way).await?;
        let _turn = self.parse_permits.acquire().await;
        Ok((run_blocking(move || snapshot::parse_capture(&output)).await?, now_ms))
    }
}

/// Away from the tasks that others wait for; and what it stumbles over costs one host only.
async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CollectionFailure> + Send + 'static,
) -> Result<T, CollectionFailure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| {
        Err(failure(
            CollectionStage::Read,
            FailureCause::Internal,
            "parsing the capture panicked; please report this",
        ))
    })
}

/// Tells targets apart without keeping their secrets.
fn target_fingerprint(target: &SshTarget) -> u64 {
    let mut hash = DefaultHasher::new();
    let mut at = Some(target);
    while let Some(target) = at {
        (&target.address, target.port, &target.user, &target.pinned_host_key).hash(&mut hash);
        match &target.auth {
            SshAuth::Password(password) => password.expose_secret().hash(&mut hash),
            SshAuth::Key { key, passphrase } => {
                let passphrase = passphrase.as_ref().map(|text| text.expose_secret());
                (key.expose_secret(), passphrase).hash(&mut hash);
            }
        }
        at = target.jump.as_deref();
    }
    hash.finish()
}

impl RemoteCollector for SshCollector {
    fn collect(&self, ask: CollectRequest) -> Pin<Box<dyn Future<Output = CollectionOutcome> + Send + '_>> {
        Box::pin(self.collect(ask))
    }

    fn close_connection(&self, server: Uuid) {
        self.slots().remove(&server);
    }

    fn open_connections(&self) -> usize {
        self.open_connections.load(Ordering::Relaxed)
    }
}
