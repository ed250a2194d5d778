//! Registry of known hosts: id, name, last seen, expected interval, clock, poll schedule.

use crate::expected_interval::ExpectedInterval;
use crate::host_creators::HostCreators;
pub use crate::host_creators::HostSender;
use crate::host_names::{HostNames, HostRename};
pub use crate::host_names::{HostRegistryError, validate_host_name};
use crate::poll_schedule::scheduled_interval_ms;
pub use crate::poll_schedule::{Heartbeat, PollSchedule};
use crate::sender_clock::SenderClock;
use crate::sender_conflicts::SenderConflicts;
use perfwatch_model::{BootId, HostFacts, HostId, HostRef, limit_table, limits};
use perfwatch_store::{HostRecord, SharePrincipal, Store, StoreError};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Time after a snapshot in which a host that another hub deleted stays in the registry.
const RECENTLY_SEEN_MS: i64 = 60_000;

/// Current state of a host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Stored data of the host.
    pub record: HostRecord,
    /// Set when the store contains the current record.
    persisted: bool,
    /// Time of the newest snapshot, clock of the host, Unix milliseconds.
    pub last_at_ms: Option<i64>,
    /// Time at which the last snapshot was accepted, clock of the hub, Unix milliseconds.
    pub last_seen_ms: Option<i64>,
    /// Expected time between snapshots.
    expected_interval: ExpectedInterval,
    /// Clock of the sender.
    clock: SenderClock,
    /// Poll schedule of an agentless host.
    pub poll_schedule: Option<PollSchedule>,
}

impl Host {
    /// Expected time between the times of two snapshots in milliseconds; 0 if unknown.
    pub fn interval_ms(&self) -> u32 {
        scheduled_interval_ms(self.expected_interval.interval_ms(), self.poll_schedule)
    }

    /// Expected time between two arrivals in milliseconds; 0 if unknown.
    pub fn arrival_interval_ms(&self) -> u32 {
        scheduled_interval_ms(self.expected_interval.arrival_interval_ms(), self.poll_schedule)
    }

    /// Offset of the host's clock from the hub's clock in milliseconds, if known.
    pub fn clock_skew_ms(&self) -> Option<i64> {
        self.clock.skew_ms()
    }

    /// Time of the last snapshot, also of collections that another hub ran.
    fn last_seen_for_ms(&self, schedule: Option<PollSchedule>) -> Option<i64> {
        self.last_seen_ms.max(schedule.and_then(|schedule| schedule.last_success_ms))
    }

    /// State of a stored host before its first snapshot.
    fn from_record(record: HostRecord) -> Self {
        Self {
            expected_interval: ExpectedInterval::from_stored(record.interval_ms),
            record,
            persisted: true,
            last_at_ms: None,
            last_seen_ms: None,
            clock: SenderClock::default(),
            poll_schedule: None,
        }
    }
}

#[derive(Default)]
struct HostRegistryInner {
    hosts: HashMap<HostId, Host>,
    names: HostNames,
    creators: HostCreators,
    /// Schedules of all agentless hosts.
    poll_schedules: HashMap<HostId, PollSchedule>,
}

impl HostRegistryInner {
    fn host(&self, id: HostId) -> Option<Host> {
        let host = self.hosts.get(&id)?;
        let schedule = self.poll_schedules.get(&id).copied();
        Some(Host { poll_schedule: schedule, last_seen_ms: host.last_seen_for_ms(schedule), ..host.clone() })
    }

    /// Id of the host of a snapshot, which may be new.
    fn identify(
        &self,
        host: &HostRef,
        sender: &HostSender,
        now_ms: i64,
    ) -> Result<HostId, HostRegistryError> {
        let invalid = |message: &str| Err(HostRegistryError::InvalidName(message.to_owned()));
        if host.id == Some(HostId::HUBS) {
            return invalid("host id is reserved for the metrics of the hubs");
        }
        let id = match host.id.map_or_else(|| self.names.unique_host(&host.name), |id| Ok(Some(id)))? {
            Some(id) => id,
            None if host.name.parse::<HostId>().is_ok() => {
                return invalid("host name has the form of a host id; expected the id in host_id");
            }
            None => self.unused_id_of_name(&host.name),
        };
        if !self.hosts.contains_key(&id) {
            if self.hosts.len() >= limits::MAX_HOSTS {
                limit_table::HOSTS.refuse();
                return Err(HostRegistryError::LimitReached);
            }
            self.creators.check(sender, now_ms)?;
        }
        Ok(id)
    }

    /// Identifier for a new host of this name: the first that no host has which was renamed since.
    fn unused_id_of_name(&self, name: &str) -> HostId {
        let mut ids = (0..=u32::MAX).map(|number| HostId::of_name(name, number));
        ids.find(|id| !self.hosts.contains_key(id)).unwrap_or_else(HostId::generate)
    }

    /// Adds a host that is not known yet.
    fn insert(&mut self, host: Host) {
        if let Some(sender) = &host.record.created_by {
            self.creators.add(sender, host.record.first_seen_ms);
        }
        self.hosts.insert(host.record.id, host);
    }

    /// Assigns a name to a host and releases its previous name.
    fn assign_name(&mut self, name: &str, id: HostId) {
        let previous = self.hosts.get(&id).map(|host| host.record.name.as_str());
        self.names.assign(name, previous, id);
    }
}

/// Known hosts of the installation. The store has their records; last seen and intervals are in memory.
pub struct HostRegistry {
    store: Arc<dyn Store>,
    inner: RwLock<HostRegistryInner>,
    sender_conflicts: SenderConflicts,
}

impl HostRegistry {
    /// Opens the registry with the hosts of the store.
    ///
    /// # Errors
    /// Returns the error of the store if the hosts cannot be read.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let mut inner = HostRegistryInner::default();
        for record in store.list_hosts().await? {
            inner.assign_name(&record.name, record.id);
            inner.insert(Host::from_record(record));
        }
        Ok(Self { store, inner: RwLock::new(inner), sender_conflicts: SenderConflicts::default() })
    }

    fn read(&self) -> RwLockReadGuard<'_, HostRegistryInner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HostRegistryInner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves the host of a snapshot, by its id or otherwise by its name. Registers a new host, and stores
    /// a changed name or changed facts.
    ///
    /// # Errors
    /// Returns [`HostRegistryError::InvalidName`] for an empty, long or unprintable name,
    /// [`HostRegistryError::AmbiguousName`] for the name of several hosts without an id,
    /// [`HostRegistryError::LimitReached`] for a new host above the limit, and
    /// [`HostRegistryError::Store`] if the host cannot be stored.
    pub async fn resolve(
        &self,
        host: &HostRef,
        facts: Option<Arc<HostFacts>>,
        now_ms: i64,
    ) -> Result<HostId, HostRegistryError> {
        self.resolve_named(host, facts, HostSender::default(), now_ms).await.map(|(id, _)| id)
    }

    /// Principal whose share the data of a host counts for.
    pub fn share_principal(&self, id: HostId, now_ms: i64) -> SharePrincipal {
        let inner = self.read();
        inner.hosts.get(&id).map_or(SharePrincipal::Host(id), |host| host.record.share_principal(now_ms))
    }

    /// Resolves a host as [`HostRegistry::resolve`] does, with a name that the sender has a right to. Also
    /// returns the change of the name of a known host.
    ///
    /// # Errors
    /// Returns the errors of [`HostRegistry::resolve`].
    pub async fn resolve_named(
        &self,
        host: &HostRef,
        facts: Option<Arc<HostFacts>>,
        sender: HostSender,
        now_ms: i64,
    ) -> Result<(HostId, Option<HostRename>), HostRegistryError> {
        validate_host_name(&host.name)?;
        let mut rename = None;
        let changed_record = {
            let mut inner = self.write();
            let id = inner.identify(host, &sender, now_ms)?;
            let current = inner.hosts.get(&id).map(|host| host.record.name.clone());
            let mut name = inner.names.permitted(&host.name, current.as_deref(), id, sender.name_right);
            if let Some(before) = current.filter(|current| *current != name) {
                if inner.names.try_rename(id, now_ms) {
                    rename = Some(HostRename { before, after: name.clone() });
                } else {
                    limit_table::HOST_RENAMES.refuse();
                    name = before;
                }
            }
            inner.assign_name(&name, id);
            let record = HostRecord {
                id,
                name: name.clone(),
                facts: facts.clone(),
                first_seen_ms: now_ms,
                last_snapshot_ms: None,
                interval_ms: 0,
                created_by: sender.creates_as,
            };
            match inner.hosts.get_mut(&id) {
                Some(existing) => {
                    let previous = existing.record.clone();
                    existing.record.name = name;
                    if facts.is_some() {
                        existing.record.facts = facts;
                    }
                    if existing.record == previous && existing.persisted {
                        return Ok((id, None));
                    }
                    existing.persisted = false;
                    existing.record.clone()
                }
                None => {
                    tracing::info!(host.id = %id, host.name = name, "host registered");
                    let host = Host { persisted: false, ..Host::from_record(record.clone()) };
                    inner.insert(host);
                    record
                }
            }
        };
        let id = changed_record.id;
        self.store.upsert_host(changed_record.clone()).await?;
        if let Some(host) = self.write().hosts.get_mut(&id) {
            // The record may have changed again during the write.
            host.persisted = host.record == changed_record;
        }
        Ok((id, rename))
    }

    /// Restores what earlier runs of the hubs knew: when a host was last seen, Unix milliseconds, and its
    /// interval.
    pub fn restore_last_seen(&self, id: HostId, last_seen_ms: i64, interval_ms: u32) {
        if let Some(host) = self.write().hosts.get_mut(&id) {
            host.last_seen_ms = host.last_seen_ms.max(Some(last_seen_ms));
            if interval_ms > 0 {
                host.expected_interval = ExpectedInterval::from_stored(interval_ms);
            }
        }
    }

    /// Learns the expected interval of a host from the times of its stored snapshots.
    pub fn restore_times(&self, id: HostId, mut times_ms: Vec<i64>) {
        times_ms.sort_unstable();
        if let Some(host) = self.write().hosts.get_mut(&id) {
            times_ms.iter().for_each(|&at_ms| host.expected_interval.record(at_ms, at_ms, 0));
        }
    }

    /// Corrects the times of snapshots of a sender to the clock of the hub. `skew_ms` is the offset of the
    /// sender if it stated its own time. Returns the clock of a host that is not known yet, for
    /// [`HostRegistry::set_clock`].
    pub fn correct_clock(
        &self,
        host: &HostRef,
        times_ms: &mut [&mut i64],
        skew_ms: Option<i64>,
        now_ms: i64,
    ) -> Option<SenderClock> {
        let mut inner = self.write();
        let by_name = || inner.names.hosts(&host.name).first().copied();
        let id = host.id.or_else(by_name);
        if let Some(host) = id.and_then(|id| inner.hosts.get_mut(&id)) {
            host.clock.correct(times_ms, skew_ms, now_ms);
            return None;
        }
        drop(inner);
        let mut clock = SenderClock::default();
        clock.correct(times_ms, skew_ms, now_ms);
        Some(clock)
    }

    /// Sets the clock of a host that was registered after its times were corrected.
    pub fn set_clock(&self, id: HostId, clock: SenderClock) {
        if let Some(host) = self.write().hosts.get_mut(&id) {
            host.clock = clock;
        }
    }

    /// Records the offset of the clock of a host whose times are those of the hub, milliseconds.
    pub fn record_clock_skew(&self, id: HostId, skew_ms: i64) {
        if let Some(host) = self.write().hosts.get_mut(&id) {
            host.clock.set_skew(skew_ms);
        }
    }

    /// Offset of the clock of a host from the clock of the hub in milliseconds, if known.
    pub fn clock_skew_ms(&self, id: HostId) -> Option<i64> {
        self.read().hosts.get(&id)?.clock.skew_ms()
    }

    /// Usual age of the newest snapshots of a host when they arrive, in milliseconds.
    pub fn lag_ms(&self, id: HostId) -> i64 {
        self.read().hosts.get(&id).map_or(0, |host| host.clock.lag_ms())
    }

    /// Expected time between the snapshots of a host in milliseconds; 0 if unknown.
    pub fn interval_ms(&self, id: HostId) -> u32 {
        self.read().hosts.get(&id).map_or(0, |host| host.expected_interval.interval_ms())
    }

    /// Records the times of an accepted snapshot. A `declared_ms` of 0 is the interval of a sender that
    /// does not declare one.
    pub fn record_snapshot(&self, id: HostId, at_ms: i64, declared_ms: u32, now_ms: i64) {
        if let Some(host) = self.write().hosts.get_mut(&id) {
            host.last_seen_ms = Some(now_ms);
            host.last_at_ms = host.last_at_ms.max(Some(at_ms));
            host.expected_interval.record(at_ms, now_ms, declared_ms);
        }
    }

    /// Records the boot of an accepted snapshot, and logs a new conflict of senders.
    pub fn record_boot(&self, id: HostId, boot: BootId, at_ms: i64, now_ms: i64) {
        if self.sender_conflicts.record(id, boot, at_ms, now_ms) {
            tracing::warn!(
                host.id = %id, host.name = self.name(id),
                "several machines are sending with one host id; see docs/IDENTITY.md"
            );
        }
    }

    /// Senders that share a host id.
    pub fn sender_conflicts(&self) -> &SenderConflicts {
        &self.sender_conflicts
    }

    /// Applies the hosts that other hubs added and deleted. A deleted host that recently sent a snapshot to
    /// this hub stays.
    ///
    /// # Errors
    /// Returns the error of the store if the hosts cannot be read.
    pub async fn refresh(&self, now_ms: i64) -> Result<(), StoreError> {
        let records = self.store.list_hosts().await?;
        let stored: HashSet<HostId> = records.iter().map(|record| record.id).collect();
        let mut inner = self.write();
        for record in records {
            let known = inner.hosts.get(&record.id).map(|host| (host.persisted, &host.record.name));
            match known {
                None => {
                    inner.assign_name(&record.name, record.id);
                    inner.insert(Host::from_record(record));
                }
                // Another hub renamed the host.
                Some((true, name)) if *name != record.name => {
                    inner.assign_name(&record.name, record.id);
                    if let Some(host) = inner.hosts.get_mut(&record.id) {
                        host.record.name = record.name;
                    }
                }
                Some(_) => {}
            }
        }
        let is_recent =
            |host: &Host| host.last_seen_ms.is_some_and(|last_seen| now_ms - last_seen < RECENTLY_SEEN_MS);
        let deleted: Vec<HostId> = inner
            .hosts
            .iter()
            .filter(|(id, host)| !stored.contains(id) && host.persisted && !is_recent(host))
            .map(|(id, _)| *id)
            .collect();
        drop(inner);
        deleted.into_iter().for_each(|id| self.remove(id));
        Ok(())
    }

    /// Removes a host from the registry. The caller deletes its row in the store.
    pub fn remove(&self, id: HostId) {
        self.sender_conflicts.remove(id);
        let mut inner = self.write();
        if let Some(host) = inner.hosts.remove(&id) {
            inner.names.remove(&host.record.name, id);
            if let Some(sender) = &host.record.created_by {
                inner.creators.remove(sender);
            }
        }
    }

    /// Replaces the poll schedules of all agentless hosts. Returns the hosts whose schedule was disabled by
    /// the change. Hosts without a schedule that had one before were deleted, possibly by another hub; they
    /// are removed and do not trigger a no-data alert.
    pub fn replace_poll_schedules(&self, schedules: HashMap<HostId, PollSchedule>) -> Vec<HostId> {
        let mut inner = self.write();
        let is_disabled = |schedules: &HashMap<HostId, PollSchedule>, id: &HostId| {
            schedules.get(id).is_some_and(|schedule| !schedule.enabled)
        };
        let disabled = schedules
            .keys()
            .filter(|id| is_disabled(&schedules, id) && !is_disabled(&inner.poll_schedules, id))
            .copied()
            .collect();
        let deleted: Vec<HostId> =
            inner.poll_schedules.keys().filter(|id| !schedules.contains_key(id)).copied().collect();
        inner.poll_schedules = schedules;
        drop(inner);
        deleted.into_iter().for_each(|id| self.remove(id));
        disabled
    }

    /// Returns whether the hub collects the host over SSH.
    pub fn is_agentless(&self, id: HostId) -> bool {
        self.read().poll_schedules.contains_key(&id)
    }

    /// Finds the hosts with this id or name, ordered by id. An id selects one host, also if it is the name
    /// of another host.
    pub fn find(&self, id_or_name: &str) -> Vec<Host> {
        let inner = self.read();
        if let Some(host) = id_or_name.parse().ok().and_then(|id| inner.host(id)) {
            return vec![host];
        }
        inner.names.hosts(id_or_name).iter().filter_map(|id| inner.host(*id)).collect()
    }

    /// State of the host with this id.
    pub fn get(&self, id: HostId) -> Option<Host> {
        self.read().host(id)
    }

    /// States of all hosts, ordered by name.
    pub fn list(&self) -> Vec<Host> {
        let inner = self.read();
        let mut hosts: Vec<Host> = inner.hosts.keys().filter_map(|id| inner.host(*id)).collect();
        drop(inner);
        hosts.sort_by(|a, b| (&a.record.name, a.record.id).cmp(&(&b.record.name, b.record.id)));
        hosts
    }

    /// Ids of all hosts, in no order.
    pub fn ids(&self) -> Vec<HostId> {
        self.read().hosts.keys().copied().collect()
    }

    /// Heartbeats of the hosts from which snapshots are expected, in no order. Hosts with a disabled poll
    /// schedule are not included.
    pub fn heartbeats(&self) -> Vec<Heartbeat> {
        let inner = self.read();
        let heartbeat = |(id, host): (&HostId, &Host)| {
            let schedule = inner.poll_schedules.get(id).copied();
            let is_expected = schedule.is_none_or(|schedule| schedule.enabled);
            is_expected.then(|| Heartbeat {
                host: *id,
                last_seen_ms: host.last_seen_for_ms(schedule),
                interval_ms: scheduled_interval_ms(host.expected_interval.arrival_interval_ms(), schedule),
                is_agentless: schedule.is_some(),
            })
        };
        inner.hosts.iter().filter_map(heartbeat).collect()
    }

    /// Returns whether the host is known.
    pub fn contains(&self, id: HostId) -> bool {
        self.read().hosts.contains_key(&id)
    }

    /// Number of known hosts.
    pub fn count(&self) -> usize {
        self.read().hosts.len()
    }

    /// Returns whether the facts of the host are known.
    pub fn has_facts(&self, id: HostId) -> bool {
        self.read().hosts.get(&id).is_some_and(|host| host.record.facts.is_some())
    }

    /// Name of the host, or an empty text if the host is unknown.
    pub fn name(&self, id: HostId) -> String {
        self.read().hosts.get(&id).map(|host| host.record.name.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "host_registry_tests.rs"]
mod tests;
