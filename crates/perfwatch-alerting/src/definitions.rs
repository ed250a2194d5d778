//! In-memory copy of rules, channels and silences.

use crate::mail_server::MailServer;
use perfwatch_rules::Condition;
use perfwatch_rules::builtin_rules;
use perfwatch_rules::channel::Channel;
use perfwatch_rules::rule::Rule;
use perfwatch_rules::silence::{MatchTarget, Silence};
use perfwatch_store::definitions::DefinitionKind;
use perfwatch_store::revision::Revision;
use perfwatch_store::settings;
use perfwatch_store::{Store, StoreError, Transaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use uuid::Uuid;

/// Maximum number of rules, whether enabled or not.
pub const MAX_RULES: usize = 500;
/// Maximum number of notification channels.
pub const MAX_CHANNELS: usize = 100;
/// Maximum number of silences, whether expired or not.
pub const MAX_SILENCES: usize = 1_000;

/// Rules, channels and silences, each sorted by id, and the mail server.
#[derive(Debug, Clone, Default)]
pub struct AlertDefinitions {
    /// All rules, whether enabled or not.
    pub rules: Vec<Arc<Rule>>,
    /// All channels, with encrypted settings.
    pub channels: Vec<Arc<Channel>>,
    /// All silences, whether expired or not.
    pub silences: Vec<Arc<Silence>>,
    /// Mail server of the hub; `None` if it was never set.
    pub mail_server: Option<Arc<MailServer>>,
}

/// Setting that marks a store with built-in rules. Deleted built-in rules are not created again.
const DEFAULTS_CREATED_SETTING: &str = "builtin_rules_created";

/// Serializes a record as the store contains it.
pub fn to_json<T: Serialize>(record: &T) -> String {
    // Names and numbers always serialize.
    serde_json::to_string(record).unwrap_or_default()
}

/// Parses all definitions of a kind. Invalid definitions are logged and ignored.
async fn load_kind<T: DeserializeOwned>(
    store: &dyn Store,
    definition_kind: DefinitionKind,
) -> Result<Vec<Arc<T>>, StoreError> {
    let from_json = |(id, body): (Uuid, String)| match serde_json::from_str(&body) {
        Ok(record) => Some(Arc::new(record)),
        // A later version may have written the definition; the others remain usable.
        Err(error) => {
            let kind = match definition_kind {
                DefinitionKind::Rule => "rule",
                DefinitionKind::Channel => "channel",
                DefinitionKind::Silence => "silence",
            };
            tracing::error!(kind, %id, %error, "failed to parse a definition; ignoring it");
            None
        }
    };
    Ok(definition_kind.list(store).await?.into_iter().filter_map(from_json).collect())
}

/// Writes that initialize a new store: the revision counter and the built-in rules.
pub(crate) async fn insert_defaults(store: &dyn Store) -> Result<Transaction, StoreError> {
    let mut tx = Transaction::default();
    tx.revision(Revision::Alerting).init();
    if settings::get_setting(store, DEFAULTS_CREATED_SETTING).await?.is_none() {
        for rule in builtin_rules::builtin_rules() {
            tx.definitions(DefinitionKind::Rule).upsert(rule.id, &to_json(&rule));
        }
        tx.settings().put(DEFAULTS_CREATED_SETTING, env!("CARGO_PKG_VERSION"));
    }
    Ok(tx)
}

impl AlertDefinitions {
    pub(crate) async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        Ok(Self {
            rules: load_kind(store, DefinitionKind::Rule).await?,
            channels: load_kind(store, DefinitionKind::Channel).await?,
            silences: load_kind(store, DefinitionKind::Silence).await?,
            mail_server: MailServer::load(store).await?,
        })
    }

    /// Returns whether both have equal rules, so that evaluators remain valid.
    pub(crate) fn same_rules(first: &Self, second: &Self) -> bool {
        let is_same =
            |(first, second): (&Arc<Rule>, &Arc<Rule>)| Arc::ptr_eq(first, second) || first == second;
        first.rules.len() == second.rules.len() && first.rules.iter().zip(&second.rules).all(is_same)
    }

    /// Enabled rules that select a host. Only `hub` conditions select the nil host.
    pub(crate) fn rules_for_host(&self, host: Uuid, tags: &[String]) -> Vec<Arc<Rule>> {
        let is_hub = host.is_nil();
        let selects = |rule: &&Arc<Rule>| {
            rule.enabled
                && matches!(rule.condition, Condition::Hub { .. }) == is_hub
                && (is_hub || rule.hosts.matches(host, tags))
        };
        self.rules.iter().filter(selects).cloned().collect()
    }

    /// Finds a rule by its id.
    pub fn rule(&self, id: Uuid) -> Option<&Arc<Rule>> {
        self.rules.iter().find(|rule| rule.id == id)
    }

    /// Finds a channel by its id.
    pub fn channel(&self, id: Uuid) -> Option<&Arc<Channel>> {
        self.channels.iter().find(|channel| channel.id == id)
    }

    /// Returns whether a silence suppresses the notifications of an alert.
    pub(crate) fn is_silenced(&self, target: MatchTarget<'_>, now_ms: i64) -> bool {
        self.silences.iter().any(|silence| silence.applies_to(target, now_ms))
    }
}
