//! Rules and channels of the simulation, and the receivers of its notifications.

use super::store::Faults;
use perfwatch_model::HumanDuration;
use perfwatch_rules::channel::{Channel, ChannelFilter, NotificationTemplate};
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{
    ChannelKind, ChannelSettings, Delivery, Notification, Notifier, RenderedNotification, SendError,
};
use perfwatch_rules::rule::{GroupBy, HostSelector, Rule, Severity};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use uuid::Uuid;

/// Kind of the channel that accepts everything.
pub(super) const ALL_ALERTS: &str = "all";
/// Kind of the channel that accepts critical alerts, and no resolutions.
pub(super) const CRITICAL_ALERTS: &str = "critical";
/// Receivers that track incidents get every notification separately, however many wait.
const KINDS: [ChannelKind; 2] = [
    ChannelKind { name: ALL_ALERTS, label: "All", tracks_incidents: true, fields: &[] },
    ChannelKind { name: CRITICAL_ALERTS, label: "Critical", tracks_incidents: true, fields: &[] },
];

fn rule(number: u128, (severity, group_by): (Severity, GroupBy), hold_s: i64, condition: Value) -> Arc<Rule> {
    Arc::new(Rule {
        id: Uuid::from_u128(1_000 + number),
        name: format!("rule {number}"),
        runbook: String::new(),
        enabled: true,
        severity,
        hosts: HostSelector::default(),
        condition: serde_json::from_value(condition).unwrap(),
        hold_for: HumanDuration::from_s(hold_s),
        group_by,
    })
}

/// Rules with a hold time, with an average, and with several instances.
pub(super) fn rules() -> Vec<Arc<Rule>> {
    let threshold = |metric: &str, threshold: u32, clear_threshold: u32| json!({"kind": "threshold", "metric": metric, "threshold": threshold, "clear_threshold": clear_threshold});
    let mut mean = threshold("memory.used_percent", 80, 60);
    mean["aggregate"] = json!("mean");
    mean["window"] = json!("60s");
    vec![
        rule(1, (Severity::Warning, GroupBy::Host), 30, threshold("cpu.usage", 95, 90)),
        rule(2, (Severity::Warning, GroupBy::Rule), 0, mean),
        rule(3, (Severity::Critical, GroupBy::Host), 0, threshold("filesystem.used_percent", 95, 90)),
    ]
}

fn channel(number: u128, kind: &str, min_severity: Severity, send_resolved: bool) -> Arc<Channel> {
    Arc::new(Channel {
        id: Uuid::from_u128(2_000 + number),
        name: kind.to_owned(),
        kind: kind.to_owned(),
        enabled: true,
        settings: ChannelSettings::new(),
        filter: ChannelFilter { min_severity, ..ChannelFilter::default() },
        escalate_after: HumanDuration::default(),
        repeat_interval: HumanDuration::default(),
        send_resolved,
        quiet_hours: None,
        template: NotificationTemplate::default(),
    })
}

pub(super) fn channels() -> Vec<Arc<Channel>> {
    vec![channel(1, ALL_ALERTS, Severity::Info, true), channel(2, CRITICAL_ALERTS, Severity::Critical, false)]
}

/// Notification that a receiver accepted.
#[derive(Debug, Clone)]
pub(super) struct ReceivedNotification {
    pub(super) kind: String,
    pub(super) id: Uuid,
    pub(super) incident: Uuid,
    pub(super) reason: NotificationReason,
    /// Number of faults before its delivery.
    pub(super) epoch: u64,
}

/// Receivers of all channels, which may be unavailable for some time.
pub(super) struct Receivers {
    faults: Arc<Faults>,
    received: Mutex<Vec<ReceivedNotification>>,
    is_unavailable: Mutex<bool>,
}

impl Receivers {
    pub(super) fn new(faults: Arc<Faults>) -> Self {
        Self { faults, received: Mutex::default(), is_unavailable: Mutex::default() }
    }

    pub(super) fn set_unavailable(&self, is_unavailable: bool) {
        *self.is_unavailable.lock().unwrap() = is_unavailable;
    }

    pub(super) fn received(&self) -> Vec<ReceivedNotification> {
        self.received.lock().unwrap().clone()
    }
}

impl Notifier for Receivers {
    fn kinds(&self) -> &'static [ChannelKind] {
        &KINDS
    }

    fn validate(&self, _: &str, _: &ChannelSettings) -> Option<(String, String)> {
        None
    }

    fn render(&self, template: &str, _: &Notification) -> Result<String, String> {
        Ok(template.to_owned())
    }

    fn send(
        &self,
        kind: &str,
        _: &ChannelSettings,
        rendered: &RenderedNotification<'_>,
    ) -> Result<Delivery, SendError> {
        if self.faults.is_crashed() || *self.is_unavailable.lock().unwrap() {
            return Err(SendError::Transient { reason: "no connection".to_owned(), retry_after: None });
        }
        let Notification { id, incident, reason, .. } = *rendered.notification;
        let epoch = self.faults.epoch();
        let received = ReceivedNotification { kind: kind.to_owned(), id, incident, reason, epoch };
        self.received.lock().unwrap().push(received);
        Ok(Delivery::default())
    }
}
