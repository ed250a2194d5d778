//! Turns alert transitions into incidents, timeline events and notifications in one commit.
//!
//! [`IncidentService`] is the only writer of definitions and incidents. One task persists the
//! transitions in their order; if the store is unavailable, transitions wait.

use crate::active_incidents::{self, ActiveIncidents, OpenIncident};
use crate::definitions::AlertDefinitions;
use crate::evaluator_pool::EvaluatorPool;
use crate::explain::AlertExplainer;
use crate::incident_batch::{BatchContext, ExplainedTransition, IncidentBatch};
use crate::metrics::AlertingMetrics;
use crate::outbox_writer::PendingNotice;
use crate::state::{AlertingSnapshot, AlertingState, StateChange};
use crate::transition::HostTransition;
use perfwatch_auth::{Actor, AuthError};
use perfwatch_history::History;
use perfwatch_model::Clock;
use perfwatch_rules::alert_instance::TransitionKind;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::incidents::{IncidentEventRow, IncidentRow};
use perfwatch_store::revision::Revision;
use perfwatch_store::{CommitError, Store, StoreError, Transaction};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Maximum number of transitions in a commit.
const MAX_BATCH_TRANSITIONS: usize = 64;
/// Delay before a failed commit is retried.
const STORE_RETRY_DELAY: Duration = Duration::from_secs(2);
/// Maximum number of attempts to persist a batch, while ingestion is not blocked. Afterwards its
/// transitions are persisted one by one, and a transition that still fails is dropped.
const MAX_ATTEMPTS: usize = 5;
/// Maximum number of attempts of a change that conflicts with changes of other hubs.
const MAX_UPDATE_ATTEMPTS: usize = 5;

/// Components of an [`IncidentService`].
pub(crate) struct IncidentDeps {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) history: Arc<History>,
    pub(crate) state: Arc<AlertingState>,
    pub(crate) evaluators: Arc<EvaluatorPool>,
    pub(crate) explainer: AlertExplainer,
    pub(crate) context: BatchContext,
    pub(crate) metrics: AlertingMetrics,
    /// Notified after each commit, to wake the dispatcher.
    pub(crate) outbox_changed: Arc<Notify>,
}

/// Writer of definitions, incidents, timeline and outbox.
pub(crate) struct IncidentService {
    deps: IncidentDeps,
    /// Queue of transitions, taken by [`Self::run`].
    transitions_rx: Mutex<Option<mpsc::Receiver<HostTransition>>>,
    /// Held during a change. Contains the revision of the store that the state was loaded from.
    write_lock: Mutex<i64>,
}

impl IncidentService {
    /// Creates the service and loads the state from the store.
    pub(crate) async fn open(
        deps: IncidentDeps,
        transitions_rx: mpsc::Receiver<HostTransition>,
    ) -> Result<Self, StoreError> {
        let service =
            Self { deps, transitions_rx: Mutex::new(Some(transitions_rx)), write_lock: Mutex::new(0) };
        let mut revision = service.write_lock.lock().await;
        service.reload(&mut revision).await?;
        drop(revision);
        Ok(service)
    }

    pub(crate) fn snapshot(&self) -> Arc<AlertingSnapshot> {
        self.deps.state.snapshot()
    }

    /// Publishes a new state and invalidates the evaluators if rules changed.
    fn publish(&self, snapshot: AlertingSnapshot) {
        let has_same_rules =
            AlertDefinitions::same_rules(&snapshot.definitions, &self.snapshot().definitions);
        self.deps.state.publish(snapshot);
        if !has_same_rules {
            self.deps.evaluators.invalidate_all();
        }
    }

    /// Loads the state from the store after a change of another hub.
    async fn reload(&self, revision: &mut i64) -> Result<(), StoreError> {
        let store = &*self.deps.store;
        // The revision is read first: a change during the load causes another reload.
        let loaded_revision = Revision::Alerting.get(store).await?;
        let definitions = AlertDefinitions::load(store).await?;
        let incidents = ActiveIncidents::load(store, self.deps.clock.wall_ms()).await?;
        *revision = loaded_revision;
        let changed_hosts = incidents.hosts_that_differ(&self.snapshot().incidents);
        self.publish(AlertingSnapshot { definitions, incidents });
        changed_hosts.into_iter().for_each(|host| self.deps.evaluators.invalidate(host));
        Ok(())
    }

    /// Reloads the state if another hub changed it.
    pub(crate) async fn refresh_from_store(&self) -> Result<(), StoreError> {
        let mut revision = self.write_lock.lock().await;
        if Revision::Alerting.get(&*self.deps.store).await? != *revision {
            self.reload(&mut revision).await?;
        }
        Ok(())
    }

    /// Commits and publishes a change that `build_change` derives from the current state and time.
    /// Repeats both if another hub committed first. Returns the result of `build_change`.
    ///
    /// # Errors
    /// Returns the error of `build_change`, [`CommitError::Conflict`] after
    /// [`MAX_UPDATE_ATTEMPTS`] conflicts, or [`CommitError::Store`] if the store is unavailable.
    pub(crate) async fn update<T, E: From<CommitError>>(
        &self,
        entry: Option<AuditEntry>,
        mut build_change: impl FnMut(&AlertingSnapshot, i64) -> Result<(StateChange, T), E>,
    ) -> Result<T, E> {
        let to_error = |error: StoreError| E::from(CommitError::Store(error));
        let mut revision = self.write_lock.lock().await;
        for _ in 0..MAX_UPDATE_ATTEMPTS {
            let state = self.snapshot();
            let now_ms = self.deps.clock.wall_ms();
            let (StateChange { definitions, incidents, mut tx }, result) = build_change(&state, now_ms)?;
            if tx.is_empty() {
                return Ok(result);
            }
            if let Some(entry) = &entry {
                tx.audit().insert(&AuditEntry { at_ms: now_ms, ..entry.clone() });
            }
            tx.revision(Revision::Alerting).bump(*revision);
            match self.deps.store.commit(tx).await {
                Ok(()) => {
                    *revision += 1;
                    self.publish(AlertingSnapshot {
                        definitions: definitions.unwrap_or_else(|| state.definitions.clone()),
                        incidents: incidents.unwrap_or_else(|| state.incidents.clone()),
                    });
                    self.deps.outbox_changed.notify_one();
                    return Ok(result);
                }
                Err(CommitError::Conflict) => self.reload(&mut revision).await.map_err(to_error)?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict.into())
    }

    /// Changes an active incident, adds an entry to its timeline, and notifies its channels if `change`
    /// returns a reason. Returns false if the incident is not active.
    ///
    /// # Errors
    /// Returns the error of `change`, or a [`CommitError`] as [`Self::update`].
    pub(crate) async fn update_incident<E: From<CommitError>>(
        &self,
        id: Uuid,
        entry: Option<AuditEntry>,
        change: impl Fn(&mut OpenIncident, i64) -> Result<(IncidentEventRow, Option<NotificationReason>), E>,
    ) -> Result<bool, E> {
        let build_change = |state: &AlertingSnapshot, now_ms: i64| {
            let Some(open) = state.incidents.incident(id) else {
                return Ok((StateChange::default(), false));
            };
            let mut open = (**open).clone();
            let (event, reason) = change(&mut open, now_ms)?;
            let mut incidents = state.incidents.clone();
            let mut tx = Transaction::default();
            tx.incidents().upsert(&open.to_row());
            tx.incident_events().insert(&event);
            if let Some(reason) = reason {
                let notice = PendingNotice { incident: id, reason, delay_ms: 0 };
                self.deps.context.outbox.enqueue_notifications(&mut tx, state, &open, notice, now_ms);
            }
            incidents.insert(open);
            Ok((StateChange { incidents: Some(incidents), tx, ..StateChange::default() }, true))
        };
        self.update(entry, build_change).await
    }

    /// Adds an entry to the timeline of an incident.
    ///
    /// # Errors
    /// Returns the reason if the actor lost the right, or a [`CommitError`] as [`Self::update`].
    pub(crate) async fn add_event(
        &self,
        (actor, entry): (&Actor, AuditEntry),
        event: IncidentEventRow,
    ) -> Result<(), AuthError> {
        let build_change = |_: &AlertingSnapshot, _: i64| {
            actor.recheck()?;
            let tx = Transaction::build(|tx| tx.incident_events().insert(&event));
            Ok::<_, AuthError>((StateChange { tx, ..StateChange::default() }, ()))
        };
        self.update(Some(entry), build_change).await
    }

    /// Removes incidents that no new alert can join, unless the state is not `expected` any more.
    pub(crate) async fn prune(&self, expected: &Arc<AlertingSnapshot>, now_ms: i64) {
        let mut incidents = expected.incidents.clone();
        incidents.prune(now_ms);
        let _write_guard = self.write_lock.lock().await;
        if Arc::ptr_eq(&self.snapshot(), expected) {
            self.publish(AlertingSnapshot { definitions: expected.definitions.clone(), incidents });
        }
    }

    /// Loads an incident, whether active or not; `None` if it does not exist.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store cannot be read.
    pub(crate) async fn get(&self, id: Uuid) -> Result<Option<OpenIncident>, StoreError> {
        match IncidentRow::get(&*self.deps.store, id).await? {
            Some(row) => self.load_with_alerts(&row).await.map(Some),
            None => Ok(None),
        }
    }

    /// Loads the alerts of an incident.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store cannot be read.
    pub(crate) async fn load_with_alerts(&self, row: &IncidentRow) -> Result<OpenIncident, StoreError> {
        active_incidents::load_incident(&*self.deps.store, row).await
    }

    /// Persists the transitions of all hosts until shutdown.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let Some(mut transitions_rx) = self.transitions_rx.lock().await.take() else { return };
        let mut received: Vec<HostTransition> = Vec::new();
        loop {
            received.clear();
            tokio::select! {
                () = stop.cancelled() => return,
                count = transitions_rx.recv_many(&mut received, MAX_BATCH_TRANSITIONS) => {
                    if count == 0 {
                        return;
                    }
                }
            }
            let batch = self.explain_batch(&mut received, &transitions_rx).await;
            self.persist_with_retry(&batch, &stop).await;
            self.deps.evaluators.on_persisted(batch.iter().map(|transition| transition.host));
            if stop.is_cancelled() {
                // The replay of the next start emits the remaining transitions again.
                return;
            }
        }
    }

    async fn explain_batch(
        &self,
        received: &mut Vec<HostTransition>,
        transitions_rx: &mpsc::Receiver<HostTransition>,
    ) -> Vec<ExplainedTransition> {
        let mut batch = Vec::with_capacity(received.len());
        for HostTransition { host, event, evaluated_until_ms } in received.drain(..) {
            // If many transitions wait, a timely notification is worth more than its explanation.
            let has_time = transitions_rx.len() < MAX_BATCH_TRANSITIONS;
            let explanation = match event.kind {
                TransitionKind::Fired if has_time => self.deps.explainer.explain(host, &event).await,
                _ => None,
            };
            batch.push(ExplainedTransition { host, event, evaluated_until_ms, explanation });
        }
        batch
    }

    /// Persists a batch, with retries. A transition that the store rejects does not block the others.
    async fn persist_with_retry(&self, batch: &[ExplainedTransition], stop: &CancellationToken) {
        let mut attempts = 0;
        while let Err(error) = self.persist(batch).await {
            attempts += 1;
            tracing::warn!(%error, attempts, "failed to persist alert transitions; retrying");
            if attempts > MAX_ATTEMPTS && self.deps.history.ingest_blocked().is_none() {
                if let [transition] = batch {
                    let (host, rule) = (transition.host, &transition.event.rule.name);
                    tracing::error!(
                        %error, %host, rule, "failed to persist an alert transition; dropping it"
                    );
                    return;
                }
                for transition in batch.chunks(1) {
                    Box::pin(self.persist_with_retry(transition, stop)).await;
                }
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(STORE_RETRY_DELAY) => {}
            }
        }
    }

    async fn persist(&self, batch: &[ExplainedTransition]) -> Result<(), CommitError> {
        let build_change = |state: &AlertingSnapshot, now_ms: i64| {
            let mut incidents = IncidentBatch::new(&self.deps.context, state, now_ms);
            batch.iter().for_each(|transition| incidents.apply(transition));
            Ok::<_, CommitError>((incidents.into_change(), ()))
        };
        self.update(None, build_change).await?;
        for transition in batch {
            match transition.event.kind {
                TransitionKind::Fired => self.deps.metrics.alerts_fired.inc(),
                TransitionKind::Resolved(_) => self.deps.metrics.alerts_resolved.inc(),
                TransitionKind::Backfilled => 0,
            };
        }
        Ok(())
    }
}
