//! Import of rules: rules with a name that exists are replaced, others are created.

use crate::definitions::{AlertDefinitions, to_json};
use perfwatch_rules::Rule;
use perfwatch_store::Transaction;
use perfwatch_store::definitions::DefinitionKind;
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// Effect of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuleImportCounts {
    /// Rules with new names.
    pub created: usize,
    /// Rules that replaced others.
    pub updated: usize,
    /// Rules that are equal to those of the same name.
    pub unchanged: usize,
}

impl AlertDefinitions {
    /// Applies rules of a file, and adds the changes to a transaction.
    pub fn import_rules(&mut self, rules: &[Rule], tx: &mut Transaction) -> RuleImportCounts {
        let mut counts = RuleImportCounts::default();
        // The first rule of a name is replaced.
        let mut indexes: HashMap<String, usize> =
            self.rules.iter().enumerate().rev().map(|(index, rule)| (rule.name.clone(), index)).collect();
        for rule in rules {
            let index = indexes.get(&rule.name).copied();
            let id = index.map_or_else(Uuid::now_v7, |index| self.rules[index].id);
            let rule = Arc::new(Rule { id, ..rule.clone() });
            match index {
                Some(index) if self.rules[index] == rule => {
                    counts.unchanged += 1;
                    continue;
                }
                Some(index) => {
                    self.rules[index] = rule.clone();
                    counts.updated += 1;
                }
                None => {
                    indexes.insert(rule.name.clone(), self.rules.len());
                    self.rules.push(rule.clone());
                    counts.created += 1;
                }
            }
            tx.definitions(DefinitionKind::Rule).upsert(id, &to_json(&*rule));
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_rules::builtin_rules::builtin_rules;

    #[test]
    fn imported_rules_replace_rules_of_their_name() {
        let rules = builtin_rules();
        let mut definitions = AlertDefinitions::default();
        let mut import = |rules: &[Rule]| definitions.import_rules(rules, &mut Transaction::default());
        let [first, second, ..] = &rules[..] else { panic!("two built-in rules") };
        let counts = |created, updated, unchanged| RuleImportCounts { created, updated, unchanged };
        assert_eq!(import(&rules), counts(rules.len(), 0, 0));
        assert_eq!(import(&rules), counts(0, 0, rules.len()));
        let changed = Rule { runbook: "see wiki".to_owned(), ..first.clone() };
        let renamed = Rule { name: "new".to_owned(), ..second.clone() };
        assert_eq!(import(&[changed, renamed.clone(), renamed]), counts(1, 1, 1));
        assert_eq!(definitions.rules.len(), rules.len() + 1);
    }
}
