//! Thresholds of hosts that have no agent, as rules: one for each threshold that some host has, for
//! all hosts that have it. They are made of the servers and changed there.

use crate::condition::{Compare, Condition};
use crate::defaults::REAL_MOUNTS;
use crate::rule::{Group, Rule, Selector, Severity};
use crate::window::Aggregate;
use perfwatch_model::Span;
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
const KINDS: [(&str, &str, Option<&str>, &str); 3] = [
    ("CPU", "cpu.usage", None, "Its largest processes stand beside it."),
    ("Memory", "memory.used_percent", None, "Its largest processes stand beside it."),
    ("Disk", "filesystem.used_percent", Some(REAL_MOUNTS), "Make room, or give it more."),
];

/// Ids begin so; kind and threshold follow.
const MARK: u128 = 0x0197_7468_7265_7000_8000;

fn id(kind: usize, hundredths: u32) -> Uuid {
    Uuid::from_u128((MARK << 48) | ((kind as u128) << 32) | u128::from(hundredths))
}

/// Whether a rule was made so.
pub fn is_one(rule: Uuid) -> bool {
    rule.as_u128() >> 48 == MARK
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "percents, and `as` saturates")]
fn hundredths(percent: f64) -> u32 {
    (percent * 100.0).round() as u32
}

/// The rules, in the order of their ids.
pub fn rules(hosts: &[Thresholds]) -> Vec<Rule> {
    let mut meant: BTreeMap<(usize, u32), Vec<Uuid>> = BTreeMap::new();
    for host in hosts {
        for (kind, threshold) in [host.cpu, host.memory, host.disk].into_iter().enumerate() {
            if let Some(percent) = threshold.filter(|percent| percent.is_finite() && *percent > 0.0) {
                meant.entry((kind, hundredths(percent))).or_default().push(host.host);
            }
        }
    }
    meant.into_iter().map(|((kind, hundredths), hosts)| rule(kind, hundredths, hosts)).collect()
}

fn rule(kind: usize, hundredths: u32, mut hosts: Vec<Uuid>) -> Rule {
    hosts.sort();
    let (name, metric, instance, note) = KINDS[kind];
    let threshold = f64::from(hundredths) / 100.0;
    Rule {
        id: id(kind, hundredths),
        name: format!("{name} above {threshold} % (without agent)"),
        note: note.to_owned(),
        enabled: true,
        severity: Severity::Warning,
        hosts: Selector { hosts, ..Selector::default() },
        when: Condition::Value {
            metric: metric.to_owned(),
            instance: instance.map(str::to_owned),
            aggregate: Aggregate::Last,
            window: Span::default(),
            compare: Compare::Above,
            threshold,
            // One that trembles around it is one alert.
            clear: Some((threshold - 5.0).max(0.0)),
        },
        // Looks are far apart: each of them counts.
        for_: Span::default(),
        group: Group::Host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_one_threshold_share_a_rule() {
        let host = |number: u128, cpu, disk| Thresholds {
            host: Uuid::from_u128(number),
            cpu,
            memory: Some(95.0),
            disk,
        };
        let hosts =
            [host(2, Some(90.0), Some(90.0)), host(1, Some(90.0), None), host(3, Some(72.5), Some(f64::NAN))];
        let made = rules(&hosts);
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
        let Condition::Value { instance, .. } = &made[3].when else { panic!("{:?}", made[3]) };
        assert!(crate::condition::instance_fits(instance.as_deref(), "/srv"));
        assert!(!crate::condition::instance_fits(instance.as_deref(), "/snap/core/1"));
        for rule in &made {
            assert_eq!(rule.check(), Ok(()), "{}", rule.name);
            assert!(is_one(rule.id) && !rule.hosts.hosts.is_empty());
        }
        assert!(crate::defaults::rules().iter().all(|rule| !is_one(rule.id)) && !is_one(Uuid::now_v7()));
        // The same whatever the order.
        assert_eq!(rules(&[hosts[2], hosts[1], hosts[0]]), made);
        assert!(rules(&[]).is_empty());
    }
}
