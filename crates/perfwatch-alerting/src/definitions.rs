//! What people ask for: rules, channels, silences, in memory as they stand in the store.

use perfwatch_rules::builtin_rules;
use perfwatch_rules::channel::Channel;
use perfwatch_rules::rule::Rule;
use perfwatch_rules::silence::{MatchTarget, Silence};
use perfwatch_store::definitions::DefinitionKind;
use perfwatch_store::revision::Revision;
use perfwatch_store::settings;
use perfwatch_store::{Store, StoreError, Write};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use uuid::Uuid;

/// Of each kind.
pub const MAX_RULES: usize = 500;
pub const MAX_CHANNELS: usize = 100;
pub const MAX_SILENCES: usize = 1_000;

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct AlertDefinitions {
    pub rules: Vec<Arc<Rule>>,
    pub channels: Vec<Arc<Channel>>,
    pub silences: Vec<Arc<Silence>>,
}

/// Marks a store that has the built-in rules already, whoever removed some of them since.
const DEFAULTS_CREATED_SETTING: &str = "builtin_rules_created";

/// A record as it is kept.
pub fn to_json<T: Serialize>(record: &T) -> String {
    // Names and numbers always serialise.
    serde_json::to_string(record).unwrap_or_default()
}

fn from_json<T: DeserializeOwned>((id, body): (Uuid, String)) -> Option<Arc<T>> {
    match serde_json::from_str(&body) {
        Ok(record) => Some(Arc::new(record)),
        // Of a later version, perhaps: it must not stop the others.
        Err(error) => {
            tracing::error!(%id, %error, "failed to parse a definition; ignoring it");
            None
        }
    }
}

/// What a new store begins with.
pub(super) async fn insert_defaults(store: &dyn Store) -> Result<Vec<Write>, StoreError> {
    let mut writes = vec![Revision::Alerting.init().into()];
    if settings::get_setting(store, DEFAULTS_CREATED_SETTING).await?.is_none() {
        let rules = builtin_rules::builtin_rules();
        writes.extend(rules.iter().map(|rule| DefinitionKind::Rule.upsert(rule.id, &to_json(rule)).into()));
        writes.push(settings::put_setting(DEFAULTS_CREATED_SETTING, env!("CARGO_PKG_VERSION")).into());
    }
    Ok(writes)
}

impl AlertDefinitions {
    pub(super) async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        Ok(Self {
            rules: DefinitionKind::Rule.list(store).await?.into_iter().filter_map(from_json).collect(),
            channels: DefinitionKind::Channel.list(store).await?.into_iter().filter_map(from_json).collect(),
            silences: DefinitionKind::Silence.list(store).await?.into_iter().filter_map(from_json).collect(),
        })
    }

    /// Whether watches need not be told of the difference.
    pub(super) fn same_rules(one: &Self, other: &Self) -> bool {
        one.rules.len() == other.rules.len()
            && one.rules.iter().zip(&other.rules).all(|(one, other)| Arc::ptr_eq(one, other) || one == other)
    }

    /// The rules that look at a host.
    pub(super) fn rules_for_host(&self, host: Uuid, tags: &[String]) -> Vec<Arc<Rule>> {
        let hub = host.is_nil();
        let for_hub = |rule: &Rule| matches!(rule.condition, perfwatch_rules::Condition::Hub { .. });
        let selects = |rule: &&Arc<Rule>| {
            rule.enabled && for_hub(rule) == hub && (hub || rule.hosts.matches(host, tags))
        };
        self.rules.iter().filter(selects).cloned().collect()
    }

    pub fn rule(&self, id: Uuid) -> Option<&Arc<Rule>> {
        self.rules.iter().find(|rule| rule.id == id)
    }

    pub fn channel(&self, id: Uuid) -> Option<&Arc<Channel>> {
        self.channels.iter().find(|channel| channel.id == id)
    }

    /// Whether nobody is told of an alert.
    pub(super) fn is_silenced(&self, subject: MatchTarget<'_>, now_ms: i64) -> bool {
        self.silences.iter().any(|silence| silence.applies_to(subject, now_ms))
    }
}
