//! An incident as people are told of it.

use super::active_incidents::{Alert, OpenIncident};
use perfwatch_model::json::write_time;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{AlertSummary, Notification};
use perfwatch_rules::rule::Severity;
use std::sync::Arc;
use uuid::Uuid;

/// Alerts that are told one by one; texts say fewer.
const MAX_ALERTS_LISTED: usize = 100;
/// What a link to an instant shows around it.
const LINK_PADDING_MS: i64 = 300_000;

fn format_time(at_ms: i64) -> String {
    let mut text = String::new();
    write_time(&mut text, at_ms);
    text
}

/// That instant on the host's page.
fn host_link(url: &str, alert: &Alert) -> String {
    if alert.host.0.is_nil() {
        return url.to_owned();
    }
    let (at, from, to) = (alert.fired_ms, alert.fired_ms - LINK_PADDING_MS, alert.fired_ms + LINK_PADDING_MS);
    format!("{url}/hosts/{}?from={from}&to={to}&at={at}", alert.host)
}

fn alert_summary(alert: &Arc<Alert>, url: &str) -> AlertSummary {
    let body = &alert.body;
    AlertSummary {
        rule: body.rule_name.clone(),
        host: body.host_name.clone(),
        instance: body.instance.clone(),
        metric: body.metric.clone(),
        severity: alert.severity,
        firing: alert.is_firing(),
        summary: body.summary.clone(),
        runbook: body.runbook.clone(),
        fired_at: format_time(alert.fired_ms),
        resolved_at: alert.resolved_ms.map(format_time),
        consumers: body.consumers.clone(),
        movers: body.movers.clone(),
        url: host_link(url, alert),
    }
}

/// What is told of an incident as it is.
pub(super) fn build_notification(
    live: &OpenIncident,
    notice: NotificationReason,
    url: &str,
    now_ms: i64,
) -> Notification {
    let alerts = live.by_severity();
    Notification {
        id: Uuid::now_v7(),
        reason: notice,
        incident: live.incident.id,
        severity: live.incident.severity,
        subject: live.title(),
        created_at: format_time(now_ms),
        opened_at: format_time(live.incident.opened_ms),
        url: format!("{url}/alerts/incidents/{}", live.incident.id),
        alerts: alerts.iter().take(MAX_ALERTS_LISTED).map(|alert| alert_summary(alert, url)).collect(),
        omitted_alerts: alerts.len().saturating_sub(MAX_ALERTS_LISTED),
        digest: Vec::new(),
    }
}

/// One that tries whether it is heard.
pub(super) fn test_notification(url: &str, now_ms: i64) -> Notification {
    Notification {
        id: Uuid::now_v7(),
        reason: NotificationReason::Test,
        incident: Uuid::nil(),
        severity: Severity::Info,
        subject: "Test notification from PerfWatch".to_owned(),
        created_at: format_time(now_ms),
        opened_at: format_time(now_ms),
        url: format!("{url}/alerts/channels"),
        alerts: Vec::new(),
        omitted_alerts: 0,
        digest: Vec::new(),
    }
}

/// What a template is shown with where nothing ever happened.
pub(super) fn example_notification(url: &str, now_ms: i64) -> Notification {
    let alert = AlertSummary {
        rule: "CPU is busy".to_owned(),
        host: "web-1".to_owned(),
        instance: String::new(),
        metric: "cpu.usage".to_owned(),
        severity: Severity::Warning,
        firing: true,
        summary: "cpu.usage is 97.2 % (above 90 % for 10s)".to_owned(),
        runbook: "Look at the largest consumers.".to_owned(),
        fired_at: format_time(now_ms),
        resolved_at: None,
        consumers: vec!["example (pid 4711, root) 99.8 %, before not among the largest".to_owned()],
        movers: vec!["load.1m 0.30 → 4.1".to_owned()],
        url: url.to_owned(),
    };
    Notification {
        reason: NotificationReason::Opened,
        severity: Severity::Warning,
        subject: "web-1: CPU is busy".to_owned(),
        alerts: vec![alert],
        ..test_notification(url, now_ms)
    }
}

/// Several messages in one: what a channel did not say at its time.
pub(super) fn build_digest(messages: &[Notification], url: &str, now_ms: i64) -> Notification {
    let line = |message: &Notification| {
        format!("{} {}", message.created_at, perfwatch_rules::render::render_title(message))
    };
    let severity = messages.iter().map(|message| message.severity).max().unwrap_or_default();
    Notification {
        reason: NotificationReason::Updated,
        severity,
        subject: format!("{} notifications", messages.len()),
        url: format!("{url}/alerts"),
        digest: messages.iter().rev().take(50).rev().map(line).collect(),
        omitted_alerts: messages.len().saturating_sub(50),
        ..test_notification(url, now_ms)
    }
}
