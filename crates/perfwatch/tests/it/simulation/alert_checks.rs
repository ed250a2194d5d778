//! Checks that alerts equal those of the pure evaluators, and that each incident is notified once.

use super::hub::SimulatedHub;
use super::receivers::{ALL_ALERTS, CRITICAL_ALERTS, ReceivedNotification, channels};
use super::reference::AlertRecord;
use perfwatch_alerting::OpenIncident;
use perfwatch_model::HostId;
use perfwatch_rules::Severity;
use perfwatch_rules::incident::{IncidentPhase, NotificationReason};
use perfwatch_store::incidents::{IncidentFilter, IncidentRow};
use perfwatch_store::outbox::{NotificationFilter, NotificationRow, NotificationState, Outbox};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// Maximum number of rows that are read at once.
const MAX_READ_ROWS: i64 = 100_000;

/// Stored incidents with all their alerts, oldest first.
pub(super) async fn stored_incidents(hub: &SimulatedHub) -> Vec<OpenIncident> {
    let filter = IncidentFilter { to_ms: i64::MAX, limit: MAX_READ_ROWS, ..IncidentFilter::default() };
    let rows = IncidentRow::list(&*hub.store, filter).await.unwrap();
    let mut incidents = Vec::new();
    for row in rows.iter().rev() {
        incidents.push(hub.alerting.load_with_alerts(row).await.unwrap());
    }
    incidents
}

/// Alerts of each host, in the order of their times.
pub(super) fn alerts_by_host(incidents: &[OpenIncident]) -> BTreeMap<HostId, Vec<AlertRecord>> {
    let mut alerts: BTreeMap<HostId, Vec<AlertRecord>> = BTreeMap::new();
    for alert in incidents.iter().flat_map(|open| &open.alerts) {
        let record = AlertRecord {
            fired_ms: alert.fired_ms,
            resolved_ms: alert.resolved_ms,
            rule: alert.rule,
            instance: alert.body.instance.clone(),
            is_backfilled: Some(alert.body.resolve_reason.as_deref() == Some("backfilled")),
        };
        alerts.entry(alert.host).or_default().push(record);
    }
    alerts.values_mut().for_each(|alerts| alerts.sort());
    alerts
}

/// Checks that the alerts of a host are those of the reference.
pub(super) fn assert_same_alerts(host: HostId, stored: &[AlertRecord], expected: &[AlertRecord]) {
    let has_same =
        |alerts: &[AlertRecord], alert: &AlertRecord| alerts.iter().any(|other| other.matches(alert));
    let unexpected: Vec<_> = stored.iter().filter(|alert| !has_same(expected, alert)).collect();
    let missing: Vec<_> = expected.iter().filter(|alert| !has_same(stored, alert)).collect();
    assert!(
        unexpected.is_empty() && missing.is_empty() && stored.len() == expected.len(),
        "{host}: unexpected {unexpected:#?} missing {missing:#?}"
    );
}

/// Returns whether the alerts of a host are those of the reference.
pub(super) fn has_same_alerts(stored: &[AlertRecord], expected: &[AlertRecord]) -> bool {
    stored.len() == expected.len() && stored.iter().zip(expected).all(|(alert, other)| alert.matches(other))
}

/// Checks that alerts of a group are in the same incident while it is open.
pub(super) fn check_grouping(incidents: &[OpenIncident]) {
    let mut open_groups = HashSet::new();
    for open in incidents.iter().filter(|open| open.incident.phase != IncidentPhase::Resolved) {
        assert!(open_groups.insert(&open.incident.group_key), "two open incidents of a group: {open:#?}");
    }
}

/// Notifications of the outbox.
async fn stored_notifications(hub: &SimulatedHub) -> Vec<NotificationRow> {
    let filter = NotificationFilter { limit: MAX_READ_ROWS, ..NotificationFilter::default() };
    Outbox::list(&*hub.store, filter).await.unwrap()
}

/// Removes repeated deliveries, which only a fault between two of them permits.
fn without_repetitions(received: Vec<ReceivedNotification>) -> Vec<ReceivedNotification> {
    let mut epochs: HashMap<(String, Uuid), u64> = HashMap::new();
    let is_first = |notification: &ReceivedNotification| {
        let key = (notification.kind.clone(), notification.id);
        let previous = epochs.insert(key, notification.epoch);
        assert_ne!(previous, Some(notification.epoch), "delivered twice without a fault: {notification:?}");
        previous.is_none()
    };
    let mut received = received;
    let mut is_first = is_first;
    received.retain(|notification| is_first(notification));
    received
}

/// Checks the notifications of a channel about an incident that is over.
fn check_sequence(open: &OpenIncident, reasons: &[NotificationReason], sends_resolved: bool) {
    use NotificationReason::{Opened, Reopened, Resolved, Updated};
    let is_flapping = open.incident.reopen_count >= 2;
    let mut is_open = false;
    for (index, reason) in reasons.iter().enumerate() {
        let is_expected = match reason {
            Opened => index == 0,
            // A flapping incident reopens without a notification.
            Updated => is_open || is_flapping || !sends_resolved,
            Reopened => !sends_resolved || !is_open || is_flapping,
            // The end of a flapping incident is notified although its last alerts were not.
            Resolved => sends_resolved && (is_open || is_flapping),
            _ => false,
        };
        assert!(is_expected, "unexpected notification {index} of {reasons:?}: {open:#?}");
        is_open = *reason != Resolved;
    }
    assert!(!is_open || !sends_resolved, "no notification of the resolution: {reasons:?} {open:#?}");
}

/// Checks that the channels were notified of each incident as they demand. All incidents are over.
pub(super) async fn check_notifications(
    hub: &SimulatedHub,
    incidents: &[OpenIncident],
    received: Vec<ReceivedNotification>,
) {
    let outbox = stored_notifications(hub).await;
    let received = without_repetitions(received);
    let kinds: HashMap<Uuid, String> =
        channels().iter().map(|channel| (channel.id, channel.kind.clone())).collect();
    let ids = |kind: &str, incident: Uuid| {
        let is_about = |row: &&NotificationRow| kinds[&row.channel] == kind && row.incident == incident;
        outbox.iter().filter(is_about).collect::<Vec<_>>()
    };
    for row in &outbox {
        let is_final = matches!(row.state, NotificationState::Sent | NotificationState::Suppressed);
        assert!(is_final, "not delivered: {row:?}");
    }
    for open in incidents {
        assert_eq!(open.incident.phase, IncidentPhase::Resolved, "{open:#?}");
        let notified = |min_severity: Severity| {
            open.alerts.iter().any(|alert| {
                alert.severity >= min_severity && alert.body.resolve_reason.as_deref() != Some("backfilled")
            })
        };
        for (kind, min_severity, sends_resolved) in
            [(ALL_ALERTS, Severity::Info, true), (CRITICAL_ALERTS, Severity::Critical, false)]
        {
            let about = |received: &&ReceivedNotification| {
                received.kind == kind && received.incident == open.incident.id
            };
            let reasons: Vec<_> = received.iter().filter(about).map(|received| received.reason).collect();
            let rows = ids(kind, open.incident.id);
            let sent = rows.iter().filter(|row| row.state == NotificationState::Sent).count();
            assert_eq!(reasons.len(), sent, "{kind}: {reasons:?} {rows:#?}");
            check_sequence(open, &reasons, sends_resolved);
            let is_demanded = notified(min_severity);
            let is_suppressed = kind == CRITICAL_ALERTS && sent < rows.len();
            assert!(!is_demanded || !reasons.is_empty() || is_suppressed, "{kind}: not notified: {open:#?}");
            assert!(is_demanded || reasons.is_empty(), "{kind}: {reasons:?} without an alert: {open:#?}");
        }
    }
    let known: HashSet<Uuid> = incidents.iter().map(|open| open.incident.id).collect();
    let unknown = received.iter().find(|received| !known.contains(&received.incident));
    assert!(unknown.is_none(), "notification without an incident: {unknown:?}");
}
