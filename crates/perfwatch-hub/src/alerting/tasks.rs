//! What time alone changes: hosts fall silent, incidents settle, acknowledgements and silences
//! end, old books are closed; and what other hubs changed is read.

use super::{Alert, Alerting, LiveIncident, Planned, State, record};
use perfwatch_alert::condition::HubFigure;
use perfwatch_alert::incident::Notice;
use perfwatch_model::HostId;
use perfwatch_store::alerts::{IncidentRow, LastHeard, Outbox};
use perfwatch_store::settings::Counted;
use perfwatch_store::{Change, CommitError, StoreError, Write};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const LOOK_EVERY: Duration = Duration::from_secs(1);
const HUB_EVERY: u64 = 5;
const CLEAN_EVERY: u64 = 3_600;
/// How long incidents are kept after they are over.
const KEEP_MS: i64 = 400 * 86_400_000;
/// How often hubs tell each other whom they heard.
const SHARE_EVERY: u64 = 10;
/// What one hub tells of a host is at most so old when another one judges by it.
const SHARED_MS: i64 = 20_000;
/// How often the hub that judges silence says that it is there: a lease is a write.
const LEASE_EVERY: u64 = 5;
const LEASE_MS: i64 = 15_000;
/// A hub that did not run for so long heard nobody.
const STANDSTILL: Duration = Duration::from_secs(4);
const STANDSTILL_MS: i64 = 4_000;
/// Hosts whose past is read at one time.
const WARM_AT_ONCE: usize = 4;

/// What hubs of one database know of each other.
#[derive(Default)]
struct Shared {
    /// This one judges who is silent.
    judges: bool,
    /// When any hub heard from a host, known a little late.
    elsewhere: HashMap<HostId, i64>,
}

impl Alerting {
    /// Starts all tasks.
    pub(crate) fn start(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        // Hosts that don't send any more have rules too.
        for host in self.rooms.fleet.all() {
            let id = host.record.id;
            // What came in before this start was judged by who ran then.
            let newest = self.rooms.live.recent(id, self.now_ms()).last().map(|row| row.snapshot.at_ms);
            self.watches.judged(id, newest.max(host.record.last_at_ms).unwrap_or_default());
            self.watches.cool(id);
        }
        self.watches.cool(super::hub_id());
        tasks.spawn(self.clone().record(stop.clone()));
        tasks.spawn(self.clone().dispatch(stop.clone()));
        tasks.spawn(self.clone().keep_warm(stop.clone()));
        tasks.spawn(self.clone().keep_time(stop.clone()));
    }

    async fn keep_warm(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.watches.chill.notified() => {}
            }
            let mut cold = self.watches.take_cold().into_iter();
            let (mut warming, mut again) = (tokio::task::JoinSet::new(), Vec::new());
            loop {
                while warming.len() < WARM_AT_ONCE
                    && let Some(id) = cold.next()
                {
                    let alerting = self.clone();
                    warming.spawn(async move { (id, alerting.warm(id).await) });
                }
                match warming.join_next().await {
                    None => break,
                    Some(Ok((id, Err(error)))) => {
                        tracing::debug!(%id, %error, "a host's past could not be read; once more");
                        again.push(id);
                    }
                    Some(_) => {}
                }
                if stop.is_cancelled() {
                    return;
                }
            }
            if !again.is_empty() {
                tokio::time::sleep(LOOK_EVERY / 5).await;
                again.into_iter().for_each(|id| self.watches.want(id));
            }
        }
    }

    async fn keep_time(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tags = self.rooms.people.changes();
        let mut known_tags = self.rooms.people.now();
        let mut before = (Instant::now(), self.now_ms(), self.rooms.clock.monotonic());
        let mut shared = Shared::default();
        for second in 0_u64.. {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = (Instant::now(), self.now_ms(), self.rooms.clock.monotonic());
            self.notice_standstill(before, now);
            before = now;
            if tags.has_changed().unwrap_or(false) {
                tags.mark_unchanged();
                let now = self.rooms.people.now();
                // Other tags, other rules.
                if now.host_tags != known_tags.host_tags {
                    self.watches.look_again();
                }
                known_tags = now;
            }
            if let Err(error) = self.each_second(second, &mut shared).await {
                tracing::debug!(?error, "alerts are as they were known last");
            }
        }
    }

    /// A hub that did not run, or whose clock jumped, heard nobody for that: nobody was silent.
    fn notice_standstill(
        &self,
        (then, wall, monotonic): (Instant, i64, Duration),
        (now, wall_now, monotonic_now): (Instant, i64, Duration),
    ) {
        let jumped_ms =
            (wall_now - wall) - i64::try_from((monotonic_now - monotonic).as_millis()).unwrap_or(i64::MAX);
        // While it takes nothing in, nobody is silent but itself.
        let deaf = self.rooms.history.refusing().is_some();
        if deaf || now - then > STANDSTILL || jumped_ms.abs() > STANDSTILL_MS {
            self.deaf_until_ms.store(wall_now, Ordering::Relaxed);
        }
    }

    async fn each_second(&self, second: u64, shared: &mut Shared) -> Result<(), CommitError> {
        // First, and without the store: it may be the store that is not well.
        if second.is_multiple_of(HUB_EVERY) {
            self.look_at_hub().await;
        }
        self.look_at_others().await?;
        if second.is_multiple_of(SHARE_EVERY) {
            self.share(shared).await?;
        }
        if second.is_multiple_of(LEASE_EVERY) {
            // Where the store does not answer, nobody judges.
            shared.judges = false;
            shared.judges = self.store().lease("silence", LEASE_MS).await?;
        }
        if shared.judges {
            self.listen(&shared.elsewhere);
        }
        self.turn_pages().await?;
        if second.is_multiple_of(CLEAN_EVERY) {
            let old = IncidentRow::remove_old(self.now_ms() - KEEP_MS).map(Write::from);
            self.store().commit(old.into()).await?;
        }
        Ok(())
    }

    /// Tells other hubs whom this one heard, and learns whom they did, and which hosts there are.
    async fn share(&self, shared: &mut Shared) -> Result<(), CommitError> {
        let now_ms = self.now_ms();
        // An embedded database has one hub.
        let alone = self.store().kind() == "sqlite";
        if !alone {
            self.rooms.fleet.refresh(now_ms).await?;
        }
        let beats = self.rooms.fleet.beats();
        self.end_gone(&beats.iter().map(|beat| beat.host).collect());
        if alone {
            return Ok(());
        }
        let lately = beats.iter().filter_map(|beat| Some((beat.host, beat.seen_ms?)));
        let lately = lately.filter(|(_, seen)| now_ms - seen < SHARED_MS);
        let told: Vec<Write> = lately.map(|(id, seen)| LastHeard::put(id.0, seen).into()).collect();
        for told in told.chunks(500) {
            self.store().commit(told.to_vec()).await?;
        }
        let heard = LastHeard::all(self.store()).await?.into_iter();
        shared.elsewhere = heard.map(|(id, at)| (HostId(id), (at + SHARED_MS).min(now_ms))).collect();
        Ok(())
    }

    pub(super) async fn look_at_others(&self) -> Result<(), StoreError> {
        let mut since = self.turn.lock().await;
        if Counted::Alerts.count(self.store()).await? != *since {
            self.reload(&mut since).await?;
        }
        Ok(())
    }

    async fn look_at_hub(&self) {
        let (history, budget) = (&self.rooms.history, self.rooms.history.config().budget_bytes);
        let refusing = if history.refusing().is_some() { 1.0 } else { 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let used = history.counts.usage().used_bytes as f64 / budget.max(1) as f64 * 100.0;
        let mut figures = vec![(HubFigure::Refusing, refusing), (HubFigure::BudgetUsed, used)];
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        if let Ok(undelivered) = Outbox::dead_since(self.store(), self.now_ms() - 86_400_000).await {
            figures.push((HubFigure::Undelivered, undelivered as f64));
        }
        self.observe_hub(&figures);
    }

    /// Incidents that change by time alone, at this moment.
    fn touched(&self, state: &State, now_ms: i64) -> Vec<uuid::Uuid> {
        let touched = |live: &&Arc<LiveIncident>| {
            let other = |alert: &Arc<Alert>| alert.body.silenced != self.is_silenced(state, alert, now_ms);
            ack_over(live, now_ms)
                || live.firing().any(other)
                || live.incident.clone().settle(now_ms).is_some()
        };
        state.board.incidents().filter(touched).map(|live| live.incident.id).collect()
    }

    /// Changes them.
    pub(super) async fn turn_pages(&self) -> Result<(), CommitError> {
        let state = self.now();
        let now_ms = self.now_ms();
        if self.touched(&state, now_ms).is_empty() {
            // What has been over for long is let go now and then.
            if state.board.stale(now_ms) > 50 {
                let mut board = state.board.clone();
                board.prune(now_ms);
                let _turn = self.turn.lock().await;
                // Unless it changed meanwhile.
                if Arc::ptr_eq(&self.now(), &state) {
                    self.set(State { asked: state.asked.clone(), board });
                }
            }
            return Ok(());
        }
        let plan = |state: &State, now_ms: i64| {
            let (mut board, mut changes) = (state.board.clone(), Vec::new());
            for id in self.touched(state, now_ms) {
                let Some(live) = state.board.incident(id) else { continue };
                let mut live = (**live).clone();
                let (mut rows, notices) = self.turn_page(state, &mut live, now_ms);
                changes.push(live.row().save());
                changes.append(&mut rows);
                for notice in notices {
                    changes.extend(self.tell_channels(state, &live, notice, now_ms));
                }
                board.put(live);
            }
            Ok::<_, CommitError>((Planned { board: Some(board), changes, asked: None }, ()))
        };
        self.change(None, plan).await
    }

    /// What time does to one: what is written down beside it, and what people are told.
    fn turn_page(
        &self,
        state: &State,
        live: &mut LiveIncident,
        now_ms: i64,
    ) -> (Vec<Change>, Vec<(Notice, i64)>) {
        let (id, mut rows, mut notices) = (live.incident.id, Vec::new(), Vec::new());
        let event = |kind: &str, text: String| record::event(id, now_ms, kind, text).add();
        if ack_over(live, now_ms)
            && let Some(ack) = live.incident.ack.take()
        {
            rows.push(event("acknowledgement_over", format!("{} took it on until now", ack.by)));
            notices.push((Notice::Reminder, 0));
        }
        let (mut loud, mut hushed) = (false, false);
        for alert in &mut live.alerts {
            let silenced = self.is_silenced(state, alert, now_ms);
            if alert.fires() && alert.body.silenced != silenced {
                let mut other = (**alert).clone();
                other.body.silenced = silenced;
                rows.push(other.row(id).save());
                *alert = Arc::new(other);
                (loud, hushed) = (loud || !silenced, hushed || silenced);
            }
        }
        if hushed {
            rows.push(event("silenced", "a silence began: nobody is told until it ends".to_owned()));
        }
        if loud {
            rows.push(event("silence_over", "the silence is over, and it fires still".to_owned()));
            notices.extend(live.incident.speak());
        }
        if let Some(notice) = live.incident.settle(now_ms) {
            rows.push(event("settled", "it stayed calm: over".to_owned()));
            notices.extend(notice.map(|notice| (notice, 0)));
        }
        (rows, notices)
    }

    fn is_silenced(&self, state: &State, alert: &Alert, now_ms: i64) -> bool {
        state.asked.silenced(alert.subject(&self.rooms.people.now()), now_ms)
    }
}

/// Whether somebody took it on until now.
fn ack_over(live: &LiveIncident, now_ms: i64) -> bool {
    live.incident.ack.as_ref().is_some_and(|ack| ack.until_ms.is_some_and(|until| until <= now_ms))
}
