//! The rules that a new hub begins with: what most people want to know of any server, quiet
//! enough to leave on.

use crate::condition::{Comparison, Condition, HubMetric};
use crate::host_evaluator::{METRIC_CLOCK_SKEW, METRIC_LOAD_PER_CORE};
use crate::rule::{GroupBy, HostSelector, Rule, Severity};
use crate::window::Aggregate;
use perfwatch_model::HumanDuration;
use uuid::Uuid;

/// Off at first: an example to switch on where it is wanted.
const EXAMPLE_RULE: &str = "CPU above 90 % for 10 s";

/// A line of the table: name, what to do, severity, for, condition.
type BuiltinRule = (&'static str, &'static str, Severity, i64, Condition);

fn last_value(metric: &str, threshold: f64, clear: f64) -> Condition {
    Condition::Threshold {
        metric: metric.to_owned(),
        instance: None,
        aggregate: Aggregate::Last,
        window: HumanDuration::default(),
        compare: Comparison::Above,
        threshold,
        clear_threshold: Some(clear),
    }
}

fn mean_over(metric: &str, window_s: i64, threshold: f64, clear: f64) -> Condition {
    match last_value(metric, threshold, clear) {
        Condition::Threshold { metric, instance, compare, threshold, clear_threshold: clear, .. } => {
            Condition::Threshold {
                metric,
                instance,
                aggregate: Aggregate::Mean,
                window: HumanDuration::from_s(window_s),
                compare,
                threshold,
                clear_threshold: clear,
            }
        }
        other => other,
    }
}

fn with_instances(instance: &str, condition: Condition) -> Condition {
    let mut condition = condition;
    if let Condition::Threshold { instance: of, .. } | Condition::Forecast { instance: of, .. } =
        &mut condition
    {
        *of = Some(instance.to_owned());
    }
    condition
}

/// Interfaces that come and go with containers, and the machine's own loop.
const REAL_INTERFACES: &str = "!lo,!veth*,!docker*,!br-*,!cali*,!flannel*,!cni*";
/// Mounts that are full by design.
pub const REAL_MOUNTS: &str = "!/snap/*,!/boot/efi,!/run/*,!/var/lib/docker/*,!/var/lib/kubelet/*";

#[expect(clippy::too_many_lines, reason = "a table")]
fn builtin_table() -> Vec<BuiltinRule> {
    use Severity::{Critical, Info, Warning};
    vec![
        (
            "CPU is busy",
            "Look at the largest consumers: one runaway process, or more work than the machine is made for?",
            Warning,
            0,
            mean_over("cpu.usage", 300, 90.0, 80.0),
        ),
        (
            EXAMPLE_RULE,
            "For machines that should never be at their limit, not even for a moment.",
            Warning,
            10,
            last_value("cpu.usage", 90.0, 80.0),
        ),
        (
            "Memory is nearly full",
            "What is not given back in time is ended by the kernel. Look at what grew.",
            Warning,
            60,
            last_value("memory.used_percent", 92.0, 88.0),
        ),
        (
            "The kernel killed for memory",
            "A process was ended for want of memory (see the kernel's log); give it more, or bound it.",
            Critical,
            0,
            last_value("memory.oom_kills", 0.0, 0.0),
        ),
        (
            "Memory pressure",
            "Tasks wait for memory: the machine is slower than it looks.",
            Warning,
            60,
            last_value("pressure.memory.full_avg10", 10.0, 5.0),
        ),
        (
            "Storage pressure",
            "All tasks wait for storage much of the time.",
            Warning,
            120,
            last_value("pressure.io.full_avg10", 40.0, 25.0),
        ),
        (
            "Swap is nearly full",
            "Memory went short for long enough to fill the swap.",
            Warning,
            300,
            last_value("swap.used_percent", 80.0, 70.0),
        ),
        (
            "Load is high",
            "More than two tasks a processor run or wait for storage.",
            Warning,
            300,
            last_value(METRIC_LOAD_PER_CORE, 2.0, 1.5),
        ),
        (
            "Disk is nearly full",
            "Make room: logs, caches, old images, or a larger disk.",
            Warning,
            60,
            with_instances(REAL_MOUNTS, last_value("filesystem.used_percent", 90.0, 88.0)),
        ),
        (
            "Disk is full",
            "Services fail now or soon.",
            Critical,
            30,
            with_instances(REAL_MOUNTS, last_value("filesystem.used_percent", 97.0, 95.0)),
        ),
        (
            "Inodes run out",
            "Many small files: no new one can be made although there is space.",
            Warning,
            60,
            with_instances(REAL_MOUNTS, last_value("filesystem.inodes_used_percent", 90.0, 88.0)),
        ),
        (
            "Disk fills within a day",
            "It grows steadily: at this pace it is full before tomorrow.",
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
        (
            "Filesystem does not answer",
            "A mount hangs: often a network share whose server is gone.",
            Critical,
            60,
            last_value("filesystem.unresponsive", 0.0, 0.0),
        ),
        (
            "Network errors",
            "Packets arrive broken: a cable, a port, or a driver.",
            Warning,
            300,
            with_instances(REAL_INTERFACES, mean_over("network.rx_errors", 60, 1.0, 0.1)),
        ),
        (
            "Hot",
            "Look at fans and dust; the processor slows itself down soon.",
            Warning,
            60,
            last_value("cpu.temperature", 90.0, 80.0),
        ),
        (
            "File handles run out",
            "Programs fail to open files and sockets before long.",
            Critical,
            60,
            last_value("file_descriptors.used_percent", 90.0, 80.0),
        ),
        (
            "Clock is wrong",
            "Certificates, logs and alerts go wrong with it: is time synchronisation running?",
            Warning,
            300,
            last_value(METRIC_CLOCK_SKEW, 30_000.0, 10_000.0),
        ),
        (
            "Host is down",
            "Nothing was heard of it: is the machine off, its agent ended, or the network between broken?",
            Critical,
            0,
            Condition::NoData { grace: HumanDuration::from_s(60) },
        ),
        (
            "Hub takes nothing in",
            "Its disk is short of space, or its database takes no writes; agents keep what they have meanwhile.",
            Critical,
            30,
            Condition::Hub {
                hub_metric: HubMetric::IngestBlocked,
                compare: Comparison::Above,
                threshold: 0.0,
                clear_threshold: None,
            },
        ),
        (
            "Messages are not delivered",
            "A channel refused what it was sent; its page says why.",
            Info,
            0,
            Condition::Hub {
                hub_metric: HubMetric::FailedNotifications,
                compare: Comparison::Above,
                threshold: 0.0,
                clear_threshold: None,
            },
        ),
    ]
}

/// The built-in rules, each with an id of its own that is the same everywhere: hubs that begin at
/// one moment make them once.
pub fn builtin_rules() -> Vec<Rule> {
    let rule = |(at, (name, note, severity, for_s, when)): (usize, BuiltinRule)| Rule {
        id: Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0001 + at as u128),
        name: name.to_owned(),
        runbook: note.to_owned(),
        enabled: name != EXAMPLE_RULE,
        severity,
        hosts: HostSelector::default(),
        // Fifty hosts behind one broken switch are one incident.
        group_by: if matches!(when, Condition::NoData { .. }) { GroupBy::Rule } else { GroupBy::Host },
        condition: when,
        hold_for: HumanDuration::from_s(for_s),
    };
    builtin_table().into_iter().enumerate().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_rules_are_valid() {
        let rules = builtin_rules();
        for rule in &rules {
            rule.validate().unwrap_or_else(|problem| panic!("{}: {problem}", rule.name));
        }
        let names: std::collections::HashSet<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names.len(), rules.len());
    }
}
