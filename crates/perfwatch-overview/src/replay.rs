//! Overview at a past time, from the recent window and the history. Hosts are read one by one, so that the rows of
//! a single host are in memory; stored values and time are bounded, and the response counts what was left out.

use crate::fleet::{FleetHost, FleetState};
use crate::host_values::{HostValues, ShapeIndices, largest_processes, selectors};
use crate::read_budget::ReadBudget;
use crate::response::{OverviewReplay, ReplayIncident, ReplayPart, ReplayReason};
use crate::view::{self, VisibleHosts};
use crate::{Overview, OverviewDeps};
use perfwatch_alerting::{Alert, INCIDENT_RETENTION_MS, can_view};
use perfwatch_auth::Identity;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_history::instant::InstantRequest;
use perfwatch_history::read::NearestSnapshot;
use perfwatch_live::host_registry::Host;
use perfwatch_live::host_status::{HostStatus, interval_grace_ms};
use perfwatch_model::limits::RECENT_WINDOW_MS;
use perfwatch_model::{HostId, Snapshot};
use perfwatch_rules::rule::Severity;
use perfwatch_store::incidents::{AlertFilter, AlertRow};
use perfwatch_store::{HeldPermits, StoreError};
use perfwatch_tsdb::{Projection, Tier};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use uuid::Uuid;

/// Minimum and maximum age of the rows that are read, in milliseconds.
const MIN_AGE_MS: i64 = 300_000;
const MAX_AGE_MS: i64 = 3_600_000;
/// Maximum number of stored values of a host in memory.
const MAX_HOST_CELLS: usize = 1 << 20;
/// Memory for the blocks of a host, and for the values and largest processes of each host, in bytes.
const BLOCK_MEMORY_BYTES: usize = 24 << 20;
const HOST_MEMORY_BYTES: usize = 8 << 10;
/// Maximum number of alerts that are read.
const MAX_ALERTS: i64 = 5_000;
/// Maximum number of incidents in a response.
const MAX_INCIDENTS: usize = 50;

/// Request for the overview at a past time.
pub struct ReplayRequest<'a> {
    /// Time in Unix milliseconds.
    pub at_ms: i64,
    /// Revision of the hosts that the caller has.
    pub revision: Option<&'a str>,
    /// Permits that the reads hold.
    pub held: HeldPermits,
}

/// Reason for which there is no overview at a time.
#[derive(Debug)]
pub enum ReplayError {
    /// The time is after the current time.
    Future,
    /// All history before a time in Unix milliseconds was deleted.
    Deleted(i64),
    /// The database cannot be read.
    Store(StoreError),
}

impl From<StoreError> for ReplayError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Host at the time of a replay.
struct ReplayHost {
    host: Host,
    status: HostStatus,
    values: Option<HostValues>,
    tier: Option<Tier>,
    /// Whether the processes have to be read.
    needs_processes: bool,
}

/// Alert that fired at the time of a replay, with its incident.
type FiringAlert = (Uuid, Alert);

/// Reads of a replay, and what they left out.
struct ReplayReads<'a> {
    deps: &'a OverviewDeps,
    request: &'a ReplayRequest<'a>,
    now_ms: i64,
    budget: ReadBudget,
    projection: Arc<Projection>,
    shapes: ShapeIndices,
}

impl Overview {
    /// Memory in bytes that a replay needs at most.
    pub fn replay_memory_bytes(&self) -> usize {
        BLOCK_MEMORY_BYTES + self.0.deps.hosts.count() * HOST_MEMORY_BYTES
    }

    /// Overview at a past time as JSON for a caller.
    ///
    /// # Errors
    /// Returns [`ReplayError`] if the time is not in the history, or if the database cannot be read.
    pub async fn replay(
        &self,
        identity: &Identity,
        request: ReplayRequest<'_>,
    ) -> Result<String, ReplayError> {
        let deps = &self.0.deps;
        let (at_ms, now_ms) = (request.at_ms, deps.clock.wall_ms());
        if at_ms > now_ms {
            return Err(ReplayError::Future);
        }
        let deleted_ms = deps.history.deleted_before_ms().await?;
        if at_ms < deleted_ms {
            return Err(ReplayError::Deleted(deleted_ms));
        }
        let started = deps.clock.monotonic();
        let auth_snapshot = deps.directory.snapshot();
        let mut reads = ReplayReads::new(deps, &request, now_ms);
        let alerts = reads.firing_alerts(identity, &auth_snapshot).await?;
        let mut hosts = Vec::new();
        for host in deps.hosts.list() {
            if identity.can_view(&auth_snapshot, host.record.id) {
                hosts.push(reads.read_host(host).await?);
            }
        }
        reads.read_processes(&mut hosts).await?;
        let tiers = hosts.iter().map(|host| host.tier.map(Tier::name)).collect();
        let incidents = reads.incidents(&alerts);
        let counts = incident_counts(&incidents);
        let state = FleetState { sequence: 0, now_ms, hosts: fleet_hosts(hosts, &alerts) };
        let visible = VisibleHosts(state.hosts.iter().collect());
        let mut response = view::build(&state, &visible, counts, (&auth_snapshot, &HashMap::new()));
        if request.revision == Some(&response.revision) {
            response.hosts = None;
        }
        reads.budget.leave_out(ReplayPart::Filling, ReplayReason::Past, state.hosts.len());
        let duration_ms = deps.clock.monotonic().saturating_sub(started).as_millis();
        response.replay = Some(OverviewReplay {
            at_ms,
            tiers,
            incidents: incidents.into_iter().take(MAX_INCIDENTS).collect(),
            left_out: reads.budget.left_out(),
            duration_ms: u64::try_from(duration_ms).unwrap_or_default(),
        });
        Ok(serde_json::to_string(&response).unwrap_or_default())
    }
}

impl<'a> ReplayReads<'a> {
    fn new(deps: &'a OverviewDeps, request: &'a ReplayRequest<'a>, now_ms: i64) -> Self {
        Self {
            deps,
            request,
            now_ms,
            budget: ReadBudget::new(deps.clock.clone()),
            projection: InstantRequest::projection(selectors()),
            shapes: ShapeIndices::default(),
        }
    }

    fn instant(&self, host: HostId, at_ms: i64, max_age_ms: i64) -> InstantRequest {
        InstantRequest {
            host,
            at_ms,
            max_age_ms,
            projection: self.projection.clone(),
            max_cells: self.budget.cells().min(MAX_HOST_CELLS),
            held: Some(self.request.held.clone()),
        }
    }

    /// Visible alerts that fired at the time, with their incidents.
    async fn firing_alerts(
        &mut self,
        identity: &Identity,
        auth_snapshot: &AuthSnapshot,
    ) -> Result<Vec<FiringAlert>, StoreError> {
        let after_ms = self.request.at_ms + 1;
        let filter = AlertFilter::Between(after_ms, after_ms, MAX_ALERTS);
        let rows = AlertRow::list(self.deps.alerting.store(), filter).await?;
        if i64::try_from(rows.len()).is_ok_and(|count| count >= MAX_ALERTS) {
            self.budget.leave_out_unknown(ReplayPart::Incidents, ReplayReason::Limit);
        }
        if self.request.at_ms < self.now_ms - INCIDENT_RETENTION_MS {
            self.budget.leave_out_unknown(ReplayPart::Incidents, ReplayReason::Retention);
        }
        let alerts = rows.iter().filter_map(|row| Some((row.incident, Alert::from_row(row)?)));
        Ok(alerts.filter(|(_, alert)| can_view(identity, auth_snapshot, alert)).collect())
    }

    /// Row of the recent window; `None` if a newer row may be in the history.
    fn recent_row(&self, host: HostId) -> Option<Arc<Snapshot>> {
        let at_ms = self.request.at_ms;
        if at_ms <= self.now_ms - RECENT_WINDOW_MS {
            return None;
        }
        let newest = self.deps.live_feed.snapshot_at(host, at_ms, self.now_ms);
        // Of a host that sends to another hub, the window may end early.
        newest.filter(|row| at_ms - row.at_ms < i64::from(row.interval_ms))
    }

    /// Reads the status and the values of a host.
    async fn read_host(&mut self, mut host: Host) -> Result<ReplayHost, StoreError> {
        let (id, at_ms) = (host.record.id, self.request.at_ms);
        let grace_ms = host.grace_ms();
        // Times after that of the replay are not known yet.
        host.record.last_snapshot_ms = host.record.last_snapshot_ms.filter(|time_ms| *time_ms <= at_ms);
        host.last_seen_ms = None;
        let unknown = |host| ReplayHost {
            host,
            status: HostStatus::Unknown,
            values: None,
            tier: None,
            needs_processes: false,
        };
        let (row, has_processes) = if let Some(row) = self.recent_row(id) {
            (Some(NearestSnapshot { snapshot: (*row).clone(), width_ms: 0 }), true)
        } else {
            if let Some(reason) = self.budget.limit() {
                self.budget.leave_out(ReplayPart::Values, reason, 1);
                return Ok(unknown(host));
            }
            let request = self.instant(id, at_ms, grace_ms.clamp(MIN_AGE_MS, MAX_AGE_MS));
            let found = match self.deps.history.row_at(request).await {
                Err(StoreError::TooLarge(_)) => {
                    self.budget.leave_out_large(ReplayPart::Values);
                    return Ok(unknown(host));
                }
                found => found?,
            };
            self.budget.charge(found.cells);
            let is_current = found.row.as_ref().is_some_and(|row| is_current(row, at_ms, grace_ms));
            if found.is_unreadable && !is_current {
                self.budget.leave_out(ReplayPart::Values, ReplayReason::Unreadable, 1);
                return Ok(unknown(host));
            }
            if found.row.is_none() && at_ms < self.deps.history.host_deleted_before_ms(id).await? {
                self.budget.leave_out(ReplayPart::Values, ReplayReason::Retention, 1);
                return Ok(unknown(host));
            }
            (found.row, found.has_processes)
        };
        host.last_seen_ms = row.as_ref().map(|row| row.snapshot.at_ms);
        let Some(row) = row.filter(|row| is_current(row, at_ms, grace_ms)) else {
            let joined = host.record.first_seen_ms <= at_ms || host.last_seen_ms.is_some();
            let status = if joined { HostStatus::NoData } else { HostStatus::New };
            return Ok(ReplayHost { host, status, values: None, tier: None, needs_processes: false });
        };
        let tier = tier_of(row.width_ms);
        let index = self.shapes.get(&row.snapshot.shape);
        let values = Some(HostValues::new(&row.snapshot, &index));
        let needs_processes = !has_processes && tier == Tier::Raw;
        if tier != Tier::Raw {
            self.budget.leave_out(ReplayPart::Processes, ReplayReason::Retention, 1);
        }
        Ok(ReplayHost { host, status: HostStatus::Online, values, tier: Some(tier), needs_processes })
    }

    /// Reads the processes of the hosts, busiest first, until a limit is reached.
    async fn read_processes(&mut self, hosts: &mut [ReplayHost]) -> Result<(), StoreError> {
        let mut pending: Vec<&mut ReplayHost> =
            hosts.iter_mut().filter(|host| host.needs_processes).collect();
        let load = |host: &ReplayHost| {
            let cores = host.host.record.facts.as_ref().map_or(1, |facts| facts.cores.max(1));
            host.values.as_ref().and_then(|values| values.cpu).unwrap_or(0.0) * f64::from(cores)
        };
        pending.sort_by(|a, b| load(b).total_cmp(&load(a)));
        let count = pending.len();
        for (position, host) in pending.into_iter().enumerate() {
            if let Some(reason) = self.budget.limit() {
                self.budget.leave_out(ReplayPart::Processes, reason, count - position);
                break;
            }
            let Some(values) = &mut host.values else { continue };
            let request = self.instant(host.host.record.id, values.at_ms, 0);
            match self.deps.history.processes_at(request).await {
                Err(StoreError::TooLarge(_)) => {
                    self.budget.leave_out_large(ReplayPart::Processes);
                }
                read => {
                    let (processes, cells) = read?;
                    self.budget.charge(cells);
                    values.processes = largest_processes(&processes);
                }
            }
        }
        Ok(())
    }

    /// Incidents of the alerts, worst and oldest first.
    fn incidents(&mut self, alerts: &[FiringAlert]) -> Vec<ReplayIncident> {
        let mut by_incident: BTreeMap<Uuid, Vec<&Alert>> = BTreeMap::new();
        for (incident, alert) in alerts {
            by_incident.entry(*incident).or_default().push(alert);
        }
        let mut incidents: Vec<(Severity, ReplayIncident)> = Vec::new();
        for (id, alerts) in by_incident {
            let Some(first) = alerts.iter().min_by_key(|alert| alert.fired_ms) else { continue };
            let severity = alerts.iter().map(|alert| alert.severity).max().unwrap_or_default();
            let hosts: BTreeSet<HostId> = alerts.iter().map(|alert| alert.host).collect();
            let incident = ReplayIncident {
                id,
                severity: severity.name(),
                rule: first.body.rule_name.clone(),
                host_name: first.body.host_name.clone(),
                hosts: hosts.len(),
                alerts: alerts.len(),
                fired_ms: first.fired_ms,
            };
            incidents.push((severity, incident));
        }
        incidents.sort_by_key(|(severity, incident)| (Reverse(*severity), incident.fired_ms));
        let surplus = incidents.len().saturating_sub(MAX_INCIDENTS);
        self.budget.leave_out(ReplayPart::Incidents, ReplayReason::Limit, surplus);
        incidents.into_iter().map(|(_, incident)| incident).collect()
    }
}

/// Number of incidents by severity: info, warning, critical.
fn incident_counts(incidents: &[ReplayIncident]) -> [usize; 3] {
    let count = |name: &str| incidents.iter().filter(|incident| incident.severity == name).count();
    [Severity::Info, Severity::Warning, Severity::Critical].map(|severity| count(severity.name()))
}

fn tier_of(width_ms: i64) -> Tier {
    Tier::ALL.into_iter().rev().find(|tier| width_ms >= tier.width_ms()).unwrap_or(Tier::Raw)
}

/// Returns whether a row is new enough for a host that sends: by its own interval, or by that of today.
fn is_current(row: &NearestSnapshot, at_ms: i64, grace_ms: i64) -> bool {
    let interval_ms = if row.width_ms > 0 { 0 } else { row.snapshot.interval_ms };
    let own_grace_ms = if interval_ms == 0 { 0 } else { interval_grace_ms(interval_ms) };
    let age_ms = at_ms - (row.snapshot.at_ms + row.width_ms);
    age_ms <= grace_ms.max(own_grace_ms).min(MAX_AGE_MS)
}

/// Hosts with the numbers of their firing alerts.
fn fleet_hosts(hosts: Vec<ReplayHost>, alerts: &[FiringAlert]) -> Vec<FleetHost> {
    let mut counts: HashMap<HostId, [u32; 2]> = HashMap::new();
    for (_, alert) in alerts {
        let count = counts.entry(alert.host).or_default();
        match alert.severity {
            Severity::Critical => count[0] += 1,
            Severity::Warning => count[1] += 1,
            Severity::Info => {}
        }
    }
    let to_fleet_host = |replay: ReplayHost| FleetHost {
        alerts: counts.get(&replay.host.record.id).copied().unwrap_or_default(),
        host: replay.host,
        status: replay.status,
        values: replay.values.map(Arc::new),
    };
    hosts.into_iter().map(to_fleet_host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{BootId, Shape};

    fn row(at_ms: i64, interval_ms: u32, width_ms: i64) -> NearestSnapshot {
        let snapshot = Snapshot {
            boot: BootId::default(),
            seq: 0,
            at_ms,
            interval_ms,
            shape: Arc::new(Shape::new(Vec::new())),
            values: Vec::new(),
            processes: Vec::new(),
            facts: None,
            errors: Vec::new(),
        };
        NearestSnapshot { snapshot, width_ms }
    }

    #[test]
    fn row_is_current_within_the_grace_of_its_interval() {
        for (interval_ms, width_ms, grace_ms, age_ms, expected) in [
            (1_000, 0, 10_000, 10_000, true),
            (1_000, 0, 10_000, 10_001, false),
            // The host sent more rarely than today.
            (60_000, 0, 10_000, 180_000, true),
            (60_000, 0, 10_000, 180_001, false),
            // Or more often.
            (1_000, 0, 180_000, 180_000, true),
            (0, 0, 10_000, 10_001, false),
            // A bucket contains its time, and ends at its width.
            (60_000, 60_000, 10_000, 69_999, true),
            (60_000, 60_000, 10_000, 70_001, false),
            (3_600_000, 3_600_000, 10_000, 3_599_999, true),
        ] {
            let row = row(0, interval_ms, width_ms);
            assert_eq!(is_current(&row, age_ms, grace_ms), expected, "{interval_ms} {width_ms} {age_ms}");
        }
    }

    #[test]
    fn tier_follows_the_width_of_a_row() {
        for (width_ms, tier) in [(0, Tier::Raw), (60_000, Tier::Minute), (3_600_000, Tier::Hour)] {
            assert_eq!(tier_of(width_ms), tier);
        }
    }
}
