//! Events of one host: alerts, gaps, reboots, changed facts, and for administrators changes by users.

use crate::response::{HostEvent, HostEventKind, HostEventsResponse};
use crate::{Overview, OverviewDeps};
use perfwatch_alerting::Alert;
use perfwatch_auth::Identity;
use perfwatch_history::timeline::HostTimeline;
use perfwatch_live::host_registry::Host;
use perfwatch_live::host_status::HostStatus;
use perfwatch_model::HostFacts;
use perfwatch_store::accounts::Role;
use perfwatch_store::audit::{AuditEntry, AuditFilter};
use perfwatch_store::incidents::{AlertFilter, AlertRow};
use perfwatch_store::{HeldPermits, StoreError};
use perfwatch_tsdb::query::GapKind;
use serde_json::Value;
use std::cmp::Reverse;

/// Maximum number of events.
const MAX_EVENTS: usize = 500;
/// Newest entries of the audit log with the name of the host that are read.
const MAX_AUDIT_ENTRIES: i64 = 500;
/// Memory in bytes that the events of a host need.
pub const HOST_EVENTS_MEMORY_BYTES: usize = 48 << 20;
/// Maximum range: rows are read one by one, longer ranges would take too long.
const MAX_RANGE_MS: i64 = 31 * 86_400_000;

/// Request for the events of a host that the caller may view.
pub struct HostEventsRequest {
    host: Host,
    range: (i64, i64),
    /// Selected kinds; empty for all.
    kinds: Vec<HostEventKind>,
    /// Permits that the read holds.
    held: HeldPermits,
}

impl HostEventsRequest {
    /// Creates a request for a range in Unix milliseconds and kinds such as `alert,gap`; all kinds by default.
    ///
    /// # Errors
    /// Returns a code and a message for long ranges and unknown kinds.
    pub fn new(
        host: Host,
        range: (i64, i64),
        kinds: Option<&str>,
        held: HeldPermits,
    ) -> Result<Self, (&'static str, String)> {
        if range.1 - range.0 > MAX_RANGE_MS {
            return Err(("invalid_range", "the range for events is limited to 31 days".to_owned()));
        }
        let names = kinds.unwrap_or_default().split(',').filter(|name| !name.is_empty());
        let kinds = names.map(|name| serde_json::from_value(name.into())).collect::<Result<_, _>>();
        let kinds = kinds.map_err(|error| ("invalid_query", format!("kinds: {error}")))?;
        Ok(Self { host, range, kinds, held })
    }

    fn includes(&self, kinds: &[HostEventKind]) -> bool {
        self.kinds.is_empty() || kinds.iter().any(|kind| self.kinds.contains(kind))
    }
}

fn event(kind: HostEventKind, from_ms: i64, to_ms: Option<i64>) -> HostEvent {
    HostEvent {
        kind,
        from_ms,
        to_ms,
        severity: None,
        incident: None,
        text: String::new(),
        detail: String::new(),
        actor: String::new(),
        before: String::new(),
        after: String::new(),
    }
}

fn alert_event(row: &AlertRow) -> Option<HostEvent> {
    let alert = Alert::from_row(row)?;
    Some(HostEvent {
        severity: Some(alert.severity.name().to_owned()),
        incident: Some(row.incident),
        text: alert.body.rule_name,
        detail: alert.body.summary,
        ..event(HostEventKind::Alert, alert.fired_ms, alert.resolved_ms)
    })
}

/// Events of changed facts, one for each that is worth an event.
fn facts_events(at_ms: i64, before: &HostFacts, after: &HostFacts) -> Vec<HostEvent> {
    let cores = (before.cores.to_string(), after.cores.to_string());
    let fields = [
        (HostEventKind::System, "os", &before.os, &after.os),
        (HostEventKind::System, "kernel", &before.kernel, &after.kernel),
        (HostEventKind::System, "cores", &cores.0, &cores.1),
        (HostEventKind::Agent, "version", &before.agent_version, &after.agent_version),
    ];
    let changed = fields.into_iter().filter(|(_, _, before, after)| before != after && !after.is_empty());
    let to_event = |(kind, text, before, after): (HostEventKind, &str, &String, &String)| HostEvent {
        text: text.to_owned(),
        before: before.clone(),
        after: after.clone(),
        ..event(kind, at_ms, None)
    };
    changed.map(to_event).collect()
}

/// Events of the rows. A gap with a reboot is one event.
fn timeline_events(timeline: &HostTimeline) -> Vec<HostEvent> {
    let gaps = timeline.gaps.iter().filter(|gap| gap.kind != GapKind::HostRestarted).map(|gap| HostEvent {
        detail: gap.kind.name().to_owned(),
        ..event(HostEventKind::Gap, gap.from_ms, Some(gap.to_ms))
    });
    let reboots = timeline.reboots.iter();
    let reboots = reboots.map(|boot| event(HostEventKind::Reboot, boot.from_ms, Some(boot.to_ms)));
    let facts = timeline.facts.iter().flat_map(|change| {
        let (before, after) = (&change.before, &change.after);
        facts_events(change.at_ms, before, after)
    });
    gaps.chain(reboots).chain(facts).collect()
}

/// Values of an audit entry as text: tags, or the name.
fn audit_value(json: Option<&str>) -> String {
    let Some(Ok(value)) = json.map(serde_json::from_str::<Value>) else {
        return String::new();
    };
    match (&value["tags"], &value["name"]) {
        (Value::Array(tags), _) => tags.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        (_, Value::String(name)) => name.clone(),
        _ => String::new(),
    }
}

/// Event of an audit entry; `None` if it is about another object. Entries name hosts, except that renames
/// have the id.
fn audit_event(entry: AuditEntry, host: &Host) -> Option<HostEvent> {
    let (name, id) = (&host.record.name, host.record.id);
    let (kind_name, object) = entry.object.split_once(' ')?;
    let is_host = match kind_name {
        "agent" => object.split_once(" of ").is_some_and(|(_, of)| of == name),
        _ => object == name || object == id.to_string(),
    };
    let kind = match (kind_name, entry.action.as_str()) {
        ("host", "host.set_tags" | "host.rename") => HostEventKind::Change,
        ("agent", "agent.enroll" | "agent.revoke") => HostEventKind::Agent,
        (
            "server",
            "server.create" | "server.update" | "server.update_credentials" | "server.accept_host_key",
        ) => HostEventKind::Connection,
        _ => return None,
    };
    is_host.then(|| HostEvent {
        text: entry.action,
        actor: entry.actor,
        before: audit_value(entry.before.as_deref()),
        after: audit_value(entry.after.as_deref()),
        ..event(kind, entry.at_ms, None)
    })
}

/// Gap that lasts until now; `None` if the host sends, or if its last snapshot is after the range.
fn current_gap(host: &Host, now_ms: i64, (_, to_ms): (i64, i64)) -> Option<HostEvent> {
    let last_ms = host.last_at_ms.or(host.record.last_snapshot_ms)?;
    let is_silent = host.status(now_ms) == HostStatus::NoData && last_ms < to_ms;
    is_silent.then(|| HostEvent {
        detail: GapKind::Unknown.name().to_owned(),
        ..event(HostEventKind::Gap, last_ms, None)
    })
}

impl Overview {
    /// Events of a host, newest first.
    ///
    /// # Errors
    /// Returns the error of the store if history, alerts or the audit log cannot be read.
    pub async fn host_events(
        &self,
        identity: &Identity,
        request: HostEventsRequest,
    ) -> Result<HostEventsResponse, StoreError> {
        use HostEventKind::{Agent, Alert, Change, Connection, FirstSeen, Gap, Reboot, System};
        let deps = &self.0.deps;
        let (host, range) = (&request.host, request.range);
        let mut events = Vec::new();
        if request.includes(&[Alert]) {
            let filter = AlertFilter::Host(host.record.id.0, range.0, range.1);
            let rows = AlertRow::list(deps.alerting.store(), filter).await?;
            events.extend(rows.iter().filter_map(alert_event));
        }
        if request.includes(&[Gap, Reboot, System, Agent]) {
            let (id, interval_ms) = (host.record.id, i64::from(host.interval_ms()));
            let held = Some(request.held.clone());
            let timeline = deps.history.timeline(id, range, interval_ms, held).await?;
            events.extend(timeline_events(&timeline));
            events.extend(current_gap(host, deps.clock.wall_ms(), range));
        }
        if request.includes(&[Change, Agent, Connection]) {
            events.extend(audit_events(deps, identity, host).await?);
        }
        if host.record.first_seen_ms > 0 {
            events.push(event(FirstSeen, host.record.first_seen_ms, None));
        }
        let ends_ms = |event: &HostEvent| match event.kind {
            Alert | Gap => event.to_ms.unwrap_or(i64::MAX),
            _ => event.to_ms.unwrap_or(event.from_ms),
        };
        events.retain(|event| {
            request.includes(&[event.kind]) && event.from_ms < range.1 && ends_ms(event) >= range.0
        });
        events.sort_by_key(|event| Reverse(event.from_ms));
        let is_truncated = events.len() > MAX_EVENTS;
        events.truncate(MAX_EVENTS);
        Ok(HostEventsResponse { events, is_truncated })
    }
}

/// Entries of the audit log about the host, for callers who may read the log.
async fn audit_events(
    deps: &OverviewDeps,
    identity: &Identity,
    host: &Host,
) -> Result<Vec<HostEvent>, StoreError> {
    if identity.role != Some(Role::Admin) || !identity.host_tags.is_empty() {
        return Ok(Vec::new());
    }
    let mut events = Vec::new();
    for text in [host.record.name.clone(), host.record.id.to_string()] {
        let filter = AuditFilter { before_id: None, text: Some(text), limit: MAX_AUDIT_ENTRIES };
        let entries = deps.directory.audit(filter).await?;
        events.extend(entries.into_iter().filter_map(|entry| audit_event(entry, host)));
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_history::timeline::{FactsChange, Reboot};
    use perfwatch_tsdb::query::Gap;
    use std::sync::Arc;

    #[test]
    fn timeline_lists_a_reboot_once_and_each_changed_fact() {
        let facts = |kernel: &str, version: &str| {
            let (kernel, agent_version) = (kernel.to_owned(), version.to_owned());
            Arc::new(HostFacts { kernel, agent_version, ..HostFacts::default() })
        };
        let timeline = HostTimeline {
            gaps: vec![
                Gap { from_ms: 10, to_ms: 20, kind: GapKind::HostRestarted },
                Gap { from_ms: 30, to_ms: 40, kind: GapKind::AgentStopped },
            ],
            reboots: vec![Reboot { from_ms: 10, to_ms: 20 }],
            facts: vec![FactsChange { at_ms: 20, before: facts("6.1", "1.0"), after: facts("6.2", "1.1") }],
            ..HostTimeline::default()
        };
        let events = timeline_events(&timeline);
        let kinds: Vec<_> = events.iter().map(|event| (event.kind, event.from_ms, event.to_ms)).collect();
        assert_eq!(
            kinds,
            [
                (HostEventKind::Gap, 30, Some(40)),
                (HostEventKind::Reboot, 10, Some(20)),
                (HostEventKind::System, 20, None),
                (HostEventKind::Agent, 20, None),
            ]
        );
        assert_eq!((events[0].detail.as_str(), events[2].after.as_str()), ("agent_stopped", "6.2"));
    }

    #[test]
    fn values_of_audit_entries_are_tags_or_a_name() {
        assert_eq!(audit_value(Some(r#"{"tags":["a","b=c"]}"#)), "a, b=c");
        assert_eq!(audit_value(Some(r#"{"name":"db-1"}"#)), "db-1");
        assert_eq!(audit_value(Some("[1]")), "");
        assert_eq!(audit_value(None), "");
    }
}
