//! Notification types and the [`Notifier`] port.

use crate::incident::NotificationReason;
use crate::rule::Severity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Alert of an incident, rendered for a notification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertSummary {
    /// Display name of the rule.
    pub rule: String,
    /// Display name of the host.
    pub host: String,
    /// Instance of the metric; empty if the metric has no dimension.
    pub instance: String,
    /// Metric of the condition; empty if it has none.
    pub metric: String,
    /// Severity of this alert.
    pub severity: Severity,
    /// False after the alert was resolved.
    pub firing: bool,
    /// Current value and condition: `cpu.usage is 97.2 % (above 90 % for 10s)`.
    pub summary: String,
    /// Runbook of the rule; may be empty.
    pub runbook: String,
    /// Time of firing, in RFC 3339.
    pub fired_at: String,
    /// Time of resolution, in RFC 3339.
    pub resolved_at: Option<String>,
    /// Top consumers, largest first: `burner (pid 9, root) 99.8 %`.
    pub consumers: Vec<String>,
    /// Top movers, highest score first: `load.1m 0.3 → 4.1`.
    pub movers: Vec<String>,
    /// Link to the host page at the time of firing.
    pub url: String,
}

/// Message of an incident to a channel, as of its creation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// Idempotency key: a notification that is delivered twice has the same id.
    pub id: Uuid,
    /// Reason for the notification.
    pub reason: NotificationReason,
    /// Id of the incident; nil for a test.
    pub incident: Uuid,
    /// Severity of the incident.
    pub severity: Severity,
    /// Short description: `web-1: High CPU usage`.
    pub subject: String,
    /// Creation time, in RFC 3339.
    pub created_at: String,
    /// Opening time of the incident, in RFC 3339.
    pub opened_at: String,
    /// Link to the incident page.
    pub url: String,
    /// Alerts of the incident, newest first.
    pub alerts: Vec<AlertSummary>,
    /// Number of further alerts, which are not in `alerts`.
    pub omitted_alerts: usize,
    /// Titles of the collected notifications, if this is a digest.
    pub digest: Vec<String>,
    /// Results by recipient of the attempts so far. A delivery is attempted for the deferred recipients,
    /// or for all recipients if the list is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<RecipientResult>,
}

/// State of the delivery to one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RecipientState {
    /// Accepted by the server.
    Sent,
    /// Rejected permanently; the delivery to this recipient is not retried.
    Refused,
    /// Rejected temporarily; the delivery to this recipient is retried.
    Deferred,
}

/// Result of the delivery to one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecipientResult {
    /// Address of the recipient.
    pub recipient: String,
    /// State of the delivery.
    pub state: RecipientState,
    /// Reply of the server, without secrets; empty if sent.
    #[serde(default)]
    pub reason: String,
}

/// Outcome of a delivery that did not fail for every recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Results by recipient; empty for channels with one receiver.
    pub recipients: Vec<RecipientResult>,
}

impl Delivery {
    /// Returns whether at least one recipient accepted the notification.
    pub fn is_sent(&self) -> bool {
        self.recipients.is_empty() || self.has_state(RecipientState::Sent)
    }

    /// Returns whether a recipient has a state.
    pub fn has_state(&self, state: RecipientState) -> bool {
        self.recipients.iter().any(|result| result.state == state)
    }

    /// Recipients that did not accept the notification, with their reasons; `None` if all accepted it.
    pub fn problem(&self) -> Option<String> {
        let lines =
            self.recipients.iter().filter_map(|RecipientResult { recipient, state, reason }| match state {
                RecipientState::Sent => None,
                RecipientState::Refused => Some(format!("{recipient} refused: {reason}")),
                RecipientState::Deferred => Some(format!("{recipient} deferred: {reason}")),
            });
        let lines: Vec<String> = lines.collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }
}

/// Notification with its rendered title and text.
#[derive(Debug, Clone)]
pub struct RenderedNotification<'a> {
    /// Structured content of the notification.
    pub notification: &'a Notification,
    /// Title in a single line.
    pub title: String,
    /// Body in lines of plain text.
    pub text: String,
}

/// Description of a setting of a channel kind.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChannelField {
    /// Key of the setting in [`crate::channel::Channel::settings`].
    pub name: &'static str,
    /// Display name in the dashboard.
    pub label: &'static str,
    /// Purpose of the setting, or a hint for finding its value.
    pub help: &'static str,
    /// Example of a valid value.
    pub example: &'static str,
    /// Requires a non-empty value.
    pub required: bool,
    /// Marks a secret, which the API never returns.
    pub secret: bool,
    /// Allows line breaks in the value.
    pub multiline: bool,
}

/// Description of a channel kind.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChannelKind {
    /// Identifier, the value of [`crate::channel::Channel::kind`].
    pub name: &'static str,
    /// Display name in the dashboard.
    pub label: &'static str,
    /// True if the receiver tracks each incident; its notifications are never combined to a digest.
    pub tracks_incidents: bool,
    /// Settings of the kind, in display order.
    pub fields: &'static [ChannelField],
}

/// Reason for a failed delivery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Temporary failure; delivery is retried.
    #[error("{reason}")]
    Transient {
        /// Message for an operator, without secrets.
        reason: String,
        /// Delay that the receiver requested before the next attempt.
        retry_after: Option<Duration>,
    },
    /// Permanent failure; delivery is not retried.
    #[error("{0}")]
    Permanent(String),
}

/// Settings of a channel by [`ChannelField::name`].
pub type ChannelSettings = BTreeMap<String, String>;

/// Port for delivering notifications. Calls block and run on a separate thread.
pub trait Notifier: Send + Sync {
    /// All supported channel kinds.
    fn kinds(&self) -> &'static [ChannelKind];
    /// Validates the settings of a channel; returns name and error of the first invalid setting.
    fn validate(&self, kind: &str, settings: &ChannelSettings) -> Option<(String, String)>;
    /// Notification whose values are escaped for the texts of a channel kind: names make neither links nor
    /// mentions there.
    fn escape_values(&self, _kind: &str, notification: &Notification) -> Notification {
        notification.clone()
    }
    /// Renders a template with a notification.
    ///
    /// # Errors
    /// Returns the message of the template engine if the template is invalid or exceeds its budget.
    fn render(&self, template: &str, notification: &Notification) -> Result<String, String>;
    /// Delivers a notification to a channel. Returns the results of its recipients.
    ///
    /// # Errors
    /// Returns [`SendError::Transient`] if the receiver is unavailable, [`SendError::Permanent`] if it
    /// rejects the notification for all recipients.
    fn send(
        &self,
        kind: &str,
        settings: &ChannelSettings,
        notification: &RenderedNotification<'_>,
    ) -> Result<Delivery, SendError>;
}

/// Finds a channel kind by its name.
pub fn find_kind(notifier: &dyn Notifier, name: &str) -> Option<&'static ChannelKind> {
    notifier.kinds().iter().find(|kind| kind.name == name)
}
