//! What people ask to be told of: which hosts, what must hold and for how long, how bad it is.

use crate::step::Verdict;
use crate::window::Aggregate;
use perfwatch_model::Span;
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
    pub fn of(name: &str) -> Option<Self> {
        [Self::Info, Self::Warning, Self::Critical].into_iter().find(|severity| severity.name() == name)
    }
}

/// Which side of the threshold is bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Compare {
    /// Larger than it.
    #[default]
    Above,
    /// Smaller than it.
    Below,
}

/// A figure against a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Which side is bad.
    pub compare: Compare,
    /// From here on it is.
    pub threshold: f64,
    /// Until here it stays so once it was (hysteresis); the threshold itself if none.
    pub clear: Option<f64>,
}

/// Which hosts: by id or by tag; all where both are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Selector {
    /// These.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Uuid>,
    /// Those with one of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// But none with one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_tags: Vec<String>,
}

/// A figure of the hub itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HubFigure {
    /// 1 while it takes nothing in.
    Refusing,
    /// Percent of its disk budget that is in use.
    BudgetUsed,
    /// Messages that could not be delivered, of the last day.
    Undelivered,
}

/// What must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Condition {
    /// A metric, or each instance of it, is beyond a threshold.
    Value {
        /// Dotted name.
        metric: String,
        /// Patterns of instances, as `/data*,!/data/tmp`; each of them if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// Which figure of the window.
        #[serde(default)]
        aggregate: Aggregate,
        /// Over how long; nothing for the latest value.
        #[serde(default)]
        window: Span,
        /// Which side is bad.
        #[serde(default)]
        compare: Compare,
        /// From here on.
        threshold: f64,
        /// Until here it stays so once it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear: Option<f64>,
    },
    /// A metric is by so many percent beyond what it was some time before.
    Change {
        /// Dotted name.
        metric: String,
        /// Patterns of instances; each of them if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// Averages over this long are compared.
        window: Span,
        /// How long before.
        before: Span,
        /// Which side is bad.
        #[serde(default)]
        compare: Compare,
        /// Percent of what it was.
        threshold: f64,
        /// Until here it stays so once it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear: Option<f64>,
    },
    /// A metric that goes on as it went reaches a value before long.
    Forecast {
        /// Dotted name.
        metric: String,
        /// Patterns of instances; each of them if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// The line is drawn through this much of the past.
        look_back: Span,
        /// How soon is too soon.
        within: Span,
        /// What it must not reach.
        reaches: f64,
    },
    /// A host sends, but not this metric any more.
    Missing {
        /// Dotted name.
        metric: String,
        /// Patterns of instances; each that was there if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// For how long.
        grace: Span,
    },
    /// A host does not send.
    Silent {
        /// For how long.
        grace: Span,
    },
    /// The hub itself is not well.
    Hub {
        /// What of it.
        figure: HubFigure,
        /// Which side is bad.
        #[serde(default)]
        compare: Compare,
        /// From here on.
        threshold: f64,
        /// Until here it stays so once it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear: Option<f64>,
    },
}

/// Whose alerts are one incident, and so one message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Group {
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
    pub note: String,
    /// Whether anybody looks.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// How bad it is.
    #[serde(default)]
    pub severity: Severity,
    /// Whom it looks at.
    #[serde(default)]
    pub hosts: Selector,
    /// What must hold.
    pub when: Condition,
    /// Without a break for so long.
    #[serde(default, rename = "for")]
    pub for_: Span,
    /// What is told of at once.
    #[serde(default)]
    pub group: Group,
}

fn yes() -> bool {
    true
}

/// A rule that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct RuleProblem {
    /// Where, as `when.threshold`.
    pub field: &'static str,
    /// Why not.
    pub message: String,
}

/// Longest window, look-back and patience: what is looked at before there is a verdict.
pub const LONGEST: Span = Span::from_s(7 * 86_400);

impl Bound {
    /// What a figure says.
    pub fn verdict(&self, figure: Option<f64>) -> Verdict {
        let Some(figure) = figure.filter(|figure| !figure.is_nan()) else { return Verdict::Unknown };
        let clear = self.clear.unwrap_or(self.threshold);
        let (bad, clear) = match self.compare {
            Compare::Above => (figure > self.threshold, figure <= clear),
            Compare::Below => (figure < self.threshold, figure >= clear),
        };
        match (bad, clear) {
            (true, _) => Verdict::Breach,
            (false, true) => Verdict::Clear,
            (false, false) => Verdict::Between,
        }
    }

    /// Whether one figure is further beyond than another.
    pub fn worse(&self, figure: f64, than: f64) -> bool {
        match self.compare {
            Compare::Above => figure > than,
            Compare::Below => figure < than,
        }
    }
}

impl Selector {
    /// Whether a host is meant.
    pub fn selects(&self, host: Uuid, tags: &[String]) -> bool {
        let all = self.hosts.is_empty() && self.tags.is_empty();
        let named = all || self.hosts.contains(&host) || tags.iter().any(|tag| self.tags.contains(tag));
        named && !tags.iter().any(|tag| self.not_tags.contains(tag))
    }
}

impl Condition {
    /// The metric it looks at, if it does, and which instances.
    pub fn series(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Value { metric, instance, .. }
            | Self::Change { metric, instance, .. }
            | Self::Forecast { metric, instance, .. }
            | Self::Missing { metric, instance, .. } => Some((metric, instance.as_deref())),
            Self::Silent { .. } | Self::Hub { .. } => None,
        }
    }

    /// What its figure is held against. Of a forecast, the figure is the hours that are left; of
    /// what is missing or silent, the seconds that it has been.
    #[expect(clippy::cast_precision_loss, reason = "times of days, to a millisecond")]
    pub fn bound(&self) -> Bound {
        match *self {
            Self::Value { compare, threshold, clear, .. }
            | Self::Change { compare, threshold, clear, .. }
            | Self::Hub { compare, threshold, clear, .. } => Bound { compare, threshold, clear },
            Self::Forecast { within, .. } => {
                let hours = within.ms() as f64 / 3_600_000.0;
                // A quarter more, so that a line that trembles makes one alert.
                Bound { compare: Compare::Below, threshold: hours, clear: Some(hours * 1.25) }
            }
            Self::Missing { grace, .. } | Self::Silent { grace } => {
                Bound { compare: Compare::Above, threshold: grace.ms() as f64 / 1_000.0, clear: None }
            }
        }
    }

    /// The same with another threshold; what clears it keeps its distance.
    #[must_use]
    pub fn with_threshold(&self, new: f64) -> Self {
        let mut other = self.clone();
        if let Self::Value { threshold, clear, .. } | Self::Change { threshold, clear, .. } = &mut other {
            *clear = clear.map(|clear| clear + new - *threshold);
            *threshold = new;
        }
        other
    }

    /// How much of the past there must be for a verdict.
    pub fn looks_back(&self) -> Span {
        match *self {
            Self::Value { window, .. } => window,
            Self::Change { window, before, .. } => Span::from_ms(window.ms() + before.ms()),
            Self::Forecast { look_back, .. } => look_back,
            Self::Missing { grace, .. } => grace,
            Self::Silent { .. } | Self::Hub { .. } => Span::default(),
        }
    }
}

impl Rule {
    /// How much of the past says how it stands now.
    pub fn looks_back(&self) -> Span {
        Span::from_ms(self.when.looks_back().ms() + self.for_.ms())
    }

    /// Whether it can be.
    ///
    /// # Errors
    /// The first field that can't.
    pub fn check(&self) -> Result<(), RuleProblem> {
        let bad = |field, message: &str| Err(RuleProblem { field, message: message.to_owned() });
        if self.name.trim().is_empty() || self.name.len() > 100 || self.name.contains(char::is_control) {
            return bad("name", "a name has 1 to 100 bytes");
        }
        if self.note.len() > 4_000 {
            return bad("note", "no more than 4,000 bytes");
        }
        if self.hosts.hosts.len() > 1_000 || self.hosts.tags.len() + self.hosts.not_tags.len() > 100 {
            return bad("hosts", "no more than 1,000 hosts and 100 tags");
        }
        if self.for_ > LONGEST {
            return bad("for", "no more than 7 days");
        }
        if matches!(&self.group, Group::Tag(key) if key.is_empty() || key.len() > 64) {
            return bad("group", "which tag?");
        }
        let bound = self.when.bound();
        if ![Some(bound.threshold), bound.clear].into_iter().flatten().all(f64::is_finite) {
            return bad("when.threshold", "a finite number");
        }
        if let Some(clear) = bound.clear
            && bound.worse(clear, bound.threshold)
        {
            return bad("when.clear", "it must lie on the good side of the threshold");
        }
        if let Some((metric, instance)) = self.when.series() {
            if !perfwatch_model::wire::is_metric_name(metric) {
                return bad("when.metric", "a metric's dotted name, as cpu.usage");
            }
            if instance.is_some_and(|instance| instance.is_empty() || instance.len() > 1_000) {
                return bad("when.instance", "1 to 1,000 bytes");
            }
        }
        if self.when.looks_back() > LONGEST {
            return bad("when.window", "no more than 7 days of the past");
        }
        match &self.when {
            Condition::Value { aggregate, window, .. }
                if *aggregate != Aggregate::Last && window.ms() < 1_000 =>
            {
                bad("when.window", "an average, least, largest or percentile is over some time: 1s at least")
            }
            Condition::Change { window, before, .. } if window.ms() < 10_000 || before < window => {
                bad("when.before", "a window of 10s at least, and as long before at least")
            }
            Condition::Forecast { look_back, within, reaches, .. } => {
                if look_back.ms() < 300_000 {
                    return bad("when.look_back", "5m of the past at least");
                }
                if within.ms() < 60_000 || !reaches.is_finite() {
                    return bad("when.within", "1m at least");
                }
                Ok(())
            }
            Condition::Missing { grace, .. } | Condition::Silent { grace } if grace.ms() < 5_000 => {
                bad("when.grace", "5s at least")
            }
            _ => Ok(()),
        }
    }
}

/// Whether an instance is meant by patterns as `eth*,!eth9`.
pub fn instance_fits(patterns: Option<&str>, instance: &str) -> bool {
    let Some(patterns) = patterns else { return true };
    let (mut named, mut any) = (false, false);
    for pattern in patterns.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()) {
        match pattern.strip_prefix('!') {
            Some(pattern) if glob(pattern, instance) => return false,
            Some(_) => {}
            None => {
                named = true;
                any |= glob(pattern, instance);
            }
        }
    }
    any || !named
}

/// `*` stands for anything.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_with_and_without_a_clear_threshold() {
        let above = Bound { compare: Compare::Above, threshold: 90.0, clear: Some(80.0) };
        let below = Bound { compare: Compare::Below, threshold: 10.0, clear: None };
        for (bound, figure, want) in [
            (above, Some(90.1), Verdict::Breach),
            (above, Some(90.0), Verdict::Between),
            (above, Some(80.0), Verdict::Clear),
            (above, None, Verdict::Unknown),
            (above, Some(f64::NAN), Verdict::Unknown),
            (below, Some(9.9), Verdict::Breach),
            (below, Some(10.0), Verdict::Clear),
        ] {
            assert_eq!(bound.verdict(figure), want, "{bound:?} {figure:?}");
        }
    }

    #[test]
    fn hosts_by_id_or_tag_or_all() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let web = ["web".to_owned()];
        assert!(Selector::default().selects(one, &[]));
        let some = Selector { hosts: vec![one], tags: web.to_vec(), not_tags: vec!["lab".into()] };
        assert!(some.selects(one, &[]) && some.selects(two, &web) && !some.selects(two, &[]));
        assert!(!some.selects(one, &["lab".to_owned()]));
    }

    #[test]
    fn instances_by_pattern() {
        for (patterns, instance, want) in [
            (None, "eth0", true),
            (Some("eth0"), "eth0", true),
            (Some("eth0"), "eth01", false),
            (Some("eth*"), "eth01", true),
            (Some("/data*, /srv"), "/srv", true),
            (Some("!lo,!veth*"), "eth0", true),
            (Some("!lo,!veth*"), "veth12", false),
            (Some("*,!lo"), "lo", false),
            (Some("*a*b"), "xxaxxb", true),
            (Some("*a*b"), "xxbxxa", false),
            (Some("a*a"), "a", false),
        ] {
            assert_eq!(instance_fits(patterns, instance), want, "{patterns:?} {instance}");
        }
    }

    #[test]
    fn what_people_write_is_read_and_checked() {
        let rule: Rule = serde_json::from_str(
            r#"{"name": "CPU", "for": "10s", "when": {"kind": "value", "metric": "cpu.usage", "threshold": 90}}"#,
        )
        .unwrap();
        assert_eq!((rule.for_.ms(), rule.enabled, rule.severity), (10_000, true, Severity::Warning));
        assert_eq!(rule.check(), Ok(()));
        let again: Rule = serde_json::from_str(&serde_json::to_string(&rule).unwrap()).unwrap();
        assert_eq!(again, rule);
        for (when, field) in [
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
            let when: Condition = serde_json::from_str(when).unwrap();
            assert_eq!(Rule { when, ..rule.clone() }.check().unwrap_err().field, field);
        }
        for wrong in [r#"{"kind":"value","metric":"a","treshold":90}"#, r#"{"kind":"never"}"#, "{}"] {
            assert!(serde_json::from_str::<Condition>(wrong).is_err(), "{wrong}");
        }
    }
}
