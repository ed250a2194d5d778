//! Thresholds of servers become rules, so that alerts know nothing of servers.

use super::Agentless;
use perfwatch_alerting::{AlertingSnapshot, MAX_RULES, StateChange, to_json};
use perfwatch_rules::Rule;
use perfwatch_rules::threshold_rules::{self, Thresholds};
use perfwatch_store::definitions::DefinitionKind;
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{CommitError, StoreError};
use std::sync::Arc;

impl Agentless {
    /// Rules as the servers want them now; nothing where they are so.
    pub(super) async fn sync_threshold_rules(&self, rows: &[ServerRow]) -> Result<(), StoreError> {
        let meant = rows.iter().filter(|row| row.enabled).filter_map(|row| {
            let wanted = Self::from_row(row)?.thresholds;
            Some(Thresholds { host: row.id, cpu: wanted.cpu, memory: wanted.memory, disk: wanted.disk })
        });
        let mut rules = threshold_rules::threshold_rules(&meant.collect::<Vec<_>>());
        // Of more kinds of thresholds than anybody can tell apart, some are left out.
        rules.truncate(MAX_RULES / 2);
        if as_they_are(&self.deps.alerting.snapshot(), &rules) {
            return Ok(());
        }
        let plan = |state: &AlertingSnapshot, _: i64| {
            if as_they_are(state, &rules) {
                return Ok((StateChange::default(), ()));
            }
            let mut asked = state.definitions.clone();
            let gone = asked.rules.iter().filter(|rule| threshold_rules::is_threshold_rule(rule.id));
            let gone = gone.filter(|rule| rules.iter().all(|other| other.id != rule.id));
            let mut changes: Vec<_> = gone.map(|rule| DefinitionKind::Rule.delete(rule.id)).collect();
            changes.extend(rules.iter().map(|rule| DefinitionKind::Rule.upsert(rule.id, &to_json(rule))));
            asked.rules.retain(|rule| !threshold_rules::is_threshold_rule(rule.id));
            asked.rules.extend(rules.iter().cloned().map(Arc::new));
            // As the store gives them back.
            asked.rules.sort_by_key(|rule| rule.id);
            Ok::<_, CommitError>((
                StateChange { definitions: Some(asked), statements: changes, incidents: None },
                (),
            ))
        };
        match self.deps.alerting.update(None, plan).await {
            // Another hub sees to it.
            Ok(()) | Err(CommitError::Conflict) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
        }
    }
}

fn as_they_are(state: &AlertingSnapshot, rules: &[Rule]) -> bool {
    let known = state.definitions.rules.iter().filter(|rule| threshold_rules::is_threshold_rule(rule.id));
    known.map(|rule| &**rule).eq(rules.iter())
}
