//! Thresholds of hosts that have no agent, as rules: one for each threshold that some host has, for
//! all hosts that have it. They are made of the servers and changed there.

use crate::builtin_rules::REAL_MOUNTS;
use crate::condition::{Comparison, Condition};
use crate::rule::{GroupBy, HostSelector, Rule, Severity};
use crate::window::Aggregate;
use perfwatch_model::HumanDuration;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Thresholds of one host, percent; none where people are not told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Whose.
    pub host: Uuid,
    /// Of the processors' time.
    pub cpu: Option<f64>,
    /// Of the memory.
    pub memory: Option<f64>,
    /// Of each filesystem.
    pub disk: Option<f64>,
}

/// Name, metric, of which instances, what to do.
const THRESHOLD_KINDS: [(&str, &str, Option<&str>, &str); 3] = [
    ("CPU", "cpu.usage", None, "See the top consumers."),
    ("Memory", "memory.used_percent", None, "See the top consumers."),
    ("Disk", "filesystem.used_percent", Some(REAL_MOUNTS), "Free space or enlarge the filesystem."),
];

/// Ids begin so; kind and threshold follow.
const RULE_ID_PREFIX: u128 = 0x0197_7468_7265_7000_8000;

fn rule_id(kind: usize, hundredths: u32) -> Uuid {
    Uuid::from_u128((RULE_ID_PREFIX << 48) | ((kind as u128) << 32) | u128::from(hundredths))
}

/// Whether a rule was made so.
pub fn is_threshold_rule(rule: Uuid) -> bool {
    rule.as_u128() >> 48 == RULE_ID_PREFIX
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "percents, and `as` saturates")]
fn hundredths(percent: f64) -> u32 {
    (percent * 100.0).round() as u32
}

/// The rules, in the order of their ids.
pub fn threshold_rules(hosts: &[Thresholds]) -> Vec<Rule> {
    let mut meant: BTreeMap<(usize, u32), Vec<Uuid>> = BTreeMap::new();
    for host in hosts {
        for (kind, threshold) in [host.cpu, host.memory, host.disk].into_iter().enumerate() {
            if let Some(percent) = threshold.filter(|percent| percent.is_finite() && *percent > 0.0) {
                meant.entry((kind, hundredths(percent))).or_default().push(host.host);
            }
        }
    }
    meant.into_iter().map(|((kind, hundredths), hosts)| threshold_rule(kind, hundredths, hosts)).collect()
}

fn threshold_rule(kind: usize, hundredths: u32, mut hosts: Vec<Uuid>) -> Rule {
    hosts.sort();
    let (name, metric, instance, note) = THRESHOLD_KINDS[kind];
    let threshold = f64::from(hundredths) / 100.0;
    Rule {
        id: rule_id(kind, hundredths),
        name: format!("{name} above {threshold}% (agentless)"),
        runbook: note.to_owned(),
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
            // One that trembles around it is one alert.
            clear_threshold: Some((threshold - 5.0).max(0.0)),
        },
        // Looks are far apart: each of them counts.
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
        let made = threshold_rules(&hosts);
        let shown: Vec<(&str, usize)> =
            made.iter().map(|rule| (rule.name.as_str(), rule.hosts.hosts.len())).collect();
        assert_eq!(
            shown,
            [
                ("CPU above 72.5 % (without agent)", 1),
                ("CPU above 90 % (without agent)", 2),
                ("Memory above 95 % (without agent)", 3),
                ("Disk above 90 % (without agent)", 1),
            ]
        );
        // A snap is full by design.
        let Condition::Threshold { instance, .. } = &made[3].condition else { panic!("{:?}", made[3]) };
        assert!(crate::condition::instance_matches(instance.as_deref(), "/srv"));
        assert!(!crate::condition::instance_matches(instance.as_deref(), "/snap/core/1"));
        for rule in &made {
            assert_eq!(rule.validate(), Ok(()), "{}", rule.name);
            assert!(is_threshold_rule(rule.id) && !rule.hosts.hosts.is_empty());
        }
        assert!(
            crate::builtin_rules::builtin_rules().iter().all(|rule| !is_threshold_rule(rule.id))
                && !is_threshold_rule(Uuid::now_v7())
        );
        // The same whatever the order.
        assert_eq!(threshold_rules(&[hosts[2], hosts[1], hosts[0]]), made);
        assert!(threshold_rules(&[]).is_empty());
    }
}
