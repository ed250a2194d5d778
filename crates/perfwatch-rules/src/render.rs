//! Rules, figures and messages as people read them.

use crate::condition::{Comparison, Condition, HubMetric};
use crate::explain::{Resource, TopConsumer, TopMover};
use crate::incident::NotificationReason;
use crate::notification::{AlertSummary, Notification};
use crate::rule::Rule;
use crate::window::Aggregate;
use perfwatch_model::{Catalog, HumanDuration, Unit};
use std::fmt::Write as _;

/// A number with its unit: `97.2 %`, `1.5 GB`, `12 ms`.
pub fn format_value(value: f64, unit: Option<Unit>) -> String {
    match unit {
        Some(Unit::Percent) => format!("{} %", format_short(value)),
        Some(Unit::Bytes) => format_scaled(value, "B"),
        Some(Unit::BytesPerSecond) => format_scaled(value, "B/s"),
        Some(Unit::PerSecond) => format!("{}/s", format_short(value)),
        Some(Unit::Milliseconds) => format!("{} ms", format_short(value)),
        Some(Unit::Seconds) => format!("{} s", format_short(value)),
        Some(Unit::Celsius) => format!("{} °C", format_short(value)),
        Some(Unit::Megahertz) => format!("{} MHz", format_short(value)),
        Some(Unit::BitsPerSecond) => format_scaled(value, "bit/s"),
        Some(Unit::Rpm) => format!("{} rpm", format_short(value)),
        Some(Unit::Flag) => (if value == 0.0 { "no" } else { "yes" }).to_owned(),
        Some(Unit::Count) | None => format_short(value),
    }
}

/// Three digits or so.
fn format_short(value: f64) -> String {
    let digits = match value.abs() {
        of if of >= 100.0 || of == of.trunc() => 0,
        of if of >= 1.0 => 1,
        of if of >= 0.01 => 2,
        _ => 4,
    };
    format!("{value:.digits$}")
}

fn format_scaled(value: f64, unit: &str) -> String {
    let (mut value, mut prefix) = (value, "");
    for next in ["k", "M", "G", "T", "P"] {
        if value.abs() < 1_000.0 {
            break;
        }
        (value, prefix) = (value / 1_000.0, next);
    }
    format!("{} {prefix}{unit}", format_short(value))
}

/// The unit of what a rule's figure is.
pub fn condition_unit(when: &Condition, catalog: &Catalog) -> Option<Unit> {
    match when {
        Condition::Threshold { metric, .. } if metric == crate::host_evaluator::METRIC_CLOCK_SKEW => {
            Some(Unit::Milliseconds)
        }
        Condition::Threshold { metric, .. } => catalog.get(metric).map(|def| def.unit),
        Condition::Change { .. } | Condition::Hub { hub_metric: HubMetric::DiskBudgetUsed, .. } => {
            Some(Unit::Percent)
        }
        Condition::Hub { hub_metric: HubMetric::IngestBlocked, .. } => Some(Unit::Flag),
        Condition::Absent { .. } | Condition::NoData { .. } => Some(Unit::Seconds),
        Condition::Forecast { .. } | Condition::Hub { .. } => None,
    }
}

fn format_series(metric: &str, instance: &str) -> String {
    if instance.is_empty() { metric.to_owned() } else { format!("{metric}{{{instance}}}") }
}

/// What a rule asks: `cpu.usage above 90 % for 10s`.
pub fn render_condition(rule: &Rule, catalog: &Catalog) -> String {
    // Which are left out is said by the rule itself.
    let patterns = rule.condition.selector().and_then(|(_, instance)| instance).unwrap_or_default();
    let named: Vec<&str> =
        patterns.split(',').map(str::trim).filter(|pattern| !pattern.starts_with('!')).collect();
    format!("{}{}", render_subject(&rule.condition, &named.join(",")), render_expectation(rule, catalog))
}

fn render_subject(when: &Condition, instance: &str) -> String {
    match when {
        Condition::NoData { .. } => "no data".to_owned(),
        Condition::Hub { hub_metric: figure, .. } => match figure {
            HubMetric::IngestBlocked => "ingestion blocked".to_owned(),
            HubMetric::DiskBudgetUsed => "disk budget in use".to_owned(),
            HubMetric::FailedNotifications => "failed notifications".to_owned(),
        },
        Condition::Threshold { metric, aggregate, window, .. } => {
            let name = format_series(metric, instance);
            let of = |what: &str| format!("{what} of {name} over {window}");
            match aggregate {
                Aggregate::Last => name,
                Aggregate::Mean => of("average"),
                Aggregate::Min => of("least"),
                Aggregate::Max => of("largest"),
                Aggregate::P95 => of("95th percentile"),
            }
        }
        Condition::Change { metric, .. }
        | Condition::Forecast { metric, .. }
        | Condition::Absent { metric, .. } => format_series(metric, instance),
    }
}

fn render_expectation(rule: &Rule, catalog: &Catalog) -> String {
    let bound = rule.condition.threshold();
    let side = if bound.compare == Comparison::Above { "above" } else { "below" };
    let threshold = format_value(bound.value, condition_unit(&rule.condition, catalog));
    let mut text = match &rule.condition {
        Condition::Hub { hub_metric: HubMetric::IngestBlocked, .. } => String::new(),
        when if condition_unit(when, catalog) == Some(Unit::Flag) => {
            format!(" is {}", format_value(f64::from(bound.compare == Comparison::Above), Some(Unit::Flag)))
        }
        Condition::Threshold { .. } | Condition::Hub { .. } => format!(" {side} {threshold}"),
        Condition::Change { offset: before, .. } => {
            format!(" {side} {threshold} of change against {before} before")
        }
        Condition::Forecast { metric, horizon: within, target: reaches, compare, .. } => {
            let way = if *compare == Comparison::Above { "reaches" } else { "falls to" };
            format!(
                " {way} {} within {within}",
                format_value(*reaches, catalog.get(metric).map(|def| def.unit))
            )
        }
        Condition::Absent { grace, .. } => format!(" missing for {grace}"),
        Condition::NoData { grace } => format!(" for {grace}"),
    };
    if rule.hold_for > HumanDuration::default() {
        // Writing to a String can't fail.
        let _ = write!(text, " for {}", rule.hold_for);
    }
    text
}

/// What is so now: `cpu.usage is 97.2 % (above 90 % for 10s)`.
#[expect(clippy::cast_possible_truncation, reason = "a span of some days")]
pub fn render_summary(rule: &Rule, instance: &str, value: Option<f64>, catalog: &Catalog) -> String {
    let span = |seconds: f64| HumanDuration::from_s(seconds.round() as i64);
    let subject = render_subject(&rule.condition, instance);
    let Some(value) = value else { return format!("{subject}{}", render_expectation(rule, catalog)) };
    match &rule.condition {
        Condition::NoData { .. } => format!("no data for {}", span(value)),
        Condition::Absent { .. } => format!("{subject} absent for {}", span(value)),
        Condition::Forecast { metric, target: reaches, compare, .. } => {
            let way = if *compare == Comparison::Above { "reaches" } else { "falls to" };
            let reaches = format_value(*reaches, catalog.get(metric).map(|def| def.unit));
            format!("{subject} {way} {reaches} in {}", span((value * 60.0).round() * 60.0))
        }
        Condition::Change { offset: before, .. } => {
            let way = if value >= 0.0 { "more" } else { "less" };
            format!(
                "{subject} is {} {way} than {before} before",
                format_value(value.abs(), Some(Unit::Percent))
            )
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

/// `burner (pid 9, root) 99.8 %, before 0.1 %`.
pub fn render_consumer(consumer: &TopConsumer, resource: Resource) -> String {
    let unit = match resource {
        Resource::Cpu => Unit::Percent,
        Resource::Memory => Unit::Bytes,
        Resource::Io => Unit::BytesPerSecond,
        Resource::OpenFiles => Unit::Count,
    };
    let before = match consumer.baseline {
        Some(before) => format!(" (was {})", format_value(before, Some(unit))),
        None => " (was not a top consumer)".to_owned(),
    };
    format!(
        "{} (pid {}, {}) {}{before}",
        consumer.name,
        consumer.pid,
        consumer.user,
        format_value(consumer.current, Some(unit))
    )
}

/// `load.1m 0.3 → 4.1`.
pub fn render_mover(mover: &TopMover, catalog: &Catalog) -> String {
    let unit = catalog.get(&mover.metric).map(|def| def.unit);
    format!(
        "{} {} → {}",
        format_series(&mover.metric, &mover.instance),
        format_value(mover.baseline, unit),
        format_value(mover.current, unit)
    )
}

/// The usual title of a message.
pub fn render_title(message: &Notification) -> String {
    let severity = message.severity.name().to_uppercase();
    match message.reason {
        NotificationReason::Opened | NotificationReason::Updated => {
            format!("[{severity}] {}", message.subject)
        }
        NotificationReason::Reopened => format!("[{severity} AGAIN] {}", message.subject),
        NotificationReason::Reminder => format!("[{severity} STILL] {}", message.subject),
        NotificationReason::Resolved => format!("[RESOLVED] {}", message.subject),
        NotificationReason::Test => format!("[TEST] {}", message.subject),
    }
}

fn write_alert(alert: &AlertSummary, out: &mut String) {
    let mark = if alert.firing { "●" } else { "✓" };
    let _ = writeln!(out, "{mark} {}: {} — {}", alert.host, alert.rule, alert.summary);
    if !alert.firing {
        return;
    }
    let mut list = |what: &str, lines: &[String], most: usize| {
        if !lines.is_empty() {
            let _ = writeln!(out, "  {what}:");
            lines.iter().take(most).for_each(|line| {
                let _ = writeln!(out, "    {line}");
            });
        }
    };
    list("Top consumers", &alert.consumers, 3);
    list("Top movers", &alert.movers, 4);
    if !alert.runbook.is_empty() {
        let _ = writeln!(out, "  {}", alert.runbook);
    }
    if !alert.url.is_empty() {
        let _ = writeln!(out, "  {}", alert.url);
    }
}

/// Alerts that are told one by one in a text.
const MAX_ALERTS_IN_TEXT: usize = 20;

/// The usual text of a message.
pub fn render_text(message: &Notification) -> String {
    let mut out = String::new();
    if !message.digest.is_empty() {
        let _ = writeln!(out, "Pending while the channel was muted or unreachable:");
        message.digest.iter().for_each(|line| {
            let _ = writeln!(out, "- {line}");
        });
    }
    message.alerts.iter().take(MAX_ALERTS_IN_TEXT).for_each(|alert| write_alert(alert, &mut out));
    let more = message.alerts.len().saturating_sub(MAX_ALERTS_IN_TEXT) + message.omitted_alerts;
    if more > 0 {
        let _ = writeln!(out, "and {more} more");
    }
    if !message.url.is_empty() {
        let _ = writeln!(out, "{}", message.url);
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_formatted_with_units() {
        for (value, unit, want) in [
            (97.23, Some(Unit::Percent), "97.2 %"),
            (100.0, Some(Unit::Percent), "100 %"),
            (1_532_000_000.0, Some(Unit::Bytes), "1.5 GB"),
            (999.0, Some(Unit::BytesPerSecond), "999 B/s"),
            (0.004, Some(Unit::PerSecond), "0.0040/s"),
            (1.0, Some(Unit::Flag), "yes"),
            (-12_500.0, Some(Unit::BitsPerSecond), "-12.5 kbit/s"),
            (3.0, None, "3"),
        ] {
            assert_eq!(format_value(value, unit), want);
        }
    }

    #[test]
    fn rules_and_summaries_are_rendered() {
        let catalog = Catalog::new([
            perfwatch_model::MetricDef::ratio("cpu.usage", Unit::Percent, 1, "x"),
            perfwatch_model::MetricDef::gauge("filesystem.unresponsive", Unit::Flag, 0, "x")
                .with_dimension("mount"),
            perfwatch_model::MetricDef::gauge("filesystem.used_percent", Unit::Percent, 1, "x")
                .with_dimension("mount"),
        ]);
        for (when, for_s, instance, value, asks, says) in [
            (
                r#"{"kind":"value","metric":"cpu.usage","threshold":90}"#,
                10,
                "",
                97.23,
                "cpu.usage above 90 % for 10s",
                "cpu.usage is 97.2 % (above 90 % for 10s)",
            ),
            (
                r#"{"kind":"value","metric":"cpu.usage","aggregate":"mean","window":"5m","threshold":90}"#,
                0,
                "",
                95.0,
                "average of cpu.usage over 5m above 90 %",
                "average of cpu.usage over 5m is 95 % (above 90 %)",
            ),
            (
                r#"{"kind":"silent","grace":"1m"}"#,
                0,
                "",
                61.4,
                "nothing heard for 1m",
                "nothing heard for 1m1s",
            ),
            (
                r#"{"kind":"forecast","metric":"filesystem.used_percent","look_back":"6h","within":"1d","reaches":100}"#,
                0,
                "/srv",
                5.51,
                "filesystem.used_percent reaches 100 % within 1d",
                "filesystem.used_percent{/srv} reaches 100 % in 5h31m",
            ),
            (
                r#"{"kind":"change","metric":"cpu.usage","window":"5m","before":"1d","threshold":50}"#,
                0,
                "",
                73.0,
                "cpu.usage above 50 % of change against 1d before",
                "cpu.usage is 73 % more than 1d before",
            ),
            (
                r#"{"kind":"missing","metric":"cpu.usage","grace":"1m"}"#,
                0,
                "",
                90.0,
                "cpu.usage missing for 1m",
                "cpu.usage is missing for 1m30s",
            ),
        ] {
            let when = serde_json::from_str(when).unwrap();
            let rule = Rule {
                condition: when,
                hold_for: HumanDuration::from_s(for_s),
                ..crate::builtin_rules::builtin_rules().remove(0)
            };
            assert_eq!(render_condition(&rule, &catalog), asks);
            assert_eq!(render_summary(&rule, instance, Some(value), &catalog), says);
        }
    }
}
