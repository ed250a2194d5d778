//! Overview of the fleet. The state of all hosts is read at most once a second and shared by all callers; callers
//! with equal access share an encoded response. Work is bounded by the number of hosts and runs off the
//! serving threads.

mod activity;
pub mod collector_cost;
mod course;
pub mod course_range;
mod day;
mod fleet;
pub mod host_events;
mod host_values;
mod read_budget;
pub mod replay;
pub mod response;
mod sampler;
pub mod summary;
pub mod summary_course;
mod view;

use activity::AlertWithIncident;
use bytes::Bytes;
use day::HostDay;
use fleet::{FleetReader, FleetState};
use perfwatch_alerting::{Alert, Alerting, visible_incidents};
use perfwatch_auth::{AuthDirectory, Identity};
use perfwatch_history::History;
use perfwatch_live::LiveFeed;
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_model::{Clock, HostId};
use perfwatch_store::StoreError;
use perfwatch_store::accounts::Role;
use perfwatch_store::audit::AuditFilter;
use perfwatch_store::incidents::{AlertFilter, AlertRow};
use response::{ActivityEntry, ActivityResponse};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use summary::SummaryValues;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use view::VisibleHosts;

/// Time for which the state of the fleet is shared.
const STATE_TTL: Duration = Duration::from_secs(1);
/// Time for which the course of the last 24 hours and the alerts of that time are shared.
const COURSE_TTL: Duration = Duration::from_secs(15);
/// Time for which the events of hosts and alerts are shared.
const EVENTS_TTL: Duration = Duration::from_secs(2);
/// Maximum number of sets of visible hosts whose responses are shared. Others are computed per request.
const MAX_SHARED_VIEWS: usize = 64;
/// Maximum number of alerts in the course of the last 24 hours.
const MAX_COURSE_ALERTS: i64 = 5_000;

/// Services that the overview reads.
#[derive(Clone)]
pub struct OverviewDeps {
    /// Source of wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Accounts and tags of hosts.
    pub directory: Arc<AuthDirectory>,
    /// Known hosts with their state.
    pub hosts: Arc<HostRegistry>,
    /// Newest snapshots.
    pub live_feed: Arc<LiveFeed>,
    /// Stored history, for the last 24 hours after a start.
    pub history: Arc<History>,
    /// Open incidents.
    pub alerting: Arc<Alerting>,
}

/// Response that is shared for a time.
struct Shared<T> {
    at: Duration,
    value: T,
}

/// Encoded overview of a set of visible hosts, with or without the list of hosts.
#[derive(Clone)]
struct EncodedView {
    sequence: u64,
    revision: String,
    json: Bytes,
}

/// Set of visible hosts: the revision of accounts and tags, and the host tags of the callers; empty for all hosts.
type ViewKey = (i64, Vec<String>);

/// Alerts of the last days, newest first.
type RecentAlerts = Arc<Vec<AlertWithIncident>>;

/// Handle of the overview of all hosts. Clones share it.
#[derive(Clone)]
pub struct Overview(Arc<OverviewTask>);

/// Shared state of the overview and of its sampler.
struct OverviewTask {
    deps: OverviewDeps,
    reader: Mutex<FleetReader>,
    state: tokio::sync::Mutex<Option<Shared<Arc<FleetState>>>>,
    views: tokio::sync::Mutex<HashMap<(ViewKey, bool), EncodedView>>,
    /// Course of the last 24 hours by visible hosts: a change of tags or access takes effect at once.
    courses: tokio::sync::Mutex<HashMap<Vec<HostId>, Shared<Bytes>>>,
    /// Events of the hosts and alerts that callers may see, as `courses`.
    events: tokio::sync::Mutex<HashMap<Vec<HostId>, Shared<Vec<ActivityEntry>>>>,
    alerts: tokio::sync::Mutex<Option<Shared<RecentAlerts>>>,
    days: RwLock<HashMap<HostId, HostDay>>,
}

fn encode(response: &impl Serialize) -> Bytes {
    serde_json::to_vec(response).unwrap_or_default().into()
}

impl Overview {
    /// Creates an overview without data of the last 24 hours.
    pub fn new(deps: OverviewDeps) -> Self {
        Self(Arc::new(OverviewTask {
            deps,
            reader: Mutex::default(),
            state: tokio::sync::Mutex::default(),
            views: tokio::sync::Mutex::default(),
            courses: tokio::sync::Mutex::default(),
            events: tokio::sync::Mutex::default(),
            alerts: tokio::sync::Mutex::default(),
            days: RwLock::default(),
        }))
    }

    /// Starts the sampler of the last 24 hours. It ends when `stop` is cancelled.
    pub fn start(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let (task, stop) = (self.0.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task.run_sampler() => {}
            }
        });
    }

    /// Overview as JSON for a caller. The list of hosts is omitted if `revision` is the current revision.
    pub async fn current(&self, identity: &Identity, revision: Option<&str>) -> Bytes {
        self.0.current(identity, revision).await
    }

    /// Course of the last 24 hours as JSON for a caller.
    ///
    /// # Errors
    /// Returns the error of the store if the alerts cannot be read.
    pub async fn history(&self, identity: &Identity) -> Result<Bytes, StoreError> {
        self.0.history(identity).await
    }

    /// Newest values of hosts that send, at most a second old. The caller checks access.
    pub async fn newest_values(&self, ids: &HashSet<HostId>) -> HashMap<HostId, SummaryValues> {
        let state = self.0.state().await;
        let selected = state.hosts.iter().filter(|host| ids.contains(&host.host.record.id));
        let values =
            selected.map(|host| Some((host.host.record.id, SummaryValues::new(host.values.as_ref()?))));
        values.flatten().collect()
    }

    /// Recent events that a caller may see.
    ///
    /// # Errors
    /// Returns the error of the store if alerts or the audit log cannot be read.
    pub async fn activity(&self, identity: &Identity) -> Result<ActivityResponse, StoreError> {
        self.0.activity(identity).await
    }
}

impl OverviewTask {
    /// State of the fleet, at most a second old. Concurrent callers wait for a single computation.
    async fn state(self: &Arc<Self>) -> Arc<FleetState> {
        let mut shared = self.state.lock().await;
        let now = self.deps.clock.monotonic();
        if let Some(state) = shared.as_ref().filter(|state| now.saturating_sub(state.at) < STATE_TTL) {
            return state.value.clone();
        }
        let overview = self.clone();
        let state = Arc::new(off_thread(move || overview.read_state()).await);
        *shared = Some(Shared { at: now, value: state.clone() });
        state
    }

    fn read_state(&self) -> FleetState {
        let deps = &self.deps;
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.read((&deps.hosts, &deps.live_feed), &deps.alerting.snapshot(), deps.clock.wall_ms())
    }

    async fn current(self: &Arc<Self>, identity: &Identity, revision: Option<&str>) -> Bytes {
        let state = self.state().await;
        // Most callers have the hosts already.
        let values = self.view(&state, identity, revision.is_none()).await;
        match revision {
            Some(revision) if revision != values.revision => self.view(&state, identity, true).await.json,
            _ => values.json,
        }
    }

    /// Overview of the hosts that a caller may see, shared by the callers of this refresh with equal access.
    async fn view(
        self: &Arc<Self>,
        state: &Arc<FleetState>,
        identity: &Identity,
        with_hosts: bool,
    ) -> EncodedView {
        let access = (self.deps.directory.snapshot().revision(), identity.host_tags.clone());
        let key = (access, with_hosts);
        let mut views = self.views.lock().await;
        if let Some(view) = views.get(&key).filter(|view| view.sequence == state.sequence) {
            return view.clone();
        }
        let (task, state, identity) = (self.clone(), state.clone(), identity.clone());
        let view = off_thread(move || task.encode_view(&state, &identity, with_hosts)).await;
        views.retain(|_, other| other.sequence == view.sequence);
        if views.len() < MAX_SHARED_VIEWS {
            views.insert(key, view.clone());
        }
        view
    }

    fn encode_view(&self, state: &FleetState, identity: &Identity, with_hosts: bool) -> EncodedView {
        let deps = &self.deps;
        let auth_snapshot = deps.directory.snapshot();
        let visible = self.visible(state, identity);
        let counts =
            visible_incidents(&deps.alerting.snapshot().incidents, 0, identity, &auth_snapshot).counts;
        let days = self.days.read().unwrap_or_else(PoisonError::into_inner);
        let mut response = view::build(state, &visible, counts, (&auth_snapshot, &days));
        drop(days);
        if with_hosts {
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            response.recent = visible.course(&deps.live_feed, &mut reader.shapes, state.now_ms);
        } else {
            response.hosts = None;
        }
        let json = encode(&response);
        EncodedView { sequence: state.sequence, revision: response.revision, json }
    }

    fn visible<'a>(&self, state: &'a FleetState, identity: &Identity) -> VisibleHosts<'a> {
        let auth_snapshot = self.deps.directory.snapshot();
        let can_view = |host: &&fleet::FleetHost| identity.can_view(&auth_snapshot, host.host.record.id);
        VisibleHosts(state.hosts.iter().filter(can_view).collect())
    }

    async fn history(self: &Arc<Self>, identity: &Identity) -> Result<Bytes, StoreError> {
        let (state, alerts) = (self.state().await, self.recent_alerts().await?);
        let visible: Vec<HostId> =
            self.visible(&state, identity).0.iter().map(|host| host.host.record.id).collect();
        let mut courses = self.courses.lock().await;
        let now = self.deps.clock.monotonic();
        courses.retain(|_, course| now.saturating_sub(course.at) < COURSE_TTL);
        if let Some(course) = courses.get(&visible) {
            return Ok(course.value.clone());
        }
        let (task, ids) = (self.clone(), visible.clone());
        let encoded = off_thread(move || {
            let ids: HashSet<HostId> = ids.into_iter().collect();
            let hosts = state.hosts.iter().filter(|host| ids.contains(&host.host.record.id));
            let days = task.days.read().unwrap_or_else(PoisonError::into_inner);
            let alerts: Vec<Alert> = alerts.iter().map(|found| found.alert.clone()).collect();
            encode(&course::build(&VisibleHosts(hosts.collect()), &days, &alerts, state.now_ms))
        })
        .await;
        if courses.len() < MAX_SHARED_VIEWS {
            courses.insert(visible, Shared { at: now, value: encoded.clone() });
        }
        Ok(encoded)
    }

    async fn activity(self: &Arc<Self>, identity: &Identity) -> Result<ActivityResponse, StoreError> {
        let (state, alerts) = (self.state().await, self.recent_alerts().await?);
        let directory = &self.deps.directory;
        let audit = match identity.role {
            Some(Role::Admin) if identity.host_tags.is_empty() => {
                let limit = activity::MAX_AUDIT_ENTRIES;
                directory.audit(AuditFilter { before_id: None, text: None, limit }).await?
            }
            _ => Vec::new(),
        };
        let events = self.events(&state, alerts, identity).await;
        let entries = activity::merge(events, audit, state.now_ms);
        Ok(ActivityResponse { entries, now_ms: state.now_ms })
    }

    /// Newest events of hosts and alerts, shared by the callers with equal access.
    async fn events(
        self: &Arc<Self>,
        state: &Arc<FleetState>,
        alerts: RecentAlerts,
        identity: &Identity,
    ) -> Vec<ActivityEntry> {
        let visible: Vec<HostId> =
            self.visible(state, identity).0.iter().map(|host| host.host.record.id).collect();
        let mut shared = self.events.lock().await;
        let now = self.deps.clock.monotonic();
        shared.retain(|_, events| now.saturating_sub(events.at) < EVENTS_TTL);
        if let Some(events) = shared.get(&visible) {
            return events.value.clone();
        }
        let (task, state, identity) = (self.clone(), state.clone(), identity.clone());
        let events = off_thread(move || {
            let auth_snapshot = task.deps.directory.snapshot();
            let visible = task.visible(&state, &identity);
            activity::build(&visible, &alerts, (&identity, &auth_snapshot), state.now_ms)
        })
        .await;
        if shared.len() < MAX_SHARED_VIEWS {
            shared.insert(visible, Shared { at: now, value: events.clone() });
        }
        events
    }

    /// Alerts that fired, or ended within the time of the activity, newest first.
    async fn recent_alerts(&self) -> Result<RecentAlerts, StoreError> {
        let mut shared = self.alerts.lock().await;
        let now = self.deps.clock.monotonic();
        if let Some(alerts) = shared.as_ref().filter(|alerts| now.saturating_sub(alerts.at) < COURSE_TTL) {
            return Ok(alerts.value.clone());
        }
        let since_ms = self.deps.clock.wall_ms() - activity::MAX_AGE_MS;
        let filter = AlertFilter::Between(since_ms, i64::MAX, MAX_COURSE_ALERTS);
        let rows = AlertRow::list(self.deps.alerting.store(), filter).await?;
        let parse =
            |row: &AlertRow| Some(AlertWithIncident { alert: Alert::from_row(row)?, incident: row.incident });
        let alerts: RecentAlerts = Arc::new(rows.iter().filter_map(parse).collect());
        *shared = Some(Shared { at: now, value: alerts.clone() });
        Ok(alerts)
    }
}

/// Runs a computation off the threads that serve requests.
async fn off_thread<T: Send + 'static>(compute: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(compute).await {
        Ok(value) => value,
        // The panic is in the log; the request ends with an internal error.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
