//! Applies a batch of alert transitions to incidents, timeline and notifications.

use crate::active_incidents::{Alert, AlertBody, AlertKey, OpenIncident};
use crate::definitions::to_json;
use crate::outbox_writer::{OutboxWriter, PendingNotice};
use crate::state::{AlertingSnapshot, StateChange};
use crate::timeline::timeline_event;
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_model::{Catalog, HostId};
use perfwatch_rules::alert_instance::{ResolveReason, TransitionEvent, TransitionKind};
use perfwatch_rules::explain::Explanation;
use perfwatch_rules::incident::{Incident, JoinContext, NotificationReason, group_key};
use perfwatch_rules::{Condition, managed_rule, render};
use perfwatch_store::Transaction;
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::incidents::IncidentEventKind;
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// Maximum number of alerts of an incident in memory. Of a longer incident, the oldest resolved alerts
/// are only in the store.
const MAX_ALERTS_PER_INCIDENT: usize = 500;

/// Transition with the top consumers and movers at that time.
pub(crate) struct ExplainedTransition {
    pub(crate) host: HostId,
    pub(crate) event: TransitionEvent,
    /// Time of the newest data of the host that the evaluator has seen, Unix milliseconds.
    pub(crate) evaluated_until_ms: i64,
    pub(crate) explanation: Option<Explanation>,
}

/// Dependencies of a batch: names, tags and units for its texts, and the outbox.
pub(crate) struct BatchContext {
    pub(crate) hosts: Arc<HostRegistry>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) outbox: OutboxWriter,
}

/// Batch of transitions that is persisted in one commit.
pub(crate) struct IncidentBatch<'a> {
    context: &'a BatchContext,
    state: &'a AlertingSnapshot,
    now_ms: i64,
    /// Changed incidents, in their state after the transitions applied so far.
    incidents: HashMap<Uuid, OpenIncident>,
    /// Ids of the changed incidents in the order of their first change.
    touch_order: Vec<Uuid>,
    tx: Transaction,
    pending_notices: Vec<PendingNotice>,
}

/// Incident that an alert joined.
struct JoinedIncident {
    id: Uuid,
    silenced: bool,
}

/// Name of a resolve reason in [`AlertBody::resolve_reason`], and the text in the timeline.
fn describe_resolution(reason: ResolveReason) -> (&'static str, &'static str) {
    match reason {
        ResolveReason::ConditionCleared => ("condition_cleared", "resolved"),
        ResolveReason::InstanceGone => ("instance_gone", "resolved: the instance no longer exists"),
        ResolveReason::RuleDeleted => ("rule_deleted", "resolved: the rule was deleted"),
        ResolveReason::HostDeleted => ("host_deleted", "resolved: the host was deleted"),
    }
}

impl<'a> IncidentBatch<'a> {
    pub(crate) fn new(context: &'a BatchContext, state: &'a AlertingSnapshot, now_ms: i64) -> Self {
        Self {
            context,
            state,
            now_ms,
            incidents: HashMap::new(),
            touch_order: Vec::new(),
            tx: Transaction::default(),
            pending_notices: Vec::new(),
        }
    }

    pub(crate) fn apply(&mut self, transition: &ExplainedTransition) {
        let event = &transition.event;
        let key =
            AlertKey { rule: event.rule.id, host: transition.host, instance: event.instance.to_string() };
        match event.kind {
            // Another hub recorded the alert first. It may have recorded its resolution, too: a hub that was suspended, or
            // that replays what another hub has evaluated, finds an old breach again.
            TransitionKind::Fired if self.firing_incident(&key).is_some() => {}
            TransitionKind::Fired | TransitionKind::Backfilled if self.is_recorded(transition, &key) => {}
            TransitionKind::Fired => self.on_fired(transition, &key),
            // Resolved before it was recorded: the state of the incident does not change.
            TransitionKind::Backfilled => {
                self.join_incident(transition, true);
            }
            TransitionKind::Resolved(reason) => self.on_resolved(event, &key, reason),
        }
    }

    /// Change with all incidents, alerts, timeline entries and notifications of the batch.
    pub(crate) fn into_change(mut self) -> StateChange {
        let mut incidents = self.state.incidents.clone();
        let mut tx = Transaction::default();
        // Incidents are written before the rows that reference them.
        for open in self.touch_order.iter().filter_map(|id| self.incidents.get(id)) {
            tx.incidents().upsert(&open.to_row());
        }
        tx.append(std::mem::take(&mut self.tx));
        for (index, notice) in self.pending_notices.iter().enumerate() {
            if self.is_redundant(index, notice) {
                continue;
            }
            if let Some(open) = self.incidents.get(&notice.incident) {
                let outbox = &self.context.outbox;
                outbox.enqueue_notifications(&mut tx, self.state, open, *notice, self.now_ms);
            }
        }
        self.incidents.into_values().for_each(|open| incidents.insert(open));
        StateChange { incidents: Some(incidents), tx, definitions: None }
    }

    /// Returns whether a delayed notice is covered by another notice of the same incident: by an
    /// immediate notice, or by any earlier notice of the batch.
    fn is_redundant(&self, index: usize, notice: &PendingNotice) -> bool {
        let covers = |(other_index, other): (usize, &PendingNotice)| {
            let is_immediate = other.delay_ms == 0 && other.reason != NotificationReason::Resolved;
            other.incident == notice.incident && (is_immediate || other_index < index)
        };
        notice.delay_ms > 0 && self.pending_notices.iter().enumerate().any(covers)
    }

    /// Incident of a firing alert, in its state within the batch.
    fn firing_incident(&self, key: &AlertKey) -> Option<Uuid> {
        let has_alert = |open: &OpenIncident| open.firing().any(|alert| alert.key() == *key);
        if let Some((id, _)) = self.incidents.iter().find(|(_, open)| has_alert(open)) {
            return Some(*id);
        }
        let open = self.state.incidents.firing_incident(key)?;
        (!self.incidents.contains_key(&open.incident.id)).then_some(open.incident.id)
    }

    /// Incident of a group key that a new alert joins, in its state within the batch.
    fn incident_by_group_key(&self, key: &str) -> Option<Uuid> {
        let accepts =
            |open: &OpenIncident| open.incident.group_key == key && open.incident.accepts(self.now_ms);
        if let Some((id, _)) = self.incidents.iter().find(|(_, open)| accepts(open)) {
            return Some(*id);
        }
        let open = self.state.incidents.by_group_key(key, self.now_ms)?;
        (!self.incidents.contains_key(&open.incident.id)).then_some(open.incident.id)
    }

    /// Returns whether the incident that an alert would join contains the alert of the same breach.
    fn is_recorded(&self, transition: &ExplainedTransition, key: &AlertKey) -> bool {
        let ExplainedTransition { host, event, evaluated_until_ms, .. } = transition;
        let auth_snapshot = self.context.outbox.directory.snapshot();
        let group_key = group_key(&event.rule, host.0, auth_snapshot.host_tags(*host));
        let Some(id) = self.incident_by_group_key(&group_key) else { return false };
        let open = self.incidents.get(&id).or_else(|| self.state.incidents.incident(id).map(|open| &**open));
        let covers = |alert: &Arc<Alert>| alert.key() == *key && alert.covers(event, *evaluated_until_ms);
        open.is_some_and(|open| open.alerts.iter().any(covers))
    }

    /// Copy of an incident within the batch; `None` if the incident is not active.
    fn incident_mut(&mut self, id: Uuid) -> Option<&mut OpenIncident> {
        if !self.incidents.contains_key(&id) {
            let open = (**self.state.incidents.incident(id)?).clone();
            self.insert(open);
        }
        self.incidents.get_mut(&id)
    }

    fn insert(&mut self, open: OpenIncident) {
        self.touch_order.push(open.incident.id);
        self.incidents.insert(open.incident.id, open);
    }

    /// Adds an alert to the active incident of its group key, or to a new incident.
    fn join_incident(&mut self, transition: &ExplainedTransition, backfilled: bool) -> JoinedIncident {
        let (event, now_ms) = (&transition.event, self.now_ms);
        let auth_snapshot = self.context.outbox.directory.snapshot();
        let mut alert = self.build_alert(transition, backfilled);
        let silenced = self.state.definitions.is_silenced(alert.match_target(&auth_snapshot), now_ms);
        alert.body.silenced = silenced;
        let key = group_key(&event.rule, transition.host.0, auth_snapshot.host_tags(transition.host));
        let id = self.incident_by_group_key(&key).unwrap_or_else(|| {
            let mut incident = Incident::new(key, event.rule.severity, event.fired_ms);
            if backfilled {
                incident.on_all_resolved(event.observed_at_ms);
            }
            let id = incident.id;
            self.insert(OpenIncident { incident, alerts: Vec::new() });
            id
        });
        let explanation = transition.explanation.as_ref().map(to_json);
        self.tx.alerts().insert(&alert.to_row(id), explanation.as_deref());
        let at_ms = event.observed_at_ms.min(now_ms);
        let text = format!("{}: {} — {}", alert.body.host_name, alert.body.rule_name, alert.body.summary);
        if managed_rule::is_managed_rule(event.rule.id) && !backfilled {
            let entry = AuditEntry {
                at_ms,
                actor: "threshold".to_owned(),
                action: "server.threshold_exceeded".to_owned(),
                object: text.clone(),
                ..AuditEntry::default()
            };
            self.tx.audit().insert(&entry);
        }
        let kind = if backfilled { IncidentEventKind::Backfilled } else { IncidentEventKind::Fired };
        self.tx.incident_events().insert(&timeline_event(id, at_ms, kind, text));
        if let Some(open) = self.incident_mut(id) {
            open.alerts.push(Arc::new(alert));
        }
        JoinedIncident { id, silenced }
    }

    fn on_fired(&mut self, transition: &ExplainedTransition, key: &AlertKey) {
        let now_ms = self.now_ms;
        let JoinedIncident { id, silenced } = self.join_incident(transition, false);
        let Some(open) = self.incident_mut(id) else { return };
        // The new alert is the last of the incident.
        let previous = || open.alerts.iter().rev().skip(1);
        let context = JoinContext {
            silenced,
            rejoined: previous().any(|alert| alert.key() == *key),
            worst_firing: previous().filter(|alert| alert.is_firing()).map(|alert| alert.severity).max(),
        };
        // Who acknowledged the incident does not know of an alert that joins later.
        let ends_acknowledgment = !silenced && !context.rejoined;
        let ended = if ends_acknowledgment { open.incident.ack.take() } else { None };
        let notice = open.incident.join(transition.event.rule.severity, context);
        if open.alerts.len() > MAX_ALERTS_PER_INCIDENT
            && let Some(oldest_resolved) = open.alerts.iter().position(|alert| !alert.is_firing())
        {
            open.alerts.remove(oldest_resolved);
        }
        if let Some(ack) = ended {
            let text = format!("acknowledgment by {} ended: another alert joined", ack.by);
            self.tx.incident_events().insert(&timeline_event(
                id,
                now_ms,
                IncidentEventKind::AckExpired,
                text,
            ));
        }
        if silenced {
            let event = timeline_event(id, now_ms, IncidentEventKind::Silenced, "silenced");
            self.tx.incident_events().insert(&event);
        }
        let to_notice = |(reason, delay_ms)| PendingNotice { incident: id, reason, delay_ms };
        self.pending_notices.extend(notice.map(to_notice));
    }

    fn build_alert(&self, transition: &ExplainedTransition, backfilled: bool) -> Alert {
        let (event, catalog) = (&transition.event, &self.context.catalog);
        let rule = &event.rule;
        let (mut consumers, mut movers) = (Vec::new(), Vec::new());
        if let Some(explanation) = &transition.explanation {
            let render = |consumer| render::render_consumer(consumer, explanation.resource);
            consumers.extend(explanation.consumers.iter().map(render));
            movers.extend(explanation.movers.iter().map(|mover| render::render_mover(mover, catalog)));
        }
        let host_name = match transition.host.0.is_nil() {
            true => "PerfWatch".to_owned(),
            false => self.context.hosts.name(transition.host),
        };
        let value = if backfilled { event.peak_value } else { event.value };
        let has_threshold = matches!(rule.condition, Condition::Threshold { .. });
        Alert {
            id: Uuid::now_v7(),
            rule: rule.id,
            host: transition.host,
            severity: rule.severity,
            fired_ms: event.fired_ms,
            resolved_ms: backfilled.then_some(event.observed_at_ms),
            body: AlertBody {
                rule_name: rule.name.clone(),
                host_name,
                instance: event.instance.to_string(),
                metric: rule.condition.selector().map(|(metric, _)| metric.to_owned()).unwrap_or_default(),
                summary: render::render_summary(rule, &event.instance, value, catalog),
                runbook: rule.runbook.clone(),
                pending_since_ms: event.pending_since_ms,
                value,
                threshold: has_threshold.then(|| rule.condition.threshold().value),
                peak_value: event.peak_value,
                silenced: false,
                resolve_reason: backfilled.then(|| "backfilled".to_owned()),
                consumers,
                movers,
                largest_consumer: transition.explanation.as_ref().and_then(Explanation::largest_consumer),
            },
        }
    }

    fn on_resolved(&mut self, event: &TransitionEvent, key: &AlertKey, reason: ResolveReason) {
        // Without a firing alert, another hub recorded the resolution first.
        let Some(id) = self.firing_incident(key) else { return };
        let now_ms = self.now_ms;
        let Some(open) = self.incident_mut(id) else { return };
        let is_resolved_alert = |alert: &&mut Arc<Alert>| alert.is_firing() && alert.key() == *key;
        let Some(alert) = open.alerts.iter_mut().find(is_resolved_alert) else { return };
        let mut resolved = (**alert).clone();
        resolved.resolved_ms = Some(event.observed_at_ms.max(resolved.fired_ms));
        resolved.body.peak_value = event.peak_value.or(resolved.body.peak_value);
        let (reason_name, description) = describe_resolution(reason);
        resolved.body.resolve_reason = Some(reason_name.to_owned());
        let text = format!("{}: {} {description}", resolved.body.host_name, resolved.body.rule_name);
        let row = resolved.to_row(id);
        *alert = Arc::new(resolved);
        let is_quiet = open.firing().next().is_none();
        let notice = if is_quiet { open.incident.on_all_resolved(now_ms) } else { None };
        let at_ms = event.observed_at_ms.min(now_ms);
        self.tx.alerts().update(&row);
        self.tx.incident_events().insert(&timeline_event(id, at_ms, IncidentEventKind::Resolved, text));
        self.pending_notices.extend(notice.map(|reason| PendingNotice { incident: id, reason, delay_ms: 0 }));
    }
}
