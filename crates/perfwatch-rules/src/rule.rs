//! What people ask to be told of: which hosts, what must hold ([`crate::condition`]) and for how
//! long, how bad it is.

use crate::condition::Condition;
use crate::window::Aggregate;
use perfwatch_model::HumanDuration;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How bad it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it today.
    #[default]
    Warning,
    /// Look at it now.
    Critical,
}

impl Severity {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// From its name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Info, Self::Warning, Self::Critical].into_iter().find(|severity| severity.name() == name)
    }
}

/// Which hosts: by id or by tag; all where both are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostSelector {
    /// These.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Uuid>,
    /// Those with one of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// But none with one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_tags: Vec<String>,
}

/// Whose alerts are one incident, and so one message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum GroupBy {
    /// Those of one host.
    #[default]
    Host,
    /// Those of this rule, of all hosts.
    Rule,
    /// Those of hosts with the same value of this tag (`environment` of `environment=production`).
    Tag(String),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rule {
    /// For ever.
    #[serde(default = "Uuid::now_v7")]
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// What to do about it: shown with each alert.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub runbook: String,
    /// Whether anybody looks.
    #[serde(default = "default_true")]
    pub enabled: bool,
    /// How bad it is.
    #[serde(default)]
    pub severity: Severity,
    /// Whom it looks at.
    #[serde(default)]
    pub hosts: HostSelector,
    /// What must hold.
    pub condition: Condition,
    /// Without a break for so long.
    #[serde(default, rename = "for")]
    pub hold_for: HumanDuration,
    /// What is told of at once.
    #[serde(default)]
    pub group_by: GroupBy,
}

fn default_true() -> bool {
    true
}

/// A rule that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct RuleError {
    /// Where, as `when.threshold`.
    pub field: &'static str,
    /// Why not.
    pub message: String,
}

/// Longest window, look-back and patience: what is looked at before there is a verdict.
pub const MAX_LOOKBACK: HumanDuration = HumanDuration::from_s(7 * 86_400);

impl HostSelector {
    /// Whether a host is meant.
    pub fn matches(&self, host: Uuid, tags: &[String]) -> bool {
        let all = self.hosts.is_empty() && self.tags.is_empty();
        let named = all || self.hosts.contains(&host) || tags.iter().any(|tag| self.tags.contains(tag));
        named && !tags.iter().any(|tag| self.exclude_tags.contains(tag))
    }
}

impl Rule {
    /// How much of the past says how it stands now.
    pub fn lookback(&self) -> HumanDuration {
        HumanDuration::from_ms(self.condition.lookback().ms().saturating_add(self.hold_for.ms()))
    }

    /// Whether it can be.
    ///
    /// # Errors
    /// The first field that can't.
    pub fn validate(&self) -> Result<(), RuleError> {
        let bad = |field, message: &str| Err(RuleError { field, message: message.to_owned() });
        if self.name.trim().is_empty() || self.name.len() > 100 || self.name.contains(char::is_control) {
            return bad("name", "name must have 1 to 100 bytes");
        }
        if self.runbook.len() > 4_000 {
            return bad("note", "no more than 4,000 bytes");
        }
        if self.hosts.hosts.len() > 1_000 || self.hosts.tags.len() + self.hosts.exclude_tags.len() > 100 {
            return bad("hosts", "no more than 1,000 hosts and 100 tags");
        }
        if self.hold_for > MAX_LOOKBACK {
            return bad("for", "no more than 7 days");
        }
        if matches!(&self.group_by, GroupBy::Tag(key) if key.is_empty() || key.len() > 64) {
            return bad("group", "which tag?");
        }
        let bound = self.condition.threshold();
        if ![Some(bound.value), bound.clear_value].into_iter().flatten().all(f64::is_finite) {
            return bad("when.threshold", "a finite number");
        }
        if let Some(clear) = bound.clear_value
            && bound.is_worse(clear, bound.value)
        {
            return bad("when.clear", "it must lie on the good side of the threshold");
        }
        if let Some((metric, instance)) = self.condition.selector() {
            if !perfwatch_model::wire::is_metric_name(metric) {
                return bad("when.metric", "a metric's dotted name, as cpu.usage");
            }
            if instance.is_some_and(|instance| instance.is_empty() || instance.len() > 1_000) {
                return bad("when.instance", "1 to 1,000 bytes");
            }
        }
        if self.condition.lookback() > MAX_LOOKBACK {
            return bad("when.window", "no more than 7 days of the past");
        }
        match &self.condition {
            Condition::Threshold { aggregate, window, .. }
                if *aggregate != Aggregate::Last && window.ms() < 1_000 =>
            {
                bad("when.window", "an average, least, largest or percentile is over some time: 1s at least")
            }
            Condition::Change { window, offset: before, .. } if window.ms() < 10_000 || before < window => {
                bad("when.before", "a window of 10s at least, and as long before at least")
            }
            Condition::Forecast { lookback: look_back, horizon: within, target: reaches, .. } => {
                if look_back.ms() < 900_000 {
                    return bad("when.look_back", "15m of the past at least");
                }
                if within.ms() < 60_000 || !reaches.is_finite() {
                    return bad("when.within", "1m at least");
                }
                Ok(())
            }
            Condition::Absent { grace, .. } | Condition::NoData { grace } if grace.ms() < 5_000 => {
                bad("when.grace", "5s at least")
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
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let web = ["web".to_owned()];
        assert!(HostSelector::default().matches(one, &[]));
        let some = HostSelector { hosts: vec![one], tags: web.to_vec(), exclude_tags: vec!["lab".into()] };
        assert!(some.matches(one, &[]) && some.matches(two, &web) && !some.matches(two, &[]));
        assert!(!some.matches(one, &["lab".to_owned()]));
    }

    #[test]
    fn rule_json_is_parsed_and_validated() {
        let rule: Rule = serde_json::from_str(
            r#"{"name": "CPU", "for": "10s", "when": {"kind": "value", "metric": "cpu.usage", "threshold": 90}}"#,
        )
        .unwrap();
        assert_eq!((rule.hold_for.ms(), rule.enabled, rule.severity), (10_000, true, Severity::Warning));
        assert_eq!(rule.validate(), Ok(()));
        let again: Rule = serde_json::from_str(&serde_json::to_string(&rule).unwrap()).unwrap();
        assert_eq!(again, rule);
        for (condition, field) in [
            (r#"{"kind":"value","metric":"CPU usage","threshold":90}"#, "when.metric"),
            (r#"{"kind":"value","metric":"cpu.usage","threshold":90,"clear":95}"#, "when.clear"),
            (r#"{"kind":"value","metric":"cpu.usage","threshold":90,"aggregate":"mean"}"#, "when.window"),
            (
                r#"{"kind":"value","metric":"cpu.usage","threshold":90,"aggregate":"mean","window":"8d"}"#,
                "when.window",
            ),
            (r#"{"kind":"silent","grace":"1s"}"#, "when.grace"),
            (
                r#"{"kind":"change","metric":"cpu.usage","threshold":9,"window":"1h","before":"1m"}"#,
                "when.before",
            ),
        ] {
            let condition: Condition = serde_json::from_str(condition).unwrap();
            assert_eq!(Rule { condition, ..rule.clone() }.validate().unwrap_err().field, field);
        }
        for wrong in [r#"{"kind":"value","metric":"a","treshold":90}"#, r#"{"kind":"never"}"#, "{}"] {
            assert!(serde_json::from_str::<Condition>(wrong).is_err(), "{wrong}");
        }
    }
}
