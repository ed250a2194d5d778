//! Rules, figures and messages as people read them.

use crate::condition::{Compare, Condition, HubFigure};
use crate::deliver::{AlertText, Message};
use crate::explain::{Consumer, Mover, Resource};
use crate::incident::Notice;
use crate::rule::Rule;
use crate::window::Aggregate;
use perfwatch_model::{Catalog, Span, Unit};
use std::fmt::Write as _;

/// A number with its unit: `97.2 %`, `1.5 GB`, `12 ms`.
pub fn figure(value: f64, unit: Option<Unit>) -> String {
    match unit {
        Some(Unit::Percent) => format!("{} %", short(value)),
        Some(Unit::Bytes) => scaled(value, "B"),
        Some(Unit::BytesPerSecond) => scaled(value, "B/s"),
        Some(Unit::PerSecond) => format!("{}/s", short(value)),
        Some(Unit::Milliseconds) => format!("{} ms", short(value)),
        Some(Unit::Seconds) => format!("{} s", short(value)),
        Some(Unit::Celsius) => format!("{} °C", short(value)),
        Some(Unit::Megahertz) => format!("{} MHz", short(value)),
        Some(Unit::BitsPerSecond) => scaled(value, "bit/s"),
        Some(Unit::Rpm) => format!("{} rpm", short(value)),
        Some(Unit::Flag) => (if value == 0.0 { "no" } else { "yes" }).to_owned(),
        Some(Unit::Count) | None => short(value),
    }
}

/// Three digits or so.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        of if of >= 100.0 || of == of.trunc() => 0,
        of if of >= 1.0 => 1,
        of if of >= 0.01 => 2,
        _ => 4,
    };
    format!("{value:.digits$}")
}

fn scaled(value: f64, unit: &str) -> String {
    let (mut value, mut prefix) = (value, "");
    for next in ["k", "M", "G", "T", "P"] {
        if value.abs() < 1_000.0 {
            break;
        }
        (value, prefix) = (value / 1_000.0, next);
    }
    format!("{} {prefix}{unit}", short(value))
}

/// The unit of what a rule's figure is.
pub fn unit(when: &Condition, catalog: &Catalog) -> Option<Unit> {
    match when {
        Condition::Value { metric, .. } if metric == crate::watch::CLOCK_SKEW => Some(Unit::Milliseconds),
        Condition::Value { metric, .. } => catalog.get(metric).map(|def| def.unit),
        Condition::Change { .. } | Condition::Hub { figure: HubFigure::BudgetUsed, .. } => {
            Some(Unit::Percent)
        }
        Condition::Hub { figure: HubFigure::Refusing, .. } => Some(Unit::Flag),
        Condition::Missing { .. } | Condition::Silent { .. } => Some(Unit::Seconds),
        Condition::Forecast { .. } | Condition::Hub { .. } => None,
    }
}

fn series(metric: &str, instance: &str) -> String {
    if instance.is_empty() { metric.to_owned() } else { format!("{metric}{{{instance}}}") }
}

/// What a rule asks: `cpu.usage above 90 % for 10s`.
pub fn condition(rule: &Rule, catalog: &Catalog) -> String {
    // Which are left out is said by the rule itself.
    let patterns = rule.when.series().and_then(|(_, instance)| instance).unwrap_or_default();
    let named: Vec<&str> =
        patterns.split(',').map(str::trim).filter(|pattern| !pattern.starts_with('!')).collect();
    format!("{}{}", subject(&rule.when, &named.join(",")), expectation(rule, catalog))
}

fn subject(when: &Condition, instance: &str) -> String {
    match when {
        Condition::Silent { .. } => "nothing heard".to_owned(),
        Condition::Hub { figure, .. } => match figure {
            HubFigure::Refusing => "the hub takes nothing in".to_owned(),
            HubFigure::BudgetUsed => "disk budget in use".to_owned(),
            HubFigure::Undelivered => "messages that could not be delivered".to_owned(),
        },
        Condition::Value { metric, aggregate, window, .. } => {
            let name = series(metric, instance);
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
        | Condition::Missing { metric, .. } => series(metric, instance),
    }
}

fn expectation(rule: &Rule, catalog: &Catalog) -> String {
    let bound = rule.when.bound();
    let side = if bound.compare == Compare::Above { "above" } else { "below" };
    let threshold = figure(bound.threshold, unit(&rule.when, catalog));
    let mut text = match &rule.when {
        Condition::Hub { figure: HubFigure::Refusing, .. } => String::new(),
        when if unit(when, catalog) == Some(Unit::Flag) => {
            format!(" is {}", figure(f64::from(bound.compare == Compare::Above), Some(Unit::Flag)))
        }
        Condition::Value { .. } | Condition::Hub { .. } => format!(" {side} {threshold}"),
        Condition::Change { before, .. } => format!(" {side} {threshold} of change against {before} before"),
        Condition::Forecast { metric, within, reaches, compare, .. } => {
            let way = if *compare == Compare::Above { "reaches" } else { "falls to" };
            format!(" {way} {} within {within}", figure(*reaches, catalog.get(metric).map(|def| def.unit)))
        }
        Condition::Missing { grace, .. } => format!(" missing for {grace}"),
        Condition::Silent { grace } => format!(" for {grace}"),
    };
    if rule.for_ > Span::default() {
        // Writing to a String can't fail.
        let _ = write!(text, " for {}", rule.for_);
    }
    text
}

/// What is so now: `cpu.usage is 97.2 % (above 90 % for 10s)`.
#[expect(clippy::cast_possible_truncation, reason = "a span of some days")]
pub fn summary(rule: &Rule, instance: &str, value: Option<f64>, catalog: &Catalog) -> String {
    let span = |seconds: f64| Span::from_s(seconds.round() as i64);
    let subject = subject(&rule.when, instance);
    let Some(value) = value else { return format!("{subject}{}", expectation(rule, catalog)) };
    match &rule.when {
        Condition::Silent { .. } => format!("nothing heard for {}", span(value)),
        Condition::Missing { .. } => format!("{subject} is missing for {}", span(value)),
        Condition::Forecast { metric, reaches, compare, .. } => {
            let way = if *compare == Compare::Above { "reaches" } else { "falls to" };
            let reaches = figure(*reaches, catalog.get(metric).map(|def| def.unit));
            format!("{subject} {way} {reaches} in {}", span((value * 60.0).round() * 60.0))
        }
        Condition::Change { before, .. } => {
            let way = if value >= 0.0 { "more" } else { "less" };
            format!("{subject} is {} {way} than {before} before", figure(value.abs(), Some(Unit::Percent)))
        }
        Condition::Hub { figure: HubFigure::Refusing, .. } => subject,
        _ => {
            let unit = unit(&rule.when, catalog);
            if unit == Some(Unit::Flag) {
                return format!("{subject}{}", expectation(rule, catalog));
            }
            format!("{subject} is {} ({})", figure(value, unit), expectation(rule, catalog).trim_start())
        }
    }
}

/// `burner (pid 9, root) 99.8 %, before 0.1 %`.
pub fn consumer(consumer: &Consumer, resource: Resource) -> String {
    let unit = match resource {
        Resource::Cpu => Unit::Percent,
        Resource::Memory => Unit::Bytes,
        Resource::Io => Unit::BytesPerSecond,
        Resource::Handles => Unit::Count,
    };
    let before = match consumer.before {
        Some(before) => format!(", before {}", figure(before, Some(unit))),
        None => ", before not among the largest".to_owned(),
    };
    format!(
        "{} (pid {}, {}) {}{before}",
        consumer.name,
        consumer.pid,
        consumer.user,
        figure(consumer.now, Some(unit))
    )
}

/// `load.1m 0.3 → 4.1`.
pub fn mover(mover: &Mover, catalog: &Catalog) -> String {
    let unit = catalog.get(&mover.metric).map(|def| def.unit);
    format!(
        "{} {} → {}",
        series(&mover.metric, &mover.instance),
        figure(mover.before, unit),
        figure(mover.now, unit)
    )
}

/// The usual title of a message.
pub fn title(message: &Message) -> String {
    let severity = message.severity.name().to_uppercase();
    match message.notice {
        Notice::Opened | Notice::Changed => format!("[{severity}] {}", message.subject),
        Notice::Reopened => format!("[{severity} AGAIN] {}", message.subject),
        Notice::Reminder => format!("[{severity} STILL] {}", message.subject),
        Notice::Resolved => format!("[RESOLVED] {}", message.subject),
        Notice::Test => format!("[TEST] {}", message.subject),
    }
}

fn alert_lines(alert: &AlertText, out: &mut String) {
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
    list("Largest consumers", &alert.consumers, 3);
    list("Moved with it", &alert.movers, 4);
    if !alert.note.is_empty() {
        let _ = writeln!(out, "  {}", alert.note);
    }
    if !alert.url.is_empty() {
        let _ = writeln!(out, "  {}", alert.url);
    }
}

/// Alerts that are told one by one in a text.
const ALERTS: usize = 20;

/// The usual text of a message.
pub fn text(message: &Message) -> String {
    let mut out = String::new();
    if !message.digest.is_empty() {
        let _ = writeln!(out, "While this channel was quiet or could not be reached:");
        message.digest.iter().for_each(|line| {
            let _ = writeln!(out, "- {line}");
        });
    }
    message.alerts.iter().take(ALERTS).for_each(|alert| alert_lines(alert, &mut out));
    let more = message.alerts.len().saturating_sub(ALERTS) + message.more;
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
    fn figures_with_units() {
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
            assert_eq!(figure(value, unit), want);
        }
    }

    #[test]
    fn rules_and_what_is_so_in_words() {
        let catalog = Catalog::new([
            perfwatch_model::MetricDef::ratio("cpu.usage", Unit::Percent, 1, "x"),
            perfwatch_model::MetricDef::gauge("filesystem.hung", Unit::Flag, 0, "x").by("mount"),
            perfwatch_model::MetricDef::gauge("filesystem.used_percent", Unit::Percent, 1, "x").by("mount"),
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
            let rule = Rule { when, for_: Span::from_s(for_s), ..crate::defaults::rules().remove(0) };
            assert_eq!(condition(&rule, &catalog), asks);
            assert_eq!(summary(&rule, instance, Some(value), &catalog), says);
        }
    }
}
