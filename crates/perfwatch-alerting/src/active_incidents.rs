//! What is the matter now: incidents that are not over, or have not been for long, each with its
//! alerts. A copy of the board is cheap: its incidents are shared.

use super::definitions::to_json;
use perfwatch_auth::directory::AuthSnapshot as Everyone;
use perfwatch_model::{HostId, HumanDuration};
use perfwatch_rules::Condition;
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

/// What is kept of an alert beside what it is found by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertBody {
    pub rule_name: String,
    pub host_name: String,
    pub instance: String,
    pub metric: String,
    /// What is so, in words.
    pub summary: String,
    /// What to do.
    pub runbook: String,
    pub pending_since_ms: i64,
    pub value: Option<f64>,
    /// The threshold at that time, to be drawn.
    pub threshold: Option<f64>,
    pub peak_value: Option<f64>,
    /// Nobody was told for a silence.
    pub silenced: bool,
    /// Why it ended: `clear`, `gone`, `rule_gone`; `past` for what came to light when it was over.
    pub resolve_reason: Option<String>,
    /// In words, largest first.
    pub consumers: Vec<String>,
    pub movers: Vec<String>,
}

/// One alert.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    pub id: Uuid,
    pub rule: Uuid,
    /// Nil for the hub itself.
    pub host: HostId,
    pub severity: Severity,
    pub fired_ms: i64,
    pub resolved_ms: Option<i64>,
    pub body: AlertBody,
}

/// An incident with its alerts, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenIncident {
    pub incident: Incident,
    pub alerts: Vec<Arc<Alert>>,
}

/// By which an alert is known while it fires.
pub type AlertKey = (Uuid, HostId, String);

/// Everything that is the matter.
#[derive(Debug, Clone, Default)]
pub struct ActiveIncidents {
    iter: HashMap<Uuid, Arc<OpenIncident>>,
    by_group_key: HashMap<String, Uuid>,
    /// By host: rule and instance, and the incident.
    firing_by_host: HashMap<HostId, HashMap<(Uuid, String), Uuid>>,
}

impl Alert {
    pub fn key(&self) -> AlertKey {
        (self.rule, self.host, self.body.instance.clone())
    }

    pub fn is_firing(&self) -> bool {
        self.resolved_ms.is_none()
    }

    /// What silences and channels are held against.
    pub(super) fn match_target<'a>(&self, everyone: &'a Everyone) -> MatchTarget<'a> {
        let tags = everyone.host_tags(self.host);
        MatchTarget { host: self.host.0, tags, rule: self.rule, severity: self.severity }
    }

    /// A rule that is gone, as far as its alert remembers it.
    pub(super) fn reconstruct_rule(&self) -> Rule {
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

    pub(super) fn to_row(&self, incident: Uuid) -> AlertRow {
        let live_key = format!("{} {} {}", self.rule, self.host, self.body.instance);
        AlertRow {
            id: self.id,
            incident,
            firing_key: self.is_firing().then_some(live_key),
            rule: self.rule,
            host: self.host.0,
            severity: self.severity.name().to_owned(),
            fired_ms: self.fired_ms,
            resolved_ms: self.resolved_ms,
            body: to_json(&self.body),
        }
    }

    /// As it stands in the books; none for what a later version wrote.
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
    /// In few words: `web-1: CPU is busy and 2 more`.
    pub fn title(&self) -> String {
        // The worst that fires; of what is over, the worst.
        let firing = self.alerts.iter().any(|alert| alert.is_firing());
        let mut shown: Vec<&Alert> =
            self.alerts.iter().filter(|alert| !firing || alert.is_firing()).map(|alert| &**alert).collect();
        shown.sort_by_key(|alert| (Reverse(alert.severity), alert.fired_ms));
        let Some(first) = shown.first() else { return "an incident".to_owned() };
        let place = |alert: &Alert| match alert.body.instance.as_str() {
            "" => String::new(),
            instance => format!(" ({instance})"),
        };
        let hosts: HashSet<HostId> = shown.iter().map(|alert| alert.host).collect();
        let same = shown.iter().all(|alert| alert.rule == first.rule);
        if hosts.len() > 1 && same {
            return format!("{} hosts: {}", hosts.len(), first.body.rule_name);
        }
        let more = match shown.len() {
            0 | 1 => String::new(),
            others => format!(" and {} more", others - 1),
        };
        format!("{}: {}{}{more}", first.body.host_name, first.body.rule_name, place(first))
    }

    /// Those that fire first, the worst first, the newest first.
    pub fn by_severity(&self) -> Vec<&Arc<Alert>> {
        let mut alerts: Vec<&Arc<Alert>> = self.alerts.iter().collect();
        alerts.sort_by_key(|alert| {
            (Reverse(alert.is_firing()), Reverse(alert.severity), Reverse(alert.fired_ms))
        });
        alerts
    }

    pub fn firing(&self) -> impl Iterator<Item = &Arc<Alert>> {
        self.alerts.iter().filter(|alert| alert.is_firing())
    }

    pub(super) fn to_row(&self) -> IncidentRow {
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
            phase: phase.to_owned(),
            opened_ms: incident.opened_ms,
            quiet_since_ms: incident.quiet_since_ms,
            reopen_count: i64::from(incident.reopen_count),
            ack: incident.ack.as_ref().map(to_json),
            notified: incident.notified,
        }
    }
}

/// One incident of the books with its alerts.
pub(super) async fn load_incident(store: &dyn Store, row: &IncidentRow) -> Result<OpenIncident, StoreError> {
    let alerts = AlertRow::list(store, AlertFilter::Incident(row.id)).await?;
    let alerts = alerts.iter().filter_map(Alert::from_row).map(Arc::new).collect();
    Ok(OpenIncident { incident: incident_from_row(row), alerts })
}

impl ActiveIncidents {
    pub(super) async fn load(store: &dyn Store, now_ms: i64) -> Result<Self, StoreError> {
        let since_ms = now_ms - REOPEN_WINDOW_MS;
        let mut alerts: HashMap<Uuid, Vec<Arc<Alert>>> = HashMap::new();
        for row in AlertRow::list(store, AlertFilter::Active(since_ms)).await? {
            let incident = row.incident;
            alerts.entry(incident).or_default().extend(Alert::from_row(&row).map(Arc::new));
        }
        let mut board = Self::default();
        for row in IncidentRow::list_active(store, since_ms).await? {
            let alerts = alerts.remove(&row.id).unwrap_or_default();
            board.insert(OpenIncident { incident: incident_from_row(&row), alerts });
        }
        Ok(board)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<OpenIncident>> {
        self.iter.values()
    }

    pub fn incident(&self, id: Uuid) -> Option<&Arc<OpenIncident>> {
        self.iter.get(&id)
    }

    /// The incident of a key that an alert would join now.
    pub(super) fn by_group_key(&self, key: &str, now_ms: i64) -> Option<&Arc<OpenIncident>> {
        self.iter.get(self.by_group_key.get(key)?).filter(|live| live.incident.accepts(now_ms))
    }

    /// The incident of an alert that fires.
    pub(super) fn firing_by_host(&self, key: &AlertKey) -> Option<(&Arc<OpenIncident>, &Arc<Alert>)> {
        let of_host = self.firing_by_host.get(&key.1)?;
        let live = self.iter.get(of_host.get(&(key.0, key.2.clone()))?)?;
        Some((live, live.firing().find(|alert| alert.key() == *key)?))
    }

    /// The alerts of a host that fire.
    pub(super) fn host_alerts(&self, host: HostId) -> Vec<Arc<Alert>> {
        let keys = self.firing_by_host.get(&host).into_iter().flatten();
        keys.filter_map(|((rule, instance), _)| {
            Some(self.firing_by_host(&(*rule, host, instance.clone()))?.1.clone())
        })
        .collect()
    }

    /// Hosts whose firing alerts are others on another board.
    pub(super) fn hosts_that_differ(&self, other: &Self) -> Vec<HostId> {
        let all = self.firing_by_host.keys().chain(other.firing_by_host.keys()).collect::<HashSet<_>>();
        let keys = |board: &Self, host: &HostId| {
            board
                .firing_by_host
                .get(host)
                .map(|alerts| alerts.keys().cloned().collect::<HashSet<_>>())
                .unwrap_or_default()
        };
        all.into_iter().filter(|host| keys(self, host) != keys(other, host)).copied().collect()
    }

    /// Hosts with alerts that fire.
    pub(super) fn hosts(&self) -> impl Iterator<Item = HostId> {
        self.firing_by_host.iter().filter(|(_, alerts)| !alerts.is_empty()).map(|(host, _)| *host)
    }

    /// New, or in place of what it was.
    pub(super) fn insert(&mut self, live: OpenIncident) {
        let id = live.incident.id;
        if let Some(before) = self.iter.get(&id).cloned() {
            before.firing().for_each(|alert| {
                let (rule, host, instance) = alert.key();
                self.firing_by_host.get_mut(&host).map(|of_host| of_host.remove(&(rule, instance)));
            });
        }
        live.firing().for_each(|alert| {
            let (rule, host, instance) = alert.key();
            self.firing_by_host.entry(host).or_default().insert((rule, instance), id);
        });
        self.by_group_key.insert(live.incident.group_key.clone(), id);
        self.iter.insert(id, Arc::new(live));
    }

    /// Forgets what has been over for long.
    pub(super) fn prune(&mut self, now_ms: i64) {
        self.iter.retain(|_, live| live.incident.accepts(now_ms));
        self.firing_by_host.retain(|_, alerts| !alerts.is_empty());
        let incidents = &self.iter;
        self.by_group_key.retain(|_, id| incidents.contains_key(id));
    }

    /// How many have been over for long.
    pub(super) fn expired_count(&self, now_ms: i64) -> usize {
        self.iter.values().filter(|live| !live.incident.accepts(now_ms)).count()
    }
}
