//! Time-driven changes: no-data alerts, flap hold, expiry of silences and acknowledgments.
//!
//! The timers also refresh what other hubs of the same store changed.

use crate::active_incidents::{Alert, OpenIncident};
use crate::evaluator_pool::EvaluatorPool;
use crate::incident_service::IncidentService;
use crate::metrics::AlertingMetrics;
use crate::outbox_writer::{OutboxWriter, PendingNotice};
use crate::state::{AlertingSnapshot, StateChange};
use crate::timeline::timeline_event;
use crate::transition::hub_host_id;
use perfwatch_auth::AuthDirectory;
use perfwatch_history::History;
use perfwatch_live::host_registry::{Heartbeat, HostRegistry};
use perfwatch_model::{Clock, FailureStreak, HostId};
use perfwatch_rules::hub_metric::HubMetric;
use perfwatch_rules::incident::{CloseOutcome, NotificationReason};
use perfwatch_store::host_last_seen::HostLastSeen;
use perfwatch_store::incidents::IncidentEventKind;
use perfwatch_store::outbox::Outbox;
use perfwatch_store::{CommitError, LeasedTask, Store, Transaction};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between evaluations of the `hub` rules, in ticks.
const HUB_METRICS_INTERVAL: u64 = 5;
/// Interval between deletions of old incidents, in ticks.
const PURGE_INTERVAL: u64 = 3_600;
/// Retention of resolved incidents.
pub const INCIDENT_RETENTION_MS: i64 = 400 * 86_400_000;
/// Period in which failed notifications are counted for the `hub` rules.
const FAILED_NOTIFICATION_PERIOD_MS: i64 = 86_400_000;
/// Interval between exchanges of last-seen times with other hubs, in ticks.
const LAST_SEEN_SYNC_INTERVAL: u64 = 10;
/// Maximum delay of the last-seen time of another hub. Such a time counts as later by this delay.
const LAST_SEEN_STALENESS_MS: i64 = 20_000;
/// Interval between writes of a last-seen time if no other hub uses it.
pub(crate) const LAST_SEEN_WRITE_INTERVAL_MS: i64 = 60_000;
/// Maximum number of last-seen times in a commit.
const MAX_LAST_SEEN_ROWS: usize = 500;
/// Minimum pause between ticks, or jump of the wall clock, that counts as a stall of the hub.
const MIN_STALL: Duration = Duration::from_secs(4);
const MIN_STALL_MS: i64 = 4_000;
/// Minimum number of expired incidents in memory that are pruned.
const MIN_EXPIRED_INCIDENTS: usize = 51;

/// Tasks that run each second.
pub(crate) struct Timers {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) directory: Arc<AuthDirectory>,
    pub(crate) hosts: Arc<HostRegistry>,
    pub(crate) history: Arc<History>,
    pub(crate) evaluators: Arc<EvaluatorPool>,
    pub(crate) incidents: Arc<IncidentService>,
    pub(crate) outbox: OutboxWriter,
    pub(crate) metrics: AlertingMetrics,
}

/// Shared knowledge of the hubs of a store.
#[derive(Default)]
struct PeerState {
    /// Last-seen time of each host at any hub, in milliseconds since 1970.
    last_seen_by_peers: HashMap<HostId, i64>,
    /// Last-seen time of each host that this hub wrote.
    written: HashMap<HostId, i64>,
}

/// Reading of all clocks at a tick.
#[derive(Clone, Copy)]
struct ClockReading {
    tick: Instant,
    wall_ms: i64,
    monotonic: Duration,
}

/// Changes of an incident at a tick.
#[derive(Default)]
struct IncidentAdvance {
    tx: Transaction,
    notices: Vec<PendingNotice>,
}

impl Timers {
    /// Runs the timers until shutdown.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut access_changes = self.directory.subscribe();
        let mut auth_snapshot = self.directory.snapshot();
        let mut previous = self.read_clocks();
        let mut peers = PeerState::default();
        let mut failures = FailureStreak::default();
        for tick in 0_u64.. {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let current = self.read_clocks();
            self.detect_stall(previous, current);
            previous = current;
            if access_changes.has_changed().unwrap_or(false) {
                access_changes.mark_unchanged();
                let current = self.directory.snapshot();
                // Tags select the rules of a host.
                if current.host_tags != auth_snapshot.host_tags {
                    self.evaluators.invalidate_all();
                }
                auth_snapshot = current;
            }
            let ticked = self.tick(tick, &mut peers).await;
            let took = self.clock.monotonic().saturating_sub(current.monotonic);
            let error = ticked.as_ref().err().map(ToString::to_string);
            let run = (self.clock.wall_ms(), took);
            self.metrics.tasks.record("alert_timers", Some(TICK_INTERVAL), run, error);
            if let Some(error) = failures.first_error(&ticked) {
                tracing::warn!(%error, "failed to refresh alerting state; using the cached copy");
            }
        }
    }

    fn read_clocks(&self) -> ClockReading {
        ClockReading {
            tick: Instant::now(),
            wall_ms: self.clock.wall_ms(),
            monotonic: self.clock.monotonic(),
        }
    }

    /// Excludes a stall from the silence of hosts: the hub was suspended, its wall clock jumped, or
    /// ingestion is blocked.
    fn detect_stall(&self, previous: ClockReading, current: ClockReading) {
        let elapsed = current.monotonic.saturating_sub(previous.monotonic);
        let elapsed_ms = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        let jump_ms = (current.wall_ms - previous.wall_ms) - elapsed_ms;
        let is_stalled = self.history.ingest_blocked().is_some()
            || current.tick - previous.tick > MIN_STALL
            || jump_ms.abs() > MIN_STALL_MS;
        if is_stalled {
            self.evaluators.set_ingest_blocked_until(current.wall_ms);
        }
    }

    async fn tick(&self, tick: u64, peers: &mut PeerState) -> Result<(), CommitError> {
        // The first step does not require the store: a `hub` rule may report its failure.
        if tick.is_multiple_of(HUB_METRICS_INTERVAL) {
            self.observe_hub_metrics().await;
        }
        self.incidents.refresh_from_store().await?;
        if tick.is_multiple_of(LAST_SEEN_SYNC_INTERVAL) {
            self.sync_last_seen(peers).await?;
        }
        if self.store.lease(LeasedTask::NoDataEvaluation).is_some() {
            self.evaluators.evaluate_no_data(&peers.last_seen_by_peers);
        }
        self.advance_incidents().await?;
        if tick.is_multiple_of(PURGE_INTERVAL) {
            let before_ms = self.clock.wall_ms() - INCIDENT_RETENTION_MS;
            let tx = Transaction::build(|tx| tx.incidents().delete_resolved_before(before_ms));
            self.store.commit(tx).await?;
        }
        Ok(())
    }

    /// Refreshes the hosts, writes their last-seen times for the next start, and exchanges them with other
    /// hubs.
    async fn sync_last_seen(&self, peers: &mut PeerState) -> Result<(), CommitError> {
        let now_ms = self.clock.wall_ms();
        // An embedded database has a single hub.
        let is_single_hub = self.store.backend() == "sqlite";
        if !is_single_hub {
            self.hosts.refresh(now_ms).await?;
        }
        let heartbeats = self.hosts.heartbeats();
        self.evaluators.resolve_removed_hosts(&heartbeats.iter().map(|heartbeat| heartbeat.host).collect());
        // Other hubs need the times soon; the next start of a single hub does not.
        let min_change_ms = if is_single_hub { LAST_SEEN_WRITE_INTERVAL_MS } else { 1 };
        let changed = |heartbeat: &Heartbeat| {
            let last_seen_ms = heartbeat.last_seen_ms?;
            let written_ms = peers.written.get(&heartbeat.host).copied().unwrap_or_default();
            let row =
                HostLastSeen { host: heartbeat.host.0, last_seen_ms, interval_ms: heartbeat.interval_ms };
            (last_seen_ms - written_ms >= min_change_ms).then_some(row)
        };
        let hub = HostLastSeen { host: hub_host_id().0, last_seen_ms: now_ms, interval_ms: 0 };
        let rows: Vec<HostLastSeen> = heartbeats.iter().filter_map(changed).chain([hub]).collect();
        for chunk in rows.chunks(MAX_LAST_SEEN_ROWS) {
            let mut tx = Transaction::default();
            chunk.iter().for_each(|row| tx.host_last_seen().upsert(row));
            self.store.commit(tx).await?;
            peers.written.extend(chunk.iter().map(|row| (HostId(row.host), row.last_seen_ms)));
        }
        peers.written.retain(|host, _| self.hosts.contains(*host));
        if is_single_hub {
            return Ok(());
        }
        let last_seen = HostLastSeen::list(&*self.store).await?.into_iter();
        peers.last_seen_by_peers = last_seen
            .map(|row| (HostId(row.host), (row.last_seen_ms + LAST_SEEN_STALENESS_MS).min(now_ms)))
            .collect();
        Ok(())
    }

    async fn observe_hub_metrics(&self) {
        let budget_bytes = self.history.config().budget_bytes.max(1);
        let is_blocked = if self.history.ingest_blocked().is_some() { 1.0 } else { 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let used_percent = match self.history.backend().append_rejection() {
            // The store keeps the rest for sealing and roll-up.
            Some(_) => 100.0,
            None => self.history.metrics.usage().used_bytes as f64 / budget_bytes as f64 * 100.0,
        };
        let mut metrics =
            vec![(HubMetric::IngestBlocked, is_blocked), (HubMetric::DiskBudgetUsed, used_percent)];
        let now_ms = self.clock.wall_ms();
        let since_ms = now_ms - FAILED_NOTIFICATION_PERIOD_MS;
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let conflicts = self.hosts.sender_conflicts().count(now_ms) as f64;
        metrics.push((HubMetric::SenderConflicts, conflicts));
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        if let Ok(count) = Outbox::failed_since(&*self.store, since_ms).await {
            metrics.push((HubMetric::FailedNotifications, count as f64));
        }
        metrics.extend(self.metrics.recorded_values(self.clock.monotonic()));
        self.evaluators.evaluate_hub(&metrics);
        self.metrics.set_hub_values(metrics);
    }

    /// Incidents that time alone changes: an acknowledgment expired, a silence started or ended, or the
    /// flap hold is over.
    fn due_incidents(&self, state: &AlertingSnapshot, now_ms: i64) -> Vec<Uuid> {
        let is_due = |open: &&Arc<OpenIncident>| {
            is_ack_expired(open, now_ms)
                || open.firing().any(|alert| alert.body.silenced != self.is_silenced(state, alert, now_ms))
                || open.incident.clone().try_close(now_ms) != CloseOutcome::Pending
        };
        state.incidents.iter().filter(is_due).map(|open| open.incident.id).collect()
    }

    /// Persists the changes of all due incidents in one commit.
    async fn advance_incidents(&self) -> Result<(), CommitError> {
        let state = self.incidents.snapshot();
        let now_ms = self.clock.wall_ms();
        if self.due_incidents(&state, now_ms).is_empty() {
            if state.incidents.expired_count(now_ms) >= MIN_EXPIRED_INCIDENTS {
                self.incidents.prune(&state, now_ms).await;
            }
            return Ok(());
        }
        let build_change = |state: &AlertingSnapshot, now_ms: i64| {
            let (mut incidents, mut tx) = (state.incidents.clone(), Transaction::default());
            for id in self.due_incidents(state, now_ms) {
                let Some(open) = state.incidents.incident(id) else { continue };
                let mut open = (**open).clone();
                let advance = self.advance_incident(state, &mut open, now_ms);
                tx.incidents().upsert(&open.to_row());
                tx.append(advance.tx);
                for notice in advance.notices {
                    self.outbox.enqueue_notifications(&mut tx, state, &open, notice, now_ms);
                }
                incidents.insert(open);
            }
            let change = StateChange { incidents: Some(incidents), tx, definitions: None };
            Ok::<_, CommitError>((change, ()))
        };
        self.incidents.update(None, build_change).await
    }

    /// Applies the passage of time to an incident.
    fn advance_incident(
        &self,
        state: &AlertingSnapshot,
        open: &mut OpenIncident,
        now_ms: i64,
    ) -> IncidentAdvance {
        let id = open.incident.id;
        let mut advance = IncidentAdvance::default();
        let event = |kind, text: String| timeline_event(id, now_ms, kind, text);
        let to_notice = |(reason, delay_ms)| PendingNotice { incident: id, reason, delay_ms };
        if is_ack_expired(open, now_ms)
            && let Some(ack) = open.incident.ack.take()
        {
            let text = format!("acknowledgment by {} expired", ack.by);
            advance.tx.incident_events().insert(&event(IncidentEventKind::AckExpired, text));
            advance.notices.push(to_notice((NotificationReason::Reminder, 0)));
        }
        let (mut silence_ended, mut silence_began) = (false, false);
        for alert in &mut open.alerts {
            let silenced = self.is_silenced(state, alert, now_ms);
            if alert.is_firing() && alert.body.silenced != silenced {
                let mut changed = (**alert).clone();
                changed.body.silenced = silenced;
                advance.tx.alerts().update(&changed.to_row(id));
                *alert = Arc::new(changed);
                silence_ended |= !silenced;
                silence_began |= silenced;
            }
        }
        if silence_began {
            let text = "silence started; notifications are suppressed".to_owned();
            advance.tx.incident_events().insert(&event(IncidentEventKind::Silenced, text));
        }
        if silence_ended {
            let text = "silence expired; alerts are still firing".to_owned();
            advance.tx.incident_events().insert(&event(IncidentEventKind::SilenceExpired, text));
            advance.notices.extend(open.incident.on_silence_expired().map(to_notice));
        }
        if let CloseOutcome::Closed { notify } = open.incident.try_close(now_ms) {
            let text = "resolved after the flap hold".to_owned();
            advance.tx.incident_events().insert(&event(IncidentEventKind::IncidentResolved, text));
            advance.notices.extend(notify.then(|| to_notice((NotificationReason::Resolved, 0))));
        }
        advance
    }

    fn is_silenced(&self, state: &AlertingSnapshot, alert: &Alert, now_ms: i64) -> bool {
        state.definitions.is_silenced(alert.match_target(&self.directory.snapshot()), now_ms)
    }
}

/// Returns whether the incident has an acknowledgment whose expiry has passed.
fn is_ack_expired(open: &OpenIncident, now_ms: i64) -> bool {
    open.incident.ack.as_ref().is_some_and(|ack| ack.until_ms.is_some_and(|until_ms| until_ms <= now_ms))
}
