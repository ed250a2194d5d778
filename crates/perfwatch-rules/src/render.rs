//! Text rendering of rules, values and notifications.

use crate::condition::{Comparison, Condition};
use crate::explain::{Resource, TopConsumer, TopMover};
use crate::hub_metric::HubMetric;
use crate::incident::NotificationReason;
use crate::notification::{AlertSummary, Notification};
use crate::rule::Rule;
use crate::window::Aggregate;
use perfwatch_model::value_format::{format_duration, format_value};
use perfwatch_model::{Catalog, HumanDuration, Unit};
use std::fmt::Write as _;

/// Unit of the evaluated value of a condition; `None` for plain numbers.
pub fn condition_unit(condition: &Condition, catalog: &Catalog) -> Option<Unit> {
    match condition {
        Condition::Threshold { metric, .. } if metric == crate::host_evaluator::METRIC_CLOCK_SKEW => {
            Some(Unit::Milliseconds)
        }
        Condition::Threshold { metric, .. } => catalog.get(metric).map(|def| def.unit),
        Condition::Hub { hub_metric, .. } => Some(hub_metric.def().unit).filter(|unit| *unit != Unit::Count),
        Condition::Change { .. } => Some(Unit::Percent),
        Condition::Absent { .. } | Condition::NoData { .. } => Some(Unit::Seconds),
        Condition::Forecast { .. } => None,
    }
}

fn format_series(metric: &str, instance: &str) -> String {
    if instance.is_empty() { metric.to_owned() } else { format!("{metric}{{{instance}}}") }
}

/// Renders the condition of a rule: `cpu.usage above 90 % for 10s`.
pub fn render_condition(rule: &Rule, catalog: &Catalog) -> String {
    // Exclusions are omitted for brevity.
    let patterns = rule.condition.selector().and_then(|(_, instance)| instance).unwrap_or_default();
    let inclusions: Vec<&str> =
        patterns.split(',').map(str::trim).filter(|pattern| !pattern.starts_with('!')).collect();
    format!("{}{}", render_subject(&rule.condition, &inclusions.join(",")), render_expectation(rule, catalog))
}

fn render_subject(condition: &Condition, instance: &str) -> String {
    match condition {
        Condition::NoData { .. } => "no data".to_owned(),
        Condition::Hub { hub_metric, .. } => hub_metric.def().label.to_owned(),
        Condition::Threshold { metric, aggregate, window, .. } => {
            let name = format_series(metric, instance);
            let aggregated = |function: &str| format!("{function} of {name} over {window}");
            match aggregate {
                Aggregate::Last => name,
                Aggregate::Mean => aggregated("average"),
                Aggregate::Min => aggregated("minimum"),
                Aggregate::Max => aggregated("maximum"),
                Aggregate::P95 => aggregated("95th percentile"),
            }
        }
        Condition::Change { metric, .. }
        | Condition::Forecast { metric, .. }
        | Condition::Absent { metric, .. } => format_series(metric, instance),
    }
}

fn render_expectation(rule: &Rule, catalog: &Catalog) -> String {
    let threshold = rule.condition.threshold();
    let side = if threshold.compare == Comparison::Above { "above" } else { "below" };
    let limit = format_value(threshold.value, condition_unit(&rule.condition, catalog));
    let mut text = match &rule.condition {
        Condition::Hub { hub_metric: HubMetric::IngestBlocked, .. } => String::new(),
        condition if condition_unit(condition, catalog) == Some(Unit::Flag) => {
            let breaching = f64::from(threshold.compare == Comparison::Above);
            format!(" is {}", format_value(breaching, Some(Unit::Flag)))
        }
        Condition::Threshold { .. } | Condition::Hub { .. } => format!(" {side} {limit}"),
        Condition::Change { offset, .. } => {
            format!(" change {side} {limit} compared with {offset} ago")
        }
        Condition::Forecast { metric, horizon, target, compare, .. } => {
            let verb = forecast_verb(*compare);
            let target = format_value(*target, catalog.get(metric).map(|def| def.unit));
            format!(" {verb} {target} within {horizon}")
        }
        Condition::Absent { grace, .. } => format!(" absent for {grace}"),
        Condition::NoData { grace } => format!(" for {grace}"),
    };
    if rule.hold_for > HumanDuration::default() {
        // Writing to a `String` cannot fail.
        let _ = write!(text, " for {}", rule.hold_for);
    }
    text
}

fn forecast_verb(compare: Comparison) -> &'static str {
    if compare == Comparison::Above { "reaches" } else { "falls to" }
}

/// Renders the current value of an alert: `cpu.usage is 97.2 % (above 90 % for 10s)`.
pub fn render_summary(rule: &Rule, instance: &str, value: Option<f64>, catalog: &Catalog) -> String {
    let duration = |seconds: f64| format_duration(seconds.round());
    let subject = render_subject(&rule.condition, instance);
    let Some(value) = value else { return format!("{subject}{}", render_expectation(rule, catalog)) };
    match &rule.condition {
        Condition::NoData { .. } => format!("no data for {}", duration(value)),
        Condition::Absent { .. } => format!("{subject} absent for {}", duration(value)),
        Condition::Forecast { metric, target, compare, .. } => {
            let verb = forecast_verb(*compare);
            let target = format_value(*target, catalog.get(metric).map(|def| def.unit));
            format!("{subject} {verb} {target} in {}", duration((value * 60.0).round() * 60.0))
        }
        Condition::Change { offset, .. } => {
            let direction = if value >= 0.0 { "more" } else { "less" };
            let change = format_value(value.abs(), Some(Unit::Percent));
            format!("{subject} is {change} {direction} than {offset} ago")
        }
        Condition::Hub { hub_metric: HubMetric::IngestBlocked, .. } => subject,
        _ => {
            let unit = condition_unit(&rule.condition, catalog);
            if unit == Some(Unit::Flag) {
                return format!("{subject}{}", render_expectation(rule, catalog));
            }
            format!(
                "{subject} is {} ({})",
                format_value(value, unit),
                render_expectation(rule, catalog).trim_start()
            )
        }
    }
}

/// Renders a top consumer: `burner (pid 9, root) 99.8 % (was 0.1 %)`.
pub fn render_consumer(consumer: &TopConsumer, resource: Resource) -> String {
    let unit = match resource {
        Resource::Cpu => Unit::Percent,
        Resource::Memory => Unit::Bytes,
        Resource::Io => Unit::BytesPerSecond,
        Resource::OpenFiles => Unit::Count,
    };
    let baseline = match consumer.baseline {
        Some(baseline) => format!(" (was {})", format_value(baseline, Some(unit))),
        None => " (was not a top consumer)".to_owned(),
    };
    format!(
        "{} (pid {}, {}) {}{baseline}",
        consumer.name,
        consumer.pid,
        consumer.user,
        format_value(consumer.current, Some(unit))
    )
}

/// Renders a top mover: `load.1m 0.3 → 4.1`.
pub fn render_mover(mover: &TopMover, catalog: &Catalog) -> String {
    let unit = catalog.get(&mover.metric).map(|def| def.unit);
    format!(
        "{} {} → {}",
        format_series(&mover.metric, &mover.instance),
        format_value(mover.baseline, unit),
        format_value(mover.current, unit)
    )
}

/// Renders the default title of a notification.
pub fn render_title(notification: &Notification) -> String {
    let severity = notification.severity.name().to_uppercase();
    match notification.reason {
        NotificationReason::Opened | NotificationReason::Updated => {
            format!("[{severity}] {}", notification.subject)
        }
        NotificationReason::Reopened => format!("[{severity} REOPENED] {}", notification.subject),
        NotificationReason::Reminder => format!("[{severity} REMINDER] {}", notification.subject),
        NotificationReason::Resolved => format!("[RESOLVED] {}", notification.subject),
        NotificationReason::Test => format!("[TEST] {}", notification.subject),
    }
}

fn write_alert(alert: &AlertSummary, out: &mut String) {
    let symbol = if alert.firing { "●" } else { "✓" };
    let _ = writeln!(out, "{symbol} {}: {} — {}", alert.host, alert.rule, alert.summary);
    if !alert.firing {
        return;
    }
    let mut write_list = |heading: &str, lines: &[String], max: usize| {
        if !lines.is_empty() {
            let _ = writeln!(out, "  {heading}:");
            lines.iter().take(max).for_each(|line| {
                let _ = writeln!(out, "    {line}");
            });
        }
    };
    write_list("Top consumers", &alert.consumers, 3);
    write_list("Top movers", &alert.movers, 4);
    if !alert.runbook.is_empty() {
        let _ = writeln!(out, "  {}", alert.runbook);
    }
    if !alert.url.is_empty() {
        let _ = writeln!(out, "  {}", alert.url);
    }
}

/// Maximum number of alerts listed in a text.
const MAX_ALERTS_IN_TEXT: usize = 20;

/// Renders the default text of a notification.
pub fn render_text(notification: &Notification) -> String {
    let mut out = String::new();
    if !notification.digest.is_empty() {
        let _ = writeln!(out, "Pending while the channel was muted or unreachable:");
        notification.digest.iter().for_each(|line| {
            let _ = writeln!(out, "- {line}");
        });
    }
    notification.alerts.iter().take(MAX_ALERTS_IN_TEXT).for_each(|alert| write_alert(alert, &mut out));
    let omitted = notification.alerts.len().saturating_sub(MAX_ALERTS_IN_TEXT) + notification.omitted_alerts;
    if omitted > 0 {
        let _ = writeln!(out, "and {omitted} more");
    }
    if !notification.url.is_empty() {
        let _ = writeln!(out, "{}", notification.url);
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_summaries_are_rendered() {
        let catalog = Catalog::new([
            perfwatch_model::MetricDef::ratio("cpu.usage", Unit::Percent, 1, "x"),
            perfwatch_model::MetricDef::gauge("filesystem.unresponsive", Unit::Flag, 0, "x")
                .with_dimension("mount"),
            perfwatch_model::MetricDef::gauge("filesystem.used_percent", Unit::Percent, 1, "x")
                .with_dimension("mount"),
        ]);
        for (condition, for_s, instance, value, description, summary) in [
            (
                r#"{"kind":"threshold","metric":"cpu.usage","threshold":90}"#,
                10,
                "",
                97.23,
                "cpu.usage above 90 % for 10s",
                "cpu.usage is 97.2 % (above 90 % for 10s)",
            ),
            (
                r#"{"kind":"threshold","metric":"cpu.usage","aggregate":"mean","window":"5m",
                    "threshold":90}"#,
                0,
                "",
                95.0,
                "average of cpu.usage over 5m above 90 %",
                "average of cpu.usage over 5m is 95 % (above 90 %)",
            ),
            (r#"{"kind":"no_data","grace":"1m"}"#, 0, "", 61.4, "no data for 1m", "no data for 1 min 1 s"),
            (
                r#"{"kind":"forecast","metric":"filesystem.used_percent","lookback":"6h",
                    "horizon":"1d","target":100}"#,
                0,
                "/srv",
                5.51,
                "filesystem.used_percent reaches 100 % within 1d",
                "filesystem.used_percent{/srv} reaches 100 % in 5 h 31 min",
            ),
            (
                r#"{"kind":"change","metric":"cpu.usage","window":"5m","offset":"1d","threshold":50}"#,
                0,
                "",
                73.0,
                "cpu.usage change above 50 % compared with 1d ago",
                "cpu.usage is 73 % more than 1d ago",
            ),
            (
                r#"{"kind":"absent","metric":"cpu.usage","grace":"1m"}"#,
                0,
                "",
                90.0,
                "cpu.usage absent for 1m",
                "cpu.usage absent for 1 min 30 s",
            ),
        ] {
            let rule = Rule {
                condition: serde_json::from_str(condition).unwrap(),
                hold_for: HumanDuration::from_s(for_s),
                ..crate::builtin_rules::builtin_rules().remove(0)
            };
            assert_eq!(render_condition(&rule, &catalog), description);
            assert_eq!(render_summary(&rule, instance, Some(value), &catalog), summary);
        }
    }
}
