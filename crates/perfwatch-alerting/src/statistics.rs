//! Statistics of past alerts: incidents per day, times to acknowledge and to resolve, firings per rule. They
//! are computed from the alerts that a caller may view, so that hidden hosts do not change them.

use perfwatch_auth::Identity;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_model::{Clock, HostId};
use perfwatch_rules::rule::Severity;
use perfwatch_store::alert_times::AlertTimes;
use perfwatch_store::{Store, StoreError};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const DAY_MS: i64 = 86_400_000;
/// Maximum range of statistics.
pub const MAX_STATISTICS_RANGE_MS: i64 = 31 * DAY_MS;
/// Maximum number of alerts in statistics: the newest.
const MAX_STATISTICS_ALERTS: i64 = 20_000;
/// Starts of ranges are rounded down to this, so that callers share what was read.
const START_STEP_MS: i64 = 600_000;
/// Time for which alerts are shared.
const TIMES_TTL: Duration = Duration::from_secs(15);
/// Maximum number of ranges that are kept.
const MAX_SHARED_RANGES: usize = 8;
/// Days of the firings of a rule.
const FIRING_PERIODS_LEN: usize = 7;

/// Number of incidents that opened in 24 hours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IncidentDay {
    /// Start of the 24 hours, Unix milliseconds.
    pub day_ms: i64,
    /// Incidents with a critical alert.
    pub critical: usize,
    /// Other incidents with a warning.
    pub warning: usize,
    /// Other incidents.
    pub info: usize,
}

/// Statistics of the incidents that opened in a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IncidentStatistics {
    /// Start of the range, Unix milliseconds.
    pub from_ms: i64,
    /// End of the range, Unix milliseconds.
    pub to_ms: i64,
    /// Incidents in steps of 24 hours from `from_ms`.
    pub per_day: Vec<IncidentDay>,
    /// Median time until the first acknowledgment; `null` if no incident was acknowledged.
    pub ack_median_ms: Option<i64>,
    /// Median time until all alerts were resolved; `null` if no incident is resolved.
    pub resolve_median_ms: Option<i64>,
}

/// Firings of a rule in each of the last seven periods of 24 hours, oldest first.
pub type DailyFirings = [u32; FIRING_PERIODS_LEN];

/// Alerts and first acknowledgments since a time.
#[derive(Debug, Default)]
struct RecordedTimes {
    alerts: Vec<AlertTimes>,
    acknowledged: HashMap<Uuid, i64>,
}

/// Recorded times with the monotonic time at which they were read.
struct SharedTimes {
    at: Duration,
    times: Arc<RecordedTimes>,
}

/// Computes statistics from the store.
pub(crate) struct StatisticsReader {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// By start of the range.
    shared: tokio::sync::Mutex<HashMap<i64, SharedTimes>>,
}

/// Incident as if only the visible alerts had occurred.
struct VisibleIncident {
    opened_ms: i64,
    severity: Severity,
    /// Latest resolution; `None` while an alert fires.
    resolved_ms: Option<i64>,
}

/// Returns whether an identity may view alerts of a host. Alerts of the hub are visible without a host limit.
fn is_visible(identity: &Identity, auth_snapshot: &AuthSnapshot, host: Uuid) -> bool {
    match host.is_nil() {
        true => identity.host_tags.is_empty(),
        false => identity.can_view(auth_snapshot, HostId(host)),
    }
}

fn median(mut values: Vec<i64>) -> Option<i64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// Groups visible alerts by incident.
fn visible_incidents(
    alerts: &[AlertTimes],
    is_visible: impl Fn(Uuid) -> bool,
) -> HashMap<Uuid, VisibleIncident> {
    let mut incidents: HashMap<Uuid, VisibleIncident> = HashMap::new();
    for alert in alerts.iter().filter(|alert| is_visible(alert.host)) {
        let severity = Severity::parse(&alert.severity).unwrap_or_default();
        let incident = incidents.entry(alert.incident).or_insert(VisibleIncident {
            opened_ms: alert.fired_ms,
            severity,
            resolved_ms: alert.resolved_ms,
        });
        incident.opened_ms = incident.opened_ms.min(alert.fired_ms);
        incident.severity = incident.severity.max(severity);
        incident.resolved_ms = incident.resolved_ms.and_then(|known| Some(known.max(alert.resolved_ms?)));
    }
    incidents
}

fn summarize(
    times: &RecordedTimes,
    (from_ms, to_ms): (i64, i64),
    is_visible: impl Fn(Uuid) -> bool,
) -> IncidentStatistics {
    let day_count = (to_ms - from_ms + DAY_MS - 1) / DAY_MS;
    let empty_day = |day: i64| IncidentDay { day_ms: from_ms + day * DAY_MS, ..IncidentDay::default() };
    let mut per_day: Vec<IncidentDay> = (0..day_count).map(empty_day).collect();
    let (mut ack_times, mut resolve_times) = (Vec::new(), Vec::new());
    for (id, incident) in visible_incidents(&times.alerts, is_visible) {
        if !(from_ms..to_ms).contains(&incident.opened_ms) {
            continue;
        }
        let index = usize::try_from((incident.opened_ms - from_ms) / DAY_MS).unwrap_or_default();
        if let Some(day) = per_day.get_mut(index) {
            match incident.severity {
                Severity::Critical => day.critical += 1,
                Severity::Warning => day.warning += 1,
                Severity::Info => day.info += 1,
            }
        }
        // Acknowledged before the first visible alert: that alert was not waiting.
        let ack_ms = times.acknowledged.get(&id).map(|ack_ms| ack_ms - incident.opened_ms);
        ack_times.extend(ack_ms.filter(|ack_ms| *ack_ms >= 0));
        resolve_times.extend(incident.resolved_ms.map(|resolved_ms| resolved_ms - incident.opened_ms));
    }
    let (ack_median_ms, resolve_median_ms) = (median(ack_times), median(resolve_times));
    IncidentStatistics { from_ms, to_ms, per_day, ack_median_ms, resolve_median_ms }
}

fn count_firings(
    alerts: &[AlertTimes],
    now_ms: i64,
    is_visible: impl Fn(Uuid) -> bool,
) -> HashMap<Uuid, DailyFirings> {
    let from_ms = now_ms - i64::try_from(FIRING_PERIODS_LEN).unwrap_or_default() * DAY_MS;
    let mut firings: HashMap<Uuid, DailyFirings> = HashMap::new();
    for alert in alerts.iter().filter(|alert| alert.fired_ms >= from_ms && is_visible(alert.host)) {
        let index = usize::try_from((alert.fired_ms - from_ms) / DAY_MS).unwrap_or_default();
        firings.entry(alert.rule).or_default()[index.min(FIRING_PERIODS_LEN - 1)] += 1;
    }
    firings
}

impl StatisticsReader {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, shared: tokio::sync::Mutex::default() }
    }

    /// Alerts of incidents that were open at or after a time. Concurrent callers wait for a single read.
    async fn times_since(&self, from_ms: i64) -> Result<Arc<RecordedTimes>, StoreError> {
        let from_ms = from_ms - from_ms.rem_euclid(START_STEP_MS);
        let mut shared = self.shared.lock().await;
        let now = self.clock.monotonic();
        shared.retain(|_, times| now.saturating_sub(times.at) < TIMES_TTL);
        if let Some(known) = shared.get(&from_ms) {
            return Ok(known.times.clone());
        }
        let store = &*self.store;
        let acknowledged = AlertTimes::acknowledgments(store, from_ms, MAX_STATISTICS_ALERTS).await?;
        let times = Arc::new(RecordedTimes {
            alerts: AlertTimes::list(store, from_ms, MAX_STATISTICS_ALERTS).await?,
            acknowledged: acknowledged.into_iter().collect(),
        });
        if shared.len() < MAX_SHARED_RANGES {
            shared.insert(from_ms, SharedTimes { at: now, times: times.clone() });
        }
        Ok(times)
    }

    /// Statistics of the visible incidents that opened in a range.
    pub(crate) async fn incidents(
        &self,
        (from_ms, to_ms): (i64, i64),
        identity: &Identity,
        auth_snapshot: Arc<AuthSnapshot>,
    ) -> Result<IncidentStatistics, StoreError> {
        let times = self.times_since(from_ms).await?;
        let identity = identity.clone();
        let compute =
            move || summarize(&times, (from_ms, to_ms), |host| is_visible(&identity, &auth_snapshot, host));
        perfwatch_history::run_blocking(compute).await
    }

    /// Visible firings of each rule in the last seven days.
    pub(crate) async fn firings(
        &self,
        identity: &Identity,
        auth_snapshot: Arc<AuthSnapshot>,
    ) -> Result<HashMap<Uuid, DailyFirings>, StoreError> {
        let now_ms = self.clock.wall_ms();
        let times =
            self.times_since(now_ms - i64::try_from(FIRING_PERIODS_LEN).unwrap_or_default() * DAY_MS).await?;
        let identity = identity.clone();
        let compute =
            move || count_firings(&times.alerts, now_ms, |host| is_visible(&identity, &auth_snapshot, host));
        perfwatch_history::run_blocking(compute).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(
        incident: u128,
        host: u128,
        severity: &str,
        (fired, resolved): (i64, Option<i64>),
    ) -> AlertTimes {
        AlertTimes {
            incident: Uuid::from_u128(incident),
            rule: Uuid::from_u128(7),
            host: Uuid::from_u128(host),
            severity: severity.to_owned(),
            fired_ms: fired,
            resolved_ms: resolved,
        }
    }

    fn recorded() -> RecordedTimes {
        RecordedTimes {
            alerts: vec![
                alert(1, 1, "warning", (1_000, Some(5_000))),
                alert(1, 2, "critical", (500, Some(9_000))),
                alert(2, 1, "warning", (DAY_MS + 10, None)),
                alert(3, 1, "info", (-5, Some(1))),
            ],
            acknowledged: [(Uuid::from_u128(1), 2_500), (Uuid::from_u128(2), DAY_MS + 40)].into(),
        }
    }

    #[test]
    fn statistics_cover_incidents_of_the_range() {
        let statistics = summarize(&recorded(), (0, 2 * DAY_MS), |_| true);
        let days: Vec<(i64, usize, usize, usize)> =
            statistics.per_day.iter().map(|day| (day.day_ms, day.critical, day.warning, day.info)).collect();
        assert_eq!(days, [(0, 1, 0, 0), (DAY_MS, 0, 1, 0)]);
        assert_eq!((statistics.ack_median_ms, statistics.resolve_median_ms), (Some(2_000), Some(8_500)));
    }

    #[test]
    fn statistics_do_not_depend_on_hidden_hosts() {
        let hidden = Uuid::from_u128(2);
        let statistics = summarize(&recorded(), (0, 2 * DAY_MS), |host| host != hidden);
        let mut without = recorded();
        without.alerts.retain(|alert| alert.host != hidden);
        assert_eq!(statistics, summarize(&without, (0, 2 * DAY_MS), |_| true));
        assert_eq!((statistics.per_day[0].critical, statistics.per_day[0].warning), (0, 1));
        assert_eq!(statistics.resolve_median_ms, Some(4_000));
    }

    #[test]
    fn firings_are_counted_by_day() {
        let alerts = recorded().alerts;
        let now_ms = 7 * DAY_MS;
        let firings = count_firings(&alerts, now_ms, |host| host == Uuid::from_u128(1));
        assert_eq!(firings[&Uuid::from_u128(7)], [1, 1, 0, 0, 0, 0, 0]);
    }
}
