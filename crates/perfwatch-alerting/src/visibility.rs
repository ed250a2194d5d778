//! Parts of incidents and definitions that a caller limited by host tags may view. Hidden hosts leave no
//! trace: not in names and ids, and not in what is derived from several alerts.

use crate::active_incidents::{ActiveIncidents, Alert, OpenIncident};
use perfwatch_auth::Identity;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_model::HostId;
use perfwatch_rules::incident::IncidentPhase;
use perfwatch_rules::rule::{HostSelector, Rule};
use perfwatch_rules::silence::{Matcher, Silence};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use uuid::Uuid;

/// Returns whether an identity may view an alert. Alerts of the hub itself are visible to identities
/// without a host limit.
pub fn can_view(identity: &Identity, auth_snapshot: &AuthSnapshot, alert: &Alert) -> bool {
    match alert.host.0.is_nil() {
        true => identity.host_tags.is_empty(),
        false => identity.can_view(auth_snapshot, alert.host),
    }
}

/// Open incidents that a caller may view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisibleIncidents {
    /// Number of unresolved incidents by severity: info, warning, critical.
    pub counts: [usize; 3],
    /// Number that differs after a change of these incidents. That of a limited caller does not depend on
    /// changes of hidden incidents.
    pub revision: u64,
}

/// Numbers of the unresolved incidents that a caller may view, at a revision of all incidents.
pub fn visible_incidents(
    incidents: &ActiveIncidents,
    revision: u64,
    identity: &Identity,
    auth_snapshot: &AuthSnapshot,
) -> VisibleIncidents {
    let (mut counts, mut hash) = ([0; 3], 0);
    for open in incidents.iter() {
        let visible = open.visible_to(identity, auth_snapshot);
        if let Some(visible) = visible.filter(|visible| visible.incident.phase != IncidentPhase::Resolved) {
            counts[visible.incident.severity as usize] += 1;
            // Independent of the order of the incidents.
            hash ^= visible.change_hash();
        }
    }
    let revision = if identity.host_tags.is_empty() { revision } else { u64::from(hash) };
    VisibleIncidents { counts, revision }
}

impl OpenIncident {
    /// The incident as if only the visible alerts had occurred; `None` without visible alerts.
    pub fn visible_to(&self, identity: &Identity, auth_snapshot: &AuthSnapshot) -> Option<Self> {
        let is_visible = |alert: &&Arc<Alert>| can_view(identity, auth_snapshot, alert);
        let alerts: Vec<Arc<Alert>> = self.alerts.iter().filter(is_visible).cloned().collect();
        let opened_ms = alerts.iter().map(|alert| alert.fired_ms).min()?;
        let mut visible = Self { incident: self.incident.clone(), alerts };
        if identity.host_tags.is_empty() {
            return Some(visible);
        }
        let is_complete = visible.alerts.len() == self.alerts.len();
        let has_firing = visible.firing().next().is_some();
        let counted = visible.alerts.iter().filter(|alert| !has_firing || alert.is_firing());
        let severity = counted.map(|alert| alert.severity).max();
        let resolved_ms = visible.alerts.iter().filter_map(|alert| alert.resolved_ms).max();
        let incident = &mut visible.incident;
        // From the alerts also if all are visible, so that times do not change with the first hidden alert.
        incident.opened_ms = opened_ms;
        incident.quiet_since_ms = resolved_ms.filter(|_| !has_firing);
        if !is_complete {
            incident.severity = severity.unwrap_or(incident.severity);
            incident.phase = if has_firing { IncidentPhase::Open } else { IncidentPhase::Resolved };
            // Reopenings are not attributed to alerts.
            incident.reopen_count = 0;
        }
        Some(visible)
    }

    /// Number that differs after most changes of the incident.
    fn change_hash(&self) -> u32 {
        let mut hasher = DefaultHasher::new();
        let ack = self.incident.ack.as_ref().map(|ack| (&ack.by, ack.at_ms, ack.until_ms));
        (self.incident.id, self.incident.quiet_since_ms, ack).hash(&mut hasher);
        for alert in &self.alerts {
            (alert.id, alert.resolved_ms, alert.body.silenced).hash(&mut hasher);
        }
        // Half of the bits, which are exact in a number of JavaScript.
        u32::try_from(hasher.finish() >> 32).unwrap_or_default()
    }
}

/// Visible hosts of a list.
fn visible_ids(hosts: &[Uuid], identity: &Identity, auth_snapshot: &AuthSnapshot) -> Vec<Uuid> {
    let is_visible = |host: &Uuid| identity.can_view(auth_snapshot, HostId(*host));
    hosts.iter().copied().filter(is_visible).collect()
}

/// Tags of a list that are host tags of the caller, or that a visible host has.
fn visible_tags(tags: &[String], identity: &Identity, auth_snapshot: &AuthSnapshot) -> Vec<String> {
    let has_visible_host = |tag: &String| {
        let mut tagged = auth_snapshot.host_tags.iter().filter(|(_, tags)| tags.contains(tag));
        tagged.any(|(host, _)| identity.can_view(auth_snapshot, *host))
    };
    let is_visible = |tag: &&String| identity.host_tags.contains(tag) || has_visible_host(tag);
    tags.iter().filter(is_visible).cloned().collect()
}

/// The rule without hidden hosts; `None` if it selects hidden hosts only.
pub fn visible_rule(rule: &Rule, identity: &Identity, auth_snapshot: &AuthSnapshot) -> Option<Rule> {
    if identity.host_tags.is_empty() {
        return Some(rule.clone());
    }
    let selected = &rule.hosts;
    let (hosts, tags) = match (selected.hosts.is_empty(), selected.tags.is_empty()) {
        (true, true) => (Vec::new(), Vec::new()),
        // Hosts and tags are alternatives.
        _ => {
            let hosts = visible_ids(&selected.hosts, identity, auth_snapshot);
            let tags = visible_tags(&selected.tags, identity, auth_snapshot);
            if hosts.is_empty() && tags.is_empty() {
                return None;
            }
            (hosts, tags)
        }
    };
    Some(Rule { hosts: HostSelector { hosts, tags, ..selected.clone() }, ..rule.clone() })
}

/// The silence without hidden hosts; `None` if it matches hidden hosts only.
pub fn visible_silence(
    silence: &Silence,
    identity: &Identity,
    auth_snapshot: &AuthSnapshot,
) -> Option<Silence> {
    if identity.host_tags.is_empty() {
        return Some(silence.clone());
    }
    let matcher = &silence.matcher;
    let hosts = visible_ids(&matcher.hosts, identity, auth_snapshot);
    let tags = visible_tags(&matcher.tags, identity, auth_snapshot);
    // A host must be in both lists, unless one is empty.
    let is_hidden =
        hosts.is_empty() != matcher.hosts.is_empty() || tags.is_empty() != matcher.tags.is_empty();
    (!is_hidden).then(|| Silence { matcher: Matcher { hosts, tags, ..matcher.clone() }, ..silence.clone() })
}
