//! Prometheus's Alertmanager, API v2: what fires here fires there, for who has one already.

use crate::http::{Http, Request};
use crate::{field, get, optional, secret};
use perfwatch_alert::deliver::{AlertText, Kind, Letter, SendError, Settings};
use perfwatch_alert::incident::Notice;
use serde_json::{Value, json};

pub(crate) const KIND: Kind = Kind {
    name: "alertmanager",
    label: "Alertmanager",
    machine: true,
    fields: &[
        field(
            "url",
            "URL",
            "http://alertmanager:9093",
            "It forgets what is not said again: repeat at least each 5 minutes, or raise its resolve_timeout",
        ),
        optional(secret("authorization", "Authorization header", "Bearer …", "Sent as it is")),
    ],
};

fn alert(alert: &AlertText) -> Value {
    let mut one = json!({
        "labels": {
            "alertname": alert.rule, "host": alert.host, "instance": alert.instance,
            "metric": alert.metric, "severity": alert.severity.name(), "source": "perfwatch",
        },
        "annotations": {
            "summary": alert.summary, "description": alert.note,
            "consumers": alert.consumers.join("\n"), "movers": alert.movers.join("\n"),
        },
        "startsAt": alert.fired,
    });
    if !alert.url.is_empty() {
        one["generatorURL"] = alert.url.as_str().into();
    }
    if let Some(resolved) = &alert.resolved {
        one["endsAt"] = resolved.as_str().into();
    }
    one
}

pub(crate) fn send(http: &Http, settings: &Settings, letter: &Letter<'_>) -> Result<(), SendError> {
    let message = letter.message;
    let mut alerts: Vec<Value> = message.alerts.iter().map(alert).collect();
    if message.notice == Notice::Test {
        let labels = json!({ "alertname": "PerfWatchTest", "severity": "info", "source": "perfwatch" });
        alerts = vec![json!({ "labels": labels, "annotations": { "summary": letter.title } })];
    }
    let url = format!("{}/api/v2/alerts", get(settings, "url").trim_end_matches('/'));
    let mut request = Request::json(url, &Value::Array(alerts));
    if !get(settings, "authorization").is_empty() {
        request = request.with("authorization", get(settings, "authorization"));
    }
    http.send(request)
}
