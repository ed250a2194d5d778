//! What fired or ended, written down: alert, incident, timeline and messages in one commit. One
//! task, so that it is done in order; what the store does not take waits.

use super::board::{Alert, AlertBody, AlertKey, LiveIncident};
use super::{Alerting, Heard, Planned, State, messages};
use perfwatch_alert::channel::Channel;
use perfwatch_alert::explain::Explanation;
use perfwatch_alert::incident::{self, Incident, Joins, Notice};
use perfwatch_alert::track::{Told, What, Why};
use perfwatch_alert::{thresholds, words};
use perfwatch_model::HostId;
use perfwatch_store::alerts::{EventRow, OutboxRow};
use perfwatch_store::people::AuditEntry;
use perfwatch_store::{Change, CommitError};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Written down in one commit at most.
const AT_ONCE: usize = 64;
/// How long a store that does not answer is left alone.
const PAUSE: Duration = Duration::from_secs(2);
/// How often it is tried while the store takes other things.
const TRIES: usize = 5;
/// Alerts of one incident at most: one that goes on for weeks forgets its earliest in memory.
const ALERTS: usize = 500;

/// Something told, with what was seen.
struct Known {
    host: HostId,
    told: Told,
    explanation: Option<Explanation>,
}

impl Alerting {
    /// Until the hub stops.
    pub(super) async fn record(self: Arc<Self>, stop: CancellationToken) {
        let Some(mut queue) = self.to_record.lock().await.take() else { return };
        let mut heard: Vec<Heard> = Vec::new();
        loop {
            heard.clear();
            tokio::select! {
                () = stop.cancelled() => return,
                count = queue.recv_many(&mut heard, AT_ONCE) => if count == 0 { return },
            }
            let known = self.know(&mut heard, &queue).await;
            self.keep_at_it(&known, &stop).await;
            self.watches.recorded(known.iter().map(|known| known.host));
            if stop.is_cancelled() {
                // What is not written down is told again by the replay of the next start.
                return;
            }
        }
    }

    /// Writes down a batch, again until it works; one that the store can't take stops no other.
    async fn keep_at_it(&self, known: &[Known], stop: &CancellationToken) {
        let mut tries = 0;
        while let Err(error) = self.write_down(known).await {
            tries += 1;
            tracing::warn!(%error, tries, "alerts could not be written down; they wait");
            if tries > TRIES && self.rooms.history.refusing().is_none() {
                match known {
                    [one] => {
                        let rule = &one.told.rule.name;
                        tracing::error!(%error, host = %one.host, rule, "an alert can't be written down and is left out");
                        return;
                    }
                    several => {
                        for one in several.chunks(1) {
                            Box::pin(self.keep_at_it(one, stop)).await;
                        }
                        return;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn know(&self, heard: &mut Vec<Heard>, queue: &mpsc::Receiver<Heard>) -> Vec<Known> {
        let mut known = Vec::with_capacity(heard.len());
        for Heard { host, told } in heard.drain(..) {
            // In a storm, being told counts for more than being told why.
            let calm = queue.len() < AT_ONCE;
            let explanation = match told.what {
                What::Fired if calm => self.explain(host, &told).await,
                _ => None,
            };
            known.push(Known { host, told, explanation });
        }
        known
    }

    async fn write_down(&self, known: &[Known]) -> Result<(), CommitError> {
        let plan = |state: &State, now_ms: i64| {
            let mut record = Recording {
                alerting: self,
                state,
                now_ms,
                touched: HashMap::new(),
                order: Vec::new(),
                changes: Vec::new(),
                notices: Vec::new(),
            };
            known.iter().for_each(|known| record.one(known));
            Ok::<_, CommitError>((record.finish(), ()))
        };
        self.change(None, plan).await?;
        for known in known {
            match known.told.what {
                What::Fired => self.counts.fired.inc(),
                What::Resolved(_) => self.counts.resolved.inc(),
                What::Past => 0,
            };
        }
        Ok(())
    }

    /// Messages of an incident for all channels that hear of one of these alerts.
    pub(super) fn tell_channels(
        &self,
        state: &State,
        live: &LiveIncident,
        (notice, delay_ms): (Notice, i64),
        now_ms: i64,
    ) -> Vec<Change> {
        let everyone = self.rooms.people.now();
        let hears = |channel: &Channel| {
            live.alerts.iter().any(|alert| !alert.body.silenced && channel.hears(alert.subject(&everyone)))
        };
        let channels = state.asked.channels.iter().filter(|channel| hears(channel));
        let channels = channels.filter(|channel| notice != Notice::Resolved || channel.resolved);
        let message = messages::of(live, notice, &self.rooms.url, now_ms);
        let body = super::asked::body(&message);
        let row = |channel: &Arc<Channel>| {
            // Who hears only of what nobody took on is told that it is over as soon as it is.
            let after_ms = if notice == Notice::Resolved { 0 } else { channel.after.ms() };
            let due_ms = now_ms + delay_ms + after_ms;
            let merge = (notice == Notice::Changed && delay_ms > 0)
                .then(|| format!("{} {} changed", channel.id, live.incident.id));
            let row = OutboxRow {
                id: 0,
                channel: channel.id,
                incident: live.incident.id,
                notice: notice.name().to_owned(),
                severity: live.incident.severity.name().to_owned(),
                created_ms: now_ms,
                due_ms,
                next_ms: due_ms,
                tries: 0,
                state: "waiting".to_owned(),
                error: None,
                done_ms: None,
                body: body.clone(),
            };
            row.add(merge.as_deref())
        };
        channels.map(row).collect()
    }
}

/// An entry of an incident's timeline by the hub itself.
pub(super) fn event(incident: Uuid, at_ms: i64, kind: &str, text: impl Into<String>) -> EventRow {
    EventRow { incident, at_ms, kind: kind.to_owned(), actor: String::new(), text: text.into() }
}

/// A batch that is being written down.
struct Recording<'a> {
    alerting: &'a Alerting,
    state: &'a State,
    now_ms: i64,
    /// Incidents as they are after what was written down so far.
    touched: HashMap<Uuid, LiveIncident>,
    /// The same in the order in which they were touched.
    order: Vec<Uuid>,
    changes: Vec<Change>,
    notices: Vec<(Uuid, Notice, i64)>,
}

impl Recording<'_> {
    fn one(&mut self, known: &Known) {
        let told = &known.told;
        let key: AlertKey = (told.rule.id, known.host, told.instance.to_string());
        match told.what {
            // Another hub knew it first.
            What::Fired if self.firing(&key).is_some() => {}
            What::Fired => self.fired(known, &key),
            // What was over before anybody knew changes nothing of what is so now.
            What::Past => {
                self.enter(known, true);
            }
            What::Resolved(why) => self.resolved(told, &key, why),
        }
    }

    /// All incidents, messages and books of the batch.
    fn finish(mut self) -> Planned {
        let mut board = self.state.board.clone();
        let mut rows: Vec<Change> = Vec::new();
        for id in &self.order {
            // Incidents stand before what belongs to them.
            rows.extend(self.touched.get(id).map(|live| live.row().save()));
        }
        rows.append(&mut self.changes);
        let notices = std::mem::take(&mut self.notices);
        for (at, (id, notice, delay_ms)) in notices.iter().enumerate() {
            // What is said at once says what was to be gathered, too.
            let said = |(other, one): (usize, &(Uuid, Notice, i64))| {
                one.0 == *id && (one.2 == 0 && one.1 != Notice::Resolved || other < at && *delay_ms > 0)
            };
            if *delay_ms > 0 && notices.iter().enumerate().any(said) {
                continue;
            }
            if let Some(live) = self.touched.get(id) {
                rows.extend(self.alerting.tell_channels(self.state, live, (*notice, *delay_ms), self.now_ms));
            }
        }
        self.touched.into_values().for_each(|live| board.put(live));
        Planned { board: Some(board), changes: rows, asked: None }
    }

    /// The incident of an alert that fires, as it is by now.
    fn firing(&self, key: &AlertKey) -> Option<Uuid> {
        let fires = |live: &LiveIncident| live.firing().any(|alert| alert.key() == *key);
        if let Some((id, _)) = self.touched.iter().find(|(_, live)| fires(live)) {
            return Some(*id);
        }
        let (live, _) = self.state.board.firing(key)?;
        (!self.touched.contains_key(&live.incident.id)).then_some(live.incident.id)
    }

    /// The incident of a key that an alert would join.
    fn by_key(&self, key: &str) -> Option<Uuid> {
        let takes = |live: &LiveIncident| live.incident.key == key && live.incident.takes(self.now_ms);
        if let Some((id, _)) = self.touched.iter().find(|(_, live)| takes(live)) {
            return Some(*id);
        }
        let live = self.state.board.by_key(key, self.now_ms)?;
        (!self.touched.contains_key(&live.incident.id)).then_some(live.incident.id)
    }

    /// An incident as it is by now; none that nobody knows.
    fn touch(&mut self, id: Uuid) -> Option<&mut LiveIncident> {
        if !self.touched.contains_key(&id) {
            let live = (**self.state.board.incident(id)?).clone();
            self.insert(live);
        }
        self.touched.get_mut(&id)
    }

    fn insert(&mut self, live: LiveIncident) {
        self.order.push(live.incident.id);
        self.touched.insert(live.incident.id, live);
    }

    /// An alert enters an incident of its key, or a new one: which, and whether a silence holds.
    fn enter(&mut self, known: &Known, past: bool) -> (Uuid, bool) {
        let (told, now_ms) = (&known.told, self.now_ms);
        let everyone = self.alerting.rooms.people.now();
        let mut alert = self.alert(known, past);
        let silenced = self.state.asked.silenced(alert.subject(&everyone), now_ms);
        alert.body.silenced = silenced;
        let key = incident::key(&told.rule, known.host.0, everyone.tags(known.host));
        let id = self.by_key(&key).unwrap_or_else(|| {
            let mut fresh = Incident::new(key, told.rule.severity, told.fired_ms);
            if past {
                fresh.ease(told.at_ms);
            }
            let id = fresh.id;
            self.insert(LiveIncident { incident: fresh, alerts: Vec::new() });
            id
        });
        let explanation = known.explanation.as_ref().map(super::asked::body);
        self.changes.push(alert.row(id).add(explanation.as_deref()));
        let text = format!("{}: {} — {}", alert.body.host_name, alert.body.rule_name, alert.body.summary);
        if thresholds::is_one(told.rule.id) && !past {
            let entry = AuditEntry {
                at_ms: told.at_ms.min(now_ms),
                actor: "threshold".to_owned(),
                action: "server.threshold".to_owned(),
                object: text.clone(),
                ..AuditEntry::default()
            };
            self.changes.push(entry.add());
        }
        let kind = if past { "past" } else { "fired" };
        self.changes.push(event(id, told.at_ms.min(now_ms), kind, text).add());
        if let Some(live) = self.touch(id) {
            live.alerts.push(Arc::new(alert));
        }
        (id, silenced)
    }

    fn fired(&mut self, known: &Known, key: &AlertKey) {
        let now_ms = self.now_ms;
        let (id, silenced) = self.enter(known, false);
        let Some(live) = self.touch(id) else { return };
        // Those that were there before it.
        let others = || live.alerts.iter().rev().skip(1);
        let again = others().any(|one| one.key() == *key);
        let firing = others().filter(|one| one.fires()).map(|one| one.severity).max();
        let notice = live.incident.join(known.told.rule.severity, Joins { silenced, again, firing });
        if live.alerts.len() > ALERTS
            && let Some(over) = live.alerts.iter().position(|alert| !alert.fires())
        {
            live.alerts.remove(over);
        }
        if silenced {
            self.changes.push(event(id, now_ms, "silenced", "nobody is told: a silence holds").add());
        }
        self.notices.extend(notice.map(|(notice, delay_ms)| (id, notice, delay_ms)));
    }

    fn alert(&self, known: &Known, past: bool) -> Alert {
        let (told, rooms) = (&known.told, &self.alerting.rooms);
        let rule = &told.rule;
        let (mut consumers, mut movers) = (Vec::new(), Vec::new());
        if let Some(explanation) = &known.explanation {
            consumers
                .extend(explanation.consumers.iter().map(|one| words::consumer(one, explanation.resource)));
            movers.extend(explanation.movers.iter().map(|one| words::mover(one, &rooms.catalog)));
        }
        let hub = known.host.0.is_nil();
        let figure = if past { told.worst } else { told.figure };
        let value = matches!(rule.when, perfwatch_alert::Condition::Value { .. });
        Alert {
            id: Uuid::now_v7(),
            rule: rule.id,
            host: known.host,
            severity: rule.severity,
            fired_ms: told.fired_ms,
            resolved_ms: past.then_some(told.at_ms),
            body: AlertBody {
                rule_name: rule.name.clone(),
                host_name: if hub { "PerfWatch".to_owned() } else { rooms.fleet.name(known.host) },
                instance: told.instance.to_string(),
                metric: rule.when.series().map(|(metric, _)| metric.to_owned()).unwrap_or_default(),
                summary: words::summary(rule, &told.instance, figure, &rooms.catalog),
                note: rule.note.clone(),
                since_ms: told.since_ms,
                figure,
                threshold: value.then(|| rule.when.bound().threshold),
                worst: told.worst,
                silenced: false,
                ended: past.then(|| "past".to_owned()),
                consumers,
                movers,
            },
        }
    }

    fn resolved(&mut self, told: &Told, key: &AlertKey, why: Why) {
        // Another hub knew it first.
        let Some(id) = self.firing(key) else { return };
        let now_ms = self.now_ms;
        let Some(live) = self.touch(id) else { return };
        let Some(place) = live.alerts.iter_mut().find(|alert| alert.fires() && alert.key() == *key) else {
            return;
        };
        let mut ended = (**place).clone();
        ended.resolved_ms = Some(told.at_ms.max(ended.fired_ms));
        ended.body.worst = told.worst.or(ended.body.worst);
        let (word, says) = match why {
            Why::Clear => ("clear", "is over"),
            Why::Gone => ("gone", "is gone, and what was wrong with it"),
            Why::RuleGone => ("rule_gone", "is not asked any more"),
            Why::HostGone => ("host_gone", "is over: the host was removed"),
        };
        ended.body.ended = Some(word.to_owned());
        let text = format!("{}: {} {says}", ended.body.host_name, ended.body.rule_name);
        let row = ended.row(id).save();
        *place = Arc::new(ended);
        let notice = if live.firing().next().is_none() { live.incident.ease(now_ms) } else { None };
        self.changes.push(row);
        self.changes.push(event(id, told.at_ms.min(now_ms), "resolved", text).add());
        self.notices.extend(notice.map(|notice| (id, notice, 0)));
    }
}
