//! What fired or ended, written down: alert, incident, timeline and messages in one commit. One
//! task, so that it is done in order; what the store does not take waits.

use super::board::{Alert, AlertBody, AlertKey, Board, LiveIncident};
use super::{Alerting, Heard, Planned, State, messages};
use perfwatch_alert::explain::Explanation;
use perfwatch_alert::incident::{self, Incident, Notice};
use perfwatch_alert::silence::Subject;
use perfwatch_alert::track::{Told, What, Why};
use perfwatch_alert::words;
use perfwatch_model::HostId;
use perfwatch_store::alerts::{EventRow, OutboxRow};
use perfwatch_store::{Change, CommitError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Written down in one commit at most.
const AT_ONCE: usize = 64;
/// How long a store that does not answer is left alone.
const PAUSE: Duration = Duration::from_secs(2);
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
            while let Err(error) = self.write_down(&known).await {
                tracing::warn!(%error, "alerts could not be written down; they wait");
                tokio::select! {
                    // What is not written down is told again by the replay of the next start.
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
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
            let mut record =
                Recording { alerting: self, state, board: state.board.clone(), now_ms, changes: Vec::new() };
            known.iter().for_each(|known| record.one(known));
            let Recording { board, changes, .. } = record;
            Ok::<_, CommitError>((Planned { board: Some(board), changes, asked: None }, ()))
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
        let hears = |channel: &perfwatch_alert::channel::Channel| {
            live.alerts.iter().any(|alert| {
                let tags = everyone.host_tags.get(&alert.host).map(Vec::as_slice).unwrap_or_default();
                let subject =
                    Subject { host: alert.host.0, tags, rule: alert.rule, severity: alert.severity };
                !alert.body.silenced && channel.hears(subject)
            })
        };
        let channels = state.asked.channels.iter().filter(|channel| hears(channel));
        let channels = channels.filter(|channel| notice != Notice::Resolved || channel.resolved);
        let message = messages::of(live, notice, &self.rooms.url, now_ms);
        let body = super::asked::body(&message);
        let row = |channel: &Arc<perfwatch_alert::channel::Channel>| {
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

struct Recording<'a> {
    alerting: &'a Alerting,
    state: &'a State,
    board: Board,
    now_ms: i64,
    changes: Vec<Change>,
}

impl Recording<'_> {
    fn one(&mut self, known: &Known) {
        let told = &known.told;
        let key: AlertKey = (told.rule.id, known.host, told.instance.to_string());
        match told.what {
            // Another hub knew it first.
            What::Fired if self.board.firing(&key).is_some() => {}
            What::Fired | What::Past => self.fired(known),
            What::Resolved(why) => self.resolved(told, &key, why),
        }
    }

    fn fired(&mut self, known: &Known) {
        let (told, now_ms) = (&known.told, self.now_ms);
        let past = told.what == What::Past;
        let everyone = self.alerting.rooms.people.now();
        let tags = everyone.host_tags.get(&known.host).map(Vec::as_slice).unwrap_or_default();
        let rule = &told.rule;
        let subject = Subject { host: known.host.0, tags, rule: rule.id, severity: rule.severity };
        let silenced = self.state.asked.silenced(subject, now_ms);
        let key = incident::key(rule, known.host.0, tags);
        let joins = self.board.by_key(&key, now_ms).map(|live| (**live).clone());
        let new = joins.is_none();
        let mut live = joins.unwrap_or_else(|| LiveIncident {
            incident: Incident::new(key, rule.severity, told.fired_ms),
            alerts: Vec::new(),
        });
        let before = live.incident.clone();
        let notice = live.incident.join(rule.severity, silenced || past);
        let alert = self.alert(known, silenced, past);
        let text = format!("{}: {} — {}", alert.body.host_name, alert.body.rule_name, alert.body.summary);
        let id = live.incident.id;
        let explanation = known.explanation.as_ref().map(super::asked::body);
        // The incident stands before what belongs to it.
        let alert_row = alert.row(id).add(explanation.as_deref());
        live.alerts.push(Arc::new(alert));
        if live.alerts.len() > ALERTS
            && let Some(over) = live.alerts.iter().position(|alert| !alert.fires())
        {
            live.alerts.remove(over);
        }
        if past {
            // It changes nothing of what is so now.
            live.incident = if new { live.incident } else { before };
            if live.firing().next().is_none() {
                live.incident.ease(told.at_ms);
                live.incident.phase = incident::Phase::Closed;
            }
        }
        self.changes.extend([live.row().save(), alert_row]);
        let kind = if past { "past" } else { "fired" };
        self.changes.push(event(id, told.at_ms.min(now_ms), kind, text).add());
        if silenced {
            self.changes.push(event(id, now_ms, "silenced", "nobody is told: a silence holds").add());
        }
        if let Some(notice) = notice {
            self.changes.extend(self.alerting.tell_channels(self.state, &live, notice, now_ms));
        }
        self.board.put(live);
    }

    fn alert(&self, known: &Known, silenced: bool, past: bool) -> Alert {
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
                silenced,
                ended: past.then(|| "past".to_owned()),
                consumers,
                movers,
            },
        }
    }

    fn resolved(&mut self, told: &Told, key: &AlertKey, why: Why) {
        // Another hub knew it first.
        let Some((live, alert)) = self.board.firing(key) else { return };
        let (mut live, mut ended) = ((**live).clone(), (**alert).clone());
        let id = live.incident.id;
        ended.resolved_ms = Some(told.at_ms.max(ended.fired_ms));
        ended.body.worst = told.worst.or(ended.body.worst);
        let (word, says) = match why {
            Why::Clear => ("clear", "is over"),
            Why::Gone => ("gone", "is gone, and what was wrong with it"),
            Why::RuleGone => ("rule_gone", "is not asked any more"),
        };
        ended.body.ended = Some(word.to_owned());
        let text = format!("{}: {} {says}", ended.body.host_name, ended.body.rule_name);
        self.changes.push(ended.row(id).save());
        self.changes.push(event(id, told.at_ms.min(self.now_ms), "resolved", text).add());
        if let Some(place) = live.alerts.iter_mut().find(|alert| alert.id == ended.id) {
            *place = Arc::new(ended);
        }
        let notice = if live.firing().next().is_none() { live.incident.ease(self.now_ms) } else { None };
        self.changes.push(live.row().save());
        if let Some(notice) = notice {
            let changes = self.alerting.tell_channels(self.state, &live, (notice, 0), self.now_ms);
            self.changes.extend(changes);
        }
        self.board.put(live);
    }
}
