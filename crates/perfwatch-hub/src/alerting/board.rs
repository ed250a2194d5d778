//! What is the matter now: incidents that are not over, or have not been for long, each with its
//! alerts. A copy of the board is cheap: its incidents are shared.

use super::asked::body;
use crate::auth::people::State as Everyone;
use perfwatch_alert::Condition;
use perfwatch_alert::incident::{Ack, Incident, Phase, SAME_MS};
use perfwatch_alert::rule::{Group, Rule, Selector, Severity};
use perfwatch_alert::silence::Subject;
use perfwatch_model::{HostId, Span};
use perfwatch_store::alerts::{AlertRow, AlertsOf, IncidentRow};
use perfwatch_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// What is kept of an alert beside what it is found by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AlertBody {
    pub(crate) rule_name: String,
    pub(crate) host_name: String,
    pub(crate) instance: String,
    pub(crate) metric: String,
    /// What is so, in words.
    pub(crate) summary: String,
    /// What to do.
    pub(crate) note: String,
    pub(crate) since_ms: i64,
    pub(crate) figure: Option<f64>,
    /// The threshold at that time, to be drawn.
    pub(crate) threshold: Option<f64>,
    pub(crate) worst: Option<f64>,
    /// Nobody was told for a silence.
    pub(crate) silenced: bool,
    /// Why it ended: `clear`, `gone`, `rule_gone`; `past` for what came to light when it was over.
    pub(crate) ended: Option<String>,
    /// In words, largest first.
    pub(crate) consumers: Vec<String>,
    pub(crate) movers: Vec<String>,
}

/// One alert.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Alert {
    pub(crate) id: Uuid,
    pub(crate) rule: Uuid,
    /// Nil for the hub itself.
    pub(crate) host: HostId,
    pub(crate) severity: Severity,
    pub(crate) fired_ms: i64,
    pub(crate) resolved_ms: Option<i64>,
    pub(crate) body: AlertBody,
}

/// An incident with its alerts, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LiveIncident {
    pub(crate) incident: Incident,
    pub(crate) alerts: Vec<Arc<Alert>>,
}

/// By which an alert is known while it fires.
pub(crate) type AlertKey = (Uuid, HostId, String);

/// Everything that is the matter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    incidents: HashMap<Uuid, Arc<LiveIncident>>,
    by_key: HashMap<String, Uuid>,
    /// By host: rule and instance, and the incident.
    firing: HashMap<HostId, HashMap<(Uuid, String), Uuid>>,
}

impl Alert {
    pub(crate) fn key(&self) -> AlertKey {
        (self.rule, self.host, self.body.instance.clone())
    }

    pub(crate) fn fires(&self) -> bool {
        self.resolved_ms.is_none()
    }

    /// What silences and channels are held against.
    pub(super) fn subject<'a>(&self, everyone: &'a Everyone) -> Subject<'a> {
        let tags = everyone.tags(self.host);
        Subject { host: self.host.0, tags, rule: self.rule, severity: self.severity }
    }

    /// A rule that is gone, as far as its alert remembers it.
    pub(super) fn rule_that_was(&self) -> Rule {
        Rule {
            id: self.rule,
            name: self.body.rule_name.clone(),
            note: String::new(),
            enabled: false,
            severity: self.severity,
            hosts: Selector::default(),
            when: Condition::Silent { grace: Span::default() },
            for_: Span::default(),
            group: Group::Host,
        }
    }

    pub(super) fn row(&self, incident: Uuid) -> AlertRow {
        let live_key = format!("{} {} {}", self.rule, self.host, self.body.instance);
        AlertRow {
            id: self.id,
            incident,
            live_key: self.fires().then_some(live_key),
            rule: self.rule,
            host: self.host.0,
            severity: self.severity.name().to_owned(),
            fired_ms: self.fired_ms,
            resolved_ms: self.resolved_ms,
            body: body(&self.body),
        }
    }

    /// As it stands in the books; none for what a later version wrote.
    pub(crate) fn of_row(row: &AlertRow) -> Option<Self> {
        Some(Self {
            id: row.id,
            rule: row.rule,
            host: HostId(row.host),
            severity: Severity::of(&row.severity).unwrap_or_default(),
            fired_ms: row.fired_ms,
            resolved_ms: row.resolved_ms,
            body: serde_json::from_str(&row.body).ok()?,
        })
    }
}

fn incident_of_row(row: &IncidentRow) -> Incident {
    let ack = row.ack.as_deref().and_then(|ack| serde_json::from_str::<Ack>(ack).ok());
    let phase = match row.phase.as_str() {
        "open" => Phase::Open,
        "settling" => Phase::Settling,
        _ => Phase::Closed,
    };
    Incident {
        id: row.id,
        key: row.key.clone(),
        severity: Severity::of(&row.severity).unwrap_or_default(),
        phase,
        opened_ms: row.opened_ms,
        calm_ms: row.calm_ms,
        reopened: u32::try_from(row.reopened).unwrap_or_default(),
        ack,
        told: row.told,
    }
}

impl LiveIncident {
    /// In few words: `web-1: CPU is busy and 2 more`.
    pub(crate) fn title(&self) -> String {
        // The worst that fires; of what is over, the worst.
        let firing = self.alerts.iter().any(|alert| alert.fires());
        let mut shown: Vec<&Alert> =
            self.alerts.iter().filter(|alert| !firing || alert.fires()).map(|alert| &**alert).collect();
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
    pub(crate) fn worst_first(&self) -> Vec<&Arc<Alert>> {
        let mut alerts: Vec<&Arc<Alert>> = self.alerts.iter().collect();
        alerts
            .sort_by_key(|alert| (Reverse(alert.fires()), Reverse(alert.severity), Reverse(alert.fired_ms)));
        alerts
    }

    pub(crate) fn firing(&self) -> impl Iterator<Item = &Arc<Alert>> {
        self.alerts.iter().filter(|alert| alert.fires())
    }

    pub(super) fn row(&self) -> IncidentRow {
        let incident = &self.incident;
        let phase = match incident.phase {
            Phase::Open => "open",
            Phase::Settling => "settling",
            Phase::Closed => "closed",
        };
        IncidentRow {
            id: incident.id,
            key: incident.key.clone(),
            closed: incident.phase == Phase::Closed,
            title: self.title(),
            severity: incident.severity.name().to_owned(),
            phase: phase.to_owned(),
            opened_ms: incident.opened_ms,
            calm_ms: incident.calm_ms,
            reopened: i64::from(incident.reopened),
            ack: incident.ack.as_ref().map(body),
            told: incident.told,
        }
    }
}

/// One incident of the books with its alerts.
pub(super) async fn read_one(store: &dyn Store, row: &IncidentRow) -> Result<LiveIncident, StoreError> {
    let alerts = AlertRow::all(store, AlertsOf::Incident(row.id)).await?;
    let alerts = alerts.iter().filter_map(Alert::of_row).map(Arc::new).collect();
    Ok(LiveIncident { incident: incident_of_row(row), alerts })
}

impl Board {
    pub(super) async fn read(store: &dyn Store, now_ms: i64) -> Result<Self, StoreError> {
        let since_ms = now_ms - SAME_MS;
        let mut alerts: HashMap<Uuid, Vec<Arc<Alert>>> = HashMap::new();
        for row in AlertRow::all(store, AlertsOf::Live(since_ms)).await? {
            let incident = row.incident;
            alerts.entry(incident).or_default().extend(Alert::of_row(&row).map(Arc::new));
        }
        let mut board = Self::default();
        for row in IncidentRow::live(store, since_ms).await? {
            let alerts = alerts.remove(&row.id).unwrap_or_default();
            board.put(LiveIncident { incident: incident_of_row(&row), alerts });
        }
        Ok(board)
    }

    pub(crate) fn incidents(&self) -> impl Iterator<Item = &Arc<LiveIncident>> {
        self.incidents.values()
    }

    pub(crate) fn incident(&self, id: Uuid) -> Option<&Arc<LiveIncident>> {
        self.incidents.get(&id)
    }

    /// The incident of a key that an alert would join now.
    pub(super) fn by_key(&self, key: &str, now_ms: i64) -> Option<&Arc<LiveIncident>> {
        self.incidents.get(self.by_key.get(key)?).filter(|live| live.incident.takes(now_ms))
    }

    /// The incident of an alert that fires.
    pub(super) fn firing(&self, key: &AlertKey) -> Option<(&Arc<LiveIncident>, &Arc<Alert>)> {
        let of_host = self.firing.get(&key.1)?;
        let live = self.incidents.get(of_host.get(&(key.0, key.2.clone()))?)?;
        Some((live, live.firing().find(|alert| alert.key() == *key)?))
    }

    /// The alerts of a host that fire.
    pub(super) fn of_host(&self, host: HostId) -> Vec<Arc<Alert>> {
        let keys = self.firing.get(&host).into_iter().flatten();
        keys.filter_map(|((rule, instance), _)| {
            Some(self.firing(&(*rule, host, instance.clone()))?.1.clone())
        })
        .collect()
    }

    /// Hosts whose firing alerts are others on another board.
    pub(super) fn differs(&self, other: &Self) -> Vec<HostId> {
        let all = self.firing.keys().chain(other.firing.keys()).collect::<HashSet<_>>();
        let keys = |board: &Self, host: &HostId| {
            board
                .firing
                .get(host)
                .map(|alerts| alerts.keys().cloned().collect::<HashSet<_>>())
                .unwrap_or_default()
        };
        all.into_iter().filter(|host| keys(self, host) != keys(other, host)).copied().collect()
    }

    /// Hosts with alerts that fire.
    pub(super) fn hosts(&self) -> impl Iterator<Item = HostId> {
        self.firing.iter().filter(|(_, alerts)| !alerts.is_empty()).map(|(host, _)| *host)
    }

    /// New, or in place of what it was.
    pub(super) fn put(&mut self, live: LiveIncident) {
        let id = live.incident.id;
        if let Some(before) = self.incidents.get(&id).cloned() {
            before.firing().for_each(|alert| {
                let (rule, host, instance) = alert.key();
                self.firing.get_mut(&host).map(|of_host| of_host.remove(&(rule, instance)));
            });
        }
        live.firing().for_each(|alert| {
            let (rule, host, instance) = alert.key();
            self.firing.entry(host).or_default().insert((rule, instance), id);
        });
        self.by_key.insert(live.incident.key.clone(), id);
        self.incidents.insert(id, Arc::new(live));
    }

    /// Forgets what has been over for long.
    pub(super) fn prune(&mut self, now_ms: i64) {
        self.incidents.retain(|_, live| live.incident.takes(now_ms));
        self.firing.retain(|_, alerts| !alerts.is_empty());
        let incidents = &self.incidents;
        self.by_key.retain(|_, id| incidents.contains_key(id));
    }

    /// How many have been over for long.
    pub(super) fn stale(&self, now_ms: i64) -> usize {
        self.incidents.values().filter(|live| !live.incident.takes(now_ms)).count()
    }
}
