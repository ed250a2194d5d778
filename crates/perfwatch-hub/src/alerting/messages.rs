//! An incident as people are told of it.

use super::board::{Alert, LiveIncident};
use perfwatch_alert::deliver::{AlertText, Message};
use perfwatch_alert::incident::Notice;
use perfwatch_alert::rule::Severity;
use perfwatch_model::json::write_time;
use std::sync::Arc;
use uuid::Uuid;

/// Alerts that are told one by one; texts say fewer.
const ALERTS: usize = 100;
/// What a link to an instant shows around it.
const AROUND_MS: i64 = 300_000;

fn time(at_ms: i64) -> String {
    let mut text = String::new();
    write_time(&mut text, at_ms);
    text
}

/// That instant on the host's page.
fn instant(url: &str, alert: &Alert) -> String {
    if alert.host.0.is_nil() {
        return url.to_owned();
    }
    let (at, from, to) = (alert.fired_ms, alert.fired_ms - AROUND_MS, alert.fired_ms + AROUND_MS);
    format!("{url}/hosts/{}?from={from}&to={to}&at={at}", alert.host)
}

fn alert_text(alert: &Arc<Alert>, url: &str) -> AlertText {
    let body = &alert.body;
    AlertText {
        rule: body.rule_name.clone(),
        host: body.host_name.clone(),
        instance: body.instance.clone(),
        metric: body.metric.clone(),
        severity: alert.severity,
        firing: alert.fires(),
        summary: body.summary.clone(),
        note: body.note.clone(),
        fired: time(alert.fired_ms),
        resolved: alert.resolved_ms.map(time),
        consumers: body.consumers.clone(),
        movers: body.movers.clone(),
        url: instant(url, alert),
    }
}

/// What is told of an incident as it is.
pub(super) fn of(live: &LiveIncident, notice: Notice, url: &str, now_ms: i64) -> Message {
    let alerts = live.worst_first();
    Message {
        id: Uuid::now_v7(),
        notice,
        incident: live.incident.id,
        severity: live.incident.severity,
        subject: live.title(),
        at: time(now_ms),
        opened: time(live.incident.opened_ms),
        url: format!("{url}/alerts/incidents/{}", live.incident.id),
        alerts: alerts.iter().take(ALERTS).map(|alert| alert_text(alert, url)).collect(),
        more: alerts.len().saturating_sub(ALERTS),
        digest: Vec::new(),
    }
}

/// One that tries whether it is heard.
pub(super) fn test(url: &str, now_ms: i64) -> Message {
    Message {
        id: Uuid::now_v7(),
        notice: Notice::Test,
        incident: Uuid::nil(),
        severity: Severity::Info,
        subject: "PerfWatch can reach this channel".to_owned(),
        at: time(now_ms),
        opened: time(now_ms),
        url: format!("{url}/alerts/channels"),
        alerts: Vec::new(),
        more: 0,
        digest: Vec::new(),
    }
}

/// What a template is shown with where nothing ever happened.
pub(super) fn example(url: &str, now_ms: i64) -> Message {
    let alert = AlertText {
        rule: "CPU is busy".to_owned(),
        host: "web-1".to_owned(),
        instance: String::new(),
        metric: "cpu.usage".to_owned(),
        severity: Severity::Warning,
        firing: true,
        summary: "cpu.usage is 97.2 % (above 90 % for 10s)".to_owned(),
        note: "Look at the largest consumers.".to_owned(),
        fired: time(now_ms),
        resolved: None,
        consumers: vec!["example (pid 4711, root) 99.8 %, before not among the largest".to_owned()],
        movers: vec!["load.1m 0.30 → 4.1".to_owned()],
        url: url.to_owned(),
    };
    Message {
        notice: Notice::Opened,
        severity: Severity::Warning,
        subject: "web-1: CPU is busy".to_owned(),
        alerts: vec![alert],
        ..test(url, now_ms)
    }
}

/// Several messages in one: what a channel did not say at its time.
pub(super) fn digest(messages: &[Message], url: &str, now_ms: i64) -> Message {
    let line = |message: &Message| format!("{} {}", message.at, perfwatch_alert::words::title(message));
    let severity = messages.iter().map(|message| message.severity).max().unwrap_or_default();
    Message {
        notice: Notice::Changed,
        severity,
        subject: format!("{} messages that waited", messages.len()),
        url: format!("{url}/alerts"),
        digest: messages.iter().rev().take(50).rev().map(line).collect(),
        more: messages.len().saturating_sub(50),
        ..test(url, now_ms)
    }
}
