//! Built-in rules: useful on most hosts, with few false alarms.

use crate::condition::{Comparison, Condition};
use crate::host_evaluator::{METRIC_CLOCK_SKEW, METRIC_LOAD_PER_CORE};
use crate::hub_metric::HubMetric;
use crate::rule::{GroupBy, HostSelector, Rule, Severity};
use crate::window::Aggregate;
use perfwatch_model::HumanDuration;
use uuid::Uuid;

/// Name of the example rule, which is disabled by default.
const EXAMPLE_RULE: &str = "CPU above 90% for 10s";

/// Id of the first built-in rule; the others follow in the order of the table.
const FIRST_RULE_ID: Uuid = Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0001);

/// Entry of the table of built-in rules.
struct BuiltinRule {
    name: &'static str,
    runbook: &'static str,
    severity: Severity,
    hold_for_s: i64,
    condition: Condition,
}

fn rule(
    name: &'static str,
    runbook: &'static str,
    severity: Severity,
    hold_for_s: i64,
    condition: Condition,
) -> BuiltinRule {
    BuiltinRule { name, runbook, severity, hold_for_s, condition }
}

fn last_value(metric: &str, threshold: f64, clear_threshold: f64) -> Condition {
    Condition::Threshold {
        metric: metric.to_owned(),
        instance: None,
        aggregate: Aggregate::Last,
        window: HumanDuration::default(),
        compare: Comparison::Above,
        threshold,
        clear_threshold: Some(clear_threshold),
    }
}

fn mean_over(metric: &str, window_s: i64, threshold: f64, clear_threshold: f64) -> Condition {
    let mut condition = last_value(metric, threshold, clear_threshold);
    if let Condition::Threshold { aggregate, window, .. } = &mut condition {
        (*aggregate, *window) = (Aggregate::Mean, HumanDuration::from_s(window_s));
    }
    condition
}

fn with_instances(patterns: &str, mut condition: Condition) -> Condition {
    if let Condition::Threshold { instance, .. } | Condition::Forecast { instance, .. } = &mut condition {
        *instance = Some(patterns.to_owned());
    }
    condition
}

fn hub_metric_positive(hub_metric: HubMetric) -> Condition {
    Condition::Hub { hub_metric, compare: Comparison::Above, threshold: 0.0, clear_threshold: None }
}

/// Excludes the loopback interface and virtual interfaces of containers.
const REAL_INTERFACES: &str = "!lo,!veth*,!docker*,!br-*,!cali*,!flannel*,!cni*";
/// Excludes mounts that are full by design or belong to containers.
pub const REAL_MOUNTS: &str = "!/snap/*,!/boot/efi,!/run/*,!/var/lib/docker/*,!/var/lib/kubelet/*";

#[expect(clippy::too_many_lines, reason = "table of rules")]
fn builtin_table() -> Vec<BuiltinRule> {
    use Severity::{Critical, Info, Warning};
    vec![
        rule(
            "High CPU usage",
            "Check the top consumers: a runaway process, or more load than the host is sized for.",
            Warning,
            0,
            mean_over("cpu.usage", 300, 90.0, 80.0),
        ),
        rule(
            EXAMPLE_RULE,
            "For hosts that must never run at their limit; disabled by default.",
            Warning,
            10,
            last_value("cpu.usage", 90.0, 80.0),
        ),
        rule(
            "High memory usage",
            "If memory is not freed, the OOM killer ends processes. Check what grew.",
            Warning,
            60,
            last_value("memory.used_percent", 92.0, 88.0),
        ),
        rule(
            "OOM kill",
            "The OOM killer ended a process (see the kernel log). Add memory or limit the process.",
            Critical,
            0,
            last_value("memory.oom_kills", 0.0, 0.0),
        ),
        rule(
            "Memory pressure",
            "Tasks are stalled waiting for memory.",
            Warning,
            60,
            last_value("pressure.memory.full_avg10", 10.0, 5.0),
        ),
        rule(
            "I/O pressure",
            "All tasks are stalled on I/O much of the time.",
            Warning,
            120,
            last_value("pressure.io.full_avg10", 40.0, 25.0),
        ),
        rule(
            "High swap usage",
            "Memory has been short long enough to fill the swap.",
            Warning,
            300,
            last_value("swap.used_percent", 80.0, 70.0),
        ),
        rule(
            "High load",
            "More than two tasks per core are runnable or waiting for I/O.",
            Warning,
            300,
            last_value(METRIC_LOAD_PER_CORE, 2.0, 1.5),
        ),
        rule(
            "Filesystem almost full",
            "Free space: logs, caches, old images, or a larger disk.",
            Warning,
            60,
            with_instances(REAL_MOUNTS, last_value("filesystem.used_percent", 90.0, 88.0)),
        ),
        rule(
            "Filesystem full",
            "Services fail now or soon.",
            Critical,
            30,
            with_instances(REAL_MOUNTS, last_value("filesystem.used_percent", 97.0, 95.0)),
        ),
        rule(
            "Inodes almost exhausted",
            "No new files can be created although space is free.",
            Warning,
            60,
            with_instances(REAL_MOUNTS, last_value("filesystem.inodes_used_percent", 90.0, 88.0)),
        ),
        rule(
            "Filesystem full within 24h",
            "Usage grows steadily; at this rate it is full tomorrow.",
            Warning,
            600,
            with_instances(
                REAL_MOUNTS,
                Condition::Forecast {
                    metric: "filesystem.used_percent".to_owned(),
                    instance: None,
                    lookback: HumanDuration::from_s(6 * 3_600),
                    horizon: HumanDuration::from_s(24 * 3_600),
                    target: 100.0,
                    compare: Comparison::Above,
                },
            ),
        ),
        rule(
            "Filesystem unresponsive",
            "A mount hangs, often a network share whose server is down.",
            Critical,
            60,
            last_value("filesystem.unresponsive", 0.0, 0.0),
        ),
        rule(
            "Network errors",
            "Receive errors: check cable, port and driver.",
            Warning,
            300,
            with_instances(REAL_INTERFACES, mean_over("network.rx_errors", 60, 1.0, 0.1)),
        ),
        rule(
            "High CPU temperature",
            "Check fans and dust; the CPU will throttle.",
            Warning,
            60,
            last_value("cpu.temperature", 90.0, 80.0),
        ),
        rule(
            "File descriptors almost exhausted",
            "Programs will soon fail to open files and sockets.",
            Critical,
            60,
            last_value("file_descriptors.used_percent", 90.0, 80.0),
        ),
        rule(
            "Clock skew",
            "Certificates, logs and alerts are affected. Check time synchronization.",
            Warning,
            300,
            last_value(METRIC_CLOCK_SKEW, 30_000.0, 10_000.0),
        ),
        rule(
            "No data from host",
            "Check that the host is up, the agent is running and the network works.",
            Critical,
            0,
            Condition::NoData { grace: HumanDuration::from_s(60) },
        ),
        rule(
            "Hub ingestion blocked",
            "The disk is full or the database is not writable. Agents spool until then.",
            Critical,
            30,
            hub_metric_positive(HubMetric::IngestBlocked),
        ),
        rule(
            "Notifications failing",
            "A channel rejected a notification; see Alerts → Channels.",
            Info,
            0,
            hub_metric_positive(HubMetric::FailedNotifications),
        ),
        rule(
            "Several machines with one host id",
            "Start one of them with a new enrollment token, or delete the host-id file of its agent.",
            Warning,
            0,
            hub_metric_positive(HubMetric::SenderConflicts),
        ),
    ]
}

/// Built-in rules, in display order. Ids are constant, so hubs that start at the same time on a
/// database create each rule once.
pub fn builtin_rules() -> Vec<Rule> {
    let to_rule = |(index, builtin): (usize, BuiltinRule)| Rule {
        id: Uuid::from_u128(FIRST_RULE_ID.as_u128() + index as u128),
        name: builtin.name.to_owned(),
        runbook: builtin.runbook.to_owned(),
        enabled: builtin.name != EXAMPLE_RULE,
        severity: builtin.severity,
        hosts: HostSelector::default(),
        // A broken switch disconnects many hosts at once: a single incident.
        group_by: match builtin.condition {
            Condition::NoData { .. } => GroupBy::Rule,
            _ => GroupBy::Host,
        },
        condition: builtin.condition,
        hold_for: HumanDuration::from_s(builtin.hold_for_s),
    };
    builtin_table().into_iter().enumerate().map(to_rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_rules_are_valid() {
        let rules = builtin_rules();
        for rule in &rules {
            rule.validate().unwrap_or_else(|error| panic!("{}: {error}", rule.name));
        }
        let names: std::collections::HashSet<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names.len(), rules.len());
    }
}
