//! Silences and maintenance windows.

use crate::rule::Severity;
use crate::weekly_window::WeeklyWindow;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Matches alerts by host, tag and rule. Every non-empty list must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Matcher {
    /// Hosts of matching alerts; any host if empty.
    #[serde(default)]
    pub hosts: Vec<Uuid>,
    /// Tags of matching hosts, any of them is sufficient; any host if empty.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Rules of matching alerts; any rule if empty.
    #[serde(default)]
    pub rules: Vec<Uuid>,
}

/// Properties of an alert that filters and silences match.
#[derive(Debug, Clone, Copy)]
pub struct MatchTarget<'a> {
    /// Host of the alert; nil for alerts of the hub itself.
    pub host: Uuid,
    /// Tags of that host.
    pub tags: &'a [String],
    /// Rule that fired the alert.
    pub rule: Uuid,
    /// Severity of the alert.
    pub severity: Severity,
}

impl Matcher {
    /// Returns whether an alert matches.
    pub fn matches(&self, target: MatchTarget<'_>) -> bool {
        (self.hosts.is_empty() || self.hosts.contains(&target.host))
            && (self.tags.is_empty() || target.tags.iter().any(|tag| self.tags.contains(tag)))
            && (self.rules.is_empty() || self.rules.contains(&target.rule))
    }
}

/// Time in which matching alerts send no notifications. Alerts are recorded nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Silence {
    /// Stable identifier of the silence (UUIDv7).
    pub id: Uuid,
    /// Alerts that are silenced.
    pub matcher: Matcher,
    /// Free text, such as the reason.
    pub comment: String,
    /// Name of the creating user.
    pub created_by: String,
    /// Creation time, in milliseconds since 1970.
    pub created_ms: i64,
    /// Start, in milliseconds since 1970.
    pub starts_ms: i64,
    /// Exclusive end, in milliseconds since 1970; unlimited if `None`.
    pub ends_ms: Option<i64>,
    /// Maintenance window: limits the silence to these hours of the week.
    pub weekly: Option<WeeklyWindow>,
}

impl Silence {
    /// Returns whether the silence is in effect at a time.
    pub fn is_active(&self, now_ms: i64) -> bool {
        self.starts_ms <= now_ms
            && self.ends_ms.is_none_or(|ends_ms| now_ms < ends_ms)
            && self.weekly.as_ref().is_none_or(|weekly| weekly.active_until(now_ms).is_some())
    }

    /// Returns whether the silence suppresses the notifications of an alert.
    pub fn applies_to(&self, target: MatchTarget<'_>, now_ms: i64) -> bool {
        self.matcher.matches(target) && self.is_active(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_matches_all_criteria_within_its_window() {
        let (host, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let tags = ["web".to_owned()];
        let target = MatchTarget { host, tags: &tags, rule: other, severity: Severity::Warning };
        let matcher = |hosts: &[Uuid], tags: &[&str], rules: &[Uuid]| Matcher {
            hosts: hosts.to_vec(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            rules: rules.to_vec(),
        };
        for (matcher, expected) in [
            (Matcher::default(), true),
            (matcher(&[host], &[], &[]), true),
            (matcher(&[other], &[], &[]), false),
            (matcher(&[host], &["db"], &[]), false),
            (matcher(&[host, other], &["web", "db"], &[other]), true),
        ] {
            assert_eq!(matcher.matches(target), expected, "{matcher:?}");
        }
        let mut silence = Silence {
            id: host,
            matcher: Matcher::default(),
            comment: String::new(),
            created_by: String::new(),
            created_ms: 0,
            starts_ms: 1_000,
            ends_ms: Some(2_000),
            weekly: None,
        };
        assert!(
            !silence.applies_to(target, 999)
                && silence.applies_to(target, 1_000)
                && !silence.applies_to(target, 2_000)
        );
        let weekly =
            WeeklyWindow { days: vec![], from: "02:00".into(), to: "03:00".into(), timezone: String::new() };
        (silence.ends_ms, silence.weekly) = (None, Some(weekly));
        assert!(!silence.is_active(3_600_000) && silence.is_active(2 * 3_600_000));
    }
}
