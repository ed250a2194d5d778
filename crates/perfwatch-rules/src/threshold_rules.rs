//! Rules derived from the thresholds of agentless hosts: one rule per distinct threshold, for all
//! hosts that have it. They follow the server configuration and are not edited as rules.

use crate::builtin_rules::REAL_MOUNTS;
use crate::condition::{Comparison, Condition};
use crate::rule::{GroupBy, HostSelector, Rule, Severity};
use crate::window::Aggregate;
use perfwatch_model::HumanDuration;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Thresholds of an agentless host, in percent; no rule for a threshold of `None`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Host that the thresholds belong to.
    pub host: Uuid,
    /// Threshold of the CPU usage.
    pub cpu: Option<f64>,
    /// Threshold of the memory usage.
    pub memory: Option<f64>,
    /// Threshold of the usage of each filesystem.
    pub disk: Option<f64>,
}

/// Kind of a threshold: the metric that it applies to, and the text of its rule.
struct ThresholdKind {
    name: &'static str,
    metric: &'static str,
    instance: Option<&'static str>,
    runbook: &'static str,
}

const THRESHOLD_KINDS: [ThresholdKind; 3] = [
    ThresholdKind { name: "CPU", metric: "cpu.usage", instance: None, runbook: "See the top consumers." },
    ThresholdKind {
        name: "Memory",
        metric: "memory.used_percent",
        instance: None,
        runbook: "See the top consumers.",
    },
    ThresholdKind {
        name: "Disk",
        metric: "filesystem.used_percent",
        instance: Some(REAL_MOUNTS),
        runbook: "Free space or enlarge the filesystem.",
    },
];

/// Upper 80 bits of the ids of these rules; kind and threshold follow.
const RULE_ID_PREFIX: u128 = 0x0197_7468_7265_7000_8000;

fn rule_id(kind: usize, hundredths: u32) -> Uuid {
    Uuid::from_u128((RULE_ID_PREFIX << 48) | ((kind as u128) << 32) | u128::from(hundredths))
}

/// Returns whether a rule is derived from thresholds.
pub fn is_threshold_rule(rule: Uuid) -> bool {
    rule.as_u128() >> 48 == RULE_ID_PREFIX
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive percentages, and `as` saturates"
)]
fn hundredths(percent: f64) -> u32 {
    (percent * 100.0).round() as u32
}

/// Derives the rules from the thresholds of all hosts, in the order of their ids.
pub fn threshold_rules(hosts: &[Thresholds]) -> Vec<Rule> {
    let mut hosts_by_threshold: BTreeMap<(usize, u32), Vec<Uuid>> = BTreeMap::new();
    for host in hosts {
        for (kind, threshold) in [host.cpu, host.memory, host.disk].into_iter().enumerate() {
            if let Some(percent) = threshold.filter(|percent| percent.is_finite() && *percent > 0.0) {
                hosts_by_threshold.entry((kind, hundredths(percent))).or_default().push(host.host);
            }
        }
    }
    hosts_by_threshold
        .into_iter()
        .map(|((kind, hundredths), hosts)| threshold_rule(kind, hundredths, hosts))
        .collect()
}

fn threshold_rule(kind: usize, hundredths: u32, mut hosts: Vec<Uuid>) -> Rule {
    hosts.sort();
    let ThresholdKind { name, metric, instance, runbook } = THRESHOLD_KINDS[kind];
    let threshold = f64::from(hundredths) / 100.0;
    Rule {
        id: rule_id(kind, hundredths),
        name: format!("{name} above {threshold}% (agentless)"),
        runbook: runbook.to_owned(),
        enabled: true,
        severity: Severity::Warning,
        hosts: HostSelector { hosts, ..HostSelector::default() },
        condition: Condition::Threshold {
            metric: metric.to_owned(),
            instance: instance.map(str::to_owned),
            aggregate: Aggregate::Last,
            window: HumanDuration::default(),
            compare: Comparison::Above,
            threshold,
            // Hysteresis: a value that oscillates around the threshold causes a single alert.
            clear_threshold: Some((threshold - 5.0).max(0.0)),
        },
        // Collections are minutes apart, so a single value is sufficient.
        hold_for: HumanDuration::default(),
        group_by: GroupBy::Host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_thresholds_share_a_rule() {
        let host = |number: u128, cpu, disk| Thresholds {
            host: Uuid::from_u128(number),
            cpu,
            memory: Some(95.0),
            disk,
        };
        let hosts =
            [host(2, Some(90.0), Some(90.0)), host(1, Some(90.0), None), host(3, Some(72.5), Some(f64::NAN))];
        let rules = threshold_rules(&hosts);
        let summaries: Vec<(&str, usize)> =
            rules.iter().map(|rule| (rule.name.as_str(), rule.hosts.hosts.len())).collect();
        assert_eq!(
            summaries,
            [
                ("CPU above 72.5% (agentless)", 1),
                ("CPU above 90% (agentless)", 2),
                ("Memory above 95% (agentless)", 3),
                ("Disk above 90% (agentless)", 1),
            ]
        );
        // Snap mounts are full by design.
        let Condition::Threshold { instance, .. } = &rules[3].condition else { panic!("{:?}", rules[3]) };
        assert!(crate::condition::instance_matches(instance.as_deref(), "/srv"));
        assert!(!crate::condition::instance_matches(instance.as_deref(), "/snap/core/1"));
        for rule in &rules {
            assert_eq!(rule.validate(), Ok(()), "{}", rule.name);
            assert!(is_threshold_rule(rule.id) && !rule.hosts.hosts.is_empty());
        }
        assert!(
            crate::builtin_rules::builtin_rules().iter().all(|rule| !is_threshold_rule(rule.id))
                && !is_threshold_rule(Uuid::now_v7())
        );
        // Independent of the order of the hosts.
        assert_eq!(threshold_rules(&[hosts[2], hosts[1], hosts[0]]), rules);
        assert!(threshold_rules(&[]).is_empty());
    }
}
