//! Rules derived from the thresholds of servers: one rule per distinct threshold, for all hosts that
//! have it.

use crate::server::{Server, Thresholds};
use perfwatch_alerting::{Alerting, AlertingSnapshot, MAX_RULES, StateChange, to_json};
use perfwatch_model::HumanDuration;
use perfwatch_rules::builtin_rules::REAL_MOUNTS;
use perfwatch_rules::condition::{Comparison, Condition};
use perfwatch_rules::managed_rule::{is_managed_rule, managed_rule_id};
use perfwatch_rules::rule::{GroupBy, HostSelector, Rule, Severity};
use perfwatch_rules::window::Aggregate;
use perfwatch_store::definitions::DefinitionKind;
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{CommitError, StoreError, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// Maximum number of derived rules. With more distinct thresholds, some have no rule.
const MAX_THRESHOLD_RULES: usize = MAX_RULES / 2;

/// Host with its thresholds in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
struct HostThresholds {
    host: Uuid,
    thresholds: Thresholds,
}

/// Kind of a threshold: the metric that it applies to, and the text of its rule.
struct ThresholdKind {
    id: u16,
    name: &'static str,
    metric: &'static str,
    instance: Option<&'static str>,
    runbook: &'static str,
    threshold: fn(&Thresholds) -> Option<f64>,
}

const THRESHOLD_KINDS: [ThresholdKind; 3] = [
    ThresholdKind {
        id: 0,
        name: "CPU",
        metric: "cpu.usage",
        instance: None,
        runbook: "See the top consumers.",
        threshold: |thresholds| thresholds.cpu,
    },
    ThresholdKind {
        id: 1,
        name: "Memory",
        metric: "memory.used_percent",
        instance: None,
        runbook: "See the top consumers.",
        threshold: |thresholds| thresholds.memory,
    },
    ThresholdKind {
        id: 2,
        name: "Disk",
        metric: "filesystem.used_percent",
        instance: Some(REAL_MOUNTS),
        runbook: "Free space or enlarge the filesystem.",
        threshold: |thresholds| thresholds.disk,
    },
];

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive percentages, and `as` saturates"
)]
fn hundredths(percent: f64) -> u32 {
    (percent * 100.0).round() as u32
}

/// Derives the rules from the thresholds of all hosts, in the order of their ids.
fn threshold_rules(hosts: &[HostThresholds]) -> Vec<Rule> {
    THRESHOLD_KINDS.iter().flat_map(|kind| rules_of_kind(kind, hosts)).collect()
}

fn rules_of_kind(kind: &ThresholdKind, hosts: &[HostThresholds]) -> Vec<Rule> {
    let mut hosts_by_threshold: BTreeMap<u32, Vec<Uuid>> = BTreeMap::new();
    for HostThresholds { host, thresholds } in hosts {
        let threshold = (kind.threshold)(thresholds);
        if let Some(percent) = threshold.filter(|percent| percent.is_finite() && *percent > 0.0) {
            hosts_by_threshold.entry(hundredths(percent)).or_default().push(*host);
        }
    }
    hosts_by_threshold
        .into_iter()
        .map(|(hundredths, hosts)| threshold_rule(kind, hundredths, hosts))
        .collect()
}

fn threshold_rule(kind: &ThresholdKind, hundredths: u32, mut hosts: Vec<Uuid>) -> Rule {
    hosts.sort();
    let threshold = f64::from(hundredths) / 100.0;
    Rule {
        id: managed_rule_id(kind.id, hundredths),
        name: format!("{} above {threshold}% (agentless)", kind.name),
        runbook: kind.runbook.to_owned(),
        enabled: true,
        severity: Severity::Warning,
        hosts: HostSelector { hosts, ..HostSelector::default() },
        condition: Condition::Threshold {
            metric: kind.metric.to_owned(),
            instance: kind.instance.map(str::to_owned),
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

/// Replaces the threshold rules if they differ from those of the enabled servers.
pub(crate) async fn sync_threshold_rules(alerting: &Alerting, rows: &[ServerRow]) -> Result<(), StoreError> {
    let host_thresholds = |row: &ServerRow| {
        Some(HostThresholds { host: row.id, thresholds: Server::from_row(row)?.thresholds })
    };
    let hosts: Vec<HostThresholds> =
        rows.iter().filter(|row| row.enabled).filter_map(host_thresholds).collect();
    let mut rules = threshold_rules(&hosts);
    rules.truncate(MAX_THRESHOLD_RULES);
    if are_rules_up_to_date(&alerting.snapshot(), &rules) {
        return Ok(());
    }
    let replace = |state: &AlertingSnapshot, _now_ms: i64| {
        let change = if are_rules_up_to_date(state, &rules) {
            StateChange::default()
        } else {
            replace_rules(state, &rules)
        };
        Ok::<_, CommitError>((change, ()))
    };
    match alerting.update(None, replace).await {
        // After a conflict, another hub replaces the rules.
        Ok(()) | Err(CommitError::Conflict) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
    }
}

fn replace_rules(state: &AlertingSnapshot, rules: &[Rule]) -> StateChange {
    let mut definitions = state.definitions.clone();
    let is_obsolete =
        |rule: &Rule| is_managed_rule(rule.id) && rules.iter().all(|current| current.id != rule.id);
    let obsolete = definitions.rules.iter().filter(|rule| is_obsolete(rule));
    let mut tx = Transaction::default();
    obsolete.for_each(|rule| tx.definitions(DefinitionKind::Rule).delete(rule.id));
    rules.iter().for_each(|rule| tx.definitions(DefinitionKind::Rule).upsert(rule.id, &to_json(rule)));
    definitions.rules.retain(|rule| !is_managed_rule(rule.id));
    definitions.rules.extend(rules.iter().cloned().map(Arc::new));
    // In the order of the store.
    definitions.rules.sort_by_key(|rule| rule.id);
    StateChange { definitions: Some(definitions), tx, ..StateChange::default() }
}

fn are_rules_up_to_date(state: &AlertingSnapshot, rules: &[Rule]) -> bool {
    let stored = state.definitions.rules.iter().filter(|rule| is_managed_rule(rule.id));
    stored.map(|rule| &**rule).eq(rules.iter())
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_rules::condition::instance_matches;

    #[test]
    fn equal_thresholds_share_a_rule() {
        let host = |number: u128, cpu, disk| HostThresholds {
            host: Uuid::from_u128(number),
            thresholds: Thresholds { cpu, memory: Some(95.0), disk },
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
        assert!(rules.is_sorted_by_key(|rule| rule.id));
        // Snap mounts are full by design.
        let Condition::Threshold { instance, .. } = &rules[3].condition else { panic!("{:?}", rules[3]) };
        assert!(instance_matches(instance.as_deref(), "/srv"));
        assert!(!instance_matches(instance.as_deref(), "/snap/core/1"));
        for rule in &rules {
            assert_eq!(rule.validate(), Ok(()), "{}", rule.name);
            assert!(is_managed_rule(rule.id) && !rule.hosts.hosts.is_empty());
        }
        // Independent of the order of the hosts.
        assert_eq!(threshold_rules(&[hosts[2], hosts[1], hosts[0]]), rules);
        assert!(threshold_rules(&[]).is_empty());
    }
}
