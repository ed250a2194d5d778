//! What the hub tells people of by itself. The walk: [`Alerting::observe`] takes each accepted
//! snapshot to its host's watch ([`watches`]); what fires or ends is explained ([`explain`]),
//! joins an incident on the [`board`] and is written down with its messages in one commit
//! ([`record`]); [`dispatch`] brings the messages out. [`asked`] holds what people ask for,
//! [`sealed`] keeps what lets one into a channel to itself, [`tasks`] does what time alone changes,
//! [`backtest`] says what a rule would have done.

mod active_incidents;
pub mod backtester;
mod channel_secrets;
mod definitions;
mod dispatcher;
mod evaluator_pool;
mod explain;
mod incident_service;
mod notification_builder;
#[cfg(test)]
mod tests;
mod timers;

pub use active_incidents::{ActiveIncidents, Alert, OpenIncident};
pub use definitions::{AlertDefinitions, MAX_CHANNELS, MAX_RULES, MAX_SILENCES, to_json};

use evaluator_pool::EvaluatorPool;
use perfwatch_auth::AuthDirectory;
use perfwatch_auth::encryption::Keyring;
use perfwatch_history::History;
use perfwatch_live::LiveFeed;
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_model::{Catalog, Clock, HostId};
use perfwatch_rules::alert_instance::TransitionEvent;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{Notification, Notifier};
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::incidents::{IncidentEventRow, IncidentRow};
use perfwatch_store::outbox::Outbox;
use perfwatch_store::revision::Revision;
use perfwatch_store::{CommitError, SqlStatement, Store, StoreError, Write};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{Mutex, Notify, Semaphore, mpsc, watch};
use uuid::Uuid;

/// What became of alerts at one host, on its way to be written down.
pub struct HostTransition {
    host: HostId,
    event: TransitionEvent,
}

/// Told things that wait to be written down: of more, hosts are looked at anew later.
const TRANSITION_QUEUE_CAPACITY: usize = 50_000;

/// The room's doors to the rest of the hub.
pub struct AlertingDeps {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub catalog: Arc<Catalog>,
    pub directory: Arc<AuthDirectory>,
    pub hosts: Arc<HostRegistry>,
    pub live_feed: Arc<LiveFeed>,
    pub history: Arc<History>,
    pub notifier: Arc<dyn Notifier>,
    pub keyring: Arc<Keyring>,
    /// The hub's own address, for links; `public_url` where it is set.
    pub base_url: String,
}

/// Counted for the hub's own metrics.
#[derive(Clone, Default)]
pub struct AlertingMetrics {
    pub alerts_fired: Counter,
    pub alerts_resolved: Counter,
    pub sent: Counter,
    pub notification_retries: Counter,
    pub dead: Counter,
}

impl AlertingMetrics {
    pub fn register(&self, r: &mut Registry) {
        r.register("alerts_fired", "Alerts that started firing.", self.alerts_fired.clone());
        r.register("alerts_resolved", "Alerts that were resolved.", self.alerts_resolved.clone());
        r.register("messages_sent", "Messages that channels took", self.sent.clone());
        r.register(
            "messages_failed",
            "Delivery attempts that failed and are retried.",
            self.notification_retries.clone(),
        );
        r.register("messages_dead", "Messages that were given up", self.dead.clone());
    }
}

/// What everyone reads, as of one moment.
#[derive(Default)]
pub struct AlertingSnapshot {
    pub definitions: AlertDefinitions,
    pub incidents: ActiveIncidents,
}

/// Alerts.
pub struct Alerting {
    deps: AlertingDeps,
    metrics: AlertingMetrics,
    state: RwLock<Arc<AlertingSnapshot>>,
    evaluators: EvaluatorPool,
    transitions_tx: mpsc::Sender<HostTransition>,
    transitions_rx: Mutex<Option<mpsc::Receiver<HostTransition>>>,
    /// How often [`Counted::Alerts`] was changed when the state was read; held while it changes.
    write_lock: Mutex<i64>,
    /// There is a message to bring out.
    wake: Notify,
    /// Rises whenever the state changes.
    changes_tx: watch::Sender<u64>,
    /// When it began to listen, by the hub's clock: what was not heard since is not silent yet.
    started_ms: i64,
    /// Until when it could take nothing in.
    ingest_blocked_until_ms: AtomicI64,
    /// Bounds how many back-tests run at one time.
    permits: Semaphore,
}

/// What stands for the hub where hosts stand.
fn hub_host_id() -> HostId {
    HostId(Uuid::nil())
}

/// A change of the state, with all that is written in its commit.
#[derive(Default)]
pub struct StateChange {
    pub definitions: Option<AlertDefinitions>,
    pub incidents: Option<ActiveIncidents>,
    pub statements: Vec<SqlStatement>,
}

impl Alerting {
    /// Reads what the store has; a new store gets the built-in rules.
    pub async fn open(rooms: AlertingDeps, counts: AlertingMetrics) -> Result<Arc<Self>, StoreError> {
        let begin = definitions::insert_defaults(&*rooms.store).await?;
        match rooms.store.commit(begin).await {
            // Another hub begins at the same moment.
            Ok(()) | Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
        let (told, to_record) = mpsc::channel(TRANSITION_QUEUE_CAPACITY);
        let started_ms = rooms.clock.wall_ms();
        let alerting = Self {
            deps: rooms,
            metrics: counts,
            state: RwLock::default(),
            evaluators: EvaluatorPool::default(),
            transitions_tx: told,
            transitions_rx: Mutex::new(Some(to_record)),
            write_lock: Mutex::new(0),
            wake: Notify::new(),
            changes_tx: watch::Sender::new(0),
            started_ms,
            ingest_blocked_until_ms: AtomicI64::new(0),
            permits: Semaphore::new(backtester::MAX_CONCURRENT_BACKTESTS),
        };
        let mut since = alerting.write_lock.lock().await;
        alerting.reload(&mut since).await?;
        drop(since);
        alerting.reencrypt().await?;
        Ok(Arc::new(alerting))
    }

    /// As of now.
    pub fn snapshot(&self) -> Arc<AlertingSnapshot> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Told whenever something changed.
    pub fn changes_tx(&self) -> watch::Receiver<u64> {
        self.changes_tx.subscribe()
    }

    /// Who brings messages out.
    pub fn notifier(&self) -> &Arc<dyn Notifier> {
        &self.deps.notifier
    }

    /// Where things are kept.
    pub fn store(&self) -> &dyn Store {
        &*self.deps.store
    }

    /// The hub's clock.
    pub fn now_ms(&self) -> i64 {
        self.deps.clock.wall_ms()
    }

    fn publish(&self, state: AlertingSnapshot) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
        self.changes_tx.send_modify(|revision| *revision += 1);
    }

    /// Reads all anew: another hub changed something.
    async fn reload(&self, since: &mut i64) -> Result<(), StoreError> {
        let store = &*self.deps.store;
        // First, so that what changes meanwhile is read again.
        let count = Revision::Alerting.get(store).await?;
        let asked = AlertDefinitions::load(store).await?;
        let board = ActiveIncidents::load(store, self.now_ms()).await?;
        *since = count;
        let before = self.snapshot();
        let other_rules = !AlertDefinitions::same_rules(&asked, &before.definitions);
        let touched = board.hosts_that_differ(&before.incidents);
        self.publish(AlertingSnapshot { definitions: asked, incidents: board });
        if other_rules {
            self.evaluators.invalidate_all();
        }
        touched.into_iter().for_each(|host| self.evaluators.invalidate(host));
        Ok(())
    }

    /// Changes the state by a plan that is made of it as it is, once more where another hub was
    /// faster. What the plan answers is given back.
    ///
    /// # Errors
    /// What the plan refuses; a store that does not answer.
    pub async fn update<T, E: From<CommitError>>(
        &self,
        entry: Option<AuditEntry>,
        mut plan: impl FnMut(&AlertingSnapshot, i64) -> Result<(StateChange, T), E>,
    ) -> Result<T, E> {
        let store = |error: StoreError| E::from(CommitError::Store(error));
        let mut since = self.write_lock.lock().await;
        for _ in 0..5 {
            let state = self.snapshot();
            let now_ms = self.now_ms();
            let (mut planned, answer) = plan(&state, now_ms)?;
            if planned.statements.is_empty() {
                return Ok(answer);
            }
            let at = |entry: &AuditEntry| AuditEntry { at_ms: now_ms, ..entry.clone() }.insert();
            planned.statements.extend(entry.as_ref().map(at));
            planned.statements.push(Revision::Alerting.bump(*since));
            let writes = planned.statements.into_iter().map(Write::Sql).collect();
            match self.deps.store.commit(writes).await {
                Ok(()) => {
                    *since += 1;
                    let asked = planned.definitions.unwrap_or_else(|| state.definitions.clone());
                    let board = planned.incidents.unwrap_or_else(|| state.incidents.clone());
                    let other_rules = !AlertDefinitions::same_rules(&asked, &state.definitions);
                    self.publish(AlertingSnapshot { definitions: asked, incidents: board });
                    if other_rules {
                        self.evaluators.invalidate_all();
                    }
                    self.wake.notify_one();
                    return Ok(answer);
                }
                Err(CommitError::Conflict) => self.reload(&mut since).await.map_err(store)?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict.into())
    }

    /// Changes one incident of the board, says so in its timeline, and tells people where it must.
    ///
    /// # Errors
    /// What the change refuses; a store that does not answer.
    pub async fn update_incident<E: From<CommitError>>(
        &self,
        id: Uuid,
        entry: Option<AuditEntry>,
        change: impl Fn(&mut OpenIncident, i64) -> Result<(IncidentEventRow, Option<NotificationReason>), E>,
    ) -> Result<bool, E> {
        let plan = |state: &AlertingSnapshot, now_ms: i64| {
            let Some(incident) = state.incidents.incident(id) else {
                return Ok((StateChange::default(), false));
            };
            let mut incident = (**incident).clone();
            let (event, notice) = change(&mut incident, now_ms)?;
            let mut board = state.incidents.clone();
            let mut changes = vec![incident.to_row().upsert(), event.insert()];
            if let Some(notice) = notice {
                changes.extend(self.enqueue_notifications(state, &incident, (notice, 0), now_ms));
            }
            board.insert(incident);
            Ok((StateChange { incidents: Some(board), statements: changes, ..StateChange::default() }, true))
        };
        self.update(entry, plan).await
    }

    /// Adds to an incident's timeline.
    pub async fn add_event(&self, event: IncidentEventRow) -> Result<(), CommitError> {
        let plan = |_: &AlertingSnapshot, _: i64| {
            Ok::<_, CommitError>((
                StateChange { statements: vec![event.insert()], ..StateChange::default() },
                (),
            ))
        };
        self.update(None, plan).await
    }

    /// A message that was given up is on its way again; a conflict where it is not.
    pub async fn requeue(&self, id: i64, entry: AuditEntry) -> Result<(), CommitError> {
        let now_ms = self.now_ms();
        let entry = AuditEntry { at_ms: now_ms, ..entry };
        self.deps.store.commit(vec![Outbox::requeue(id, now_ms).into(), entry.insert().into()]).await?;
        self.wake.notify_one();
        Ok(())
    }

    /// A message of the hub's own, that tries whether a channel is heard.
    pub fn test_notification(&self) -> Notification {
        notification_builder::test_notification(&self.deps.base_url, self.now_ms())
    }

    /// An incident as the channels would hear of it now.
    pub fn example_notification(&self) -> Notification {
        let state = self.snapshot();
        let newest = state.incidents.iter().max_by_key(|live| live.incident.opened_ms);
        newest.map_or_else(
            || notification_builder::example_notification(&self.deps.base_url, self.now_ms()),
            |live| {
                notification_builder::build_notification(
                    live,
                    NotificationReason::Opened,
                    &self.deps.base_url,
                    self.now_ms(),
                )
            },
        )
    }

    /// An incident of the books.
    pub async fn get(&self, id: Uuid) -> Result<Option<OpenIncident>, StoreError> {
        match IncidentRow::get(self.store(), id).await? {
            Some(row) => self.load_with_alerts(&row).await.map(Some),
            None => Ok(None),
        }
    }

    /// An incident of the books with its alerts.
    pub async fn load_with_alerts(&self, row: &IncidentRow) -> Result<OpenIncident, StoreError> {
        active_incidents::load_incident(self.store(), row).await
    }
}
