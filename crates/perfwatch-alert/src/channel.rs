//! Who is told, of what, and when: a channel hears what its filter lets through, at once or only
//! of what nobody took on for a while, and keeps quiet at night if it is asked to.

use crate::calendar::Weekly;
use crate::rule::Severity;
use crate::silence::{Matcher, Subject};
use perfwatch_model::Span;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What a channel hears.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hears {
    /// From this on.
    #[serde(default)]
    pub severity: Severity,
    /// Only of these hosts, tags and rules.
    #[serde(default)]
    pub only: Matcher,
}

/// Hours in which a channel keeps what it has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quiet {
    /// When.
    pub hours: Weekly,
    /// What is as bad as this is told all the same.
    #[serde(default = "critical")]
    pub but: Severity,
}

fn critical() -> Severity {
    Severity::Critical
}

/// Words of one's own in place of the usual ones, in the language of Jinja.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Template {
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
    pub hears: Hears,
    /// Only of what nobody acknowledged for so long: escalation.
    pub after: Span,
    /// Once more as long as nobody acknowledged; never if none.
    pub repeat: Span,
    /// When it is over, too.
    pub resolved: bool,
    /// When it keeps quiet.
    pub quiet: Option<Quiet>,
    /// Words of one's own.
    pub template: Template,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without what lets one in.
        f.debug_struct("Channel").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Channel {
    /// Whether it is told of an alert.
    pub fn hears(&self, subject: Subject<'_>) -> bool {
        self.enabled && subject.severity >= self.hears.severity && self.hears.only.matches(subject)
    }

    /// Until when it keeps quiet about what is so bad.
    pub fn quiet_until(&self, severity: Severity, now_ms: i64) -> Option<i64> {
        let quiet = self.quiet.as_ref().filter(|quiet| severity < quiet.but)?;
        quiet.hours.until(now_ms)
    }
}
