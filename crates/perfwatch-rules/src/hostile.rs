//! Notification with text that breaks careless templates and services, to try them before an alert does.

use crate::incident::NotificationReason;
use crate::notification::{AlertSummary, Notification};
use crate::rule::Severity;
use uuid::Uuid;

/// Length of the hostile text in bytes.
const HOSTILE_TEXT_BYTES: usize = 4_096;

/// Characters with a meaning in JSON, HTML, URLs, templates and shells, line breaks, controls, and
/// characters outside of the basic plane.
const HOSTILE_START: &str = "\"double\" 'single' \\back\\slash \\\" \\u0022 {curly} {{ braces }} {% raw %} {# x #} \
     [square] <b>&amp;</b> ]]> ${var} $(cmd) `tick` %41 a=1&b=2 #;, line\nbreak\r\n\ttab \u{0}\u{1b}\u{7f}\u{85}\u{2028}\u{202e} \
     \u{fdd0}\u{feff}ünïcödé e\u{301} 😀👩‍👩‍👧🇩🇪 ";

/// Text of 4 KiB with hostile characters at its start and its end.
pub fn hostile_text() -> String {
    let mut text = HOSTILE_START.to_owned();
    while text.len() + HOSTILE_START.len() < HOSTILE_TEXT_BYTES {
        text.push('😀');
    }
    text.extend(HOSTILE_START.chars().rev());
    text
}

/// Notification of an incident in which every text is hostile.
pub fn hostile_notification(reason: NotificationReason) -> Notification {
    let text = hostile_text();
    let alert = AlertSummary {
        rule: text.clone(),
        host: text.clone(),
        instance: text.clone(),
        metric: "cpu.usage".to_owned(),
        severity: Severity::Critical,
        firing: reason != NotificationReason::Resolved,
        summary: text.clone(),
        runbook: text.clone(),
        fired_at: "2026-11-21T10:00:00Z".to_owned(),
        resolved_at: (reason == NotificationReason::Resolved).then(|| "2026-11-21T10:05:00Z".to_owned()),
        consumers: vec![text.clone()],
        movers: vec![text.clone()],
        url: "https://perfwatch.example/hosts/1?from=1&to=2&at=3".to_owned(),
    };
    Notification {
        id: Uuid::nil(),
        reason,
        incident: Uuid::nil(),
        severity: Severity::Critical,
        subject: text,
        created_at: "2026-11-21T10:00:00Z".to_owned(),
        opened_at: "2026-11-21T10:00:00Z".to_owned(),
        url: "https://perfwatch.example/alerts/incidents/1".to_owned(),
        alerts: vec![alert.clone(), alert],
        omitted_alerts: 1,
        digest: Vec::new(),
        recipients: Vec::new(),
    }
}
