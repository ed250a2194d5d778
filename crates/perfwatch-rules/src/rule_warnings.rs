//! Warnings about valid rules that probably never fire. Such rules are saved: agents of a newer release may send
//! metrics that this hub does not know.

use crate::condition::instance_matches;
use crate::host_evaluator::{METRIC_CLOCK_SKEW, METRIC_LOAD_PER_CORE};
use crate::rule::Rule;
use perfwatch_model::Catalog;
use perfwatch_model::similar_name::similar_name;

/// Metrics that are derived during evaluation and are not in the catalog.
const DERIVED_METRICS: [&str; 2] = [METRIC_CLOCK_SKEW, METRIC_LOAD_PER_CORE];

/// Warnings about the metric and the instance patterns of a rule, with the path of the field.
pub fn rule_warnings(rule: &Rule, catalog: &Catalog) -> Vec<String> {
    let Some((metric, instance)) = rule.condition.selector() else { return Vec::new() };
    let is_derived = DERIVED_METRICS.contains(&metric);
    let Some(def) = catalog.get(metric).filter(|_| !is_derived) else {
        return if is_derived { Vec::new() } else { vec![unknown_metric(metric, catalog)] };
    };
    if def.dimension.is_empty() && !instance_matches(instance, "") {
        return vec![format!("condition.instance: {metric} has no instances; the rule matches no series")];
    }
    Vec::new()
}

fn unknown_metric(metric: &str, catalog: &Catalog) -> String {
    let names = catalog.metrics().iter().map(|def| def.name).chain(DERIVED_METRICS);
    let advice = match similar_name(metric, names) {
        Some(name) => format!("did you mean {name}?"),
        None => "expected a name of /api/v1/catalog".to_owned(),
    };
    format!("condition.metric: unknown metric {metric:?}; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{MetricDef, Unit};

    #[test]
    fn rules_that_match_no_series_have_warnings() {
        let usage = MetricDef::gauge("cpu.usage", Unit::Percent, 1, "");
        let used = MetricDef::gauge("filesystem.used", Unit::Bytes, 0, "").with_dimension("mount");
        let catalog = Catalog::new([usage, used]);
        for (condition, expected) in [
            (r#"{"metric": "cpu.usage"}"#, None),
            (r#"{"metric": "cpu.usge"}"#, Some("did you mean cpu.usage?")),
            (r#"{"metric": "load.per_cores"}"#, Some("did you mean load.per_core?")),
            (r#"{"metric": "load.per_core"}"#, None),
            (r#"{"metric": "battery.charge"}"#, Some("expected a name of /api/v1/catalog")),
            (r#"{"metric": "cpu.usage", "instance": "0"}"#, Some("condition.instance: cpu.usage has no")),
            (r#"{"metric": "cpu.usage", "instance": "*"}"#, None),
            (r#"{"metric": "filesystem.used", "instance": "/data*"}"#, None),
        ] {
            let mut condition: serde_json::Value = serde_json::from_str(condition).unwrap();
            condition["kind"] = "threshold".into();
            condition["threshold"] = 90.into();
            let rule = serde_json::json!({ "name": "x", "condition": condition });
            let rule: Rule = serde_json::from_value(rule).unwrap();
            let warnings = rule_warnings(&rule, &catalog);
            assert_eq!(warnings.len(), usize::from(expected.is_some()), "{rule:?}: {warnings:?}");
            assert!(expected.is_none_or(|expected| warnings[0].contains(expected)), "{warnings:?}");
        }
    }
}
