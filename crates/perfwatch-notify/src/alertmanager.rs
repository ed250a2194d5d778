//! Prometheus's Alertmanager, API v2: what fires here fires there, for who has one already.

use crate::http::{Http, Request};
use crate::{field, get, optional, secret};
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{
    AlertSummary, ChannelKind, ChannelSettings, RenderedNotification, SendError,
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
        optional(secret("authorization", "Authorization header", "Bearer …", "Sent as it is")),
    ],
};

fn alert(alert: &AlertSummary) -> Value {
    let mut one = json!({
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
        one["generatorURL"] = alert.url.as_str().into();
    }
    if let Some(resolved) = &alert.resolved_at {
        one["endsAt"] = resolved.as_str().into();
    }
    one
}

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    letter: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let message = letter.notification;
    let mut alerts: Vec<Value> = message.alerts.iter().map(alert).collect();
    if message.reason == NotificationReason::Test {
        let labels = json!({ "alertname": "PerfWatchTest", "severity": "info", "source": "perfwatch" });
        alerts = vec![json!({ "labels": labels, "annotations": { "summary": letter.title } })];
    }
    let url = format!("{}/api/v2/alerts", get(settings, "url").trim_end_matches('/'));
    let mut request = Request::json(url, &Value::Array(alerts));
    if !get(settings, "authorization").is_empty() {
        request = request.header("authorization", get(settings, "authorization"));
    }
    http.send(request)
}
