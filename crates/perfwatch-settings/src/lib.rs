//! Settings that administrators change while the hub runs: stored in the database, audited, and in effect on all
//! hubs within a second.
//!
//! A setting of the configuration (file, environment or command line) is locked and shown with its source. The
//! stored values are one JSON document; a change replaces it only if it did not change since the
//! change was decided.

mod collection;
mod error;
mod key;
mod preview;
mod response;
mod volume;

pub use collection::{
    CollectionOverride, CollectionPolicy, CollectionPolicyResponse, CollectorInfo, CollectorSetting,
    PolicyService, UpdateCollectionPolicyRequest,
};
pub use error::SettingsError;
pub use key::{SettingDef, SettingGroup, SettingKey, SettingValues};
pub use preview::{PreviewResponse, PreviewWarning, PreviewWarningCode, TierPreview};
pub use response::{FixedSetting, SettingResponse, SettingSource, SettingsResponse, UpdateSettingsRequest};

use perfwatch_auth::{Actor, AuthDirectory};
use perfwatch_history::History;
use perfwatch_http::rate_limit::RateLimiters;
use perfwatch_model::{Clock, CollectorRequests, FailureStreak, HostId};
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::settings::get_setting;
use perfwatch_store::{Store, StoreError, Transaction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use volume::VolumeCache;

/// Name of the document in the table of settings.
const DOCUMENT: &str = "runtime_settings";
/// Interval at which changes of other hubs are noticed.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// Document of the stored settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct StoredSettings {
    version: i64,
    changed_ms: i64,
    changed_by: String,
    /// Values by name. Names that this version does not know belong to a newer hub and are kept.
    values: BTreeMap<String, i64>,
}

/// Values of the configuration of this hub, and the settings that it locks.
#[derive(Debug, Clone, Default)]
pub struct ConfiguredSettings {
    /// Source by the key of the configuration, for each key that is set.
    pub sources: BTreeMap<String, SettingSource>,
    /// Settings that cannot be changed while the hub runs.
    pub fixed: Vec<FixedSetting>,
    /// Collectors of agents of this version.
    pub collectors: Vec<CollectorInfo>,
}

/// Services that a change of settings affects.
pub struct SettingTargets {
    /// Retention and disk budget.
    pub history: Arc<History>,
    /// Session lifetimes and password rules.
    pub directory: Arc<AuthDirectory>,
    /// Rate limits.
    pub rate_limiters: RateLimiters,
}

struct SettingsState {
    /// Document as it was read, for the comparison with the database.
    text: Option<String>,
    stored: StoredSettings,
    values: SettingValues,
}

/// Settings of a hub; clones share them.
#[derive(Clone)]
pub struct Settings(Arc<SettingsService>);

impl std::ops::Deref for Settings {
    type Target = SettingsService;

    fn deref(&self) -> &SettingsService {
        &self.0
    }
}

/// Stored settings, and the services that they affect.
pub struct SettingsService {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    configured: ConfiguredSettings,
    /// Values of the configuration and the built-in defaults.
    base: SettingValues,
    targets: SettingTargets,
    state: RwLock<Arc<SettingsState>>,
    policy: PolicyService,
    volumes: VolumeCache,
}

impl Settings {
    /// Reads the stored settings and applies them.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn open(
        (store, clock): (Arc<dyn Store>, Arc<dyn Clock>),
        (base, configured): (SettingValues, ConfiguredSettings),
        targets: SettingTargets,
    ) -> Result<Self, StoreError> {
        let state = SettingsState { text: None, stored: StoredSettings::default(), values: base };
        let access = (store.clone(), clock.clone());
        let policy = PolicyService::new(access, targets.directory.clone(), configured.collectors.clone());
        let service = SettingsService {
            store,
            clock,
            configured,
            base,
            targets,
            state: RwLock::new(Arc::new(state)),
            policy,
            volumes: VolumeCache::default(),
        };
        service.refresh().await?;
        service.policy.refresh().await?;
        Ok(Self(Arc::new(service)))
    }

    /// Loads changes of other hubs until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(REFRESH_INTERVAL);
        let mut failures = FailureStreak::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let refreshed = match self.refresh().await {
                Ok(()) => self.policy.refresh().await,
                failed => failed,
            };
            if let Some(error) = failures.first_error(&refreshed) {
                tracing::warn!(%error, "failed to refresh settings; using the cached copy");
            }
        }
    }
}

impl SettingsService {
    fn state(&self) -> Arc<SettingsState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Values in effect.
    pub fn values(&self) -> SettingValues {
        self.state().values
    }

    /// Collectors and intervals requested from agents.
    pub fn policy(&self) -> &PolicyService {
        &self.policy
    }

    /// Interval and collectors that the hub requests from the agent of a host; a sender without a known host gets
    /// those of all hosts.
    pub fn collection_requests(&self, host: Option<HostId>) -> (Option<u32>, CollectorRequests) {
        let (interval_ms, requests) = self.policy.requests(host);
        (interval_ms.or_else(|| self.values().agent_interval_ms()), requests)
    }

    /// Source of a setting; `None` while no configuration or stored value sets it.
    fn configured_source(&self, key: SettingKey) -> Option<SettingSource> {
        self.configured.sources.get(key.def().config_key?).copied()
    }

    /// Values in effect with these stored values. Locked settings and values outside of the limits, which a newer
    /// hub may accept, keep their configured values.
    fn effective(&self, stored: &StoredSettings) -> SettingValues {
        let mut values = self.base;
        for key in SettingKey::ALL {
            let def = key.def();
            let value = stored.values.get(def.name).filter(|value| (def.min..=def.max).contains(*value));
            if let Some(value) = value.filter(|_| self.configured_source(key).is_none()) {
                values.set(key, Some(*value));
            }
        }
        values
    }

    /// Loads and applies the stored settings if they changed.
    async fn refresh(&self) -> Result<(), StoreError> {
        let text = get_setting(&*self.store, DOCUMENT).await?;
        let previous = self.state();
        if text == previous.text {
            return Ok(());
        }
        let stored = match text.as_deref().map(serde_json::from_str).transpose() {
            Ok(stored) => stored.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "stored settings are unreadable; using the configuration");
                StoredSettings::default()
            }
        };
        let mut values = self.effective(&stored);
        // The configuration of this hub may contradict what was stored for the others.
        if let Err(error) = self.validate(&values) {
            tracing::warn!(%error, "stored settings contradict the configuration; using the configuration");
            values = self.base;
        }
        self.apply(&previous.values, &values).await?;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(SettingsState { text, stored, values });
        Ok(())
    }

    /// Passes changed values to the services.
    async fn apply(&self, before: &SettingValues, after: &SettingValues) -> Result<(), StoreError> {
        let targets = &self.targets;
        if before.history() != after.history() {
            targets.history.set_config(after.history()).await?;
        }
        if before.rates() != after.rates() {
            targets.rate_limiters.set_limits(after.rates());
        }
        targets.directory.set_session_lifetimes(after.sessions());
        targets.directory.set_min_password_length(after.min_password_length());
        Ok(())
    }

    /// Validates the combination of values.
    fn validate(&self, values: &SettingValues) -> Result<(), SettingsError> {
        let invalid =
            |key: SettingKey, message: String| Err(SettingsError::Invalid { name: key.def().name, message });
        let history = values.history();
        if history.minute_retention < history.raw_retention {
            return invalid(
                SettingKey::MinuteRetention,
                "must be at least the retention of raw rows".to_owned(),
            );
        }
        if history.hour_retention < history.minute_retention {
            return invalid(
                SettingKey::HourRetention,
                "must be at least the retention of minutes".to_owned(),
            );
        }
        let min_budget = self.store.min_budget_bytes();
        if history.budget_bytes < min_budget {
            let message = format!("must be at least {} MB with this database", min_budget >> 20);
            return invalid(SettingKey::DiskBudget, message);
        }
        let sessions = values.sessions();
        if sessions.max_age < sessions.idle_timeout {
            return invalid(SettingKey::SessionMaxAge, "must be at least the idle timeout".to_owned());
        }
        if (1..60).contains(&values.channel_repeat_interval_s()) {
            return invalid(SettingKey::ChannelRepeatInterval, "must be 0 or at least 60".to_owned());
        }
        Ok(())
    }

    /// Stored values with changes, and the values in effect then. A change to `None` returns to the default.
    fn apply_changes(
        &self,
        stored: &StoredSettings,
        changes: &BTreeMap<String, Option<i64>>,
    ) -> Result<(StoredSettings, SettingValues), SettingsError> {
        let mut stored = stored.clone();
        for (name, value) in changes {
            let key = SettingKey::from_name(name).ok_or_else(|| SettingsError::Unknown(name.clone()))?;
            let def = key.def();
            if let (Some(_), Some(config_key)) = (self.configured_source(key), def.config_key) {
                return Err(SettingsError::Locked { name: def.name, config_key });
            }
            match value {
                None => drop(stored.values.remove(def.name)),
                Some(value) if (def.min..=def.max).contains(value) => {
                    stored.values.insert(def.name.to_owned(), *value);
                }
                Some(value) => {
                    let message = format!("{value} is not between {} and {}", def.min, def.max);
                    return Err(SettingsError::Invalid { name: def.name, message });
                }
            }
        }
        let values = self.effective(&stored);
        self.validate(&values)?;
        Ok((stored, values))
    }

    /// Changes settings, with an audit entry of the values before and after.
    ///
    /// # Errors
    /// Returns [`SettingsError::Conflict`] unless `version` is current, and the reason for which a value
    /// is rejected.
    pub async fn update(
        &self,
        actor: &Actor,
        request: &UpdateSettingsRequest,
    ) -> Result<SettingsResponse, SettingsError> {
        self.refresh().await?;
        let state = self.state();
        if state.stored.version != request.version {
            return Err(SettingsError::Conflict);
        }
        let (mut stored, values) = self.apply_changes(&state.stored, &request.values)?;
        if stored == state.stored {
            return Ok(self.response());
        }
        stored.version += 1;
        stored.changed_ms = self.clock.wall_ms();
        stored.changed_by = actor.identity.actor_name();
        let entry = self.audit_entry(actor, &state.values, &values, stored.changed_ms);
        let text = serde_json::to_string(&stored).unwrap_or_default();
        let tx = Transaction::build(|tx| {
            tx.settings().replace(DOCUMENT, state.text.as_deref(), &text);
            tx.audit().insert(&entry);
        });
        actor.recheck()?;
        self.store.commit(tx).await?;
        self.refresh().await?;
        Ok(self.response())
    }

    fn audit_entry(
        &self,
        actor: &Actor,
        before: &SettingValues,
        after: &SettingValues,
        at_ms: i64,
    ) -> AuditEntry {
        let changed = |values: &SettingValues| -> BTreeMap<&'static str, Option<i64>> {
            let keys = SettingKey::ALL.into_iter().filter(|key| before.get(*key) != after.get(*key));
            keys.map(|key| (key.def().name, values.get(key))).collect()
        };
        let (before_values, after_values) = (changed(before), changed(after));
        let object = "settings".to_owned();
        let entry = actor.audit_change("settings.update", object, Some(&before_values), Some(&after_values));
        AuditEntry { at_ms, ..entry }
    }

    /// Effect of changed settings on storage, for the fleet as it writes now.
    ///
    /// # Errors
    /// Returns the reason for which a value is rejected.
    pub async fn preview(
        &self,
        changes: &BTreeMap<String, Option<i64>>,
    ) -> Result<PreviewResponse, SettingsError> {
        let (_, values) = self.apply_changes(&self.state().stored, changes)?;
        let now_ms = self.clock.wall_ms();
        let volumes = self.volumes.measure(&*self.store, self.clock.monotonic(), now_ms).await?;
        let usage = self.targets.history.metrics.usage();
        let current = preview::CurrentStorage {
            usage,
            config: (*self.targets.history.config()).clone(),
            free_bytes: self.store.free_bytes(),
        };
        Ok(preview::preview(&volumes, &current, &values.history(), now_ms))
    }

    /// All settings with their values, limits and sources.
    pub fn response(&self) -> SettingsResponse {
        let state = self.state();
        let settings = SettingKey::ALL.into_iter().map(|key| {
            let def = key.def();
            let configured = self.configured_source(key);
            let is_stored = configured.is_none() && state.stored.values.contains_key(def.name);
            let fallback = if is_stored { SettingSource::Database } else { SettingSource::Default };
            SettingResponse {
                name: def.name,
                group: def.group,
                value: state.values.get(key),
                default: self.base.get(key),
                min: def.min,
                max: def.max,
                source: configured.unwrap_or(fallback),
                locked: configured.is_some(),
                config_key: def.config_key,
            }
        });
        let is_changed = state.stored.version > 0;
        SettingsResponse {
            version: state.stored.version,
            changed_ms: is_changed.then_some(state.stored.changed_ms),
            changed_by: is_changed.then(|| state.stored.changed_by.clone()),
            settings: settings.collect(),
            fixed: self.configured.fixed.clone(),
        }
    }
}

/// Applies the stored disk budget to a store that a command opened: it also writes to a database that is larger
/// than the default budget.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn apply_stored_budget(store: &dyn Store) -> Result<(), StoreError> {
    let def = SettingKey::DiskBudget.def();
    let text = get_setting(store, DOCUMENT).await?;
    let stored: Option<StoredSettings> = text.and_then(|text| serde_json::from_str(&text).ok());
    let bytes = stored.and_then(|stored| stored.values.get(def.name).copied());
    match bytes.filter(|bytes| (def.min..=def.max).contains(bytes)) {
        Some(bytes) => store.set_budget(bytes.cast_unsigned()).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
