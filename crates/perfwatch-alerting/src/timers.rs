//! What time alone changes: hosts fall silent, incidents settle, acknowledgements and silences
//! end, old books are closed; and what other hubs changed is read.

use super::{Alert, Alerting, AlertingSnapshot, OpenIncident, StateChange, incident_service};
use perfwatch_model::HostId;
use perfwatch_rules::condition::HubMetric;
use perfwatch_rules::incident::{CloseOutcome, NotificationReason};
use perfwatch_store::host_last_seen::HostLastSeen;
use perfwatch_store::incidents::{IncidentEventKind, IncidentRow};
use perfwatch_store::outbox::Outbox;
use perfwatch_store::revision::Revision;
use perfwatch_store::{CommitError, SqlStatement, StoreError, Write};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const TICK_INTERVAL: Duration = Duration::from_secs(1);
const HUB_METRICS_EVERY_TICKS: u64 = 5;
const PURGE_EVERY_TICKS: u64 = 3_600;
/// How long incidents are kept after they are over.
const INCIDENT_RETENTION_MS: i64 = 400 * 86_400_000;
/// How often hubs tell each other whom they heard.
const LAST_SEEN_SYNC_EVERY_TICKS: u64 = 10;
/// What one hub tells of a host is at most so old when another one judges by it.
const LAST_SEEN_STALENESS_MS: i64 = 20_000;
/// How often the hub that judges silence says that it is there: a lease is a write.
const LEASE_RENEW_EVERY_TICKS: u64 = 5;
const LEASE_MS: i64 = 15_000;
/// A hub that did not run for so long heard nobody.
const STALL_THRESHOLD: Duration = Duration::from_secs(4);
const STALL_THRESHOLD_MS: i64 = 4_000;
/// Hosts whose past is read at one time.
const MAX_CONCURRENT_REPLAYS: usize = 4;

/// What hubs of one database know of each other.
#[derive(Default)]
struct PeerState {
    /// This one judges who is silent.
    evaluates_no_data: bool,
    /// When any hub heard from a host, known a little late.
    last_seen_by_peers: HashMap<HostId, i64>,
}

impl Alerting {
    /// Starts all tasks.
    pub fn start(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        // Hosts that don't send any more have rules too.
        for host in self.deps.hosts.list() {
            let id = host.record.id;
            // What came in before this start was judged by who ran then.
            let newest = self.deps.live_feed.recent(id, self.now_ms()).last().map(|row| row.snapshot.at_ms);
            self.evaluators.set_evaluated_until(id, newest.max(host.record.last_snapshot_ms).unwrap_or_default());
            self.evaluators.invalidate(id);
        }
        self.evaluators.invalidate(super::hub_host_id());
        tasks.spawn(self.clone().run_incidents(stop.clone()));
        tasks.spawn(self.clone().run_dispatcher(stop.clone()));
        tasks.spawn(self.clone().rehydrate_loop(stop.clone()));
        tasks.spawn(self.clone().run_timers(stop.clone()));
    }

    async fn rehydrate_loop(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.evaluators.stale_notify.notified() => {}
            }
            let mut cold = self.evaluators.drain_stale().into_iter();
            let (mut warming, mut again) = (tokio::task::JoinSet::new(), Vec::new());
            loop {
                while warming.len() < MAX_CONCURRENT_REPLAYS
                    && let Some(id) = cold.next()
                {
                    let alerting = self.clone();
                    warming.spawn(async move { (id, alerting.rehydrate(id).await) });
                }
                match warming.join_next().await {
                    None => break,
                    Some(Ok((id, Err(error)))) => {
                        tracing::debug!(%id, %error, "failed to replay the history of a host; retrying");
                        again.push(id);
                    }
                    Some(_) => {}
                }
                if stop.is_cancelled() {
                    return;
                }
            }
            if !again.is_empty() {
                tokio::time::sleep(TICK_INTERVAL / 5).await;
                again.into_iter().for_each(|id| self.evaluators.mark_stale(id));
            }
        }
    }

    async fn run_timers(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tags = self.deps.directory.subscribe();
        let mut known_tags = self.deps.directory.snapshot();
        let mut before = (Instant::now(), self.now_ms(), self.deps.clock.monotonic());
        let mut shared = PeerState::default();
        for second in 0_u64.. {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = (Instant::now(), self.now_ms(), self.deps.clock.monotonic());
            self.detect_stall(before, now);
            before = now;
            if tags.has_changed().unwrap_or(false) {
                tags.mark_unchanged();
                let now = self.deps.directory.snapshot();
                // Other tags, other rules.
                if now.host_tags != known_tags.host_tags {
                    self.evaluators.invalidate_all();
                }
                known_tags = now;
            }
            if let Err(error) = self.tick(second, &mut shared).await {
                tracing::debug!(?error, "failed to refresh alerting state; using the cached copy");
            }
        }
    }

    /// A hub that did not run, or whose clock jumped, heard nobody for that: nobody was silent.
    fn detect_stall(
        &self,
        (then, wall, monotonic): (Instant, i64, Duration),
        (now, wall_now, monotonic_now): (Instant, i64, Duration),
    ) {
        let jumped_ms =
            (wall_now - wall) - i64::try_from((monotonic_now - monotonic).as_millis()).unwrap_or(i64::MAX);
        // While it takes nothing in, nobody is silent but itself.
        let deaf = self.deps.history.ingest_blocked().is_some();
        if deaf || now - then > STALL_THRESHOLD || jumped_ms.abs() > STALL_THRESHOLD_MS {
            self.ingest_blocked_until_ms.store(wall_now, Ordering::Relaxed);
        }
    }

    async fn tick(&self, second: u64, shared: &mut PeerState) -> Result<(), CommitError> {
        // First, and without the store: it may be the store that is not well.
        if second.is_multiple_of(HUB_METRICS_EVERY_TICKS) {
            self.observe_hub_metrics().await;
        }
        self.refresh_from_store().await?;
        if second.is_multiple_of(LAST_SEEN_SYNC_EVERY_TICKS) {
            self.sync_last_seen(shared).await?;
        }
        if second.is_multiple_of(LEASE_RENEW_EVERY_TICKS) {
            // Where the store does not answer, nobody judges.
            shared.evaluates_no_data = false;
            shared.evaluates_no_data = self.store().acquire_lease("no_data_evaluation", LEASE_MS).await?;
        }
        if shared.evaluates_no_data {
            self.observe_no_data(&shared.last_seen_by_peers);
        }
        self.advance_incidents().await?;
        if second.is_multiple_of(PURGE_EVERY_TICKS) {
            let old =
                IncidentRow::delete_resolved_before(self.now_ms() - INCIDENT_RETENTION_MS).map(Write::from);
            self.store().commit(old.into()).await?;
        }
        Ok(())
    }

    /// Tells other hubs whom this one heard, and learns whom they did, and which hosts there are.
    async fn sync_last_seen(&self, shared: &mut PeerState) -> Result<(), CommitError> {
        let now_ms = self.now_ms();
        // An embedded database has one hub.
        let alone = self.store().backend() == "sqlite";
        if !alone {
            self.deps.hosts.refresh(now_ms).await?;
        }
        let beats = self.deps.hosts.heartbeats();
        self.resolve_removed_hosts(&beats.iter().map(|beat| beat.host).collect());
        if alone {
            return Ok(());
        }
        let lately = beats.iter().filter_map(|beat| Some((beat.host, beat.last_seen_ms?)));
        let lately = lately.filter(|(_, seen)| now_ms - seen < LAST_SEEN_STALENESS_MS);
        let told: Vec<Write> = lately.map(|(id, seen)| HostLastSeen::upsert(id.0, seen).into()).collect();
        for told in told.chunks(500) {
            self.store().commit(told.to_vec()).await?;
        }
        let heard = HostLastSeen::list(self.store()).await?.into_iter();
        shared.last_seen_by_peers =
            heard.map(|(id, at)| (HostId(id), (at + LAST_SEEN_STALENESS_MS).min(now_ms))).collect();
        Ok(())
    }

    pub(super) async fn refresh_from_store(&self) -> Result<(), StoreError> {
        let mut since = self.write_lock.lock().await;
        if Revision::Alerting.get(self.store()).await? != *since {
            self.reload(&mut since).await?;
        }
        Ok(())
    }

    async fn observe_hub_metrics(&self) {
        let (history, budget) = (&self.deps.history, self.deps.history.config().budget_bytes);
        let refusing = if history.ingest_blocked().is_some() { 1.0 } else { 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let used = history.counts.usage().used_bytes as f64 / budget.max(1) as f64 * 100.0;
        let mut figures = vec![(HubMetric::IngestBlocked, refusing), (HubMetric::DiskBudgetUsed, used)];
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        if let Ok(undelivered) = Outbox::failed_since(self.store(), self.now_ms() - 86_400_000).await {
            figures.push((HubMetric::FailedNotifications, undelivered as f64));
        }
        self.observe_hub(&figures);
    }

    /// Incidents that change by time alone, at this moment.
    fn due_incidents(&self, state: &AlertingSnapshot, now_ms: i64) -> Vec<uuid::Uuid> {
        let touched = |live: &&Arc<OpenIncident>| {
            let other = |alert: &Arc<Alert>| alert.body.silenced != self.is_silenced(state, alert, now_ms);
            is_ack_expired(live, now_ms)
                || live.firing().any(other)
                || live.incident.clone().try_close(now_ms) != CloseOutcome::Pending
        };
        state.incidents.iter().filter(touched).map(|live| live.incident.id).collect()
    }

    /// Changes them.
    pub(super) async fn advance_incidents(&self) -> Result<(), CommitError> {
        let state = self.snapshot();
        let now_ms = self.now_ms();
        if self.due_incidents(&state, now_ms).is_empty() {
            // What has been over for long is let go now and then.
            if state.incidents.expired_count(now_ms) > 50 {
                let mut board = state.incidents.clone();
                board.prune(now_ms);
                let _turn = self.write_lock.lock().await;
                // Unless it changed meanwhile.
                if Arc::ptr_eq(&self.snapshot(), &state) {
                    self.publish(AlertingSnapshot {
                        definitions: state.definitions.clone(),
                        incidents: board,
                    });
                }
            }
            return Ok(());
        }
        let plan = |state: &AlertingSnapshot, now_ms: i64| {
            let (mut board, mut changes) = (state.incidents.clone(), Vec::new());
            for id in self.due_incidents(state, now_ms) {
                let Some(live) = state.incidents.incident(id) else { continue };
                let mut live = (**live).clone();
                let (mut rows, notices) = self.advance_incident(state, &mut live, now_ms);
                changes.push(live.to_row().upsert());
                changes.append(&mut rows);
                for notice in notices {
                    changes.extend(self.enqueue_notifications(state, &live, notice, now_ms));
                }
                board.insert(live);
            }
            Ok::<_, CommitError>((
                StateChange { incidents: Some(board), statements: changes, definitions: None },
                (),
            ))
        };
        self.update(None, plan).await
    }

    /// What time does to one: what is written down beside it, and what people are told.
    fn advance_incident(
        &self,
        state: &AlertingSnapshot,
        live: &mut OpenIncident,
        now_ms: i64,
    ) -> (Vec<SqlStatement>, Vec<(NotificationReason, i64)>) {
        let (id, mut rows, mut notices) = (live.incident.id, Vec::new(), Vec::new());
        let event = |kind: IncidentEventKind, text: String| {
            incident_service::timeline_event(id, now_ms, kind, text).insert()
        };
        if is_ack_expired(live, now_ms)
            && let Some(ack) = live.incident.ack.take()
        {
            rows.push(event(IncidentEventKind::AckExpired, format!("acknowledgment by {} expired", ack.by)));
            notices.push((NotificationReason::Reminder, 0));
        }
        let (mut loud, mut hushed) = (false, false);
        for alert in &mut live.alerts {
            let silenced = self.is_silenced(state, alert, now_ms);
            if alert.is_firing() && alert.body.silenced != silenced {
                let mut other = (**alert).clone();
                other.body.silenced = silenced;
                rows.push(other.to_row(id).update());
                *alert = Arc::new(other);
                (loud, hushed) = (loud || !silenced, hushed || silenced);
            }
        }
        if hushed {
            rows.push(event(
                IncidentEventKind::Silenced,
                "silence started; notifications are suppressed".to_owned(),
            ));
        }
        if loud {
            rows.push(event(
                IncidentEventKind::SilenceExpired,
                "silence expired; alerts are still firing".to_owned(),
            ));
            notices.extend(live.incident.on_silence_expired());
        }
        if let CloseOutcome::Closed { notify } = live.incident.try_close(now_ms) {
            rows.push(event(IncidentEventKind::IncidentResolved, "resolved after the flap hold".to_owned()));
            notices.extend(notify.then_some((NotificationReason::Resolved, 0)));
        }
        (rows, notices)
    }

    fn is_silenced(&self, state: &AlertingSnapshot, alert: &Alert, now_ms: i64) -> bool {
        state.definitions.is_silenced(alert.match_target(&self.deps.directory.snapshot()), now_ms)
    }
}

/// Whether somebody took it on until now.
fn is_ack_expired(live: &OpenIncident, now_ms: i64) -> bool {
    live.incident.ack.as_ref().is_some_and(|ack| ack.until_ms.is_some_and(|until| until <= now_ms))
}
