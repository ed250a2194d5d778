//! Answers to visitors: only what was chosen for a page, without ids, addresses and tags. A page is computed at most
//! every few seconds for any number of visitors, and whether its link is valid is checked at each request.

use crate::announcement::Announcement;
pub use crate::answer::PublicAnswer;
use crate::answer::{PageCache, SharedAnswer};
use crate::availability::{self, Availability, DAY_MS, day_of};
use crate::content::{self, PageState, StatusContent, StatusMetric};
use crate::host_days::MAX_DAYS;
use crate::{StatusPages, StatusService};
use bytes::Bytes;
use perfwatch_alerting::{ActiveIncidents, Alert, OpenIncident};
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_auth::secret::{self, SecretKind};
use perfwatch_live::host_registry::Host;
use perfwatch_live::host_status::HostStatus;
use perfwatch_model::HostId;
use perfwatch_overview::summary::SummaryValues;
use perfwatch_rules::rule::Severity;
use perfwatch_rules::silence::Silence;
use perfwatch_store::status_pages::StatusPage;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Time for which an answer is shared.
const ANSWER_TTL: Duration = Duration::from_secs(10);
/// Time for which an answer is shared while availability or values of hosts are missing.
const INCOMPLETE_TTL: Duration = Duration::from_secs(2);
/// Maximum number of incidents of an answer.
const MAX_INCIDENTS: usize = 20;
/// Time after the start of a hub in which hosts have not sent to it yet.
const START_GRACE_PERIOD: Duration = Duration::from_secs(60);

/// State of a host or of a whole page, as visitors see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PublicState {
    /// Sends data; for a page: all known hosts do.
    Up,
    /// Sends data and has an open incident.
    Degraded,
    /// Sends no data. For a page: all hosts.
    Down,
    /// For a page: some hosts are down.
    PartlyDown,
    /// Sends no data during a silence.
    Maintenance,
    /// Has never sent data, or none is expected.
    Unknown,
}

/// Current values of a host; `null` unless they were chosen for the page and the host sends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublicValues {
    /// CPU usage in percent.
    cpu: Option<f64>,
    /// Used memory in percent.
    memory: Option<f64>,
    /// Used share of the fullest filesystem in percent.
    disk: Option<f64>,
    /// Load average of the last minute.
    load: Option<f64>,
    /// Received bytes per second.
    rx: Option<f64>,
    /// Transmitted bytes per second.
    tx: Option<f64>,
}

/// Times of a day in UTC in seconds: up, down, maintenance, unknown. The time before the first data of a host is none
/// of them.
type PublicDay = [i64; 4];

/// Host of a page.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublicHost {
    /// Name that was chosen for visitors.
    name: String,
    state: PublicState,
    /// Last data of a host that is down.
    since_ms: Option<i64>,
    /// Time up of the known time in percent, rounded down; maintenance and unknown time do not count.
    availability: Option<f64>,
    /// The last 90 days in UTC, oldest first: seconds up, down, in maintenance, unknown; all 0 before the first data
    /// of the host. `null` for days that are not computed yet.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Option<Vec<i64>>>))]
    days: Vec<Option<PublicDay>>,
    values: PublicValues,
    /// Chosen values of the last hour by name, 30 steps of two minutes, oldest first; `null` for steps without data.
    recent: BTreeMap<&'static str, Vec<Option<f64>>>,
}

/// Group of hosts of a page.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublicGroup {
    name: String,
    hosts: Vec<PublicHost>,
}

/// Open incident of hosts of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublicIncident {
    severity: Severity,
    /// Names of the affected hosts that were chosen for visitors.
    names: Vec<String>,
    since_ms: i64,
    /// Set while a user handles the incident.
    acknowledged: bool,
}

/// Public status page.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublicStatusResponse {
    title: String,
    description: String,
    state: PublicState,
    /// Values that were chosen for the page.
    metrics: Vec<StatusMetric>,
    groups: Vec<PublicGroup>,
    /// Open incidents, newest first; `null` if the page does not show them.
    incidents: Option<Vec<PublicIncident>>,
    /// Texts of operators.
    announcements: Vec<Announcement>,
    /// Time of the computation.
    now_ms: i64,
    /// Time at which the link ends.
    expires_ms: i64,
}

impl StatusPages {
    /// Answer to a visitor with the token of a link; `None` for an unknown token and for a link that ended, which
    /// a visitor cannot tell apart.
    pub async fn answer(&self, token: &str) -> Option<PublicAnswer> {
        let service = &self.0;
        if !secret::has_prefix(SecretKind::StatusPage, token) {
            return None;
        }
        let snapshot = service.deps.directory.snapshot();
        let page = snapshot.status_pages.get(&secret::hash_secret(token))?;
        let now_ms = service.deps.clock.wall_ms();
        if content::page_state(page, &snapshot, now_ms) != PageState::Active {
            return None;
        }
        let cache = service.cache(&snapshot, page);
        let mut shared = cache.lock().await;
        let (now, version) = (service.deps.clock.monotonic(), (snapshot.revision(), page.updated_ms));
        let is_current =
            |shared: &&SharedAnswer| shared.version == version && now.saturating_sub(shared.at) < shared.ttl;
        if let Some(shared) = shared.as_ref().filter(is_current) {
            return Some(shared.answer.clone());
        }
        let response = service.compute(&snapshot, page).await?;
        let mut hosts = response.groups.iter().flat_map(|group| &group.hosts);
        let misses_values = |host: &PublicHost| {
            let is_up = matches!(host.state, PublicState::Up | PublicState::Degraded);
            is_up && !response.metrics.is_empty() && host.values == PublicValues::default()
        };
        let is_incomplete = hosts.any(|host| host.days.iter().any(Option::is_none) || misses_values(host));
        let ttl = if is_incomplete { INCOMPLETE_TTL } else { ANSWER_TTL };
        let json: Bytes = serde_json::to_vec(&response).unwrap_or_default().into();
        let hash = secret::hash_secret(&String::from_utf8_lossy(&json));
        let etag: String = hash[..12].iter().map(|byte| format!("{byte:02x}")).collect();
        let answer = PublicAnswer { json, etag: format!("\"{etag}\"") };
        *shared = Some(SharedAnswer { at: now, ttl, version, answer: answer.clone() });
        Some(answer)
    }
}

impl StatusService {
    /// Shared answer of a page. Answers of deleted pages are dropped.
    fn cache(&self, snapshot: &AuthSnapshot, page: &StatusPage) -> PageCache {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() > snapshot.status_pages.len() {
            let present: HashSet<_> = snapshot.status_pages.values().map(|page| page.id).collect();
            answers.retain(|id, _| present.contains(id));
        }
        answers.entry(page.id).or_default().clone()
    }

    /// Chosen values of a host in the last hour by name; values without any data are left out.
    fn recent_values(
        &self,
        host: HostId,
        metrics: &[StatusMetric],
        now_ms: i64,
    ) -> BTreeMap<&'static str, Vec<Option<f64>>> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        let Some(recent) = recent.get(&host).filter(|_| !metrics.is_empty()) else { return BTreeMap::new() };
        let steps: Vec<PublicValues> = recent
            .list(now_ms)
            .iter()
            .map(|values| values.map(|values| public_values(&values, metrics)).unwrap_or_default())
            .collect();
        let column = |value: fn(&PublicValues) -> Option<f64>| steps.iter().map(value).collect::<Vec<_>>();
        let columns = [
            ("cpu", column(|values| values.cpu)),
            ("memory", column(|values| values.memory)),
            ("disk", column(|values| values.disk)),
            ("load", column(|values| values.load)),
            ("rx", column(|values| values.rx)),
            ("tx", column(|values| values.tx)),
        ];
        columns.into_iter().filter(|(_, column)| column.iter().any(Option::is_some)).collect()
    }

    async fn compute(&self, snapshot: &AuthSnapshot, page: &StatusPage) -> Option<PublicStatusResponse> {
        let owner = content::valid_owner(page, snapshot)?;
        // Hosts that the owner may not view any more leave the page.
        let content =
            StatusContent::parse(page)?.retain_hosts(|host| content::can_view(owner, snapshot, host));
        let ids: HashSet<HostId> = content.hosts().map(|host| host.host).collect();
        let values = self.deps.overview.newest_values(&ids).await;
        let hosts: HashMap<HostId, Host> =
            ids.into_iter().filter_map(|id| Some((id, self.deps.hosts.get(id)?))).collect();
        let content = content.retain_hosts(|host| hosts.contains_key(&host));
        let now_ms = self.deps.clock.wall_ms();
        let alerting = self.deps.alerting.snapshot();
        let incidents = content.incidents.then(|| incidents(&content, &alerting.incidents, now_ms));
        let firing = alerting.incidents.iter().filter(|_| content.incidents).flat_map(|open| open.firing());
        let affected: HashSet<HostId> = firing.filter(is_shown).map(|alert| alert.host).collect();
        let silences: Vec<&Silence> =
            alerting.definitions.silences.iter().map(|silence| &**silence).collect();
        let is_starting = self.deps.clock.monotonic().saturating_sub(self.started) < START_GRACE_PERIOD;
        let days = self.days.read().unwrap_or_else(PoisonError::into_inner);
        let to_host = |host: &content::StatusHost| {
            let known = hosts.get(&host.host)?;
            let tags = snapshot.host_tags(host.host);
            let silences = availability::host_silences(silences.iter().copied(), host.host.0, tags);
            let is_silenced = silences.iter().any(|silence| silence.is_active(now_ms));
            let (status, was_seen) = (known.status(now_ms), known.last_seen_ms.is_some());
            let is_starting = is_starting && !was_seen;
            let state = host_state(status, (is_silenced, is_starting), affected.contains(&host.host));
            let first_row_ms = days.get(&host.host).and_then(|days| days.first_row_ms);
            let first_ms = first_data_ms(known, first_row_ms);
            let today = day_of(now_ms);
            let days = days.get(&host.host).map(|days| days.list(today));
            let days = days.unwrap_or_else(|| (0..MAX_DAYS).map(|_| None).collect());
            let numbered = (today - MAX_DAYS + 1..).zip(&days);
            let to_public = |(number, day): (i64, &Option<Availability>)| {
                day.as_ref().map(|day| to_public_day(day, absent_ms(number, first_ms)))
            };
            // The values of a host without data would look current.
            let values = values.get(&host.host).filter(|_| status == HostStatus::Online);
            let last_ms = known.last_seen_ms.or(known.record.last_snapshot_ms);
            Some(PublicHost {
                name: host.name.clone(),
                state,
                since_ms: last_ms.filter(|_| state == PublicState::Down),
                availability: total(&days).percent(),
                days: numbered.map(to_public).collect(),
                values: values.map(|values| public_values(values, &content.metrics)).unwrap_or_default(),
                recent: self.recent_values(host.host, &content.metrics, now_ms),
            })
        };
        let groups = content.groups.iter().map(|group| PublicGroup {
            name: group.name.clone(),
            hosts: group.hosts.iter().filter_map(to_host).collect(),
        });
        let groups: Vec<PublicGroup> = groups.collect();
        drop(days);
        let states = groups.iter().flat_map(|group| &group.hosts).map(|host| host.state);
        Some(PublicStatusResponse {
            title: page.title.clone(),
            description: content.description.clone(),
            state: page_state(&states.collect::<Vec<_>>()),
            metrics: content.metrics.clone(),
            groups,
            incidents,
            announcements: content.announcements.clone(),
            now_ms,
            expires_ms: page.expires_ms,
        })
    }
}

/// Time of the first data of a host in the days of a page; `None` if it has sent nothing.
fn first_data_ms(host: &Host, first_row_ms: Option<i64>) -> Option<i64> {
    host.newest_ms()?;
    // A host may send data of the time before it was added.
    Some(first_row_ms.map_or(host.record.first_seen_ms, |row_ms| row_ms.min(host.record.first_seen_ms)))
}

/// Time of a day before the first data.
fn absent_ms(day: i64, first_ms: Option<i64>) -> i64 {
    first_ms.map_or(DAY_MS, |first_ms| first_ms.saturating_sub(day * DAY_MS).clamp(0, DAY_MS))
}

/// State of a host. Until hosts had the time to send to a hub that started, their silence has no meaning.
fn host_state(
    status: HostStatus,
    (is_silenced, is_starting): (bool, bool),
    has_incident: bool,
) -> PublicState {
    match status {
        HostStatus::Online if has_incident => PublicState::Degraded,
        HostStatus::Online => PublicState::Up,
        HostStatus::NoData if is_silenced => PublicState::Maintenance,
        HostStatus::NoData if is_starting => PublicState::Unknown,
        HostStatus::NoData => PublicState::Down,
        HostStatus::New | HostStatus::Disabled | HostStatus::Unknown => PublicState::Unknown,
    }
}

/// State of a page from those of its hosts. Hosts in maintenance and of unknown state count only if there are no
/// others.
fn page_state(states: &[PublicState]) -> PublicState {
    use PublicState::{Degraded, Down, Maintenance, PartlyDown, Unknown, Up};
    let is_any = |state| states.contains(&state);
    match (is_any(Down), is_any(Degraded), is_any(Up)) {
        (true, false, false) => Down,
        (true, ..) => PartlyDown,
        (false, true, _) => Degraded,
        (false, false, true) => Up,
        (false, false, false) if is_any(Maintenance) => Maintenance,
        _ => Unknown,
    }
}

/// Sum of the days that are computed.
fn total(days: &[Option<Availability>]) -> Availability {
    days.iter().flatten().fold(Availability::default(), |total, day| total.plus(*day))
}

/// Seconds of a day. Time before the first data was counted as unknown.
fn to_public_day(day: &Availability, absent_ms: i64) -> PublicDay {
    let unknown_ms = (day.unknown_ms - absent_ms).max(0);
    [day.up_ms, day.down_ms, day.maintenance_ms, unknown_ms].map(|time_ms| time_ms / 1_000)
}

/// Values that were chosen, with as many digits as the page shows.
fn public_values(values: &SummaryValues, metrics: &[StatusMetric]) -> PublicValues {
    let chosen = |metric, value: Option<f64>, scale: f64| {
        value.filter(|_| metrics.contains(&metric)).map(|value| (value * scale).round() / scale)
    };
    PublicValues {
        cpu: chosen(StatusMetric::Cpu, values.cpu, 1.0),
        memory: chosen(StatusMetric::Memory, values.memory, 1.0),
        disk: chosen(StatusMetric::Disk, values.disk, 1.0),
        load: chosen(StatusMetric::Load, values.load, 100.0),
        rx: chosen(StatusMetric::Network, values.rx, 1.0),
        tx: chosen(StatusMetric::Network, values.tx, 1.0),
    }
}

/// Returns whether visitors see an alert: not with the severity info, and not if a silence suppresses it.
fn is_shown(alert: &&Arc<Alert>) -> bool {
    alert.severity >= Severity::Warning && !alert.body.silenced
}

/// Open incidents of the hosts of a page, as severity and display names.
fn incidents(content: &StatusContent, incidents: &ActiveIncidents, now_ms: i64) -> Vec<PublicIncident> {
    let names: HashMap<HostId, &str> = content.hosts().map(|host| (host.host, host.name.as_str())).collect();
    let to_public = |open: &Arc<OpenIncident>| {
        let of_page = |alert: &&Arc<Alert>| names.contains_key(&alert.host);
        let alerts: Vec<_> = open.firing().filter(is_shown).filter(of_page).collect();
        let affected: BTreeSet<&str> =
            alerts.iter().filter_map(|alert| names.get(&alert.host).copied()).collect();
        Some(PublicIncident {
            severity: alerts.iter().map(|alert| alert.severity).max()?,
            names: affected.into_iter().map(str::to_owned).collect(),
            since_ms: alerts.iter().map(|alert| alert.fired_ms).min()?,
            acknowledged: open.incident.is_acknowledged(now_ms),
        })
    };
    let mut list: Vec<PublicIncident> = incidents.iter().filter_map(to_public).collect();
    list.sort_by_key(|incident| Reverse(incident.since_ms));
    list.truncate(MAX_INCIDENTS);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_state_is_that_of_its_worst_hosts() {
        use PublicState::{Degraded, Down, Maintenance, PartlyDown, Unknown, Up};
        for (states, expected) in [
            (vec![], Unknown),
            (vec![Unknown, Unknown], Unknown),
            (vec![Unknown, Maintenance], Maintenance),
            (vec![Up, Maintenance, Unknown], Up),
            (vec![Up, Degraded], Degraded),
            (vec![Up, Down, Degraded], PartlyDown),
            (vec![Down, Degraded], PartlyDown),
            (vec![Down, Maintenance, Unknown], Down),
        ] {
            assert_eq!(page_state(&states), expected, "{states:?}");
        }
    }

    #[test]
    fn silent_host_is_in_maintenance_or_down() {
        use PublicState::{Degraded, Down, Maintenance, Unknown, Up};
        for (status, is_silenced, is_starting, has_incident, expected) in [
            (HostStatus::Online, false, false, false, Up),
            (HostStatus::Online, true, true, true, Degraded),
            (HostStatus::NoData, false, false, true, Down),
            (HostStatus::NoData, true, true, true, Maintenance),
            (HostStatus::NoData, false, true, false, Unknown),
            (HostStatus::New, true, false, false, Unknown),
            (HostStatus::Disabled, false, false, false, Unknown),
        ] {
            let state = host_state(status, (is_silenced, is_starting), has_incident);
            assert_eq!(state, expected, "{status:?} {is_silenced} {is_starting} {has_incident}");
        }
    }

    #[test]
    fn time_before_the_first_data_is_not_unknown() {
        let unknown = Availability { unknown_ms: DAY_MS, ..Availability::default() };
        let part = Availability { up_ms: DAY_MS / 2, unknown_ms: DAY_MS / 2, ..Availability::default() };
        for (day, total, first_ms, expected) in [
            (5, &unknown, None, [0; 4]),
            (5, &unknown, Some(6 * DAY_MS), [0; 4]),
            (5, &part, Some(5 * DAY_MS + DAY_MS / 2), [43_200, 0, 0, 0]),
            (5, &part, Some(5 * DAY_MS + 1_000), [43_200, 0, 0, 43_199]),
            (5, &unknown, Some(4 * DAY_MS), [0, 0, 0, 86_400]),
            (5, &unknown, Some(i64::MIN), [0, 0, 0, 86_400]),
        ] {
            assert_eq!(to_public_day(total, absent_ms(day, first_ms)), expected, "{first_ms:?}");
        }
    }

    #[test]
    fn values_that_were_not_chosen_are_left_out() {
        let values = SummaryValues {
            cpu: Some(12.6),
            memory: Some(40.0),
            disk: Some(71.2),
            load: Some(0.126),
            rx: Some(1.4),
            tx: Some(2.6),
        };
        let json =
            |metrics: &[StatusMetric]| serde_json::to_string(&public_values(&values, metrics)).unwrap();
        let null = "null";
        for (metrics, [cpu, memory, disk, load, rx, tx]) in [
            (&[][..], [null; 6]),
            (&[StatusMetric::Cpu, StatusMetric::Load], ["13.0", null, null, "0.13", null, null]),
            (&[StatusMetric::Network], [null, null, null, null, "1.0", "3.0"]),
            (&[StatusMetric::Disk, StatusMetric::Memory], [null, "40.0", "71.0", null, null, null]),
        ] {
            let expected = format!(
                r#"{{"cpu":{cpu},"memory":{memory},"disk":{disk},"load":{load},"rx":{rx},"tx":{tx}}}"#
            );
            assert_eq!(json(metrics), expected);
        }
    }
}
