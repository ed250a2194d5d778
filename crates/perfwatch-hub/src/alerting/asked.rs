//! What people ask for: rules, channels, silences, in memory as they stand in the store.

use perfwatch_alert::channel::Channel;
use perfwatch_alert::defaults;
use perfwatch_alert::rule::Rule;
use perfwatch_alert::silence::{Silence, Subject};
use perfwatch_store::alerts::Noun;
use perfwatch_store::settings::{self, Counted};
use perfwatch_store::{Store, StoreError, Write};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use uuid::Uuid;

/// Of each kind.
pub(crate) const MOST_RULES: usize = 500;
pub(crate) const MOST_CHANNELS: usize = 100;
pub(crate) const MOST_SILENCES: usize = 1_000;

/// What is asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) rules: Vec<Arc<Rule>>,
    pub(crate) channels: Vec<Arc<Channel>>,
    pub(crate) silences: Vec<Arc<Silence>>,
}

/// Marks a store that has the built-in rules already, whoever removed some of them since.
const BEGUN: &str = "alert_defaults";

/// A record as it is kept.
pub(crate) fn body<T: Serialize>(record: &T) -> String {
    // Names and numbers always serialise.
    serde_json::to_string(record).unwrap_or_default()
}

fn read<T: DeserializeOwned>((id, body): (Uuid, String)) -> Option<Arc<T>> {
    match serde_json::from_str(&body) {
        Ok(record) => Some(Arc::new(record)),
        // Of a later version, perhaps: it must not stop the others.
        Err(error) => {
            tracing::error!(%id, %error, "a rule, channel or silence can't be read and is left out");
            None
        }
    }
}

/// What a new store begins with.
pub(super) async fn begin(store: &dyn Store) -> Result<Vec<Write>, StoreError> {
    let mut writes = vec![Counted::Alerts.begin().into()];
    if settings::setting(store, BEGUN).await?.is_none() {
        let rules = defaults::rules();
        writes.extend(rules.iter().map(|rule| Noun::Rule.put(rule.id, &body(rule)).into()));
        writes.push(settings::put_setting(BEGUN, env!("CARGO_PKG_VERSION")).into());
    }
    Ok(writes)
}

impl Asked {
    pub(super) async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        Ok(Self {
            rules: Noun::Rule.all(store).await?.into_iter().filter_map(read).collect(),
            channels: Noun::Channel.all(store).await?.into_iter().filter_map(read).collect(),
            silences: Noun::Silence.all(store).await?.into_iter().filter_map(read).collect(),
        })
    }

    /// Whether watches need not be told of the difference.
    pub(super) fn same_rules(one: &Self, other: &Self) -> bool {
        one.rules.len() == other.rules.len()
            && one.rules.iter().zip(&other.rules).all(|(one, other)| Arc::ptr_eq(one, other) || one == other)
    }

    /// The rules that look at a host.
    pub(super) fn rules_for(&self, host: Uuid, tags: &[String]) -> Vec<Arc<Rule>> {
        let hub = host.is_nil();
        let for_hub = |rule: &Rule| matches!(rule.when, perfwatch_alert::Condition::Hub { .. });
        let selects = |rule: &&Arc<Rule>| {
            rule.enabled && for_hub(rule) == hub && (hub || rule.hosts.selects(host, tags))
        };
        self.rules.iter().filter(selects).cloned().collect()
    }

    pub(crate) fn rule(&self, id: Uuid) -> Option<&Arc<Rule>> {
        self.rules.iter().find(|rule| rule.id == id)
    }

    pub(crate) fn channel(&self, id: Uuid) -> Option<&Arc<Channel>> {
        self.channels.iter().find(|channel| channel.id == id)
    }

    /// Whether nobody is told of an alert.
    pub(super) fn silenced(&self, subject: Subject<'_>, now_ms: i64) -> bool {
        self.silences.iter().any(|silence| silence.silences(subject, now_ms))
    }
}
