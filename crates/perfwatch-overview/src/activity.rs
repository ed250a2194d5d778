//! Recent events of the fleet: alerts, new hosts, reboots, and for administrators the audit log.

use crate::response::{ActivityEntry, ActivityKind};
use crate::view::VisibleHosts;
use perfwatch_alerting::Alert;
use perfwatch_auth::Identity;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_live::host_registry::Host;
use perfwatch_model::HostId;
use perfwatch_store::audit::AuditEntry;
use std::cmp::Reverse;
use uuid::Uuid;

/// Maximum number of entries.
const MAX_ENTRIES: usize = 40;
/// Newest entries of the audit log that are read; successful logins among them are left out.
pub(crate) const MAX_AUDIT_ENTRIES: i64 = 200;
/// Age up to which events are shown, in milliseconds.
pub(crate) const MAX_AGE_MS: i64 = 7 * 86_400_000;
/// Boots within this time after the first snapshot are those of the new host, in milliseconds.
const JOIN_BOOT_MS: i64 = 60_000;

/// Alert with the incident that contains it.
pub(crate) struct AlertWithIncident {
    pub(crate) alert: Alert,
    pub(crate) incident: Uuid,
}

fn entry(kind: ActivityKind, at_ms: i64) -> ActivityEntry {
    ActivityEntry {
        at_ms,
        kind,
        severity: None,
        host: None,
        host_name: String::new(),
        incident: None,
        actor: String::new(),
        text: String::new(),
        object: String::new(),
    }
}

fn alert_entries(found: &AlertWithIncident) -> impl Iterator<Item = ActivityEntry> {
    let alert = &found.alert;
    let host = Some(alert.host).filter(|host| !host.0.is_nil());
    let event = |kind, at_ms| ActivityEntry {
        severity: Some(alert.severity.name().to_owned()),
        host,
        host_name: alert.body.host_name.clone(),
        incident: Some(found.incident),
        text: alert.body.rule_name.clone(),
        object: alert.body.instance.clone(),
        ..entry(kind, at_ms)
    };
    let resolved = alert.resolved_ms.map(|at_ms| event(ActivityKind::AlertResolved, at_ms));
    [event(ActivityKind::AlertFired, alert.fired_ms)].into_iter().chain(resolved)
}

fn host_entries(host: &Host) -> impl Iterator<Item = ActivityEntry> {
    let record = &host.record;
    let id: HostId = record.id;
    let event =
        |kind, at_ms| ActivityEntry { host: Some(id), host_name: record.name.clone(), ..entry(kind, at_ms) };
    let joined = (record.first_seen_ms > 0).then(|| event(ActivityKind::HostJoined, record.first_seen_ms));
    let boot_ms = record.facts.as_ref().map(|facts| facts.boot_time_ms);
    let rebooted = boot_ms
        .filter(|boot_ms| *boot_ms > record.first_seen_ms + JOIN_BOOT_MS)
        .map(|boot_ms| event(ActivityKind::HostRebooted, boot_ms));
    joined.into_iter().chain(rebooted)
}

/// Returns whether an audit entry is listed. Successful logins would push everything else out of the list.
fn is_listed(audit: &AuditEntry) -> bool {
    !matches!(audit.action.as_str(), "login" | "logout" | "session.confirm")
}

fn audit_entry(audit: AuditEntry) -> ActivityEntry {
    ActivityEntry {
        actor: audit.actor,
        text: audit.action,
        object: audit.object,
        ..entry(ActivityKind::Audit, audit.at_ms)
    }
}

/// Newest events of the hosts and alerts that a caller may see, newest first.
pub(crate) fn build(
    visible: &VisibleHosts<'_>,
    alerts: &[AlertWithIncident],
    (identity, auth_snapshot): (&Identity, &AuthSnapshot),
    now_ms: i64,
) -> Vec<ActivityEntry> {
    let can_view =
        |found: &&AlertWithIncident| perfwatch_alerting::can_view(identity, auth_snapshot, &found.alert);
    let mut entries: Vec<ActivityEntry> = alerts.iter().filter(can_view).flat_map(alert_entries).collect();
    entries.extend(visible.0.iter().flat_map(|host| host_entries(&host.host)));
    newest(entries, now_ms)
}

/// Adds the entries of the audit log to the events, newest first.
pub(crate) fn merge(
    mut entries: Vec<ActivityEntry>,
    audit: Vec<AuditEntry>,
    now_ms: i64,
) -> Vec<ActivityEntry> {
    entries.extend(audit.into_iter().filter(is_listed).map(audit_entry));
    newest(entries, now_ms)
}

fn newest(mut entries: Vec<ActivityEntry>, now_ms: i64) -> Vec<ActivityEntry> {
    entries.retain(|entry| entry.at_ms > now_ms - MAX_AGE_MS);
    entries.sort_by_key(|entry| Reverse(entry.at_ms));
    entries.truncate(MAX_ENTRIES);
    entries
}
