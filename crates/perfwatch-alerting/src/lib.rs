//! Alerting: evaluates rules on accepted snapshots, maintains incidents, delivers notifications.
//!
//! [`Alerting`] owns the services. `EvaluatorPool` evaluates each snapshot and emits transitions through
//! a channel; `IncidentService`, the only writer, turns them into incidents, timeline and outbox;
//! `NotificationDispatcher` delivers the outbox. `Timers` drives what depends on time only, and
//! `Backtester` runs rules over stored history.

mod active_incidents;
pub mod backtester;
mod channel_health;
mod channel_secrets;
mod definitions;
mod delivery_record;
mod deps;
mod dispatcher;
mod evaluator_pool;
mod evaluator_slots;
mod explain;
mod in_flight;
mod incident_batch;
mod incident_service;
mod incident_state;
pub mod mail_server;
mod metrics;
mod notification_builder;
mod outbox_writer;
mod recipients;
mod reminder;
mod replay;
pub mod response;
mod revalidation;
mod rule_import;
mod sender;
mod silenced;
mod sparks;
mod state;
mod statistics;
#[cfg(test)]
mod tests;
mod timeline;
mod timers;
mod transition;
mod visibility;

pub use active_incidents::{ActiveIncidents, Alert, AlertBody, OpenIncident};
pub use channel_health::ChannelHealth;
pub use definitions::{AlertDefinitions, MAX_CHANNELS, MAX_RULES, MAX_SILENCES, to_json};
pub use deps::AlertingDeps;
pub use incident_state::IncidentState;
pub use metrics::AlertingMetrics;
pub use rule_import::RuleImportCounts;
pub use sparks::{Spark, SparkKey};
pub use state::{AlertingSnapshot, StateChange};
pub use statistics::{DailyFirings, IncidentDay, IncidentStatistics, MAX_STATISTICS_RANGE_MS};
pub use timers::INCIDENT_RETENTION_MS;
pub use visibility::{VisibleIncidents, can_view, visible_incidents, visible_rule, visible_silence};

use backtester::{BacktestResult, Backtester};
use channel_secrets::ChannelSecrets;
use dispatcher::NotificationDispatcher;
use evaluator_pool::{EvaluatorDeps, EvaluatorPool};
use explain::AlertExplainer;
use incident_batch::BatchContext;
use incident_service::{IncidentDeps, IncidentService};
use notification_builder::NotificationBuilder;
use outbox_writer::OutboxWriter;
use perfwatch_auth::Identity;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_auth::encryption::DecryptError;
use perfwatch_auth::{Actor, AuthError};
use perfwatch_model::{HostId, Snapshot};
use perfwatch_rules::channel::Channel;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{Delivery, Notification, Notifier, SendError};
use perfwatch_rules::rule::Rule;
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::host_last_seen::HostLastSeen;
use perfwatch_store::incidents::{IncidentEventRow, IncidentRow};
use perfwatch_store::{CommitError, Store, StoreError};
use perfwatch_workers::WorkerPool;
use revalidation::Revalidator;
use sender::NotificationSender;
use sparks::SparkReader;
use state::AlertingState;
use statistics::StatisticsReader;
use std::collections::HashMap;
use std::sync::Arc;
use timers::{LAST_SEEN_WRITE_INTERVAL_MS, Timers};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transition::TRANSITION_QUEUE_CAPACITY;
use transition::hub_host_id;
use uuid::Uuid;

/// Façade of the alerting services.
pub struct Alerting {
    store: Arc<dyn Store>,
    notifier: Arc<dyn Notifier>,
    state: Arc<AlertingState>,
    evaluators: Arc<EvaluatorPool>,
    incidents: Arc<IncidentService>,
    dispatcher: Arc<NotificationDispatcher>,
    timers: Arc<Timers>,
    secrets: Arc<ChannelSecrets>,
    workers: Arc<WorkerPool>,
    backtester: Backtester,
    sparks: SparkReader,
    statistics: StatisticsReader,
}

impl Alerting {
    /// Creates the services and loads their state. A new store gets the built-in rules.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store is unavailable.
    pub async fn open(deps: AlertingDeps, metrics: AlertingMetrics) -> Result<Arc<Self>, StoreError> {
        let defaults = definitions::insert_defaults(&*deps.store).await?;
        match deps.store.commit(defaults).await {
            // On a conflict, another hub created the defaults at the same time.
            Ok(()) | Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
        let state: Arc<AlertingState> = Arc::default();
        let outbox_changed: Arc<Notify> = Arc::default();
        let (transitions_tx, transitions_rx) = mpsc::channel(TRANSITION_QUEUE_CAPACITY);
        let last_alive_ms = restore_last_seen(&deps).await?;
        let evaluators = EvaluatorPool::new(evaluator_deps(&deps, &state), transitions_tx, last_alive_ms);
        let evaluators = Arc::new(evaluators);
        let builder = NotificationBuilder::new(&deps.base_url);
        let outbox = OutboxWriter { directory: deps.directory.clone(), builder: builder.clone() };
        let incident_deps = IncidentDeps {
            store: deps.store.clone(),
            clock: deps.clock.clone(),
            history: deps.history.clone(),
            state: state.clone(),
            evaluators: evaluators.clone(),
            explainer: explainer(&deps),
            context: BatchContext {
                hosts: deps.hosts.clone(),
                catalog: deps.catalog.clone(),
                outbox: outbox.clone(),
            },
            metrics: metrics.clone(),
            outbox_changed: outbox_changed.clone(),
        };
        let incidents = Arc::new(IncidentService::open(incident_deps, transitions_rx).await?);
        let secrets = Arc::new(ChannelSecrets::new(deps.keyring.clone()));
        secrets.reencrypt(&incidents).await?;
        let dispatcher = NotificationDispatcher {
            store: deps.store.clone(),
            clock: deps.clock.clone(),
            incidents: incidents.clone(),
            revalidator: Revalidator {
                store: deps.store.clone(),
                clock: deps.clock.clone(),
                incidents: incidents.clone(),
                builder: builder.clone(),
            },
            sender: NotificationSender {
                notifier: deps.notifier.clone(),
                secrets: secrets.clone(),
                state: state.clone(),
                workers: deps.workers.clone(),
            },
            builder,
            metrics: metrics.clone(),
            wake: outbox_changed,
        };
        let backtester = Backtester::new(deps.clock.clone(), deps.history.clone());
        let sparks = SparkReader::new(deps.clock.clone(), deps.hosts.clone(), deps.history.clone());
        let statistics = StatisticsReader::new(deps.store.clone(), deps.clock.clone());
        Ok(Arc::new(Self {
            store: deps.store.clone(),
            notifier: deps.notifier.clone(),
            workers: deps.workers.clone(),
            state,
            timers: Arc::new(timers(deps, &evaluators, &incidents, (outbox, metrics))),
            evaluators,
            incidents,
            dispatcher: Arc::new(dispatcher),
            secrets,
            backtester,
            sparks,
            statistics,
        }))
    }

    /// Starts the tasks of all services. They run until `stop` is cancelled.
    pub fn start(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        self.evaluators.rehydrate_all();
        tasks.spawn(self.incidents.clone().run(stop.clone()));
        tasks.spawn(self.dispatcher.clone().run(stop.clone()));
        tasks.spawn(self.evaluators.clone().run(stop.clone()));
        tasks.spawn(self.timers.clone().run(stop.clone()));
    }

    /// Current definitions and incidents.
    pub fn snapshot(&self) -> Arc<AlertingSnapshot> {
        self.state.snapshot()
    }

    /// Receiver that is notified of each change of the snapshot. Its value increases with each change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.state.subscribe()
    }

    /// Port that delivers notifications.
    pub fn notifier(&self) -> &Arc<dyn Notifier> {
        &self.notifier
    }

    /// Pool that parses rules and renders templates.
    pub fn workers(&self) -> &WorkerPool {
        &self.workers
    }

    /// Store of definitions, incidents and notifications.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Evaluates a snapshot that was accepted and published. The caller holds the append lock of the
    /// host, so that its snapshots are evaluated in order. `skew_ms` is the offset of the host's clock.
    pub fn evaluate_snapshot(&self, host: HostId, snapshot: &Snapshot, skew_ms: Option<i64>) {
        self.evaluators.evaluate_snapshot(host, snapshot, skew_ms);
    }

    /// Records that another hub evaluated a snapshot. If the host sends to this hub later, the evaluation continues
    /// with what the other hub received.
    pub fn observe_elsewhere(&self, host: HostId, at_ms: i64) {
        self.evaluators.observe_elsewhere(host, at_ms);
    }

    /// Stops the evaluation of a deleted host and resolves its alerts.
    pub fn remove_host(&self, host: HostId) {
        self.evaluators.remove_host(host);
    }

    /// Commits and publishes a change that `build_change` derives from the current state and time, with
    /// an audit entry. Repeats both if another hub committed first. Returns the result of
    /// `build_change`.
    ///
    /// # Errors
    /// Returns the error of `build_change`, [`CommitError::Conflict`] after repeated conflicts, or
    /// [`CommitError::Store`] if the store is unavailable.
    pub async fn update<T, E: From<CommitError>>(
        &self,
        entry: Option<AuditEntry>,
        build_change: impl FnMut(&AlertingSnapshot, i64) -> Result<(StateChange, T), E>,
    ) -> Result<T, E> {
        self.incidents.update(entry, build_change).await
    }

    /// As [`Self::update`], on behalf of an actor, whose right is checked again under the lock.
    ///
    /// # Errors
    /// Returns the reason if the actor lost the right, or an error as [`Self::update`].
    pub async fn update_as<T, E: From<CommitError> + From<AuthError>>(
        &self,
        (actor, entry): (&Actor, AuditEntry),
        mut build_change: impl FnMut(&AlertingSnapshot, i64) -> Result<(StateChange, T), E>,
    ) -> Result<T, E> {
        let build_change = |state: &AlertingSnapshot, now_ms: i64| {
            actor.recheck()?;
            build_change(state, now_ms)
        };
        self.incidents.update(Some(entry), build_change).await
    }

    /// Changes an active incident, adds an entry to its timeline, and notifies its channels if `change`
    /// returns a reason. Returns false if the incident is not active.
    ///
    /// # Errors
    /// Returns the error of `change`, or an error as [`Self::update`].
    pub async fn update_incident<E: From<CommitError> + From<AuthError>>(
        &self,
        id: Uuid,
        act: Option<(&Actor, AuditEntry)>,
        change: impl Fn(&mut OpenIncident, i64) -> Result<(IncidentEventRow, Option<NotificationReason>), E>,
    ) -> Result<bool, E> {
        let (actor, entry) = act.unzip();
        let change = |open: &mut OpenIncident, now_ms: i64| {
            actor.map_or(Ok(()), Actor::recheck)?;
            change(open, now_ms)
        };
        self.incidents.update_incident(id, entry, change).await
    }

    /// Adds an entry to the timeline of an incident.
    ///
    /// # Errors
    /// Returns the reason if the actor lost the right, or a [`CommitError`] as [`Self::update`].
    pub async fn add_event(
        &self,
        act: (&Actor, AuditEntry),
        event: IncidentEventRow,
    ) -> Result<(), AuthError> {
        self.incidents.add_event(act, event).await
    }

    /// Loads an incident with its alerts, also if it is not active; `None` if it does not exist.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store cannot be read.
    pub async fn get(&self, id: Uuid) -> Result<Option<OpenIncident>, StoreError> {
        self.incidents.get(id).await
    }

    /// Loads the alerts of an incident.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store cannot be read.
    pub async fn load_with_alerts(&self, row: &IncidentRow) -> Result<OpenIncident, StoreError> {
        self.incidents.load_with_alerts(row).await
    }

    /// Makes a failed notification pending again.
    ///
    /// # Errors
    /// Returns [`AuthError::Conflict`] if the notification is not failed, and the reason if the actor lost the
    /// right.
    pub async fn requeue(&self, id: i64, (actor, entry): (&Actor, AuditEntry)) -> Result<(), AuthError> {
        actor.recheck()?;
        Ok(self.dispatcher.requeue(id, entry).await?)
    }

    /// Sends a notification immediately, without the outbox.
    ///
    /// # Errors
    /// Returns [`SendError::Transient`] if the receiver is unavailable or the settings cannot be decrypted,
    /// [`SendError::Permanent`] if the receiver rejects the notification.
    pub async fn send(&self, channel: &Channel, notification: &Notification) -> Result<Delivery, SendError> {
        self.dispatcher.send(channel, notification).await
    }

    /// Notification that tests a channel.
    pub fn test_notification(&self) -> Notification {
        self.dispatcher.test_notification()
    }

    /// Notification for the preview of templates: of the newest active incident, or an invented example.
    pub fn example_notification(&self) -> Notification {
        self.dispatcher.example_notification()
    }

    /// Encrypts the settings of a channel; `None` if the hub has no encryption key.
    pub fn encrypt(&self, channel: &Channel) -> Option<Channel> {
        self.secrets.encrypt(channel)
    }

    /// Decrypts the settings of a channel. Settings that are not encrypted are returned unchanged.
    ///
    /// # Errors
    /// Returns a [`DecryptError`] if the hub does not have the key, or if the ciphertext is corrupt.
    pub fn decrypt(&self, channel: &Channel) -> Result<Channel, DecryptError> {
        self.secrets.decrypt(channel)
    }

    /// Settings of a channel as they are used: decrypted, and completed by the mail server of the hub.
    ///
    /// # Errors
    /// Returns a [`DecryptError`] as [`Self::decrypt`], also for the mail server.
    pub fn decrypt_completed(&self, channel: &Channel) -> Result<Channel, DecryptError> {
        self.secrets.decrypt_completed(channel, &self.snapshot().definitions)
    }

    /// Runs a rule over a time range of several hosts, in milliseconds since 1970 with an exclusive end.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the history cannot be read.
    pub async fn backtest(
        &self,
        rule: Rule,
        hosts: Vec<HostId>,
        range: (i64, i64),
    ) -> Result<BacktestResult, StoreError> {
        self.backtester.run(rule, hosts, range).await
    }

    /// Recent courses of series, as far as the limits allow. The caller may view the hosts.
    pub async fn sparks(&self, keys: Vec<SparkKey>) -> HashMap<SparkKey, Arc<Spark>> {
        self.sparks.read_all(keys).await
    }

    /// Statistics of the visible incidents that opened in a range of at most [`MAX_STATISTICS_RANGE_MS`].
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store cannot be read.
    pub async fn statistics(
        &self,
        range: (i64, i64),
        identity: &Identity,
        auth_snapshot: Arc<AuthSnapshot>,
    ) -> Result<IncidentStatistics, StoreError> {
        self.statistics.incidents(range, identity, auth_snapshot).await
    }

    /// Visible firings of each rule in the last seven days.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store cannot be read.
    pub async fn daily_firings(
        &self,
        identity: &Identity,
        auth_snapshot: Arc<AuthSnapshot>,
    ) -> Result<HashMap<Uuid, DailyFirings>, StoreError> {
        self.statistics.firings(identity, auth_snapshot).await
    }

    /// Notifications of each channel that wait, and that were sent or failed since a time.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store cannot be read.
    pub async fn channel_health(&self, since_ms: i64) -> Result<HashMap<Uuid, ChannelHealth>, StoreError> {
        channel_health::read(self.store(), since_ms).await
    }
}

/// Period of stored snapshots from which an unknown interval is learned.
const LEARNING_PERIOD_MS: i64 = 86_400_000;

/// Restores when each host was last seen by an earlier run. Returns when a hub was last running, Unix
/// milliseconds.
async fn restore_last_seen(deps: &AlertingDeps) -> Result<Option<i64>, StoreError> {
    let rows = HostLastSeen::list(&*deps.store).await?;
    let hub = rows.iter().find(|row| row.host == hub_host_id().0);
    let Some(last_alive_ms) = hub.map(|row| row.last_seen_ms) else { return Ok(None) };
    for row in rows {
        // The host may have been seen again after the last write.
        let last_seen_ms = (row.last_seen_ms + LAST_SEEN_WRITE_INTERVAL_MS).min(last_alive_ms);
        deps.hosts.restore_last_seen(HostId(row.host), last_seen_ms, row.interval_ms);
    }
    // Hosts that were seen too rarely so far: their interval is learned on from what is stored.
    let since_ms = last_alive_ms - LEARNING_PERIOD_MS;
    for host in deps.hosts.list().into_iter().filter(|host| host.arrival_interval_ms() == 0) {
        let rows = deps.history.recent(host.record.id, host.record.last_snapshot_ms, since_ms).await?;
        let times: Vec<i64> = rows.iter().map(|row| row.at_ms).collect();
        deps.hosts.restore_times(host.record.id, times);
    }
    Ok(Some(last_alive_ms))
}

fn evaluator_deps(deps: &AlertingDeps, state: &Arc<AlertingState>) -> EvaluatorDeps {
    EvaluatorDeps {
        clock: deps.clock.clone(),
        directory: deps.directory.clone(),
        hosts: deps.hosts.clone(),
        live_feed: deps.live_feed.clone(),
        history: deps.history.clone(),
        state: state.clone(),
    }
}

fn explainer(deps: &AlertingDeps) -> AlertExplainer {
    AlertExplainer {
        clock: deps.clock.clone(),
        hosts: deps.hosts.clone(),
        live_feed: deps.live_feed.clone(),
        history: deps.history.clone(),
    }
}

fn timers(
    deps: AlertingDeps,
    evaluators: &Arc<EvaluatorPool>,
    incidents: &Arc<IncidentService>,
    (outbox, metrics): (OutboxWriter, AlertingMetrics),
) -> Timers {
    Timers {
        store: deps.store,
        clock: deps.clock,
        directory: deps.directory,
        hosts: deps.hosts,
        history: deps.history,
        evaluators: evaluators.clone(),
        incidents: incidents.clone(),
        outbox,
        metrics,
    }
}
