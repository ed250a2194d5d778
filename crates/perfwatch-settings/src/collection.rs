//! Collection policy: which collectors agents run, and how often, for all hosts and for hosts with certain tags.
//!
//! The policy is a request: an agent applies it only as far as it reduces the work that the agent's own
//! configuration allows. It is stored as one document beside the settings, so that hubs of earlier versions, which
//! rewrite the settings, do not drop it.

use crate::error::SettingsError;
use crate::key::{MAX_COLLECTION_INTERVAL_MS, MIN_COLLECTION_INTERVAL_MS};
use perfwatch_auth::{Actor, AuthDirectory};
use perfwatch_http::params;
use perfwatch_model::{Clock, CollectorRequest, CollectorRequests, HostId};
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::settings::get_setting;
use perfwatch_store::{Store, StoreError, Transaction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Name of the document in the table of settings.
const DOCUMENT: &str = "collection_policy";
/// Maximum number of overrides; each is compared with every host that sends.
const MAX_OVERRIDES: usize = 50;
/// Maximum number of hosts that an override names; tags select more.
const MAX_OVERRIDE_HOSTS: usize = 100;

/// Collector that agents of this version have.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CollectorInfo {
    /// Name in the configuration of agents.
    pub name: &'static str,
    /// Number of metrics.
    pub metrics: usize,
    /// Time between two runs if nothing is configured, milliseconds; 0 is every snapshot.
    pub default_interval_ms: u64,
}

/// Request about one collector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CollectorSetting {
    /// The collector does not run.
    pub disabled: bool,
    /// Minimum time between two runs, milliseconds; `null` leaves it to the agent.
    pub interval_ms: Option<u32>,
}

/// Requests for some hosts. They replace those for all hosts, collector by collector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CollectionOverride {
    /// Ids of selected hosts.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<uuid::Uuid>))]
    pub hosts: Vec<HostId>,
    /// Tags that select a host; any of them is sufficient.
    pub tags: Vec<String>,
    /// Interval of the agent, milliseconds; `null` leaves the interval of all hosts.
    pub interval_ms: Option<u32>,
    /// Requests by collector.
    pub collectors: BTreeMap<String, CollectorSetting>,
}

/// Collectors and intervals that the hub requests from agents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CollectionPolicy {
    /// Requests by collector for all hosts.
    pub collectors: BTreeMap<String, CollectorSetting>,
    /// Requests for some hosts. If several select a host, the last one counts, value by value.
    pub overrides: Vec<CollectionOverride>,
}

/// Change of the collection policy.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UpdateCollectionPolicyRequest {
    /// Version that the change is based on.
    pub version: i64,
    /// New policy.
    pub policy: CollectionPolicy,
}

/// Collection policy with the collectors that it is about.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CollectionPolicyResponse {
    /// Version of the policy, required by a change.
    pub version: i64,
    /// Time of the last change, Unix milliseconds.
    pub changed_ms: Option<i64>,
    /// Actor of the last change.
    pub changed_by: Option<String>,
    /// Collectors of agents of this version.
    pub collectors: Vec<CollectorInfo>,
    /// Mean duration of a run by collector over the hosts that send now, milliseconds.
    pub cost_ms: BTreeMap<String, f64>,
    /// Policy in effect.
    pub policy: CollectionPolicy,
    /// Number of hosts that each override selects, in the order of the overrides.
    pub selected_hosts: Vec<usize>,
}

impl CollectionOverride {
    fn selects(&self, host: HostId, tags: &[String]) -> bool {
        self.hosts.contains(&host) || tags.iter().any(|tag| self.tags.contains(tag))
    }
}

impl CollectionPolicy {
    /// Interval of a host, if an override sets it, and the requests about its collectors.
    fn resolve(&self, host: HostId, tags: &[String]) -> (Option<u32>, CollectorRequests) {
        let (mut interval_ms, mut settings) = (None, self.collectors.clone());
        for entry in self.overrides.iter().filter(|entry| entry.selects(host, tags)) {
            interval_ms = entry.interval_ms.or(interval_ms);
            settings.extend(entry.collectors.iter().map(|(name, setting)| (name.clone(), *setting)));
        }
        let request = |CollectorSetting { disabled, interval_ms }| CollectorRequest { disabled, interval_ms };
        let requests = settings.into_iter().map(|(name, setting)| (name, request(setting)));
        (interval_ms, requests.filter(|(_, request)| *request != CollectorRequest::default()).collect())
    }

    /// Validates the limits, the tags, and the names of the collectors; sorts and trims the tags.
    fn validate(&mut self, known: &[CollectorInfo]) -> Result<(), SettingsError> {
        let invalid = |field: String, message: String| Err(SettingsError::InvalidPolicy { field, message });
        validate_collectors("collectors", &self.collectors, known)?;
        if self.overrides.len() > MAX_OVERRIDES {
            return invalid("overrides".to_owned(), format!("at most {MAX_OVERRIDES} are allowed"));
        }
        for (index, entry) in self.overrides.iter_mut().enumerate() {
            let path = format!("overrides[{index}]");
            match params::validate_tags(&entry.tags) {
                Ok(tags) => entry.tags = tags,
                Err(error) => return invalid(format!("{path}.tags"), error.message().to_owned()),
            }
            if entry.hosts.len() > MAX_OVERRIDE_HOSTS {
                return invalid(format!("{path}.hosts"), format!("at most {MAX_OVERRIDE_HOSTS} are allowed"));
            }
            if entry.hosts.is_empty() && entry.tags.is_empty() {
                return invalid(path, "must select hosts by id or tag".to_owned());
            }
            if entry.interval_ms.is_none() && entry.collectors.is_empty() {
                return invalid(path, "must set an interval or a collector".to_owned());
            }
            validate_interval(&format!("{path}.interval_ms"), entry.interval_ms)?;
            validate_collectors(&format!("{path}.collectors"), &entry.collectors, known)?;
        }
        Ok(())
    }
}

fn validate_collectors(
    path: &str,
    collectors: &BTreeMap<String, CollectorSetting>,
    known: &[CollectorInfo],
) -> Result<(), SettingsError> {
    for (name, setting) in collectors {
        if !known.iter().any(|collector| collector.name == name) {
            let names: Vec<&str> = known.iter().map(|collector| collector.name).collect();
            let message = format!("unknown collector; expected {}", names.join(", "));
            return Err(SettingsError::InvalidPolicy { field: path.to_owned(), message });
        }
        validate_interval(&format!("{path}.{name}.interval_ms"), setting.interval_ms)?;
    }
    Ok(())
}

fn validate_interval(field: &str, interval_ms: Option<u32>) -> Result<(), SettingsError> {
    let range = MIN_COLLECTION_INTERVAL_MS..=MAX_COLLECTION_INTERVAL_MS;
    match interval_ms.map(i64::from).filter(|interval_ms| !range.contains(interval_ms)) {
        None => Ok(()),
        Some(interval_ms) => Err(SettingsError::InvalidPolicy {
            field: field.to_owned(),
            message: format!("{interval_ms} is not between {} and {}", range.start(), range.end()),
        }),
    }
}

/// Document of the stored policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct StoredPolicy {
    version: i64,
    changed_ms: i64,
    changed_by: String,
    policy: CollectionPolicy,
}

#[derive(Default)]
struct PolicyState {
    /// Document as it was read, for the comparison with the database.
    text: Option<String>,
    stored: StoredPolicy,
}

/// Policy of a hub, in step with the database.
pub struct PolicyService {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// Tags of hosts.
    directory: Arc<AuthDirectory>,
    collectors: Vec<CollectorInfo>,
    state: RwLock<Arc<PolicyState>>,
}

impl PolicyService {
    /// Service without a policy; [`PolicyService::refresh`] loads it.
    pub(crate) fn new(
        (store, clock): (Arc<dyn Store>, Arc<dyn Clock>),
        directory: Arc<AuthDirectory>,
        collectors: Vec<CollectorInfo>,
    ) -> Self {
        Self { store, clock, directory, collectors, state: RwLock::default() }
    }

    fn state(&self) -> Arc<PolicyState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Loads the stored policy if it changed.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        let text = get_setting(&*self.store, DOCUMENT).await?;
        if text == self.state().text {
            return Ok(());
        }
        let stored = match text.as_deref().map(serde_json::from_str).transpose() {
            Ok(stored) => stored.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "stored collection policy is unreadable; requesting nothing");
                StoredPolicy::default()
            }
        };
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(PolicyState { text, stored });
        Ok(())
    }

    /// Interval that an override sets for a host, and the requests about its collectors; a sender without a known
    /// host gets those of all hosts.
    pub(crate) fn requests(&self, host: Option<HostId>) -> (Option<u32>, CollectorRequests) {
        let state = self.state();
        let policy = &state.stored.policy;
        if *policy == CollectionPolicy::default() {
            return (None, CollectorRequests::new());
        }
        let auth_snapshot = self.directory.snapshot();
        let tags = host.map_or(&[][..], |host| auth_snapshot.host_tags(host));
        policy.resolve(host.unwrap_or(HostId::HUBS), tags)
    }

    /// Policy with its effect on these hosts, and the mean duration of a run by collector.
    pub fn response(&self, hosts: &[HostId], cost_ms: BTreeMap<String, f64>) -> CollectionPolicyResponse {
        let state = self.state();
        let stored = &state.stored;
        let auth_snapshot = self.directory.snapshot();
        let selected = |entry: &CollectionOverride| {
            hosts.iter().filter(|host| entry.selects(**host, auth_snapshot.host_tags(**host))).count()
        };
        let is_changed = stored.version > 0;
        CollectionPolicyResponse {
            version: stored.version,
            changed_ms: is_changed.then_some(stored.changed_ms),
            changed_by: is_changed.then(|| stored.changed_by.clone()),
            collectors: self.collectors.clone(),
            cost_ms,
            selected_hosts: stored.policy.overrides.iter().map(selected).collect(),
            policy: stored.policy.clone(),
        }
    }

    /// Replaces the policy, with an audit entry of the policies before and after.
    ///
    /// # Errors
    /// Returns [`SettingsError::Conflict`] unless `version` is current, and the reason for which the policy is
    /// rejected.
    pub async fn update(
        &self,
        actor: &Actor,
        request: UpdateCollectionPolicyRequest,
    ) -> Result<(), SettingsError> {
        let UpdateCollectionPolicyRequest { version, mut policy } = request;
        policy.validate(&self.collectors)?;
        self.refresh().await?;
        let state = self.state();
        if state.stored.version != version {
            return Err(SettingsError::Conflict);
        }
        if policy == state.stored.policy {
            return Ok(());
        }
        let changed_ms = self.clock.wall_ms();
        let (before, object) = (&state.stored.policy, "collectors".to_owned());
        let entry = actor.audit_change("collectors.update", object, Some(before), Some(&policy));
        let changed_by = actor.identity.actor_name();
        let stored = StoredPolicy { version: version + 1, changed_ms, changed_by, policy };
        let text = serde_json::to_string(&stored).unwrap_or_default();
        let tx = Transaction::build(|tx| {
            tx.settings().replace(DOCUMENT, state.text.as_deref(), &text);
            tx.audit().insert(&AuditEntry { at_ms: changed_ms, ..entry });
        });
        actor.recheck()?;
        self.store.commit(tx).await?;
        self.refresh().await?;
        Ok(())
    }
}
