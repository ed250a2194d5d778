//! The watch of each host: fed with what is accepted, in order. A host that is new, or whose
//! rules changed, is cold: its past is replayed first, as far as its rules look back, so that an
//! average is one and a restart forgets nothing.

use super::{Alerting, Heard};
use perfwatch_alert::track::{Told, What, Why};
use perfwatch_alert::watch::{LOAD_AND_CORES, Watch, still_true};
use perfwatch_model::{HostId, Snapshot, limits};
use perfwatch_series::{SeriesName, Tier, Wanted};
use perfwatch_store::{Content, StoreError};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::Notify;

/// What memory holds of the past, less what may be on its way out.
const IN_MEMORY_MS: i64 = limits::LIVE_WINDOW_MS - 30_000;

#[derive(Default)]
struct Host {
    watch: Watch,
    /// [`Watches::wanted`] when its rules were set; another one, and it is cold.
    warm: i64,
}

/// All of them.
#[derive(Default)]
pub(super) struct Watches {
    hosts: RwLock<HashMap<HostId, Arc<Mutex<Host>>>>,
    /// Rises when rules, tags or the board changed under the watches.
    wanted: AtomicI64,
    cold: Mutex<HashSet<HostId>>,
    /// There are cold ones.
    pub(super) chill: Notify,
}

impl Watches {
    fn host(&self, id: HostId) -> Arc<Mutex<Host>> {
        if let Some(host) = self.hosts.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return host.clone();
        }
        self.hosts.write().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().clone()
    }

    fn wanted(&self) -> i64 {
        // Above 0, so that a new host is cold.
        self.wanted.load(Ordering::Acquire) + 1
    }

    /// All hosts are looked at anew.
    pub(super) fn look_again(&self) {
        self.wanted.fetch_add(1, Ordering::AcqRel);
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        self.cold.lock().unwrap_or_else(PoisonError::into_inner).extend(hosts.keys());
        self.chill.notify_one();
    }

    /// One host is looked at anew.
    pub(super) fn cool(&self, id: HostId) {
        self.cold.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        self.chill.notify_one();
    }

    /// Those that are cold.
    pub(super) fn take_cold(&self) -> Vec<HostId> {
        std::mem::take(&mut *self.cold.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }

    /// Forgets a host.
    pub(super) fn remove(&self, id: HostId) {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

impl Alerting {
    /// Takes in what was just accepted and published.
    pub(crate) fn observe(&self, id: HostId, snapshot: &Snapshot, skew_ms: Option<i64>) {
        let host = self.watches.host(id);
        let mut host = host.lock().unwrap_or_else(PoisonError::into_inner);
        if host.warm != self.watches.wanted() {
            self.watches.cool(id);
            return;
        }
        let mut told = Vec::new();
        let lag_ms = self.now_ms() - (snapshot.at_ms - skew_ms.unwrap_or_default());
        host.watch.observe(snapshot, skew_ms, lag_ms, &mut told);
        self.tell(id, &mut host, told);
    }

    /// On to be written down; where that is not possible, the host is looked at anew.
    fn tell(&self, id: HostId, host: &mut Host, told: Vec<Told>) {
        for told in told {
            if self.told.try_send(Heard { host: id, told }).is_err() {
                // What was told is forgotten with the watch; the replay tells it again.
                *host = Host::default();
                self.watches.cool(id);
                return;
            }
        }
    }

    /// A host is no more: what was wrong with it is over.
    pub(crate) fn forget(&self, id: HostId) {
        self.watches.remove(id);
        let state = self.now();
        for alert in state.board.of_host(id) {
            if let Some(told) = gone(&state.asked, &alert, self.now_ms()) {
                // Where there is no room now, the next look at the board finds no host for it.
                let _ = self.told.try_send(Heard { host: id, told });
            }
        }
    }

    /// How long each host has been silent.
    pub(super) fn listen(&self) {
        let now_ms = self.now_ms();
        let everyone = self.rooms.people.now();
        let mut by_agent: HashMap<HostId, i64> = HashMap::new();
        for agent in everyone.agents.values().filter(|agent| agent.revoked_ms.is_none()) {
            let seen = by_agent.entry(agent.host).or_default();
            *seen = (*seen).max(self.rooms.people.agent_seen_ms(agent));
        }
        // While the hub takes nothing in, nobody is silent but itself.
        if self.rooms.history.refusing().is_some() {
            self.deaf_until_ms.store(now_ms, Ordering::Relaxed);
            return;
        }
        let listens_ms = self.started_ms.max(self.deaf_until_ms.load(Ordering::Relaxed));
        for known in self.rooms.fleet.all() {
            let id = known.record.id;
            let heard_ms = known.last_seen_ms.max(by_agent.get(&id).copied());
            let heard = heard_ms.is_some_and(|at| at >= listens_ms);
            // An agent that sends every quarter of an hour is not silent after a minute.
            let slack_ms = 2 * i64::from(known.interval_ms.max(known.record.interval_ms));
            let slack_ms = if slack_ms > 20_000 { slack_ms } else { 0 };
            let silent_ms = now_ms - heard_ms.unwrap_or_default().max(listens_ms) - slack_ms;
            let host = self.watches.host(id);
            let mut host = host.lock().unwrap_or_else(PoisonError::into_inner);
            if host.warm != self.watches.wanted() {
                self.watches.cool(id);
                continue;
            }
            let mut told = Vec::new();
            host.watch.listen(silent_ms.max(0), heard, now_ms, &mut told);
            self.tell(id, &mut host, told);
        }
    }

    /// The hub's own figures.
    pub(super) fn observe_hub(&self, figures: &[(perfwatch_alert::condition::HubFigure, f64)]) {
        let id = super::hub_id();
        let host = self.watches.host(id);
        let mut host = host.lock().unwrap_or_else(PoisonError::into_inner);
        if host.warm != self.watches.wanted() {
            self.watches.cool(id);
            return;
        }
        let mut told = Vec::new();
        host.watch.observe_hub(figures, self.now_ms(), &mut told);
        self.tell(id, &mut host, told);
    }

    /// Sets the rules of a host, and replays its past where they need it.
    pub(super) async fn warm(&self, id: HostId) -> Result<(), StoreError> {
        let wanted = self.watches.wanted();
        let state = self.now();
        let tags = self.rooms.people.now().host_tags.get(&id).cloned().unwrap_or_default();
        let rules = state.asked.rules_for(id.0, &tags);
        let looks_back_ms = rules.iter().map(|rule| rule.looks_back().ms()).max().unwrap_or_default();
        let now_ms = self.now_ms();
        let mut rows = Vec::new();
        if looks_back_ms > IN_MEMORY_MS {
            rows = self.past(id, &rules, (now_ms - looks_back_ms, i64::MAX)).await?;
        }
        let skew_ms = self.rooms.fleet.get(id).and_then(|host| host.clock_skew_ms);
        let host = self.watches.host(id);
        let mut host = host.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut told, mut replayed) = (Vec::new(), Vec::new());
        host.watch.set_rules(rules, now_ms, &mut told);
        for alert in state.board.of_host(id) {
            let times = (alert.body.since_ms, alert.fired_ms);
            if !host.watch.restore(alert.rule, &alert.body.instance, times, alert.body.worst) {
                told.extend(gone(&state.asked, &alert, now_ms));
            }
        }
        let until_ms = rows.last().map_or(i64::MIN, |row: &Arc<Snapshot>| row.at_ms);
        // From here on nothing slips by: what is published next waits for this lock.
        let recent = self.rooms.live.recent(id, now_ms);
        rows.extend(
            recent.iter().map(|accepted| accepted.snapshot.clone()).filter(|row| row.at_ms > until_ms),
        );
        for row in &rows {
            let lag_ms = now_ms - (row.at_ms - skew_ms.unwrap_or_default());
            host.watch.observe(row, skew_ms, lag_ms, &mut replayed);
        }
        still_true(&mut replayed);
        // What ended in the replay but fired before is in the books; what fired in it and ended too
        // was told when it was.
        host.warm = wanted;
        told.extend(replayed);
        self.tell(id, &mut host, told);
        Ok(())
    }

    /// Rows of the past with what rules look at.
    async fn past(
        &self,
        id: HostId,
        rules: &[Arc<perfwatch_alert::Rule>],
        range: (i64, i64),
    ) -> Result<Vec<Arc<Snapshot>>, StoreError> {
        let name = |metric: &str| SeriesName { metric: metric.to_owned(), instance: None };
        let mut names: HashSet<SeriesName> =
            rules.iter().filter_map(|rule| Some(name(rule.when.series()?.0))).collect();
        names.extend(LOAD_AND_CORES.map(name));
        let wanted = Wanted { ticks: true, ..Wanted::series(names.into_iter().collect()) };
        let joined = self.rooms.history.join(id, Tier::Raw, range, &Arc::new(wanted)).await?;
        let mut rows: Vec<Arc<Snapshot>> = joined.open.iter().flat_map(|table| table.snapshots()).collect();
        for piece in &joined.reading.pieces {
            match &piece.content {
                Ok(Content::Ticks(table)) => rows.extend(table.snapshots()),
                Ok(Content::Buckets(buckets)) => rows
                    .extend((0..buckets.start_ms.len()).map(|row| {
                        Arc::new(crate::history::read::bucket_of(buckets, row, piece.block.tier))
                    })),
                Err(_) => {}
            }
        }
        rows.retain(|row| (range.0..range.1).contains(&row.at_ms));
        rows.sort_by_key(|row| row.at_ms);
        Ok(rows)
    }
}

/// An alert whose rule asks no more ends.
fn gone(asked: &super::Asked, alert: &super::Alert, now_ms: i64) -> Option<Told> {
    // A rule that is gone altogether is remembered by its alert.
    let rule = asked.rule(alert.rule).cloned().or_else(|| {
        let mut rule = perfwatch_alert::defaults::rules().pop()?;
        (rule.id, rule.name) = (alert.rule, alert.body.rule_name.clone());
        Some(Arc::new(rule))
    })?;
    Some(Told {
        rule,
        instance: alert.body.instance.as_str().into(),
        what: What::Resolved(Why::RuleGone),
        since_ms: alert.body.since_ms,
        fired_ms: alert.fired_ms,
        at_ms: now_ms,
        figure: None,
        worst: alert.body.worst,
    })
}
