//! Notification channel: filter, timing, template.

use crate::rule::Severity;
use crate::silence::{MatchTarget, Matcher};
use crate::weekly_window::WeeklyWindow;
use perfwatch_model::HumanDuration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Filter of a channel: the alerts that it is notified of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChannelFilter {
    /// Minimum severity of an alert.
    #[serde(default)]
    pub min_severity: Severity,
    /// Hosts, tags and rules of accepted alerts.
    #[serde(default)]
    pub matcher: Matcher,
}

/// Weekly hours in which a channel collects notifications for a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuietHours {
    /// Weekly hours without notifications.
    pub window: WeeklyWindow,
    /// Minimum severity that is sent during quiet hours.
    #[serde(default = "default_except_severity")]
    pub except_severity: Severity,
}

fn default_except_severity() -> Severity {
    Severity::Critical
}

/// Custom title and text of notifications, as Jinja templates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NotificationTemplate {
    /// Template of the title; the default title if empty.
    #[serde(default)]
    pub title: String,
    /// Template of the text; the default text if empty.
    #[serde(default)]
    pub text: String,
}

/// Configured notification target with filter and timing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Stable identifier of the channel (UUIDv7).
    pub id: Uuid,
    /// Display name of the channel.
    pub name: String,
    /// Name of the [`crate::notification::ChannelKind`], such as `webhook` or `email`.
    pub kind: String,
    /// Disabled channels receive no notifications.
    pub enabled: bool,
    /// Settings of the kind, such as addresses and tokens.
    pub settings: BTreeMap<String, String>,
    /// Selects the alerts that are sent.
    pub filter: ChannelFilter,
    /// Escalation: notify only if the incident stays unacknowledged for this time.
    pub escalate_after: HumanDuration,
    /// Interval of reminders until acknowledgment; zero disables reminders.
    pub repeat_interval: HumanDuration,
    /// Sends a notification when an incident is resolved.
    pub send_resolved: bool,
    /// Weekly quiet hours, if configured.
    pub quiet_hours: Option<QuietHours>,
    /// Custom templates of title and text.
    pub template: NotificationTemplate,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Settings contain credentials.
        f.debug_struct("Channel").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Channel {
    /// Returns whether the channel is enabled and its filter matches an alert.
    pub fn accepts(&self, target: MatchTarget<'_>) -> bool {
        self.enabled && target.severity >= self.filter.min_severity && self.filter.matcher.matches(target)
    }

    /// End of the current quiet hours for a severity, in milliseconds since 1970; `None` if not muted.
    pub fn muted_until(&self, severity: Severity, now_ms: i64) -> Option<i64> {
        let quiet = self.quiet_hours.as_ref().filter(|quiet| severity < quiet.except_severity)?;
        quiet.window.active_until(now_ms)
    }
}
