//! Builds the notification of an incident.

use crate::active_incidents::{Alert, OpenIncident};
use perfwatch_model::json::write_time;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{AlertSummary, Notification};
use perfwatch_rules::render::render_title;
use perfwatch_rules::rule::Severity;
use std::sync::Arc;
use uuid::Uuid;

/// Maximum number of alerts listed in a notification. Rendered texts list fewer.
const MAX_ALERTS_LISTED: usize = 100;
/// Maximum number of titles listed in a digest; the newest are listed.
const MAX_DIGEST_TITLES: usize = 50;
/// Characters that careless templates and services do not transmit, in the test notification.
const TEST_CHARACTERS: &str = "(\"quotes\", \\backslash\\, {braces}, <tag> & ünïcödé 😀)";
/// Time before and after the alert in the time range of a host link.
const LINK_PADDING_MS: i64 = 300_000;

/// Builder of notifications, whose links start with the base URL of the hub.
#[derive(Clone)]
pub(crate) struct NotificationBuilder {
    base_url: Arc<str>,
}

fn format_time(at_ms: i64) -> String {
    let mut text = String::new();
    write_time(&mut text, at_ms);
    text
}

impl NotificationBuilder {
    pub(crate) fn new(base_url: &str) -> Self {
        Self { base_url: base_url.into() }
    }

    /// Link to the host page at the time of firing; the overview for the hub itself.
    fn host_link(&self, alert: &Alert) -> String {
        let base_url = &self.base_url;
        if alert.host.0.is_nil() {
            return base_url.to_string();
        }
        let at_ms = alert.fired_ms;
        let (from_ms, to_ms) = (at_ms - LINK_PADDING_MS, at_ms + LINK_PADDING_MS);
        format!("{base_url}/hosts/{}?from={from_ms}&to={to_ms}&at={at_ms}", alert.host)
    }

    fn alert_summary(&self, alert: &Alert) -> AlertSummary {
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
            url: self.host_link(alert),
        }
    }

    /// Notification of an incident in its current state.
    pub(crate) fn build_notification(
        &self,
        incident: &OpenIncident,
        reason: NotificationReason,
        now_ms: i64,
    ) -> Notification {
        let alerts = incident.by_severity();
        Notification {
            id: Uuid::now_v7(),
            reason,
            incident: incident.incident.id,
            severity: incident.incident.severity,
            subject: incident.title(),
            created_at: format_time(now_ms),
            opened_at: format_time(incident.incident.opened_ms),
            url: format!("{}/alerts/incidents/{}", self.base_url, incident.incident.id),
            alerts: alerts.iter().take(MAX_ALERTS_LISTED).map(|alert| self.alert_summary(alert)).collect(),
            omitted_alerts: alerts.len().saturating_sub(MAX_ALERTS_LISTED),
            digest: Vec::new(),
            recipients: Vec::new(),
        }
    }

    /// Notification that tests the delivery to a channel.
    pub(crate) fn test_notification(&self, now_ms: i64) -> Notification {
        Notification {
            id: Uuid::now_v7(),
            reason: NotificationReason::Test,
            incident: Uuid::nil(),
            severity: Severity::Info,
            subject: format!("Test notification from PerfWatch {TEST_CHARACTERS}"),
            created_at: format_time(now_ms),
            opened_at: format_time(now_ms),
            url: format!("{}/alerts/channels", self.base_url),
            alerts: Vec::new(),
            omitted_alerts: 0,
            digest: Vec::new(),
            recipients: Vec::new(),
        }
    }

    /// Notification with invented content, for the preview of templates before the first incident.
    pub(crate) fn example_notification(&self, now_ms: i64) -> Notification {
        let alert = AlertSummary {
            rule: "High CPU usage".to_owned(),
            host: "web-1".to_owned(),
            instance: String::new(),
            metric: "cpu.usage".to_owned(),
            severity: Severity::Warning,
            firing: true,
            summary: "cpu.usage is 97.2 % (above 90 % for 10s)".to_owned(),
            runbook: "Check the top consumers.".to_owned(),
            fired_at: format_time(now_ms),
            resolved_at: None,
            consumers: vec!["example (pid 4711, root) 99.8 % (was not a top consumer)".to_owned()],
            movers: vec!["load.1m 0.30 → 4.1".to_owned()],
            url: self.base_url.to_string(),
        };
        Notification {
            reason: NotificationReason::Opened,
            severity: Severity::Warning,
            subject: "web-1: High CPU usage".to_owned(),
            alerts: vec![alert],
            ..self.test_notification(now_ms)
        }
    }

    /// Digest of several pending notifications.
    pub(crate) fn build_digest(&self, notifications: &[Notification], now_ms: i64) -> Notification {
        let omitted = notifications.len().saturating_sub(MAX_DIGEST_TITLES);
        let to_line = |notification: &Notification| {
            format!("{} {}", notification.created_at, render_title(notification))
        };
        Notification {
            reason: NotificationReason::Updated,
            severity: notifications
                .iter()
                .map(|notification| notification.severity)
                .max()
                .unwrap_or_default(),
            subject: format!("{} notifications", notifications.len()),
            url: format!("{}/alerts", self.base_url),
            digest: notifications[omitted..].iter().map(to_line).collect(),
            omitted_alerts: omitted,
            ..self.test_notification(now_ms)
        }
    }
}
