//! Prometheus Alertmanager, API v2: each alert of an incident becomes an alert there.

use crate::http::{Http, Request};
use crate::settings::{field, get, optional, secret};
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{
    AlertSummary, ChannelKind, ChannelSettings, Delivery, RenderedNotification, SendError,
};
use serde_json::{Value, json};

pub(crate) const KIND: ChannelKind = ChannelKind {
    name: "alertmanager",
    label: "Alertmanager",
    tracks_incidents: true,
    fields: &[
        field(
            "url",
            "URL",
            "http://alertmanager:9093",
            "Alertmanager resolves alerts that are not re-sent: repeat at least every 5 minutes or raise resolve_timeout",
        ),
        optional(secret("authorization", "Authorization header", "Bearer …", "Sent verbatim")),
    ],
};

fn alert_json(alert: &AlertSummary) -> Value {
    let mut json = json!({
        "labels": {
            "alertname": alert.rule, "host": alert.host, "instance": alert.instance,
            "metric": alert.metric, "severity": alert.severity.name(), "source": "perfwatch",
        },
        "annotations": {
            "summary": alert.summary, "description": alert.runbook,
            "consumers": alert.consumers.join("\n"), "movers": alert.movers.join("\n"),
        },
        "startsAt": alert.fired_at,
    });
    if !alert.url.is_empty() {
        json["generatorURL"] = alert.url.as_str().into();
    }
    if let Some(resolved) = &alert.resolved_at {
        json["endsAt"] = resolved.as_str().into();
    }
    json
}

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Delivery, SendError> {
    let notification = rendered.notification;
    let mut alerts: Vec<Value> = notification.alerts.iter().map(alert_json).collect();
    if notification.reason == NotificationReason::Test {
        let labels = json!({ "alertname": "PerfWatchTest", "severity": "info", "source": "perfwatch" });
        alerts = vec![json!({ "labels": labels, "annotations": { "summary": rendered.title } })];
    }
    let url = format!("{}/api/v2/alerts", get(settings, "url").trim_end_matches('/'));
    let mut request = Request::json(url, &Value::Array(alerts));
    if !get(settings, "authorization").is_empty() {
        request = request.header("authorization", get(settings, "authorization"));
    }
    http.send(request)
}
