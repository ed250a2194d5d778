//! The hosts the hub knows: by id, by name, and when it last heard from each.

use perfwatch_model::{HostFacts, HostId, HostRef, limits};
use perfwatch_store::{HostRecord, Store, StoreError};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A host's present state.
#[derive(Debug, Clone)]
pub struct Host {
    pub record: HostRecord,
    /// Whether the store has the record as it stands here.
    persisted: bool,
    /// Time of its newest snapshot, by its own clock.
    pub last_at_ms: Option<i64>,
    /// When the hub last took a snapshot of it in, by the hub's clock.
    pub last_seen_ms: Option<i64>,
    /// Time between its last two ticks.
    pub interval_ms: u32,
    /// Where it has no agent: how it is looked at.
    pub poll_schedule: Option<PollSchedule>,
    /// How far its clock is ahead of the hub's, where its agent tells.
    pub clock_skew_ms: Option<i64>,
}

/// When a host was heard last here, and how often it sends.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat {
    pub host: HostId,
    pub last_seen_ms: Option<i64>,
    pub interval_ms: u32,
    /// It has no agent: it is heard when it is looked at.
    pub is_agentless: bool,
}

impl Host {
    /// How often it sends: as it does now, or did when it was last heard.
    pub fn interval_ms(&self) -> u32 {
        self.interval_for_ms(self.poll_schedule)
    }

    fn interval_for_ms(&self, planned: Option<PollSchedule>) -> u32 {
        let own_ms = if self.interval_ms > 0 { self.interval_ms } else { self.record.interval_ms };
        // Looked at more often while somebody watches, it may be as rare again at any time.
        planned.map_or(own_ms, |planned| own_ms.max(planned.interval_ms))
    }

    /// When it was heard: here, or by whichever hub looked at it.
    fn last_seen_for_ms(&self, planned: Option<PollSchedule>) -> Option<i64> {
        self.last_seen_ms.max(planned.and_then(|planned| planned.last_success_ms))
    }

    /// As the store has it, not heard yet.
    fn from_record(record: HostRecord) -> Self {
        Self {
            record,
            persisted: true,
            last_at_ms: None,
            last_seen_ms: None,
            interval_ms: 0,
            poll_schedule: None,
            clock_skew_ms: None,
        }
    }
}

/// Why a snapshot's sender is not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostRegistryError {
    #[error("{0}")]
    InvalidName(String),
    #[error("the limit of {} hosts is reached", limits::MAX_HOSTS)]
    LimitReached,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a host that is looked at from here is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollSchedule {
    pub enabled: bool,
    pub interval_ms: u32,
    /// When a look at it last brought something, whichever hub made it; and not before looks were made
    /// again after a pause.
    pub last_success_ms: Option<i64>,
}

#[derive(Default)]
struct Inner {
    hosts: HashMap<HostId, Host>,
    by_name: HashMap<String, HostId>,
    /// Those without an agent.
    poll_schedules: HashMap<HostId, PollSchedule>,
}

impl Inner {
    fn host(&self, id: HostId) -> Option<Host> {
        let host = self.hosts.get(&id)?;
        let planned = self.poll_schedules.get(&id).copied();
        Some(Host { poll_schedule: planned, last_seen_ms: host.last_seen_for_ms(planned), ..host.clone() })
    }

    /// The name is this host's from now on, and its earlier one nobody's.
    fn assign_name(&mut self, name: &str, id: HostId) {
        let before = self.hosts.get(&id).map(|host| host.record.name.clone());
        if let Some(before) = before.filter(|before| before != name)
            && self.by_name.get(&before) == Some(&id)
        {
            self.by_name.remove(&before);
        }
        self.by_name.insert(name.to_owned(), id);
    }
}

/// All hosts.
pub struct HostRegistry {
    store: Arc<dyn Store>,
    inner: RwLock<Inner>,
}

impl HostRegistry {
    /// Reads what the store remembers.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let mut inner = Inner::default();
        for record in store.list_hosts().await? {
            inner.by_name.insert(record.name.clone(), record.id);
            inner.hosts.insert(record.id, Host::from_record(record));
        }
        Ok(Self { store, inner: RwLock::new(inner) })
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host a snapshot is of, new or known. A sender without an id is known by its name.
    pub async fn resolve(
        &self,
        host: &HostRef,
        facts: Option<Arc<HostFacts>>,
        now_ms: i64,
    ) -> Result<HostId, HostRegistryError> {
        validate_host_name(&host.name)?;
        let changed = {
            let mut inner = self.write();
            let id = host.id.or_else(|| inner.by_name.get(&host.name).copied());
            if id.is_none_or(|id| !inner.hosts.contains_key(&id)) && inner.hosts.len() >= limits::MAX_HOSTS {
                return Err(HostRegistryError::LimitReached);
            }
            let id = id.unwrap_or_else(HostId::generate);
            inner.assign_name(&host.name, id);
            let record = HostRecord {
                id,
                name: host.name.clone(),
                facts: facts.clone(),
                first_seen_ms: now_ms,
                last_snapshot_ms: None,
                interval_ms: 0,
            };
            match inner.hosts.get_mut(&id) {
                Some(known) => {
                    let before = known.record.clone();
                    known.record.name.clone_from(&host.name);
                    if facts.is_some() {
                        known.record.facts = facts;
                    }
                    if known.record == before && known.persisted {
                        return Ok(id);
                    }
                    known.persisted = false;
                    known.record.clone()
                }
                None => {
                    tracing::info!(host.id = %id, host.name = host.name, "host registered");
                    let new = Host { persisted: false, ..Host::from_record(record.clone()) };
                    inner.hosts.insert(id, new);
                    record
                }
            }
        };
        let id = changed.id;
        self.store.upsert_host(changed.clone()).await?;
        if let Some(host) = self.write().hosts.get_mut(&id) {
            // Unless it changed again meanwhile.
            host.persisted = host.record == changed;
        }
        Ok(id)
    }

    /// Notes that a snapshot was taken in.
    pub fn record_snapshot(
        &self,
        id: HostId,
        at_ms: i64,
        interval_ms: u32,
        now_ms: i64,
        skew_ms: Option<i64>,
    ) {
        if let Some(host) = self.write().hosts.get_mut(&id) {
            host.last_seen_ms = Some(now_ms);
            if host.last_at_ms.is_none_or(|last| last <= at_ms) {
                // Scripts don't say how often they send: as often as they do.
                let apart_ms = host.last_at_ms.map_or(0, |last| (at_ms - last).clamp(0, 3_600_000));
                let apart_ms = u32::try_from(apart_ms).unwrap_or_default();
                host.last_at_ms = Some(at_ms);
                host.interval_ms = if interval_ms > 0 { interval_ms } else { apart_ms };
            }
            host.clock_skew_ms = skew_ms.or(host.clock_skew_ms);
        }
    }

    /// What other hubs added and removed; a host that was heard here lately stays.
    pub async fn refresh(&self, now_ms: i64) -> Result<(), StoreError> {
        let records = self.store.list_hosts().await?;
        let known: HashSet<HostId> = records.iter().map(|record| record.id).collect();
        let mut inner = self.write();
        for record in records {
            if !inner.hosts.contains_key(&record.id) {
                inner.assign_name(&record.name, record.id);
                inner.hosts.insert(record.id, Host::from_record(record));
            }
        }
        let lately = |host: &Host| host.last_seen_ms.is_some_and(|seen| now_ms - seen < 60_000);
        let gone: Vec<HostId> = inner
            .hosts
            .iter()
            .filter(|(id, host)| !known.contains(id) && host.persisted && !lately(host))
            .map(|(id, _)| *id)
            .collect();
        drop(inner);
        gone.into_iter().for_each(|id| self.remove(id));
        Ok(())
    }

    /// Forgets a host, here; its row goes with the commit of who asks.
    pub fn remove(&self, id: HostId) {
        let mut inner = self.write();
        if let Some(host) = inner.hosts.remove(&id)
            && inner.by_name.get(&host.record.name) == Some(&id)
        {
            inner.by_name.remove(&host.record.name);
        }
    }

    /// How those without an agent are looked at; who rests from now on is given back.
    pub fn replace_poll_schedules(&self, planned: HashMap<HostId, PollSchedule>) -> Vec<HostId> {
        let mut inner = self.write();
        let rests =
            |all: &HashMap<HostId, PollSchedule>, id: &HostId| all.get(id).is_some_and(|one| !one.enabled);
        let resting = planned.keys().filter(|id| rests(&planned, id) && !rests(&inner.poll_schedules, id));
        let resting = resting.copied().collect();
        // Whoever was one of them and is not has gone, at another hub: not fallen silent.
        let gone: Vec<HostId> =
            inner.poll_schedules.keys().filter(|id| !planned.contains_key(id)).copied().collect();
        inner.poll_schedules = planned;
        drop(inner);
        gone.into_iter().for_each(|id| self.remove(id));
        resting
    }

    /// Whether it is looked at from here.
    pub fn is_agentless(&self, id: HostId) -> bool {
        self.read().poll_schedules.contains_key(&id)
    }

    /// One host, by id or name.
    pub fn find(&self, id_or_name: &str) -> Option<Host> {
        let inner = self.read();
        let id = id_or_name.parse().ok().or_else(|| inner.by_name.get(id_or_name).copied())?;
        inner.host(id)
    }

    /// One host, by id.
    pub fn get(&self, id: HostId) -> Option<Host> {
        self.read().host(id)
    }

    /// All, by name.
    pub fn list(&self) -> Vec<Host> {
        let inner = self.read();
        let mut hosts: Vec<Host> = inner.hosts.keys().filter_map(|id| inner.host(*id)).collect();
        drop(inner);
        hosts.sort_by(|a, b| (&a.record.name, a.record.id).cmp(&(&b.record.name, b.record.id)));
        hosts
    }

    /// The beat of each that should have one, in no order.
    pub fn heartbeats(&self) -> Vec<Heartbeat> {
        let inner = self.read();
        let beat = |(id, host): (&HostId, &Host)| {
            let planned = inner.poll_schedules.get(id).copied();
            let beat = Heartbeat {
                host: *id,
                last_seen_ms: host.last_seen_for_ms(planned),
                interval_ms: host.interval_for_ms(planned),
                is_agentless: planned.is_some(),
            };
            planned.is_none_or(|planned| planned.enabled).then_some(beat)
        };
        inner.hosts.iter().filter_map(beat).collect()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.read().hosts.len()
    }

    pub fn has_facts(&self, id: HostId) -> bool {
        self.read().hosts.get(&id).is_some_and(|host| host.record.facts.is_some())
    }

    pub fn name(&self, id: HostId) -> String {
        self.read().hosts.get(&id).map(|host| host.record.name.clone()).unwrap_or_default()
    }
}

/// Whether a host can be called so.
pub fn validate_host_name(name: &str) -> Result<(), HostRegistryError> {
    let bad = |why: String| Err(HostRegistryError::InvalidName(why));
    if name.is_empty() || name.len() > limits::MAX_HOST_NAME_BYTES {
        return bad(format!("host name must have 1 to {} bytes", limits::MAX_HOST_NAME_BYTES));
    }
    if name.contains(char::is_control) {
        return bad("a host's name has no control characters".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::ManualClock;
    use perfwatch_store::{SqliteOptions, SqliteStore};

    const MINUTE: u32 = 60_000;

    async fn known(fleet: &HostRegistry, names: &[&str]) -> Vec<HostId> {
        let mut ids = Vec::new();
        for name in names {
            let host = HostRef { id: None, name: (*name).to_owned() };
            ids.push(fleet.resolve(&host, None, 1_000).await.unwrap());
        }
        ids
    }

    #[tokio::test]
    async fn agentless_heartbeat_follows_schedule() {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions { folder: folder.path().to_owned(), budget_bytes: 64 << 20 };
        let store = SqliteStore::open(&options, Arc::new(ManualClock::starting_at(0))).unwrap();
        let fleet = HostRegistry::open(Arc::new(store)).await.unwrap();
        let ids = known(&fleet, &["sends", "rare", "rests", "removed"]).await;
        let planned =
            |enabled, heard_ms| PollSchedule { enabled, interval_ms: 15 * MINUTE, last_success_ms: heard_ms };
        let all =
            [(ids[1], planned(true, None)), (ids[2], planned(false, None)), (ids[3], planned(true, None))];
        assert_eq!(fleet.replace_poll_schedules(all.into()), [ids[2]]);
        // Watched a while ago, every five seconds: it may be as rare again.
        for id in &ids {
            fleet.record_snapshot(*id, 5_000, 5_000, 5_000, None);
        }
        let beat = |id: HostId| fleet.heartbeats().into_iter().find(|beat| beat.host == id);
        assert_eq!(beat(ids[0]).map(|beat| (beat.interval_ms, beat.is_agentless)), Some((5_000, false)));
        assert_eq!(beat(ids[1]).map(|beat| (beat.interval_ms, beat.is_agentless)), Some((15 * MINUTE, true)));
        assert!(beat(ids[2]).is_none(), "nobody waits for one that rests");
        // Another hub looked at it; and what another hub removed is gone here, not silent.
        let all = [(ids[1], planned(true, Some(60_000))), (ids[2], planned(false, None))];
        assert_eq!(fleet.replace_poll_schedules(all.into()), []);
        assert_eq!(beat(ids[1]).and_then(|beat| beat.last_seen_ms), Some(60_000));
        assert_eq!(fleet.get(ids[1]).and_then(|host| host.last_seen_ms), Some(60_000));
        assert!(fleet.get(ids[3]).is_none() && beat(ids[3]).is_none() && fleet.find("removed").is_none());
    }
}
