//! Thresholds of servers become rules, so that alerts know nothing of servers.

use super::Servers;
use crate::alerting::{MOST_RULES, Planned, State, body};
use perfwatch_alert::Rule;
use perfwatch_alert::thresholds::{self, Thresholds};
use perfwatch_store::alerts::Noun;
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{CommitError, StoreError};
use std::sync::Arc;

impl Servers {
    /// Rules as the servers want them now; nothing where they are so.
    pub(super) async fn keep_rules(&self, rows: &[ServerRow]) -> Result<(), StoreError> {
        let meant = rows.iter().filter(|row| row.enabled).filter_map(|row| {
            let wanted = Self::record(row)?.thresholds;
            Some(Thresholds { host: row.id, cpu: wanted.cpu, memory: wanted.memory, disk: wanted.disk })
        });
        let mut rules = thresholds::rules(&meant.collect::<Vec<_>>());
        // Of more kinds of thresholds than anybody can tell apart, some are left out.
        rules.truncate(MOST_RULES / 2);
        if as_they_are(&self.rooms.alerting.now(), &rules) {
            return Ok(());
        }
        let plan = |state: &State, _: i64| {
            if as_they_are(state, &rules) {
                return Ok((Planned::default(), ()));
            }
            let mut asked = state.asked.clone();
            let gone = asked.rules.iter().filter(|rule| thresholds::is_one(rule.id));
            let gone = gone.filter(|rule| rules.iter().all(|other| other.id != rule.id));
            let mut changes: Vec<_> = gone.map(|rule| Noun::Rule.remove(rule.id)).collect();
            changes.extend(rules.iter().map(|rule| Noun::Rule.put(rule.id, &body(rule))));
            asked.rules.retain(|rule| !thresholds::is_one(rule.id));
            asked.rules.extend(rules.iter().cloned().map(Arc::new));
            // As the store gives them back.
            asked.rules.sort_by_key(|rule| rule.id);
            Ok::<_, CommitError>((Planned { asked: Some(asked), changes, board: None }, ()))
        };
        match self.rooms.alerting.change(None, plan).await {
            // Another hub sees to it.
            Ok(()) | Err(CommitError::Conflict) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
        }
    }
}

fn as_they_are(state: &State, rules: &[Rule]) -> bool {
    let known = state.asked.rules.iter().filter(|rule| thresholds::is_one(rule.id));
    known.map(|rule| &**rule).eq(rules.iter())
}
