//! What fired or ended, written down: alert, incident, timeline and messages in one commit. One
//! task, so that it is done in order; what the store does not take waits.

use super::active_incidents::{Alert, AlertBody, AlertKey, OpenIncident};
use super::{Alerting, AlertingSnapshot, HostTransition, StateChange, notification_builder};
use perfwatch_model::HostId;
use perfwatch_rules::alert_instance::{ResolveReason, TransitionEvent, TransitionKind};
use perfwatch_rules::channel::Channel;
use perfwatch_rules::explain::Explanation;
use perfwatch_rules::incident::{self, Incident, JoinContext, NotificationReason};
use perfwatch_rules::{render, threshold_rules};
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::incidents::{IncidentEventKind, IncidentEventRow};
use perfwatch_store::outbox::{NotificationRow, NotificationState};
use perfwatch_store::{CommitError, SqlStatement};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Written down in one commit at most.
const BATCH_SIZE: usize = 64;
/// How long a store that does not answer is left alone.
const STORE_RETRY_DELAY: Duration = Duration::from_secs(2);
/// How often it is tried while the store takes other things.
const MAX_ATTEMPTS: usize = 5;
/// Alerts of one incident at most: one that goes on for weeks forgets its earliest in memory.
const MAX_ALERTS_PER_INCIDENT: usize = 500;

/// Something told, with what was seen.
struct ExplainedTransition {
    host: HostId,
    event: TransitionEvent,
    explanation: Option<Explanation>,
}

impl Alerting {
    /// Until the hub stops.
    pub(super) async fn run_incidents(self: Arc<Self>, stop: CancellationToken) {
        let Some(mut queue) = self.transitions_rx.lock().await.take() else { return };
        let mut heard: Vec<HostTransition> = Vec::new();
        loop {
            heard.clear();
            tokio::select! {
                () = stop.cancelled() => return,
                count = queue.recv_many(&mut heard, BATCH_SIZE) => if count == 0 { return },
            }
            let known = self.explain_batch(&mut heard, &queue).await;
            self.persist_with_retry(&known, &stop).await;
            self.evaluators.on_persisted(known.iter().map(|known| known.host));
            if stop.is_cancelled() {
                // What is not written down is told again by the replay of the next start.
                return;
            }
        }
    }

    /// Writes down a batch, again until it works; one that the store can't take stops no other.
    async fn persist_with_retry(&self, known: &[ExplainedTransition], stop: &CancellationToken) {
        let mut tries = 0;
        while let Err(error) = self.persist(known).await {
            tries += 1;
            tracing::warn!(%error, tries, "failed to persist alert transitions; retrying");
            if tries > MAX_ATTEMPTS && self.deps.history.ingest_blocked().is_none() {
                match known {
                    [one] => {
                        let rule = &one.event.rule.name;
                        tracing::error!(%error, host = %one.host, rule, "failed to persist an alert transition; dropping it");
                        return;
                    }
                    several => {
                        for one in several.chunks(1) {
                            Box::pin(self.persist_with_retry(one, stop)).await;
                        }
                        return;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(STORE_RETRY_DELAY) => {}
            }
        }
    }

    async fn explain_batch(
        &self,
        heard: &mut Vec<HostTransition>,
        queue: &mpsc::Receiver<HostTransition>,
    ) -> Vec<ExplainedTransition> {
        let mut known = Vec::with_capacity(heard.len());
        for HostTransition { host, event: told } in heard.drain(..) {
            // In a storm, being told counts for more than being told why.
            let calm = queue.len() < BATCH_SIZE;
            let explanation = match told.kind {
                TransitionKind::Fired if calm => self.explain(host, &told).await,
                _ => None,
            };
            known.push(ExplainedTransition { host, event: told, explanation });
        }
        known
    }

    async fn persist(&self, known: &[ExplainedTransition]) -> Result<(), CommitError> {
        let plan = |state: &AlertingSnapshot, now_ms: i64| {
            let mut record = IncidentBatch {
                alerting: self,
                state,
                now_ms,
                incidents: HashMap::new(),
                touch_order: Vec::new(),
                statements: Vec::new(),
                pending_notices: Vec::new(),
            };
            known.iter().for_each(|known| record.apply(known));
            Ok::<_, CommitError>((record.into_change(), ()))
        };
        self.update(None, plan).await?;
        for known in known {
            match known.event.kind {
                TransitionKind::Fired => self.metrics.alerts_fired.inc(),
                TransitionKind::Resolved(_) => self.metrics.alerts_resolved.inc(),
                TransitionKind::Backfilled => 0,
            };
        }
        Ok(())
    }

    /// Messages of an incident for all channels that hear of one of these alerts.
    pub(super) fn enqueue_notifications(
        &self,
        state: &AlertingSnapshot,
        live: &OpenIncident,
        (notice, delay_ms): (NotificationReason, i64),
        now_ms: i64,
    ) -> Vec<SqlStatement> {
        let everyone = self.deps.directory.snapshot();
        let hears = |channel: &Channel| {
            live.alerts
                .iter()
                .any(|alert| !alert.body.silenced && channel.accepts(alert.match_target(&everyone)))
        };
        let channels = state.definitions.channels.iter().filter(|channel| hears(channel));
        let channels =
            channels.filter(|channel| notice != NotificationReason::Resolved || channel.send_resolved);
        let message = notification_builder::build_notification(live, notice, &self.deps.base_url, now_ms);
        let body = super::definitions::to_json(&message);
        let row = |channel: &Arc<Channel>| {
            // Who hears only of what nobody took on is told that it is over as soon as it is.
            let after_ms =
                if notice == NotificationReason::Resolved { 0 } else { channel.escalate_after.ms() };
            let due_ms = now_ms + delay_ms + after_ms;
            let merge = (notice == NotificationReason::Updated && delay_ms > 0)
                .then(|| format!("{} {} changed", channel.id, live.incident.id));
            let row = NotificationRow {
                id: 0,
                channel: channel.id,
                incident: live.incident.id,
                reason: notice.name().to_owned(),
                severity: live.incident.severity.name().to_owned(),
                created_ms: now_ms,
                due_ms,
                retry_at_ms: due_ms,
                attempts: 0,
                state: NotificationState::Pending,
                error: None,
                finished_ms: None,
                body: body.clone(),
            };
            row.enqueue(merge.as_deref())
        };
        channels.map(row).collect()
    }
}

/// An entry of an incident's timeline by the hub itself.
pub(super) fn timeline_event(
    incident: Uuid,
    at_ms: i64,
    kind: IncidentEventKind,
    text: impl Into<String>,
) -> IncidentEventRow {
    IncidentEventRow { incident, at_ms, kind, actor: String::new(), text: text.into() }
}

/// A batch that is being written down.
struct IncidentBatch<'a> {
    alerting: &'a Alerting,
    state: &'a AlertingSnapshot,
    now_ms: i64,
    /// Incidents as they are after what was written down so far.
    incidents: HashMap<Uuid, OpenIncident>,
    /// The same in the order in which they were touched.
    touch_order: Vec<Uuid>,
    statements: Vec<SqlStatement>,
    pending_notices: Vec<(Uuid, NotificationReason, i64)>,
}

impl IncidentBatch<'_> {
    fn apply(&mut self, known: &ExplainedTransition) {
        let told = &known.event;
        let key: AlertKey = (told.rule.id, known.host, told.instance.to_string());
        match told.kind {
            // Another hub knew it first.
            TransitionKind::Fired if self.firing(&key).is_some() => {}
            TransitionKind::Fired => self.on_fired(known, &key),
            // What was over before anybody knew changes nothing of what is so now.
            TransitionKind::Backfilled => {
                self.join_incident(known, true);
            }
            TransitionKind::Resolved(why) => self.on_resolved(told, &key, why),
        }
    }

    /// All incidents, messages and books of the batch.
    fn into_change(mut self) -> StateChange {
        let mut board = self.state.incidents.clone();
        let mut rows: Vec<SqlStatement> = Vec::new();
        for id in &self.touch_order {
            // Incidents stand before what belongs to them.
            rows.extend(self.incidents.get(id).map(|live| live.to_row().upsert()));
        }
        rows.append(&mut self.statements);
        let notices = std::mem::take(&mut self.pending_notices);
        for (at, (id, notice, delay_ms)) in notices.iter().enumerate() {
            // What is said at once says what was to be gathered, too.
            let said = |(other, one): (usize, &(Uuid, NotificationReason, i64))| {
                one.0 == *id
                    && (one.2 == 0 && one.1 != NotificationReason::Resolved || other < at && *delay_ms > 0)
            };
            if *delay_ms > 0 && notices.iter().enumerate().any(said) {
                continue;
            }
            if let Some(live) = self.incidents.get(id) {
                rows.extend(self.alerting.enqueue_notifications(
                    self.state,
                    live,
                    (*notice, *delay_ms),
                    self.now_ms,
                ));
            }
        }
        self.incidents.into_values().for_each(|live| board.insert(live));
        StateChange { incidents: Some(board), statements: rows, definitions: None }
    }

    /// The incident of an alert that fires, as it is by now.
    fn firing(&self, key: &AlertKey) -> Option<Uuid> {
        let fires = |live: &OpenIncident| live.firing().any(|alert| alert.key() == *key);
        if let Some((id, _)) = self.incidents.iter().find(|(_, live)| fires(live)) {
            return Some(*id);
        }
        let (live, _) = self.state.incidents.firing_by_host(key)?;
        (!self.incidents.contains_key(&live.incident.id)).then_some(live.incident.id)
    }

    /// The incident of a key that an alert would join.
    fn by_key(&self, key: &str) -> Option<Uuid> {
        let takes =
            |live: &OpenIncident| live.incident.group_key == key && live.incident.accepts(self.now_ms);
        if let Some((id, _)) = self.incidents.iter().find(|(_, live)| takes(live)) {
            return Some(*id);
        }
        let live = self.state.incidents.by_group_key(key, self.now_ms)?;
        (!self.incidents.contains_key(&live.incident.id)).then_some(live.incident.id)
    }

    /// An incident as it is by now; none that nobody knows.
    fn incident_mut(&mut self, id: Uuid) -> Option<&mut OpenIncident> {
        if !self.incidents.contains_key(&id) {
            let live = (**self.state.incidents.incident(id)?).clone();
            self.insert(live);
        }
        self.incidents.get_mut(&id)
    }

    fn insert(&mut self, live: OpenIncident) {
        self.touch_order.push(live.incident.id);
        self.incidents.insert(live.incident.id, live);
    }

    /// An alert enters an incident of its key, or a new one: which, and whether a silence holds.
    fn join_incident(&mut self, known: &ExplainedTransition, past: bool) -> (Uuid, bool) {
        let (told, now_ms) = (&known.event, self.now_ms);
        let everyone = self.alerting.deps.directory.snapshot();
        let mut alert = self.build_alert(known, past);
        let silenced = self.state.definitions.is_silenced(alert.match_target(&everyone), now_ms);
        alert.body.silenced = silenced;
        let key = incident::group_key(&told.rule, known.host.0, everyone.host_tags(known.host));
        let id = self.by_key(&key).unwrap_or_else(|| {
            let mut fresh = Incident::new(key, told.rule.severity, told.fired_ms);
            if past {
                fresh.on_all_resolved(told.observed_at_ms);
            }
            let id = fresh.id;
            self.insert(OpenIncident { incident: fresh, alerts: Vec::new() });
            id
        });
        let explanation = known.explanation.as_ref().map(super::definitions::to_json);
        self.statements.push(alert.to_row(id).insert(explanation.as_deref()));
        let text = format!("{}: {} — {}", alert.body.host_name, alert.body.rule_name, alert.body.summary);
        if threshold_rules::is_threshold_rule(told.rule.id) && !past {
            let entry = AuditEntry {
                at_ms: told.observed_at_ms.min(now_ms),
                actor: "threshold".to_owned(),
                action: "server.threshold_exceeded".to_owned(),
                object: text.clone(),
                ..AuditEntry::default()
            };
            self.statements.push(entry.insert());
        }
        let kind = if past { IncidentEventKind::Backfilled } else { IncidentEventKind::Fired };
        self.statements.push(timeline_event(id, told.observed_at_ms.min(now_ms), kind, text).insert());
        if let Some(live) = self.incident_mut(id) {
            live.alerts.push(Arc::new(alert));
        }
        (id, silenced)
    }

    fn on_fired(&mut self, known: &ExplainedTransition, key: &AlertKey) {
        let now_ms = self.now_ms;
        let (id, silenced) = self.join_incident(known, false);
        let Some(live) = self.incident_mut(id) else { return };
        // Those that were there before it.
        let others = || live.alerts.iter().rev().skip(1);
        let again = others().any(|one| one.key() == *key);
        let firing = others().filter(|one| one.is_firing()).map(|one| one.severity).max();
        let notice = live
            .incident
            .join(known.event.rule.severity, JoinContext { silenced, rejoined: again, worst_firing: firing });
        if live.alerts.len() > MAX_ALERTS_PER_INCIDENT
            && let Some(over) = live.alerts.iter().position(|alert| !alert.is_firing())
        {
            live.alerts.remove(over);
        }
        if silenced {
            self.statements
                .push(timeline_event(id, now_ms, IncidentEventKind::Silenced, "silenced").insert());
        }
        self.pending_notices.extend(notice.map(|(notice, delay_ms)| (id, notice, delay_ms)));
    }

    fn build_alert(&self, known: &ExplainedTransition, past: bool) -> Alert {
        let (told, rooms) = (&known.event, &self.alerting.deps);
        let rule = &told.rule;
        let (mut consumers, mut movers) = (Vec::new(), Vec::new());
        if let Some(explanation) = &known.explanation {
            consumers.extend(
                explanation.consumers.iter().map(|one| render::render_consumer(one, explanation.resource)),
            );
            movers.extend(explanation.movers.iter().map(|one| render::render_mover(one, &rooms.catalog)));
        }
        let hub = known.host.0.is_nil();
        let figure = if past { told.peak_value } else { told.value };
        let value = matches!(rule.condition, perfwatch_rules::Condition::Threshold { .. });
        Alert {
            id: Uuid::now_v7(),
            rule: rule.id,
            host: known.host,
            severity: rule.severity,
            fired_ms: told.fired_ms,
            resolved_ms: past.then_some(told.observed_at_ms),
            body: AlertBody {
                rule_name: rule.name.clone(),
                host_name: if hub { "PerfWatch".to_owned() } else { rooms.hosts.name(known.host) },
                instance: told.instance.to_string(),
                metric: rule.condition.selector().map(|(metric, _)| metric.to_owned()).unwrap_or_default(),
                summary: render::render_summary(rule, &told.instance, figure, &rooms.catalog),
                runbook: rule.runbook.clone(),
                pending_since_ms: told.pending_since_ms,
                value: figure,
                threshold: value.then(|| rule.condition.threshold().value),
                peak_value: told.peak_value,
                silenced: false,
                resolve_reason: past.then(|| "backfilled".to_owned()),
                consumers,
                movers,
            },
        }
    }

    fn on_resolved(&mut self, told: &TransitionEvent, key: &AlertKey, why: ResolveReason) {
        // Another hub knew it first.
        let Some(id) = self.firing(key) else { return };
        let now_ms = self.now_ms;
        let Some(live) = self.incident_mut(id) else { return };
        let Some(place) = live.alerts.iter_mut().find(|alert| alert.is_firing() && alert.key() == *key)
        else {
            return;
        };
        let mut ended = (**place).clone();
        ended.resolved_ms = Some(told.observed_at_ms.max(ended.fired_ms));
        ended.body.peak_value = told.peak_value.or(ended.body.peak_value);
        let (word, says) = match why {
            ResolveReason::ConditionCleared => ("condition_cleared", "is over"),
            ResolveReason::InstanceGone => ("instance_gone", "resolved: the instance no longer exists"),
            ResolveReason::RuleDeleted => ("rule_deleted", "resolved: the rule was deleted"),
            ResolveReason::HostDeleted => ("host_deleted", "resolved: the host was deleted"),
        };
        ended.body.resolve_reason = Some(word.to_owned());
        let text = format!("{}: {} {says}", ended.body.host_name, ended.body.rule_name);
        let row = ended.to_row(id).update();
        *place = Arc::new(ended);
        let notice =
            if live.firing().next().is_none() { live.incident.on_all_resolved(now_ms) } else { None };
        self.statements.push(row);
        self.statements.push(
            timeline_event(id, told.observed_at_ms.min(now_ms), IncidentEventKind::Resolved, text).insert(),
        );
        self.pending_notices.extend(notice.map(|notice| (id, notice, 0)));
    }
}
