//! Alert rule and its validation.

use crate::condition::Condition;
use crate::window::Aggregate;
use perfwatch_model::HumanDuration;
use perfwatch_model::printable::{is_hidden, is_unprintable};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Severity of an alert, from low to high.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Severity {
    /// Information; no action needed.
    Info,
    /// Needs attention within a day.
    #[default]
    Warning,
    /// Needs immediate attention by an operator.
    Critical,
}

impl Severity {
    /// Name in the API and in notifications.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// Parses a severity from its name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Info, Self::Warning, Self::Critical].into_iter().find(|severity| severity.name() == name)
    }
}

/// Selects hosts by id or by tag. All hosts match if `hosts` and `tags` are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostSelector {
    /// Ids of selected hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Uuid>,
    /// Tags that select a host; any of them is sufficient.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Tags that exclude a host, even if its id is listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_tags: Vec<String>,
}

/// Grouping of alerts to incidents. Each incident sends its own notifications.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum GroupBy {
    /// All alerts of a single host.
    #[default]
    Host,
    /// All alerts of this rule, across hosts.
    Rule,
    /// Alerts of hosts that share the value of this tag (`environment` of `environment=production`).
    Tag(String),
}

/// Alert rule: condition, hold time, severity, grouping and host selector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rule {
    /// Stable identifier of the rule (UUIDv7).
    #[serde(default = "Uuid::now_v7")]
    pub id: Uuid,
    /// Display name of the rule.
    pub name: String,
    /// Instructions, shown with each alert of the rule.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub runbook: String,
    /// Disabled rules are not evaluated.
    #[serde(default = "perfwatch_model::default_true")]
    pub enabled: bool,
    /// Severity of the rule's alerts.
    #[serde(default)]
    pub severity: Severity,
    /// Hosts that the rule is evaluated on.
    #[serde(default)]
    pub hosts: HostSelector,
    /// Condition that must hold to fire.
    pub condition: Condition,
    /// Time for which the condition must hold without interruption.
    #[serde(default, rename = "for")]
    pub hold_for: HumanDuration,
    /// Grouping of alerts to incidents.
    #[serde(default)]
    pub group_by: GroupBy,
}

/// Validation error of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct RuleError {
    /// Path of the invalid field, such as `condition.threshold`.
    pub field: &'static str,
    /// Requirement that the field violates.
    pub message: String,
}

/// Maximum window, lookback and hold time of a rule. Limits the history that a replay reads.
pub const MAX_LOOKBACK: HumanDuration = HumanDuration::from_s(7 * 86_400);

impl HostSelector {
    /// Returns whether a host is selected.
    pub fn matches(&self, host: Uuid, tags: &[String]) -> bool {
        let selects_all = self.hosts.is_empty() && self.tags.is_empty();
        let is_selected =
            selects_all || self.hosts.contains(&host) || tags.iter().any(|tag| self.tags.contains(tag));
        is_selected && !tags.iter().any(|tag| self.exclude_tags.contains(tag))
    }
}

impl Rule {
    /// Length of the history that determines the current state: lookback plus hold time.
    pub fn lookback(&self) -> HumanDuration {
        HumanDuration::from_ms(self.condition.lookback().ms().saturating_add(self.hold_for.ms()))
    }

    /// Validates all fields of the rule.
    ///
    /// # Errors
    /// Returns a [`RuleError`] for the first invalid field.
    pub fn validate(&self) -> Result<(), RuleError> {
        let invalid = |field, message: &str| Err(RuleError { field, message: message.to_owned() });
        if self.name.trim().is_empty() || self.name.len() > 100 || self.name.contains(is_hidden) {
            return invalid("name", "must have 1 to 100 bytes and no control characters");
        }
        if self.runbook.len() > 4_000 || self.runbook.contains(is_unprintable) {
            return invalid("runbook", "must have at most 4,000 bytes and no control characters");
        }
        if self.hosts.hosts.len() > 1_000 || self.hosts.tags.len() + self.hosts.exclude_tags.len() > 100 {
            return invalid("hosts", "must have at most 1,000 hosts and 100 tags");
        }
        if self.hold_for > MAX_LOOKBACK {
            return invalid("for", "must be at most 7d");
        }
        if matches!(&self.group_by, GroupBy::Tag(key) if key.is_empty() || key.len() > 64) {
            return invalid("group_by", "tag key must have 1 to 64 bytes");
        }
        let threshold = self.condition.threshold();
        if ![Some(threshold.value), threshold.clear_value].into_iter().flatten().all(f64::is_finite) {
            return invalid("condition.threshold", "must be a finite number");
        }
        if let Some(clear) = threshold.clear_value
            && threshold.is_worse(clear, threshold.value)
        {
            return invalid(
                "condition.clear_threshold",
                "must be on the non-breaching side of the threshold",
            );
        }
        if let Some((metric, instance)) = self.condition.selector() {
            if !perfwatch_model::wire::is_metric_name(metric) {
                return invalid("condition.metric", "must be a dotted metric name such as cpu.usage");
            }
            if instance.is_some_and(|instance| instance.is_empty() || instance.len() > 1_000) {
                return invalid("condition.instance", "must have 1 to 1,000 bytes");
            }
        }
        if self.condition.lookback() > MAX_LOOKBACK {
            return invalid("condition.window", "lookback must be at most 7d");
        }
        match &self.condition {
            Condition::Threshold { aggregate, window, .. }
                if *aggregate != Aggregate::Last && window.ms() < 1_000 =>
            {
                invalid("condition.window", "must be at least 1s unless the aggregate is last")
            }
            Condition::Change { window, offset, .. } if window.ms() < 10_000 || offset < window => {
                invalid("condition.offset", "must be at least the window; the window must be at least 10s")
            }
            Condition::Forecast { lookback, horizon, target, .. } => {
                if lookback.ms() < 900_000 {
                    return invalid("condition.lookback", "must be at least 15m");
                }
                if horizon.ms() < 60_000 {
                    return invalid("condition.horizon", "must be at least 1m");
                }
                if !target.is_finite() {
                    return invalid("condition.target", "must be a finite number");
                }
                Ok(())
            }
            Condition::Absent { grace, .. } | Condition::NoData { grace } if grace.ms() < 5_000 => {
                invalid("condition.grace", "must be at least 5s")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_selector_by_id_tag_or_all() {
        let (listed, unlisted) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let web = ["web".to_owned()];
        assert!(HostSelector::default().matches(listed, &[]));
        let selector =
            HostSelector { hosts: vec![listed], tags: web.to_vec(), exclude_tags: vec!["lab".into()] };
        assert!(
            selector.matches(listed, &[])
                && selector.matches(unlisted, &web)
                && !selector.matches(unlisted, &[])
        );
        assert!(!selector.matches(listed, &["lab".to_owned()]));
    }

    #[test]
    fn rule_json_is_parsed_and_validated() {
        let rule: Rule = serde_json::from_str(
            r#"{"name": "CPU", "for": "10s",
                "condition": {"kind": "threshold", "metric": "cpu.usage", "threshold": 90}}"#,
        )
        .unwrap();
        assert_eq!((rule.hold_for.ms(), rule.enabled, rule.severity), (10_000, true, Severity::Warning));
        assert_eq!(rule.validate(), Ok(()));
        let parsed: Rule = serde_json::from_str(&serde_json::to_string(&rule).unwrap()).unwrap();
        assert_eq!(parsed, rule);
        for (condition, field) in [
            (r#"{"kind":"threshold","metric":"CPU usage","threshold":90}"#, "condition.metric"),
            (
                r#"{"kind":"threshold","metric":"cpu.usage","threshold":90,"clear_threshold":95}"#,
                "condition.clear_threshold",
            ),
            (
                r#"{"kind":"threshold","metric":"cpu.usage","threshold":90,"aggregate":"mean"}"#,
                "condition.window",
            ),
            (
                r#"{"kind":"threshold","metric":"cpu.usage","threshold":90,"aggregate":"mean",
                    "window":"8d"}"#,
                "condition.window",
            ),
            (r#"{"kind":"no_data","grace":"1s"}"#, "condition.grace"),
            (
                r#"{"kind":"change","metric":"cpu.usage","threshold":9,"window":"1h","offset":"1m"}"#,
                "condition.offset",
            ),
        ] {
            let condition: Condition = serde_json::from_str(condition).unwrap();
            assert_eq!(Rule { condition, ..rule.clone() }.validate().unwrap_err().field, field);
        }
        for invalid in [r#"{"kind":"threshold","metric":"a","treshold":90}"#, r#"{"kind":"never"}"#, "{}"] {
            assert!(serde_json::from_str::<Condition>(invalid).is_err(), "{invalid}");
        }
    }
}
