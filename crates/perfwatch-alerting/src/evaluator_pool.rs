//! The watch of each host: fed with what is accepted, in order. A host that is new, or whose
//! rules changed, is cold: its past is replayed first, as far as its rules look back, so that an
//! average is one and a restart forgets nothing.

use super::{ActiveIncidents, AlertDefinitions, Alerting, HostTransition};
use perfwatch_live::host_registry::Heartbeat;
use perfwatch_model::{HostId, Snapshot, limits};
use perfwatch_rules::Rule;
use perfwatch_rules::alert_instance::{ResolveReason, TransitionEvent, TransitionKind};
use perfwatch_rules::condition::HubMetric;
use perfwatch_rules::host_evaluator::{HostEvaluator, LOAD_PER_CORE_INPUTS, retain_active_transitions};
use perfwatch_store::{BlockContent, StoreError};
use perfwatch_tsdb::{Projection, SeriesSelector, Tier};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::Notify;

/// What memory holds of the past, less what may be on its way out.
const IN_MEMORY_REPLAY_MS: i64 = limits::RECENT_WINDOW_MS - 30_000;
/// Rules that look back further than this are warmed by minutes: 500,000 ticks are no answer to a
/// question about days.
const MAX_RAW_REPLAY_MS: i64 = 12 * 3_600_000;

#[derive(Default)]
struct HostSlot {
    evaluator: HostEvaluator,
    /// [`Watches::wanted`] when its rules were set; another one, and it is cold.
    revision: i64,
    /// Told, and not written down yet.
    queued_transitions: usize,
    /// What is older than this was judged before, here or by the hub that ran here last.
    evaluated_until_ms: i64,
}

/// All of them.
#[derive(Default)]
pub(super) struct EvaluatorPool {
    hosts: RwLock<HashMap<HostId, Arc<Mutex<HostSlot>>>>,
    /// Rises when rules, tags or the board changed under the watches.
    target_revision: AtomicI64,
    stale_hosts: Mutex<HashSet<HostId>>,
    /// There are cold ones.
    pub(super) stale_notify: Notify,
}

fn lock(host: &Mutex<HostSlot>) -> MutexGuard<'_, HostSlot> {
    host.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EvaluatorPool {
    fn host(&self, id: HostId) -> Arc<Mutex<HostSlot>> {
        if let Some(host) = self.hosts.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return host.clone();
        }
        self.hosts.write().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().clone()
    }

    fn target_revision(&self) -> i64 {
        // Above 0, so that a new host is cold.
        self.target_revision.load(Ordering::Acquire) + 1
    }

    /// All hosts look whether their rules are still theirs.
    pub(super) fn invalidate_all(&self) {
        self.target_revision.fetch_add(1, Ordering::AcqRel);
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        self.stale_hosts.lock().unwrap_or_else(PoisonError::into_inner).extend(hosts.keys());
        self.stale_notify.notify_one();
    }

    /// One host is looked at anew.
    pub(super) fn invalidate(&self, id: HostId) {
        lock(&self.host(id)).revision = 0;
        self.mark_stale(id);
    }

    /// It is looked at soon.
    pub(super) fn mark_stale(&self, id: HostId) {
        self.stale_hosts.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        self.stale_notify.notify_one();
    }

    /// Those that are cold.
    pub(super) fn drain_stale(&self) -> Vec<HostId> {
        std::mem::take(&mut *self.stale_hosts.lock().unwrap_or_else(PoisonError::into_inner))
            .into_iter()
            .collect()
    }

    /// What was told of these is written down.
    pub(super) fn on_persisted(&self, hosts: impl Iterator<Item = HostId>) {
        for id in hosts {
            let host = self.host(id);
            let mut host = lock(&host);
            host.queued_transitions = host.queued_transitions.saturating_sub(1);
        }
    }

    /// What a host sent until now was judged by who ran here before.
    pub(super) fn set_evaluated_until(&self, id: HostId, until_ms: i64) {
        lock(&self.host(id)).evaluated_until_ms = until_ms;
    }

    /// Forgets a host.
    pub(super) fn remove(&self, id: HostId) {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

impl Alerting {
    /// The watch of a host, if it is warm.
    fn with_current(&self, id: HostId, look: impl FnOnce(&mut HostEvaluator, &mut Vec<TransitionEvent>)) {
        let host = self.evaluators.host(id);
        let mut host = lock(&host);
        if host.revision != self.evaluators.target_revision() {
            self.evaluators.mark_stale(id);
            return;
        }
        let mut told = Vec::new();
        look(&mut host.evaluator, &mut told);
        self.emit(id, &mut host, told);
    }

    /// Takes in what was just accepted and published.
    pub fn observe(&self, id: HostId, snapshot: &Snapshot, skew_ms: Option<i64>) {
        let lag_ms = self.observation_age_ms(snapshot, skew_ms);
        self.with_current(id, |watch, told| watch.observe(snapshot, skew_ms, lag_ms, told));
    }

    fn observation_age_ms(&self, snapshot: &Snapshot, skew_ms: Option<i64>) -> i64 {
        self.now_ms().saturating_sub(snapshot.at_ms.saturating_sub(skew_ms.unwrap_or_default()))
    }

    /// On to be written down; where that is not possible, the host is looked at anew.
    fn emit(&self, id: HostId, host: &mut HostSlot, told: Vec<TransitionEvent>) {
        for told in told {
            if self.transitions_tx.try_send(HostTransition { host: id, event: told }).is_err() {
                // What was told is forgotten with the watch; the replay tells it again.
                (host.evaluator, host.revision) = (HostEvaluator::default(), 0);
                self.evaluators.mark_stale(id);
                return;
            }
            host.queued_transitions += 1;
        }
    }

    /// A host is no more: what was wrong with it is over.
    pub fn remove_host(&self, id: HostId) {
        self.evaluators.remove(id);
        let state = self.snapshot();
        for alert in state.incidents.host_alerts(id) {
            // Where there is no room now, it is found again by the next look for hosts that are gone.
            let told =
                orphaned_transition(&state.definitions, &alert, ResolveReason::HostDeleted, self.now_ms());
            let _ = self.transitions_tx.try_send(HostTransition { host: id, event: told });
        }
    }

    /// How long each host has been silent, as far as any hub heard from it.
    pub(super) fn observe_no_data(&self, elsewhere: &HashMap<HostId, i64>) {
        let now_ms = self.now_ms();
        let listens_ms = self.started_ms.max(self.ingest_blocked_until_ms.load(Ordering::Relaxed));
        for Heartbeat { host: id, last_seen_ms: seen_ms, interval_ms, is_agentless: planned } in
            self.deps.hosts.heartbeats()
        {
            let heard_ms = seen_ms.max(elsewhere.get(&id).copied());
            let heard = heard_ms.is_some_and(|at| at >= listens_ms);
            // An agent that sends every quarter of an hour is not silent after a minute.
            let most_ms = if planned { i64::MAX } else { 3_600_000 };
            let slack_ms = 2 * i64::from(interval_ms).min(most_ms);
            let slack_ms = if slack_ms > 20_000 { slack_ms } else { 0 };
            let silent_ms = now_ms - heard_ms.unwrap_or_default().max(listens_ms) - slack_ms;
            self.with_current(id, |watch, told| watch.observe_no_data(silent_ms.max(0), heard, now_ms, told));
        }
    }

    /// The hub's own figures.
    pub(super) fn observe_hub(&self, figures: &[(HubMetric, f64)]) {
        let now_ms = self.now_ms();
        self.with_current(super::hub_host_id(), |watch, told| watch.observe_hub(figures, now_ms, told));
    }

    /// Sets the rules of a host, and replays its past where they need it.
    pub(super) async fn rehydrate(self: &Arc<Self>, id: HostId) -> Result<(), StoreError> {
        let wanted = self.evaluators.target_revision();
        let host = self.evaluators.host(id);
        let rules =
            self.snapshot().definitions.rules_for_host(id.0, self.deps.directory.snapshot().host_tags(id));
        {
            let known = lock(&host);
            if known.revision == wanted {
                return Ok(());
            }
            // What is on its way into the books is not there yet: a moment later it is.
            if known.queued_transitions > 0 {
                return Err(StoreError::Unavailable(
                    "alert transitions of this host are still being persisted; retry".to_owned(),
                ));
            }
        }
        let needs = lock(&host).evaluator.required_replay_ms(&rules);
        let rows = match needs {
            None => Vec::new(),
            Some(looks_back_ms) => self.load_replay_rows(id, &rules, looks_back_ms).await?,
        };
        let alerting = self.clone();
        perfwatch_history::run_blocking(move || alerting.replay(id, &host, rules, &rows, wanted)).await
    }

    /// With the rules and rows of a host, its watch is warm again.
    fn replay(
        &self,
        id: HostId,
        host: &Mutex<HostSlot>,
        rules: Vec<Arc<Rule>>,
        rows: &[Arc<Snapshot>],
        wanted: i64,
    ) {
        let skew_ms = self.deps.hosts.get(id).and_then(|host| host.clock_skew_ms);
        let now_ms = self.now_ms();
        let (mut watch, known_ms) = {
            let mut host = lock(host);
            if host.queued_transitions > 0 {
                self.evaluators.mark_stale(id);
                return;
            }
            // Nobody else looks at the watch of a cold host.
            host.revision = 0;
            (std::mem::take(&mut host.evaluator), host.evaluated_until_ms)
        };
        let known_ms = known_ms.max(watch.last_ms());
        let (mut told, mut replayed) = (Vec::new(), Vec::new());
        let state = self.snapshot();
        watch.set_rules(rules, now_ms, &mut told);
        told.extend(restore_firing(&mut watch, &state.definitions, &state.incidents, id, now_ms));
        for row in rows {
            watch.observe(row, skew_ms, self.observation_age_ms(row, skew_ms), &mut replayed);
        }
        let until_ms = rows.last().map_or(i64::MIN, |row| row.at_ms);
        let mut host = lock(host);
        // From here on nothing slips by: what is published next waits for this lock.
        let recent = self.deps.live_feed.recent(id, now_ms);
        for row in recent.iter().map(|accepted| &accepted.snapshot).filter(|row| row.at_ms > until_ms) {
            watch.observe(row, skew_ms, self.observation_age_ms(row, skew_ms), &mut replayed);
        }
        retain_active_transitions(&mut replayed, known_ms);
        told.extend(replayed);
        (host.evaluator, host.revision) = (watch, wanted);
        self.emit(id, &mut host, told);
    }

    /// Rows of the past with what rules look at, in the order of their time.
    async fn load_replay_rows(
        &self,
        id: HostId,
        rules: &[Arc<Rule>],
        looks_back_ms: i64,
    ) -> Result<Vec<Arc<Snapshot>>, StoreError> {
        if looks_back_ms <= IN_MEMORY_REPLAY_MS {
            return Ok(Vec::new());
        }
        let from_ms = self.now_ms().saturating_sub(looks_back_ms);
        let name = |metric: &str| SeriesSelector { metric: metric.to_owned(), instance: None };
        let mut names: HashSet<SeriesSelector> =
            rules.iter().filter_map(|rule| Some(name(rule.condition.selector()?.0))).collect();
        names.extend(LOAD_PER_CORE_INPUTS.map(name));
        let wanted = Projection { sequences: true, ..Projection::of_series(names.into_iter().collect()) };
        let tier = if looks_back_ms > MAX_RAW_REPLAY_MS { Tier::Minute } else { Tier::Raw };
        let joined = self.deps.history.read(id, tier, (from_ms, i64::MAX), &Arc::new(wanted)).await?;
        let gather = move || {
            let mut rows: Vec<Arc<Snapshot>> =
                joined.unsealed.iter().flat_map(|table| table.snapshots()).collect();
            for piece in &joined.sealed.slices {
                match &piece.content {
                    Ok(BlockContent::Raw(table)) => rows.extend(table.snapshots()),
                    Ok(BlockContent::Buckets(buckets)) => {
                        rows.extend((0..buckets.start_ms.len()).map(|row| {
                            Arc::new(perfwatch_history::read::bucket_snapshot(buckets, row, piece.block.tier))
                        }))
                    }
                    Err(_) => {}
                }
            }
            rows.retain(|row| row.at_ms >= from_ms);
            rows.sort_by_key(|row| row.at_ms);
            rows
        };
        perfwatch_history::run_blocking(gather).await
    }

    /// Alerts whose host is no more, whichever hub removed it, end.
    pub(super) fn resolve_removed_hosts(&self, hosts: &HashSet<HostId>) {
        let state = self.snapshot();
        for id in state.incidents.hosts().filter(|id| !id.0.is_nil() && !hosts.contains(id)) {
            self.remove_host(id);
        }
    }
}

/// What is known to fire fires here too, and nothing else does; what no rule asks for any more ends.
fn restore_firing(
    watch: &mut HostEvaluator,
    asked: &AlertDefinitions,
    board: &ActiveIncidents,
    id: HostId,
    now_ms: i64,
) -> Vec<TransitionEvent> {
    let firing = board.host_alerts(id);
    watch.retain_firing(|track| {
        firing.iter().any(|alert| alert.rule == track.rule.id && alert.body.instance == *track.instance)
    });
    let mut told = Vec::new();
    for alert in firing {
        let times = (alert.body.pending_since_ms, alert.fired_ms);
        if !watch.restore(alert.rule, &alert.body.instance, times, alert.body.peak_value) {
            told.push(orphaned_transition(asked, &alert, ResolveReason::RuleDeleted, now_ms));
        }
    }
    told
}

/// The end of an alert that nobody looks after any more.
fn orphaned_transition(
    asked: &AlertDefinitions,
    alert: &super::Alert,
    why: ResolveReason,
    now_ms: i64,
) -> TransitionEvent {
    let rule = asked.rule(alert.rule).cloned().unwrap_or_else(|| Arc::new(alert.reconstruct_rule()));
    TransitionEvent {
        rule,
        instance: alert.body.instance.as_str().into(),
        kind: TransitionKind::Resolved(why),
        pending_since_ms: alert.body.pending_since_ms,
        fired_ms: alert.fired_ms,
        observed_at_ms: now_ms,
        value: None,
        peak_value: alert.body.peak_value,
    }
}
