//! When nobody is told: silences that end, and maintenance that comes again each week.

use crate::rule::Severity;
use crate::weekly_window::WeeklyWindow;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Which alerts: all of these that are given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Matcher {
    /// Of one of these hosts.
    #[serde(default)]
    pub hosts: Vec<Uuid>,
    /// Of hosts with one of these tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// By one of these rules.
    #[serde(default)]
    pub rules: Vec<Uuid>,
}

/// What is said of an alert when it is matched.
#[derive(Debug, Clone, Copy)]
pub struct MatchTarget<'a> {
    /// Whose; nil for the hub.
    pub host: Uuid,
    /// Of the host.
    pub tags: &'a [String],
    /// By which rule.
    pub rule: Uuid,
    /// How bad.
    pub severity: Severity,
}

impl Matcher {
    /// Whether an alert is meant.
    pub fn matches(&self, subject: MatchTarget<'_>) -> bool {
        let any = |given: usize, hit: bool| given == 0 || hit;
        any(self.hosts.len(), self.hosts.contains(&subject.host))
            && any(self.tags.len(), subject.tags.iter().any(|tag| self.tags.contains(tag)))
            && any(self.rules.len(), self.rules.contains(&subject.rule))
    }
}

/// A time in which some alerts tell nobody; they stand in the books as ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Silence {
    /// For ever.
    pub id: Uuid,
    /// Which alerts.
    pub matcher: Matcher,
    /// Why.
    pub comment: String,
    /// Who made it.
    pub created_by: String,
    /// When, milliseconds since 1970.
    pub created_ms: i64,
    /// From when.
    pub starts_ms: i64,
    /// Until when; for good if none.
    pub ends_ms: Option<i64>,
    /// Only in these hours of the week.
    pub weekly: Option<WeeklyWindow>,
}

impl Silence {
    /// Whether it holds at a moment.
    pub fn is_active(&self, now_ms: i64) -> bool {
        self.starts_ms <= now_ms
            && self.ends_ms.is_none_or(|ends| now_ms < ends)
            && self.weekly.as_ref().is_none_or(|weekly| weekly.active_until(now_ms).is_some())
    }

    /// Whether an alert tells nobody for it.
    pub fn applies_to(&self, subject: MatchTarget<'_>, now_ms: i64) -> bool {
        self.matcher.matches(subject) && self.is_active(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_matches_all_criteria_within_its_window() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let tags = ["web".to_owned()];
        let subject = MatchTarget { host: one, tags: &tags, rule: two, severity: Severity::Warning };
        let matcher = |hosts: &[Uuid], tags: &[&str], rules: &[Uuid]| Matcher {
            hosts: hosts.to_vec(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            rules: rules.to_vec(),
        };
        for (matcher, want) in [
            (Matcher::default(), true),
            (matcher(&[one], &[], &[]), true),
            (matcher(&[two], &[], &[]), false),
            (matcher(&[one], &["db"], &[]), false),
            (matcher(&[one, two], &["web", "db"], &[two]), true),
        ] {
            assert_eq!(matcher.matches(subject), want, "{matcher:?}");
        }
        let mut silence = Silence {
            id: one,
            matcher: Matcher::default(),
            comment: String::new(),
            created_by: String::new(),
            created_ms: 0,
            starts_ms: 1_000,
            ends_ms: Some(2_000),
            weekly: None,
        };
        assert!(
            !silence.applies_to(subject, 999)
                && silence.applies_to(subject, 1_000)
                && !silence.applies_to(subject, 2_000)
        );
        let hours =
            WeeklyWindow { days: vec![], from: "02:00".into(), to: "03:00".into(), timezone: String::new() };
        (silence.ends_ms, silence.weekly) = (None, Some(hours));
        assert!(!silence.is_active(3_600_000) && silence.is_active(2 * 3_600_000));
    }
}
