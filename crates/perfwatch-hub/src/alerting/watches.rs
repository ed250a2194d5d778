//! The watch of each host: fed with what is accepted, in order. A host that is new, or whose
//! rules changed, is cold: its past is replayed first, as far as its rules look back, so that an
//! average is one and a restart forgets nothing.

use super::{Alerting, Asked, Board, Heard};
use crate::fleet::Beat;
use perfwatch_alert::Rule;
use perfwatch_alert::condition::HubFigure;
use perfwatch_alert::track::{Told, What, Why};
use perfwatch_alert::watch::{LOAD_AND_CORES, Watch, still_true};
use perfwatch_model::{HostId, Snapshot, limits};
use perfwatch_series::{SeriesName, Tier, Wanted};
use perfwatch_store::{Content, StoreError};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::Notify;

/// What memory holds of the past, less what may be on its way out.
const IN_MEMORY_MS: i64 = limits::LIVE_WINDOW_MS - 30_000;
/// Rules that look back further than this are warmed by minutes: 500,000 ticks are no answer to a
/// question about days.
const TICKS_MS: i64 = 12 * 3_600_000;

#[derive(Default)]
struct Host {
    watch: Watch,
    /// [`Watches::wanted`] when its rules were set; another one, and it is cold.
    warm: i64,
    /// Told, and not written down yet.
    queued: usize,
    /// What is older than this was judged before, here or by the hub that ran here last.
    judged_ms: i64,
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

fn lock(host: &Mutex<Host>) -> MutexGuard<'_, Host> {
    host.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// All hosts look whether their rules are still theirs.
    pub(super) fn look_again(&self) {
        self.wanted.fetch_add(1, Ordering::AcqRel);
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        self.cold.lock().unwrap_or_else(PoisonError::into_inner).extend(hosts.keys());
        self.chill.notify_one();
    }

    /// One host is looked at anew.
    pub(super) fn cool(&self, id: HostId) {
        lock(&self.host(id)).warm = 0;
        self.want(id);
    }

    /// It is looked at soon.
    pub(super) fn want(&self, id: HostId) {
        self.cold.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        self.chill.notify_one();
    }

    /// Those that are cold.
    pub(super) fn take_cold(&self) -> Vec<HostId> {
        std::mem::take(&mut *self.cold.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }

    /// What was told of these is written down.
    pub(super) fn recorded(&self, hosts: impl Iterator<Item = HostId>) {
        for id in hosts {
            let host = self.host(id);
            let mut host = lock(&host);
            host.queued = host.queued.saturating_sub(1);
        }
    }

    /// What a host sent until now was judged by who ran here before.
    pub(super) fn judged(&self, id: HostId, until_ms: i64) {
        lock(&self.host(id)).judged_ms = until_ms;
    }

    /// Forgets a host.
    pub(super) fn remove(&self, id: HostId) {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

impl Alerting {
    /// The watch of a host, if it is warm.
    fn with_warm(&self, id: HostId, look: impl FnOnce(&mut Watch, &mut Vec<Told>)) {
        let host = self.watches.host(id);
        let mut host = lock(&host);
        if host.warm != self.watches.wanted() {
            self.watches.want(id);
            return;
        }
        let mut told = Vec::new();
        look(&mut host.watch, &mut told);
        self.tell(id, &mut host, told);
    }

    /// Takes in what was just accepted and published.
    pub(crate) fn observe(&self, id: HostId, snapshot: &Snapshot, skew_ms: Option<i64>) {
        let lag_ms = self.lag_ms(snapshot, skew_ms);
        self.with_warm(id, |watch, told| watch.observe(snapshot, skew_ms, lag_ms, told));
    }

    fn lag_ms(&self, snapshot: &Snapshot, skew_ms: Option<i64>) -> i64 {
        self.now_ms().saturating_sub(snapshot.at_ms.saturating_sub(skew_ms.unwrap_or_default()))
    }

    /// On to be written down; where that is not possible, the host is looked at anew.
    fn tell(&self, id: HostId, host: &mut Host, told: Vec<Told>) {
        for told in told {
            if self.told.try_send(Heard { host: id, told }).is_err() {
                // What was told is forgotten with the watch; the replay tells it again.
                (host.watch, host.warm) = (Watch::default(), 0);
                self.watches.want(id);
                return;
            }
            host.queued += 1;
        }
    }

    /// A host is no more: what was wrong with it is over.
    pub(crate) fn forget(&self, id: HostId) {
        self.watches.remove(id);
        let state = self.now();
        for alert in state.board.of_host(id) {
            // Where there is no room now, it is found again by the next look for hosts that are gone.
            let told = gone(&state.asked, &alert, Why::HostGone, self.now_ms());
            let _ = self.told.try_send(Heard { host: id, told });
        }
    }

    /// How long each host has been silent, as far as any hub heard from it.
    pub(super) fn listen(&self, elsewhere: &HashMap<HostId, i64>) {
        let now_ms = self.now_ms();
        let listens_ms = self.started_ms.max(self.deaf_until_ms.load(Ordering::Relaxed));
        for Beat { host: id, seen_ms, interval_ms, planned } in self.rooms.fleet.beats() {
            let heard_ms = seen_ms.max(elsewhere.get(&id).copied());
            let heard = heard_ms.is_some_and(|at| at >= listens_ms);
            // An agent that sends every quarter of an hour is not silent after a minute.
            let most_ms = if planned { i64::MAX } else { 3_600_000 };
            let slack_ms = 2 * i64::from(interval_ms).min(most_ms);
            let slack_ms = if slack_ms > 20_000 { slack_ms } else { 0 };
            let silent_ms = now_ms - heard_ms.unwrap_or_default().max(listens_ms) - slack_ms;
            self.with_warm(id, |watch, told| watch.listen(silent_ms.max(0), heard, now_ms, told));
        }
    }

    /// The hub's own figures.
    pub(super) fn observe_hub(&self, figures: &[(HubFigure, f64)]) {
        let now_ms = self.now_ms();
        self.with_warm(super::hub_id(), |watch, told| watch.observe_hub(figures, now_ms, told));
    }

    /// Sets the rules of a host, and replays its past where they need it.
    pub(super) async fn warm(self: &Arc<Self>, id: HostId) -> Result<(), StoreError> {
        let wanted = self.watches.wanted();
        let host = self.watches.host(id);
        let rules = self.now().asked.rules_for(id.0, self.rooms.people.now().tags(id));
        {
            let known = lock(&host);
            if known.warm == wanted {
                return Ok(());
            }
            // What is on its way into the books is not there yet: a moment later it is.
            if known.queued > 0 {
                return Err(StoreError::Unavailable("alerts of this host are being written down".to_owned()));
            }
        }
        let needs = lock(&host).watch.needs_past(&rules);
        let rows = match needs {
            None => Vec::new(),
            Some(looks_back_ms) => self.past(id, &rules, looks_back_ms).await?,
        };
        let alerting = self.clone();
        crate::history::blocking(move || alerting.replay(id, &host, rules, &rows, wanted)).await
    }

    /// With the rules and rows of a host, its watch is warm again.
    fn replay(
        &self,
        id: HostId,
        host: &Mutex<Host>,
        rules: Vec<Arc<Rule>>,
        rows: &[Arc<Snapshot>],
        wanted: i64,
    ) {
        let skew_ms = self.rooms.fleet.get(id).and_then(|host| host.clock_skew_ms);
        let now_ms = self.now_ms();
        let (mut watch, known_ms) = {
            let mut host = lock(host);
            if host.queued > 0 {
                self.watches.want(id);
                return;
            }
            // Nobody else looks at the watch of a cold host.
            host.warm = 0;
            (std::mem::take(&mut host.watch), host.judged_ms)
        };
        let known_ms = known_ms.max(watch.last_ms());
        let (mut told, mut replayed) = (Vec::new(), Vec::new());
        let state = self.now();
        watch.set_rules(rules, now_ms, &mut told);
        told.extend(restore(&mut watch, &state.asked, &state.board, id, now_ms));
        for row in rows {
            watch.observe(row, skew_ms, self.lag_ms(row, skew_ms), &mut replayed);
        }
        let until_ms = rows.last().map_or(i64::MIN, |row| row.at_ms);
        let mut host = lock(host);
        // From here on nothing slips by: what is published next waits for this lock.
        let recent = self.rooms.live.recent(id, now_ms);
        for row in recent.iter().map(|accepted| &accepted.snapshot).filter(|row| row.at_ms > until_ms) {
            watch.observe(row, skew_ms, self.lag_ms(row, skew_ms), &mut replayed);
        }
        still_true(&mut replayed, known_ms);
        told.extend(replayed);
        (host.watch, host.warm) = (watch, wanted);
        self.tell(id, &mut host, told);
    }

    /// Rows of the past with what rules look at, in the order of their time.
    async fn past(
        &self,
        id: HostId,
        rules: &[Arc<Rule>],
        looks_back_ms: i64,
    ) -> Result<Vec<Arc<Snapshot>>, StoreError> {
        if looks_back_ms <= IN_MEMORY_MS {
            return Ok(Vec::new());
        }
        let from_ms = self.now_ms().saturating_sub(looks_back_ms);
        let name = |metric: &str| SeriesName { metric: metric.to_owned(), instance: None };
        let mut names: HashSet<SeriesName> =
            rules.iter().filter_map(|rule| Some(name(rule.when.series()?.0))).collect();
        names.extend(LOAD_AND_CORES.map(name));
        let wanted = Wanted { ticks: true, ..Wanted::series(names.into_iter().collect()) };
        let tier = if looks_back_ms > TICKS_MS { Tier::Minute } else { Tier::Raw };
        let joined = self.rooms.history.join(id, tier, (from_ms, i64::MAX), &Arc::new(wanted)).await?;
        let gather = move || {
            let mut rows: Vec<Arc<Snapshot>> =
                joined.open.iter().flat_map(|table| table.snapshots()).collect();
            for piece in &joined.reading.pieces {
                match &piece.content {
                    Ok(Content::Ticks(table)) => rows.extend(table.snapshots()),
                    Ok(Content::Buckets(buckets)) => rows.extend((0..buckets.start_ms.len()).map(|row| {
                        Arc::new(crate::history::read::bucket_of(buckets, row, piece.block.tier))
                    })),
                    Err(_) => {}
                }
            }
            rows.retain(|row| row.at_ms >= from_ms);
            rows.sort_by_key(|row| row.at_ms);
            rows
        };
        crate::history::blocking(gather).await
    }

    /// Alerts whose host is no more, whichever hub removed it, end.
    pub(super) fn end_gone(&self, hosts: &HashSet<HostId>) {
        let state = self.now();
        for id in state.board.hosts().filter(|id| !id.0.is_nil() && !hosts.contains(id)) {
            self.forget(id);
        }
    }
}

/// What is known to fire fires here too, and nothing else does; what no rule asks for any more ends.
fn restore(watch: &mut Watch, asked: &Asked, board: &Board, id: HostId, now_ms: i64) -> Vec<Told> {
    let firing = board.of_host(id);
    watch.forget_unless(|track| {
        firing.iter().any(|alert| alert.rule == track.rule.id && alert.body.instance == *track.instance)
    });
    let mut told = Vec::new();
    for alert in firing {
        let times = (alert.body.since_ms, alert.fired_ms);
        if !watch.restore(alert.rule, &alert.body.instance, times, alert.body.worst) {
            told.push(gone(asked, &alert, Why::RuleGone, now_ms));
        }
    }
    told
}

/// The end of an alert that nobody looks after any more.
fn gone(asked: &Asked, alert: &super::Alert, why: Why, now_ms: i64) -> Told {
    let rule = asked.rule(alert.rule).cloned().unwrap_or_else(|| Arc::new(alert.rule_that_was()));
    Told {
        rule,
        instance: alert.body.instance.as_str().into(),
        what: What::Resolved(why),
        since_ms: alert.body.since_ms,
        fired_ms: alert.fired_ms,
        at_ms: now_ms,
        figure: None,
        worst: alert.body.worst,
    }
}
