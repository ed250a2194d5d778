//! One evaluator per host; new or changed hosts are rehydrated by replaying history.
//!
//! A replay covers as much history as the rules of the host need, so that averages are complete and a
//! restart loses no state. Until then the evaluator is *stale* and observes nothing.

use crate::evaluator_slots::{EvaluatorSlots, HostSlot, lock_slot};
use crate::replay::{self, ReplayRange};
use crate::state::AlertingState;
use crate::transition::{HostTransition, hub_host_id};
use perfwatch_auth::AuthDirectory;
use perfwatch_history::History;
use perfwatch_live::host_registry::{Heartbeat, HostRegistry};
use perfwatch_live::{LiveFeed, RecentRows};
use perfwatch_model::{Clock, HostId, Snapshot};
use perfwatch_rules::Rule;
use perfwatch_rules::alert_instance::{ResolveReason, TransitionEvent};
use perfwatch_rules::host_evaluator::{HostEvaluator, retain_active_transitions};
use perfwatch_rules::hub_metric::HubMetric;
use perfwatch_store::StoreError;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Maximum number of hosts whose history is replayed concurrently.
const MAX_CONCURRENT_REPLAYS: usize = 4;
/// Delay before a failed replay is retried.
const REPLAY_RETRY_DELAY: Duration = Duration::from_millis(200);
/// Minimum slack, of two intervals, that extends the grace period. Shorter intervals need none.
const MIN_SLACK_MS: i64 = 20_000;

/// Components of an [`EvaluatorPool`].
pub(crate) struct EvaluatorDeps {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) directory: Arc<AuthDirectory>,
    pub(crate) hosts: Arc<HostRegistry>,
    pub(crate) live_feed: Arc<LiveFeed>,
    pub(crate) history: Arc<History>,
    pub(crate) state: Arc<AlertingState>,
}

/// Evaluators of all hosts and of the hub itself. Emits transitions through a channel.
pub(crate) struct EvaluatorPool {
    deps: EvaluatorDeps,
    slots: EvaluatorSlots,
    transitions_tx: mpsc::Sender<HostTransition>,
    /// Start of this hub: silence before it does not count. Milliseconds since 1970.
    started_ms: i64,
    /// Time before the start in which no hub received anything: it is no silence of a host.
    downtime_ms: i64,
    /// Latest time at which the hub could not ingest: silence before it does not count.
    ingest_blocked_until_ms: AtomicI64,
}

/// Times at which the hub could receive snapshots.
#[derive(Debug, Clone, Copy)]
struct Receiving {
    /// Start of this hub.
    started_ms: i64,
    /// Time before the start in which no hub received anything.
    downtime_ms: i64,
    /// End of the last time in which this hub could not receive.
    blocked_until_ms: i64,
}

impl Receiving {
    fn since_ms(&self) -> i64 {
        self.started_ms.max(self.blocked_until_ms)
    }

    /// Time by which the next snapshot of a host is late, in milliseconds: two intervals are due. `None` if
    /// the interval (0) is unknown.
    ///
    /// A script does not repeat what it sent while the hub was down, and may have met two restarts in a row.
    /// So it is late only after an interval in which the hub received without interruption.
    fn silent_ms(&self, last_seen_ms: Option<i64>, interval_ms: u32, now_ms: i64) -> Option<i64> {
        let interval_ms = i64::from(interval_ms);
        let (slack_ms, receiving_slack_ms) = match 2 * interval_ms {
            0 => return None,
            // A host that sends every quarter of an hour is not silent after a minute.
            slack_ms if slack_ms > MIN_SLACK_MS => (slack_ms, interval_ms + interval_ms / 4),
            _ => (0, 0),
        };
        let last_seen_ms = last_seen_ms.unwrap_or(self.started_ms);
        let downtime_ms = if last_seen_ms < self.started_ms { self.downtime_ms } else { 0 };
        let since_ms = last_seen_ms.saturating_add(downtime_ms).max(self.blocked_until_ms);
        let late_ms = now_ms - since_ms - slack_ms;
        let received_ms = now_ms - self.since_ms() - receiving_slack_ms;
        Some(late_ms.min(received_ms).max(0))
    }
}

impl EvaluatorPool {
    /// Creates the evaluators. `last_alive_ms` is when a hub of the store was last running, Unix
    /// milliseconds; `None` before the first run.
    pub(crate) fn new(
        deps: EvaluatorDeps,
        transitions_tx: mpsc::Sender<HostTransition>,
        last_alive_ms: Option<i64>,
    ) -> Self {
        let started_ms = deps.clock.wall_ms();
        Self {
            started_ms,
            downtime_ms: last_alive_ms.map_or(0, |alive_ms| (started_ms - alive_ms).max(0)),
            deps,
            slots: EvaluatorSlots::default(),
            transitions_tx,
            ingest_blocked_until_ms: AtomicI64::new(0),
        }
    }

    /// Queues all known hosts and the hub itself for rehydration, including hosts that send no data.
    pub(crate) fn rehydrate_all(&self) {
        for host in self.deps.hosts.list() {
            let id = host.record.id;
            // Data from before this start was evaluated by the previous run.
            let newest = self.deps.live_feed.snapshot_at(id, i64::MAX, self.now_ms());
            let newest_ms = newest.map(|row| row.at_ms).max(host.record.last_snapshot_ms);
            let newest_ms = newest_ms.max(self.deps.history.newest_unsealed_ms(id));
            lock_slot(&self.slots.slot(id)).evaluated_until_ms = newest_ms.unwrap_or_default();
            self.slots.invalidate(id);
        }
        self.slots.invalidate(hub_host_id());
    }

    /// Invalidates all evaluators after a change of rules or tags.
    pub(crate) fn invalidate_all(&self) {
        self.slots.invalidate_all();
    }

    /// Invalidates the evaluator of a host after a change of its firing alerts.
    pub(crate) fn invalidate(&self, host: HostId) {
        self.slots.invalidate(host);
    }

    /// Records that a transition of each given host was persisted.
    pub(crate) fn on_persisted(&self, hosts: impl Iterator<Item = HostId>) {
        for host in hosts {
            let slot = self.slots.slot(host);
            let mut slot = lock_slot(&slot);
            slot.queued_transitions = slot.queued_transitions.saturating_sub(1);
        }
    }

    /// Excludes the time before `until_ms` from the silence of all hosts.
    pub(crate) fn set_ingest_blocked_until(&self, until_ms: i64) {
        self.ingest_blocked_until_ms.store(until_ms, Ordering::Relaxed);
    }

    fn now_ms(&self) -> i64 {
        self.deps.clock.wall_ms()
    }

    /// Records that another hub evaluated a snapshot.
    pub(crate) fn observe_elsewhere(&self, host: HostId, at_ms: i64) {
        let slot = self.slots.slot(host);
        let mut slot = lock_slot(&slot);
        slot.evaluated_elsewhere_ms = slot.evaluated_elsewhere_ms.max(at_ms);
    }

    /// Runs an evaluation if the evaluator of the host is current; queues the host otherwise.
    fn evaluate_if_current(
        &self,
        host: HostId,
        evaluate: impl FnOnce(&mut HostEvaluator, &mut Vec<TransitionEvent>),
    ) {
        self.evaluate_slot(host, &mut lock_slot(&self.slots.slot(host)), evaluate);
    }

    fn evaluate_slot(
        &self,
        host: HostId,
        slot: &mut HostSlot,
        evaluate: impl FnOnce(&mut HostEvaluator, &mut Vec<TransitionEvent>),
    ) {
        if slot.revision != self.slots.target_revision() {
            self.slots.mark_stale(host);
            return;
        }
        let mut events = Vec::new();
        evaluate(&mut slot.evaluator, &mut events);
        self.emit(host, slot, events);
    }

    /// Evaluates an accepted and published snapshot. Callers hold the append lock of the host, so that
    /// its snapshots arrive in order.
    pub(crate) fn evaluate_snapshot(&self, host: HostId, snapshot: &Snapshot, skew_ms: Option<i64>) {
        let age_ms = self.observation_age_ms(host, snapshot);
        let slot = self.slots.slot(host);
        let mut slot = lock_slot(&slot);
        slot.discard_if_behind(snapshot.interval_ms);
        if slot.revision != self.slots.target_revision() {
            slot.record_missed(snapshot.at_ms);
        }
        self.evaluate_slot(host, &mut slot, |evaluator, events| {
            evaluator.evaluate_snapshot(snapshot, skew_ms, age_ms, events);
        });
    }

    /// Age of a snapshot by the clock of the hub, to which its time was corrected. The usual delay of the
    /// sender does not count.
    fn observation_age_ms(&self, host: HostId, snapshot: &Snapshot) -> i64 {
        self.now_ms().saturating_sub(snapshot.at_ms).saturating_sub(self.deps.hosts.lag_ms(host))
    }

    /// Queues transitions for the incident service. If the queue is full, the evaluator is discarded:
    /// its replay emits the transitions again.
    fn emit(&self, host: HostId, slot: &mut HostSlot, events: Vec<TransitionEvent>) {
        let evaluated_until_ms = slot.evaluator.last_ms();
        for event in events {
            let transition = HostTransition { host, event, evaluated_until_ms };
            if self.transitions_tx.try_send(transition).is_err() {
                slot.discard_evaluator();
                self.slots.mark_stale(host);
                return;
            }
            slot.queued_transitions += 1;
        }
    }

    /// Removes the evaluator of a deleted host and resolves its alerts.
    pub(crate) fn remove_host(&self, host: HostId) {
        self.slots.remove(host);
        let state = self.deps.state.snapshot();
        for alert in state.incidents.host_alerts(host) {
            let reason = ResolveReason::HostDeleted;
            let now_ms = self.now_ms();
            let event = replay::orphaned_transition(&state.definitions, &alert, reason, now_ms);
            // If the queue is full, `resolve_removed_hosts` finds the alert again.
            let _ = self.transitions_tx.try_send(HostTransition { host, event, evaluated_until_ms: now_ms });
        }
    }

    /// Resolves the alerts of hosts that this or another hub deleted.
    pub(crate) fn resolve_removed_hosts(&self, hosts: &HashSet<HostId>) {
        let state = self.deps.state.snapshot();
        for host in state.incidents.hosts().filter(|host| !host.0.is_nil() && !hosts.contains(host)) {
            self.remove_host(host);
        }
    }

    /// Evaluates the `no_data` rules of all hosts. `last_seen_by_peers` contains when other hubs
    /// received data of a host.
    pub(crate) fn evaluate_no_data(&self, last_seen_by_peers: &HashMap<HostId, i64>) {
        let now_ms = self.now_ms();
        let blocked_until_ms = self.ingest_blocked_until_ms.load(Ordering::Relaxed);
        let receiving =
            Receiving { started_ms: self.started_ms, downtime_ms: self.downtime_ms, blocked_until_ms };
        for Heartbeat { host, last_seen_ms, interval_ms, .. } in self.deps.hosts.heartbeats() {
            let last_seen_ms = last_seen_ms.max(last_seen_by_peers.get(&host).copied());
            let has_reported = last_seen_ms.is_some_and(|at_ms| at_ms >= receiving.since_ms());
            // Without a known interval, nothing is late.
            let Some(silent_ms) = receiving.silent_ms(last_seen_ms, interval_ms, now_ms) else { continue };
            self.evaluate_if_current(host, |evaluator, events| {
                evaluator.evaluate_no_data(silent_ms, has_reported, now_ms, events);
            });
        }
    }

    /// Evaluates the `hub` rules.
    pub(crate) fn evaluate_hub(&self, metrics: &[(HubMetric, f64)]) {
        let now_ms = self.now_ms();
        self.evaluate_if_current(hub_host_id(), |evaluator, events| {
            evaluator.evaluate_hub(metrics, now_ms, events);
        });
    }

    /// Rehydrates stale hosts until shutdown.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.slots.wait_for_stale() => {}
            }
            let mut stale_hosts = self.slots.drain_stale().into_iter();
            let (mut replays, mut failed_hosts) = (JoinSet::new(), Vec::new());
            loop {
                while replays.len() < MAX_CONCURRENT_REPLAYS
                    && let Some(host) = stale_hosts.next()
                {
                    let pool = self.clone();
                    replays.spawn(async move { (host, pool.rehydrate(host).await) });
                }
                match replays.join_next().await {
                    None => break,
                    Some(Ok((host, Err(error)))) => {
                        tracing::debug!(%host, %error, "failed to replay the history of a host; retrying");
                        failed_hosts.push(host);
                    }
                    Some(_) => {}
                }
                if stop.is_cancelled() {
                    return;
                }
            }
            if !failed_hosts.is_empty() {
                tokio::time::sleep(REPLAY_RETRY_DELAY).await;
                failed_hosts.into_iter().for_each(|host| self.slots.mark_stale(host));
            }
        }
    }

    /// Sets the current rules of a host, and replays its history if new rules need it.
    async fn rehydrate(self: &Arc<Self>, host: HostId) -> Result<(), StoreError> {
        let target_revision = self.slots.target_revision();
        let slot = self.slots.slot(host);
        let auth_snapshot = self.deps.directory.snapshot();
        let state = self.deps.state.snapshot();
        let rules = state.definitions.rules_for_host(host.0, auth_snapshot.host_tags(host));
        let now_ms = self.now_ms();
        let range = {
            let mut slot = lock_slot(&slot);
            if slot.revision == target_revision {
                return Ok(());
            }
            // The incidents do not contain queued transitions yet.
            if slot.queued_transitions > 0 {
                return Err(StoreError::Unavailable(
                    "alert transitions of this host are still being persisted; retry".to_owned(),
                ));
            }
            let evaluated_until_ms = slot.evaluated_until_ms.max(slot.evaluator.last_ms());
            let lookback_ms = slot.evaluator.required_replay_ms(&rules);
            ReplayRange::new(lookback_ms, evaluated_until_ms, slot.begin_replay(), now_ms)
        };
        let rows = match range {
            None => Vec::new(),
            Some(range) => replay::load_replay_rows(&self.deps.history, host, &rules, range, now_ms).await?,
        };
        let pool = self.clone();
        let replay = move || pool.replay(host, &slot, rules, &rows, target_revision);
        perfwatch_history::run_blocking(replay).await
    }

    /// Makes the evaluator of a host current: sets its rules, restores firing alerts, and observes the
    /// stored rows and then the recent window.
    fn replay(
        &self,
        host: HostId,
        slot: &Mutex<HostSlot>,
        rules: Vec<Arc<Rule>>,
        rows: &[Arc<Snapshot>],
        target_revision: i64,
    ) {
        let skew_ms = self.deps.hosts.clock_skew_ms(host);
        let now_ms = self.now_ms();
        let (mut evaluator, evaluated_until_ms) = {
            let mut slot = lock_slot(slot);
            if slot.queued_transitions > 0 {
                self.slots.mark_stale(host);
                return;
            }
            // Revision 0 makes the slot stale: nothing else uses its evaluator during the replay.
            slot.revision = 0;
            (std::mem::take(&mut slot.evaluator), slot.evaluated_until_ms)
        };
        let evaluated_until_ms = evaluated_until_ms.max(evaluator.last_ms());
        let (mut events, mut replayed) = (Vec::new(), Vec::new());
        evaluator.set_rules(rules, now_ms, &mut events);
        let state = self.deps.state.snapshot();
        events.extend(replay::restore_firing(&mut evaluator, &state, host, now_ms));
        for row in rows {
            evaluator.evaluate_snapshot(row, skew_ms, self.observation_age_ms(host, row), &mut replayed);
        }
        let loaded_until_ms = rows.last().map_or(i64::MIN, |row| row.at_ms);
        let mut slot = lock_slot(slot);
        let is_complete = slot.end_replay(replay::in_memory_since_ms(now_ms));
        if is_complete {
            // Snapshots published from here on wait for the lock of the slot, so that none is missed.
            let recent = self.deps.live_feed.recent_rows(host, loaded_until_ms.saturating_add(1), now_ms);
            for published in recent.map(RecentRows::decode).unwrap_or_default() {
                let row = &published.snapshot;
                evaluator.evaluate_snapshot(row, skew_ms, self.observation_age_ms(host, row), &mut replayed);
            }
        }
        // What another hub evaluated in between is recorded by that hub.
        retain_active_transitions(&mut replayed, evaluated_until_ms.max(slot.evaluated_elsewhere_ms));
        events.extend(replayed);
        slot.evaluator = evaluator;
        if is_complete {
            slot.revision = target_revision;
        } else {
            // The next replay continues with the snapshots that are too old for the recent window.
            self.slots.mark_stale(host);
        }
        self.emit(host, &mut slot, events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_after_an_interval_of_receiving() {
        const MINUTE: i64 = 60_000;
        let silent_min = |receiving: Receiving, seen_min: i64, interval_min: u32, now_min: i64| {
            let silent =
                receiving.silent_ms(Some(seen_min * MINUTE), interval_min * 60_000, now_min * MINUTE);
            silent.map(|silent_ms| silent_ms / MINUTE)
        };
        let started =
            |min: i64| Receiving { started_ms: min * MINUTE, downtime_ms: 2 * MINUTE, blocked_until_ms: 0 };
        // Without a restart in between: two intervals.
        assert_eq!(silent_min(started(0), 100, 20, 139), Some(0));
        assert_eq!(silent_min(started(0), 100, 20, 143), Some(3));
        // Both missing snapshots met a restart; the next one is due at minute 160.
        assert_eq!(silent_min(started(141), 100, 20, 159), Some(0));
        assert_eq!(silent_min(started(141), 100, 20, 165), Some(0));
        assert_eq!(silent_min(started(141), 100, 20, 169), Some(3));
        // The hub could not store what it received.
        let blocked = Receiving { blocked_until_ms: 141 * MINUTE, ..started(0) };
        assert_eq!(silent_min(blocked, 100, 20, 182), Some(1));
        assert_eq!(silent_min(started(0), 100, 0, 900), None);
    }
}
