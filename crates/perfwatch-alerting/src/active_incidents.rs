//! Index of open and recently resolved incidents with their alerts; cloning is cheap.

use crate::definitions::to_json;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_model::{HostId, HumanDuration};
use perfwatch_rules::Condition;
use perfwatch_rules::alert_instance::{TransitionEvent, TransitionKind};
use perfwatch_rules::explain::LargestConsumer;
use perfwatch_rules::incident::{Ack, Incident, IncidentPhase, REOPEN_WINDOW_MS};
use perfwatch_rules::rule::{GroupBy, HostSelector, Rule, Severity};
use perfwatch_rules::silence::MatchTarget;
use perfwatch_store::incidents::{AlertFilter, AlertRow, IncidentPhase as StoredPhase, IncidentRow};
use perfwatch_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// Fields of an alert that the store contains as JSON. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertBody {
    /// Name of the rule at the time of firing.
    pub rule_name: String,
    /// Name of the host at the time of firing.
    pub host_name: String,
    /// Instance of the metric; empty if the metric has no dimension.
    pub instance: String,
    /// Metric of the condition; empty if it has none.
    pub metric: String,
    /// Value and condition as text: `cpu.usage is 97.2 % (above 90 % for 10s)`.
    pub summary: String,
    /// Runbook of the rule; may be empty.
    pub runbook: String,
    /// Start of the breach, before the hold time.
    pub pending_since_ms: i64,
    /// Evaluated value at the time of firing.
    pub value: Option<f64>,
    /// Threshold at the time of firing, for charts.
    pub threshold: Option<f64>,
    /// Worst value while the alert fired.
    pub peak_value: Option<f64>,
    /// Set while a silence suppresses the notifications of the alert.
    pub silenced: bool,
    /// Reason of the resolution: `condition_cleared`, `instance_gone`, `rule_deleted`, `host_deleted`
    /// or `backfilled`.
    pub resolve_reason: Option<String>,
    /// Top consumers as text, largest first.
    pub consumers: Vec<String>,
    /// Top movers as text, highest score first.
    pub movers: Vec<String>,
    /// Largest of the top consumers; `None` without one, and for alerts of earlier versions.
    #[serde(default)]
    pub largest_consumer: Option<LargestConsumer>,
}

/// Alert of a rule on an instance of a host. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Stable identifier of the alert (UUIDv7).
    pub id: Uuid,
    /// Rule that fired the alert; it may be deleted.
    pub rule: Uuid,
    /// Host of the alert; nil for the hub itself.
    pub host: HostId,
    /// Severity of the rule at the time of firing.
    pub severity: Severity,
    /// Time at which the alert fired.
    pub fired_ms: i64,
    /// Time at which the alert was resolved; `None` while it fires.
    pub resolved_ms: Option<i64>,
    /// Remaining fields of the alert.
    pub body: AlertBody,
}

/// Incident with its alerts, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenIncident {
    /// State of the incident.
    pub incident: Incident,
    /// Alerts in the order in which they joined.
    pub alerts: Vec<Arc<Alert>>,
}

/// Identity of a firing alert; at most one alert per key fires at a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AlertKey {
    pub(crate) rule: Uuid,
    pub(crate) host: HostId,
    pub(crate) instance: String,
}

/// Open incidents, and resolved incidents that a new alert would reopen.
#[derive(Debug, Clone, Default)]
pub struct ActiveIncidents {
    by_id: HashMap<Uuid, Arc<OpenIncident>>,
    /// Newest incident of each group key.
    by_group_key: HashMap<String, Uuid>,
    /// Incident of each firing alert, by host.
    firing_by_host: HashMap<HostId, HashMap<AlertKey, Uuid>>,
}

impl Alert {
    pub(crate) fn key(&self) -> AlertKey {
        AlertKey { rule: self.rule, host: self.host, instance: self.body.instance.clone() }
    }

    /// Returns whether the alert is not resolved yet.
    pub fn is_firing(&self) -> bool {
        self.resolved_ms.is_none()
    }

    /// Returns whether a transition is about the breach that this alert records: the breach started before the
    /// condition of this alert was clear. An evaluator that has seen later data knows more than this alert, for example
    /// after a change of the rule. What was recorded as backfill does not replace an alert that fires.
    pub(crate) fn covers(&self, event: &TransitionEvent, evaluated_until_ms: i64) -> bool {
        let is_same_end = match self.body.resolve_reason.as_deref() {
            None | Some("condition_cleared") => true,
            Some("backfilled") => event.kind == TransitionKind::Backfilled,
            // The same values may fire again after a change of the rule.
            Some(_) => false,
        };
        let resolved_ms = self.resolved_ms.unwrap_or(i64::MAX);
        is_same_end
            && event.pending_since_ms < resolved_ms
            && event.observed_at_ms >= self.body.pending_since_ms
            && (event.kind != TransitionKind::Fired || evaluated_until_ms <= resolved_ms)
    }

    /// Properties that silences and channel filters match.
    pub(crate) fn match_target<'a>(&self, auth_snapshot: &'a AuthSnapshot) -> MatchTarget<'a> {
        let tags = auth_snapshot.host_tags(self.host);
        MatchTarget { host: self.host.0, tags, rule: self.rule, severity: self.severity }
    }

    /// Substitute of a deleted rule, with the fields that the alert contains.
    pub(crate) fn reconstruct_rule(&self) -> Rule {
        Rule {
            id: self.rule,
            name: self.body.rule_name.clone(),
            runbook: String::new(),
            enabled: false,
            severity: self.severity,
            hosts: HostSelector::default(),
            condition: Condition::NoData { grace: HumanDuration::default() },
            hold_for: HumanDuration::default(),
            group_by: GroupBy::Host,
        }
    }

    pub(crate) fn to_row(&self, incident: Uuid) -> AlertRow {
        let firing_key = format!("{} {} {}", self.rule, self.host, self.body.instance);
        AlertRow {
            id: self.id,
            incident,
            firing_key: self.is_firing().then_some(firing_key),
            rule: self.rule,
            host: self.host.0,
            severity: self.severity.name().to_owned(),
            fired_ms: self.fired_ms,
            resolved_ms: self.resolved_ms,
            body: to_json(&self.body),
        }
    }

    /// Parses a stored alert; `None` if its body is of a later version.
    pub fn from_row(row: &AlertRow) -> Option<Self> {
        Some(Self {
            id: row.id,
            rule: row.rule,
            host: HostId(row.host),
            severity: Severity::parse(&row.severity).unwrap_or_default(),
            fired_ms: row.fired_ms,
            resolved_ms: row.resolved_ms,
            body: serde_json::from_str(&row.body).ok()?,
        })
    }
}

fn incident_from_row(row: &IncidentRow) -> Incident {
    let ack = row.ack.as_deref().and_then(|ack| serde_json::from_str::<Ack>(ack).ok());
    let phase = match row.phase {
        StoredPhase::Open => IncidentPhase::Open,
        StoredPhase::Flapping => IncidentPhase::Flapping,
        StoredPhase::Resolved => IncidentPhase::Resolved,
    };
    Incident {
        id: row.id,
        group_key: row.group_key.clone(),
        severity: Severity::parse(&row.severity).unwrap_or_default(),
        phase,
        opened_ms: row.opened_ms,
        quiet_since_ms: row.quiet_since_ms,
        reopen_count: u32::try_from(row.reopen_count).unwrap_or_default(),
        ack,
        notified: row.notified,
    }
}

impl OpenIncident {
    /// Short description: `web-1: High CPU usage and 2 more`. It names the most severe firing alert, or
    /// the most severe alert if none fires.
    pub fn title(&self) -> String {
        let has_firing = self.firing().next().is_some();
        let is_titled = |alert: &&Arc<Alert>| !has_firing || alert.is_firing();
        let mut alerts: Vec<&Alert> = self.alerts.iter().filter(is_titled).map(|alert| &**alert).collect();
        alerts.sort_by_key(|alert| (Reverse(alert.severity), alert.fired_ms));
        let Some(first) = alerts.first() else { return "an incident".to_owned() };
        let hosts: HashSet<HostId> = alerts.iter().map(|alert| alert.host).collect();
        if hosts.len() > 1 && alerts.iter().all(|alert| alert.rule == first.rule) {
            return format!("{} hosts: {}", hosts.len(), first.body.rule_name);
        }
        let instance = match first.body.instance.as_str() {
            "" => String::new(),
            instance => format!(" ({instance})"),
        };
        let more = match alerts.len() {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        format!("{}: {}{instance}{more}", first.body.host_name, first.body.rule_name)
    }

    /// Alerts in display order: firing, then most severe, then newest first.
    pub fn by_severity(&self) -> Vec<&Arc<Alert>> {
        let mut alerts: Vec<&Arc<Alert>> = self.alerts.iter().collect();
        alerts.sort_by_key(|alert| {
            (Reverse(alert.is_firing()), Reverse(alert.severity), Reverse(alert.fired_ms))
        });
        alerts
    }

    /// Alerts that are not resolved, oldest first.
    pub fn firing(&self) -> impl Iterator<Item = &Arc<Alert>> {
        self.alerts.iter().filter(|alert| alert.is_firing())
    }

    pub(crate) fn to_row(&self) -> IncidentRow {
        let incident = &self.incident;
        let phase = match incident.phase {
            IncidentPhase::Open => StoredPhase::Open,
            IncidentPhase::Flapping => StoredPhase::Flapping,
            IncidentPhase::Resolved => StoredPhase::Resolved,
        };
        IncidentRow {
            id: incident.id,
            group_key: incident.group_key.clone(),
            title: self.title(),
            severity: incident.severity.name().to_owned(),
            phase,
            opened_ms: incident.opened_ms,
            quiet_since_ms: incident.quiet_since_ms,
            reopen_count: i64::from(incident.reopen_count),
            ack: incident.ack.as_ref().map(to_json),
            notified: incident.notified,
        }
    }
}

/// Loads the alerts of a stored incident.
pub(crate) async fn load_incident(store: &dyn Store, row: &IncidentRow) -> Result<OpenIncident, StoreError> {
    let alerts = AlertRow::list(store, AlertFilter::Incident(row.id)).await?;
    let alerts = alerts.iter().filter_map(Alert::from_row).map(Arc::new).collect();
    Ok(OpenIncident { incident: incident_from_row(row), alerts })
}

impl ActiveIncidents {
    pub(crate) async fn load(store: &dyn Store, now_ms: i64) -> Result<Self, StoreError> {
        let since_ms = now_ms - REOPEN_WINDOW_MS;
        let mut alerts: HashMap<Uuid, Vec<Arc<Alert>>> = HashMap::new();
        for row in AlertRow::list(store, AlertFilter::Active(since_ms)).await? {
            alerts.entry(row.incident).or_default().extend(Alert::from_row(&row).map(Arc::new));
        }
        let mut incidents = Self::default();
        for row in IncidentRow::list_active(store, since_ms).await? {
            let alerts = alerts.remove(&row.id).unwrap_or_default();
            incidents.insert(OpenIncident { incident: incident_from_row(&row), alerts });
        }
        Ok(incidents)
    }

    /// All incidents of the index, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<OpenIncident>> {
        self.by_id.values()
    }

    /// Finds an incident by its id.
    pub fn incident(&self, id: Uuid) -> Option<&Arc<OpenIncident>> {
        self.by_id.get(&id)
    }

    /// Incident of a group key that a new alert would join.
    pub(crate) fn by_group_key(&self, key: &str, now_ms: i64) -> Option<&Arc<OpenIncident>> {
        self.by_id.get(self.by_group_key.get(key)?).filter(|open| open.incident.accepts(now_ms))
    }

    /// Incident of a firing alert.
    pub(crate) fn firing_incident(&self, key: &AlertKey) -> Option<&Arc<OpenIncident>> {
        self.by_id.get(self.firing_by_host.get(&key.host)?.get(key)?)
    }

    /// Firing alerts of a host.
    pub(crate) fn host_alerts(&self, host: HostId) -> Vec<Arc<Alert>> {
        let firing = self.firing_by_host.get(&host).into_iter().flatten();
        let find = |(key, incident): (&AlertKey, &Uuid)| {
            self.by_id.get(incident)?.firing().find(|alert| alert.key() == *key).cloned()
        };
        firing.filter_map(find).collect()
    }

    /// Hosts whose firing alerts differ from those in `other`.
    pub(crate) fn hosts_that_differ(&self, other: &Self) -> Vec<HostId> {
        let hosts: HashSet<&HostId> = self.firing_by_host.keys().chain(other.firing_by_host.keys()).collect();
        let keys = |incidents: &Self, host: &HostId| -> HashSet<AlertKey> {
            incidents.firing_by_host.get(host).into_iter().flat_map(HashMap::keys).cloned().collect()
        };
        hosts.into_iter().filter(|host| keys(self, host) != keys(other, host)).copied().collect()
    }

    /// Hosts with firing alerts, including the nil host of the hub itself.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = HostId> {
        self.firing_by_host.iter().filter(|(_, alerts)| !alerts.is_empty()).map(|(host, _)| *host)
    }

    /// Inserts an incident or replaces its previous state.
    pub(crate) fn insert(&mut self, open: OpenIncident) {
        let id = open.incident.id;
        if let Some(previous) = self.by_id.get(&id).cloned() {
            previous.firing().for_each(|alert| {
                if let Some(firing) = self.firing_by_host.get_mut(&alert.host) {
                    firing.remove(&alert.key());
                }
            });
        }
        open.firing().for_each(|alert| {
            self.firing_by_host.entry(alert.host).or_default().insert(alert.key(), id);
        });
        self.by_group_key.insert(open.incident.group_key.clone(), id);
        self.by_id.insert(id, Arc::new(open));
    }

    /// Removes incidents that no new alert can join any more.
    pub(crate) fn prune(&mut self, now_ms: i64) {
        self.by_id.retain(|_, open| open.incident.accepts(now_ms));
        self.firing_by_host.retain(|_, alerts| !alerts.is_empty());
        let incidents = &self.by_id;
        self.by_group_key.retain(|_, id| incidents.contains_key(id));
    }

    /// Number of incidents that [`Self::prune`] would remove.
    pub(crate) fn expired_count(&self, now_ms: i64) -> usize {
        self.by_id.values().filter(|open| !open.incident.accepts(now_ms)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alert of a breach from second 10, which fired at second 13 and was resolved at second 40.
    fn alert(resolve_reason: Option<&str>) -> Alert {
        let body = serde_json::json!({
            "rule_name": "", "host_name": "", "instance": "", "metric": "", "summary": "", "runbook": "",
            "pending_since_ms": 10_000, "value": null, "threshold": null, "peak_value": null,
            "silenced": false, "resolve_reason": resolve_reason, "consumers": [], "movers": [],
        });
        Alert {
            id: Uuid::nil(),
            rule: Uuid::nil(),
            host: HostId(Uuid::nil()),
            severity: Severity::Warning,
            fired_ms: 13_000,
            resolved_ms: resolve_reason.map(|_| 40_000),
            body: serde_json::from_value(body).unwrap(),
        }
    }

    #[test]
    fn transitions_of_a_recorded_breach_are_covered() {
        let covers =
            |reason: Option<&str>, kind: TransitionKind, [since_s, observed_s, evaluated_s]: [i64; 3]| {
                let alert = alert(reason);
                let event = TransitionEvent {
                    rule: Arc::new(alert.reconstruct_rule()),
                    instance: "".into(),
                    kind,
                    pending_since_ms: since_s * 1_000,
                    fired_ms: since_s * 1_000,
                    observed_at_ms: observed_s * 1_000,
                    value: None,
                    peak_value: None,
                };
                alert.covers(&event, evaluated_s * 1_000)
            };
        let cleared = Some("condition_cleared");
        // Another hub sees the breach from a later time on, or finds all of it again.
        assert!(covers(cleared, TransitionKind::Fired, [17, 20, 39]));
        assert!(covers(cleared, TransitionKind::Backfilled, [17, 40, 90]));
        assert!(covers(None, TransitionKind::Backfilled, [10, 40, 90]));
        // By a changed rule, the breach has not ended.
        assert!(!covers(cleared, TransitionKind::Fired, [10, 13, 90]));
        // Breaches before and after it.
        assert!(!covers(cleared, TransitionKind::Backfilled, [2, 8, 90]));
        assert!(!covers(cleared, TransitionKind::Fired, [40, 43, 43]));
        // What fires is notified although it was recorded as backfill, and after another end than that of the condition.
        assert!(!covers(Some("backfilled"), TransitionKind::Fired, [10, 13, 13]));
        assert!(covers(Some("backfilled"), TransitionKind::Backfilled, [10, 40, 90]));
        assert!(!covers(Some("rule_deleted"), TransitionKind::Fired, [10, 13, 13]));
    }
}
