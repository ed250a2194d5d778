//! Who is told, of what, and when: a channel hears what its filter lets through, at once or only
//! of what nobody took on for a while, and keeps quiet at night if it is asked to.

use crate::rule::Severity;
use crate::silence::{MatchTarget, Matcher};
use crate::weekly_window::WeeklyWindow;
use perfwatch_model::HumanDuration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What a channel hears.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChannelFilter {
    /// From this on.
    #[serde(default)]
    pub min_severity: Severity,
    /// Only of these hosts, tags and rules.
    #[serde(default)]
    pub matcher: Matcher,
}

/// Hours in which a channel keeps what it has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuietHours {
    /// When.
    pub window: WeeklyWindow,
    /// What is as bad as this is told all the same.
    #[serde(default = "default_except_severity")]
    pub except_severity: Severity,
}

fn default_except_severity() -> Severity {
    Severity::Critical
}

/// Words of one's own in place of the usual ones, in the language of Jinja.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NotificationTemplate {
    /// Of the title; the usual one if empty.
    #[serde(default)]
    pub title: String,
    /// Of the text; the usual one if empty.
    #[serde(default)]
    pub text: String,
}

/// One way to tell people.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// For ever.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// `webhook`, `email`, `slack`…: see the notifier's kinds.
    pub kind: String,
    /// Whether it is used.
    pub enabled: bool,
    /// What the kind needs: addresses, tokens.
    pub settings: BTreeMap<String, String>,
    /// What it hears.
    pub filter: ChannelFilter,
    /// Only of what nobody acknowledged for so long: escalation.
    pub escalate_after: HumanDuration,
    /// Once more as long as nobody acknowledged; never if none.
    pub repeat_interval: HumanDuration,
    /// When it is over, too.
    pub send_resolved: bool,
    /// When it keeps quiet.
    pub quiet_hours: Option<QuietHours>,
    /// Words of one's own.
    pub template: NotificationTemplate,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without what lets one in.
        f.debug_struct("Channel").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Channel {
    /// Whether it is told of an alert.
    pub fn filter(&self, subject: MatchTarget<'_>) -> bool {
        self.enabled && subject.severity >= self.filter.min_severity && self.filter.matcher.matches(subject)
    }

    /// Until when it keeps quiet about what is so bad.
    pub fn muted_until(&self, severity: Severity, now_ms: i64) -> Option<i64> {
        let quiet = self.quiet_hours.as_ref().filter(|quiet| severity < quiet.except_severity)?;
        quiet.window.active_until(now_ms)
    }
}
