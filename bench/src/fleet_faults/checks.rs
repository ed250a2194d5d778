//! Checks at the end of a run: what was acknowledged is in the history of every hub once, each breach is one
//! incident with its notifications, and viewers had new data soon after each fault.

use super::agents::Agent;
use super::faults::FaultKind;
use super::installation::Installation;
use super::schedule::AppliedFault;
use super::viewers::{Arrival, View};
use super::webhook::Delivery;
use perfwatch_model::{Clock as _, SystemClock};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Longest time without new data after a fault.
const MAX_GAP: Duration = Duration::from_secs(5);
/// Time after a fault in which gaps count. Shorter if another fault follows, but not below [`MAX_GAP`].
const RECOVERY_TIME: Duration = Duration::from_secs(10);
/// Longest pause of an agent after failures: the default of `agent.max_backoff`.
const MAX_AGENT_PAUSE: Duration = Duration::from_secs(10);
/// Time for which the history is read again until it is complete: rows of other hubs arrive, and blocks are
/// written.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Time before a delivery in which the fault may have been that interrupted it.
const DELIVERY_TIME: Duration = Duration::from_secs(1);
/// Shortest time for which a hub has its leases without the database: they last 7 s, and are renewed every 2 s.
const MIN_LEASE_TIME: Duration = Duration::from_secs(5);
/// Broken invariants that are listed.
const MAX_LISTED: usize = 8;

/// Result of a run.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Lines to print.
    pub(super) lines: Vec<String>,
    /// Broken invariants.
    pub(super) broken: Vec<String>,
}

impl Report {
    fn require(&mut self, is_true: bool, broken: impl FnOnce() -> String) {
        if !is_true {
            self.broken.push(broken());
        }
    }

    /// Report of a run that could not be finished.
    pub(super) fn of_error(error: &anyhow::Error) -> Self {
        Self { lines: Vec::new(), broken: vec![format!("{error:#}")] }
    }

    pub(super) fn print(&self) {
        self.lines.iter().for_each(|line| println!("  {line}"));
        self.broken.iter().take(MAX_LISTED).for_each(|broken| println!("  BROKEN: {broken}"));
        if self.broken.len() > MAX_LISTED {
            println!("  BROKEN: {} more", self.broken.len() - MAX_LISTED);
        }
    }
}

/// Snapshots of one host in the history of one hub, compared with what was acknowledged.
#[derive(Debug, Default, PartialEq, Eq)]
struct HistoryDifference {
    lost: Vec<u64>,
    twice: usize,
    stored: usize,
}

fn compare(acknowledged: &BTreeSet<u64>, stored: &[u64]) -> HistoryDifference {
    let unique: BTreeSet<u64> = stored.iter().copied().collect();
    HistoryDifference {
        lost: acknowledged.difference(&unique).copied().collect(),
        twice: stored.len() - unique.len(),
        stored: unique.len(),
    }
}

/// Sequence numbers of a host in the history of a hub.
fn stored(installation: &Installation, hub: usize, agent: &Agent) -> anyhow::Result<Vec<u64>> {
    let path = format!("/api/v1/hosts/{}/export?format=jsonl&tier=raw&metric=load.1m&from=-4h", agent.id());
    let text = installation.hub(hub).text(&path, &installation.admin, None)?;
    let seq = |line: &str| serde_json::from_str::<Value>(line).ok()?["seq"].as_u64();
    text.lines().map(|line| seq(line).ok_or_else(|| anyhow::anyhow!("{path}: {line:.200}"))).collect()
}

/// Checks that agents have delivered everything.
pub(super) fn check_acknowledged(report: &mut Report, agents: &[Agent]) {
    let unsent: usize = agents.iter().map(Agent::unacknowledged).sum();
    report.require(unsent == 0, || format!("{unsent} snapshots were never acknowledged"));
}

/// Compares the history of every hub with what was acknowledged.
pub(super) fn check_history(
    report: &mut Report,
    installation: &Installation,
    agents: &[Agent],
    clock: SystemClock,
) -> anyhow::Result<()> {
    let deadline = clock.monotonic() + HISTORY_TIMEOUT;
    let (mut acknowledged_count, mut stored_count, mut lost_count, mut twice_count) = (0, 0, 0, 0);
    for agent in agents {
        let acknowledged: BTreeSet<u64> = agent.acknowledged.iter().map(|entry| entry.seq).collect();
        acknowledged_count += acknowledged.len();
        for hub in 0..installation.hub_count() {
            let mut difference = compare(&acknowledged, &stored(installation, hub, agent)?);
            while difference.twice + difference.lost.len() > 0 && clock.monotonic() < deadline {
                std::thread::sleep(POLL_INTERVAL);
                difference = compare(&acknowledged, &stored(installation, hub, agent)?);
            }
            let HistoryDifference { lost, twice, stored } = difference;
            stored_count += if hub == 0 { stored } else { 0 };
            lost_count += lost.len();
            twice_count += twice;
            report.require(lost.is_empty() && twice == 0, || {
                let times = agent.acknowledged.iter().filter(|entry| lost.contains(&entry.seq));
                let first = times.map(|entry| entry.at_ms).next().unwrap_or_default();
                let (name, lost) = (agent.name(), &lost[..lost.len().min(MAX_LISTED)]);
                format!("{name} at hub-{hub}: lost {lost:?} (first at {first}), {twice} stored twice")
            });
        }
    }
    report.lines.push(format!(
        "snapshots: {acknowledged_count} acknowledged, {stored_count} stored, {lost_count} lost, \
         {twice_count} stored twice (in the history of all hubs)"
    ));
    Ok(())
}

/// Alert as the API returns it.
#[derive(Debug, Clone)]
struct Alert {
    host: String,
    rule: String,
    /// Unix milliseconds.
    #[expect(dead_code, reason = "explains a broken invariant")]
    fired_ms: i64,
    #[expect(dead_code, reason = "explains a broken invariant")]
    resolve_reason: String,
}

/// Incident as the API returns it.
#[derive(Debug, Clone)]
pub(super) struct Incident {
    id: String,
    alerts: Vec<Alert>,
    is_resolved: bool,
    reopen_count: u64,
}

impl Incident {
    fn concerns(&self, host: &str) -> bool {
        self.alerts.iter().any(|alert| alert.host == host)
    }
}

/// All incidents of the run.
pub(super) fn incidents(installation: &Installation) -> anyhow::Result<Vec<Incident>> {
    let path = "/api/v1/incidents/history?from=-4h&limit=200";
    let response = installation.hub(0).request(path, &installation.admin, None)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = response["incidents"].as_array().ok_or_else(|| anyhow::anyhow!("{path}: {response}"))?;
    let alert = |value: &Value| Alert {
        host: text(&value["host"]),
        rule: text(&value["rule_name"]),
        fired_ms: value["fired_ms"].as_i64().unwrap_or_default(),
        resolve_reason: text(&value["resolve_reason"]),
    };
    let incident = |value: &Value| Incident {
        id: text(&value["id"]),
        alerts: value["alerts"].as_array().into_iter().flatten().map(alert).collect(),
        is_resolved: value["phase"] == "resolved",
        reopen_count: value["reopen_count"].as_u64().unwrap_or_default(),
    };
    Ok(list.iter().map(incident).collect())
}

/// Timeline of an incident, for the explanation of a broken invariant.
fn timeline(installation: &Installation, incident: &str) -> Value {
    let path = format!("/api/v1/incidents/{incident}");
    let detail = installation.hub(0).request(&path, &installation.admin, None).unwrap_or_default();
    let event = |event: &Value| format!("{} {}", event["at_ms"], event["kind"]);
    detail["timeline"].as_array().into_iter().flatten().map(event).collect()
}

/// Returns whether each breach has a resolved incident whose notifications were received.
pub(super) fn is_settled(agents: &[Agent], incidents: &[Incident], deliveries: &[Delivery]) -> bool {
    agents.iter().filter(|agent| agent.breach.is_some()).all(|agent| {
        let id = agent.id().to_string();
        let of_host = |incident: &&Incident| incident.concerns(&id);
        incidents.iter().find(of_host).is_some_and(|incident| {
            let is_last =
                |delivery: &Delivery| delivery.incident == incident.id && delivery.reason == "resolved";
            incident.is_resolved && deliveries.iter().any(is_last)
        })
    })
}

/// Checks that each breach is one incident, and returns their ids.
pub(super) fn check_incidents(
    report: &mut Report,
    installation: &Installation,
    agents: &[Agent],
    incidents: &[Incident],
) -> BTreeSet<String> {
    let mut expected = BTreeSet::new();
    for agent in agents {
        let Some(breach) = agent.breach else { continue };
        let id = agent.id().to_string();
        let of_host: Vec<&Incident> = incidents.iter().filter(|incident| incident.concerns(&id)).collect();
        expected.extend(of_host.first().map(|incident| incident.id.clone()));
        let is_expected = matches!(of_host[..], [incident] if incident.is_resolved
            && incident.reopen_count == 0
            && matches!(&incident.alerts[..], [alert] if alert.host == id && alert.rule == breach.rule));
        report.require(is_expected, || {
            let timelines: Vec<Value> =
                of_host.iter().map(|incident| timeline(installation, &incident.id)).collect();
            format!("{} ({}): {of_host:?} {timelines:?}", agent.name(), breach.rule)
        });
    }
    let unexpected: Vec<&Incident> =
        incidents.iter().filter(|incident| !expected.contains(&incident.id)).collect();
    report.require(unexpected.is_empty(), || format!("unexpected incidents: {unexpected:?}"));
    let breaches = agents.iter().filter(|agent| agent.breach.is_some()).count();
    report.lines.push(format!("incidents: {breaches} expected, {} opened", incidents.len()));
    expected
}

/// Checks that each incident was notified once when it opened and once when it was resolved.
pub(super) fn check_notifications(
    report: &mut Report,
    incidents: &BTreeSet<String>,
    deliveries: &[Delivery],
    faults: &[AppliedFault],
) {
    let mut by_id: BTreeMap<&str, Vec<&Delivery>> = BTreeMap::new();
    for delivery in deliveries {
        by_id.entry(delivery.id.as_str()).or_default().push(delivery);
    }
    let mut by_reason: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for first in by_id.values().filter_map(|deliveries| deliveries.first()) {
        *by_reason.entry((first.incident.as_str(), first.reason.as_str())).or_default() += 1;
    }
    let expected: Vec<(&str, &str)> = incidents
        .iter()
        .flat_map(|incident| ["opened", "resolved"].map(|reason| (incident.as_str(), reason)))
        .collect();
    let missing: Vec<_> = expected.iter().filter(|key| !by_reason.contains_key(*key)).collect();
    let unexpected: Vec<_> =
        by_reason.iter().filter(|(key, count)| **count > 1 || !expected.contains(*key)).collect();
    report.require(missing.is_empty(), || format!("missing notifications: {missing:?}"));
    report.require(unexpected.is_empty(), || format!("unexpected notifications: {unexpected:?}"));
    let mut repeated = 0;
    for deliveries in by_id.values() {
        for pair in deliveries.windows(2) {
            repeated += 1;
            report.require(may_repeat(pair[0], pair[1], faults), || format!("sent again: {pair:?}"));
        }
    }
    report.lines.push(format!(
        "notifications: {} expected, {} received, {repeated} sent again with the same id",
        expected.len(),
        by_id.len()
    ));
}

/// Returns whether a hub was killed, suspended or cut off from the database for longer than its leases last, while
/// it sent the first of two equal notifications.
fn may_repeat(first: &Delivery, second: &Delivery, faults: &[AppliedFault]) -> bool {
    let interrupts = |fault: &AppliedFault| {
        let loses_leases = match fault.kind {
            FaultKind::KillHub | FaultKind::SuspendLeaseHolder => true,
            FaultKind::CutStore(_) => fault.to - fault.from > MIN_LEASE_TIME,
            _ => false,
        };
        loses_leases
            && fault.from + DELIVERY_TIME > first.at
            && fault.from < (first.at + DELIVERY_TIME).min(second.at)
    };
    faults.iter().any(interrupts)
}

/// Longest time without new data within a time.
fn longest_gap(arrivals: &[Arrival], from: Duration, to: Duration) -> Duration {
    let inside = arrivals.iter().map(|arrival| arrival.at).filter(|at| (from..to).contains(at));
    let times: Vec<Duration> = std::iter::once(from).chain(inside).chain([to]).collect();
    times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default()
}

/// Returns whether agents may be silent at a time for longer than [`MAX_GAP`]: their pauses grow while no hub can
/// store anything.
fn has_long_pauses(at: Duration, faults: &[AppliedFault]) -> bool {
    let is_long_outage = |fault: &AppliedFault| {
        matches!(fault.kind, FaultKind::StopPostgres | FaultKind::CrashPostgres)
            && fault.to - fault.from > MAX_GAP
            && (fault.from..fault.to + MAX_AGENT_PAUSE).contains(&at)
    };
    faults.iter().any(is_long_outage)
}

/// Times after a fault in which viewers must have new data: no other fault disturbs them.
fn recovery_times(fault: &AppliedFault, faults: &[AppliedFault]) -> Vec<(Duration, Duration)> {
    let starts = match fault.kind.recovers_at_start() {
        true => vec![fault.from, fault.to],
        false => vec![fault.to],
    };
    let is_same = |other: &AppliedFault| other.from == fault.from && other.kind == fault.kind;
    let period = |from: Duration| {
        let others = || faults.iter().filter(|other| !is_same(other));
        if others().any(|other| (other.from..other.to).contains(&from)) {
            return None;
        }
        let next = others().map(|other| other.from).filter(|start| *start > from).min();
        let to = next.map_or(from + RECOVERY_TIME, |next| next.min(from + RECOVERY_TIME));
        Some((from, to)).filter(|_| to - from >= MAX_GAP)
    };
    starts.into_iter().filter_map(period).collect()
}

/// Checks how long viewers were without new data of a host after each fault.
pub(super) fn check_viewers(
    report: &mut Report,
    views: &[View],
    agents: &[Agent],
    faults: &[AppliedFault],
    is_limited: bool,
) {
    let names: &HashMap<String, &str> =
        &agents.iter().map(|agent| (agent.id().to_string(), agent.name())).collect();
    let (mut longest, mut checked) = (Duration::ZERO, 0);
    for fault in faults {
        for (from, to) in recovery_times(fault, faults) {
            if has_long_pauses(from, faults) {
                continue;
            }
            checked += 1;
            let gaps = views.iter().enumerate().flat_map(|(viewer, view)| {
                let gap = move |host: &String| {
                    let arrivals = view.hosts.get(host).map(Vec::as_slice).unwrap_or_default();
                    longest_gap(arrivals, from, to)
                };
                names.iter().map(move |(host, name)| (gap(host), viewer, *name))
            });
            let mut gaps: Vec<(Duration, usize, &str)> = gaps.collect();
            gaps.sort_by_key(|(gap, ..)| std::cmp::Reverse(*gap));
            let Some((gap, viewer, name)) = gaps.first().copied() else { continue };
            longest = longest.max(gap);
            let count = gaps.iter().filter(|(gap, ..)| *gap > MAX_GAP).count();
            report.require(!is_limited || gap <= MAX_GAP, || {
                let gap = gap.as_secs_f64();
                format!(
                    "{}: {count} views without new data, viewer {viewer} of {name} for {gap:.1} s",
                    fault.kind
                )
            });
        }
    }
    let reconnections: u64 = views.iter().map(|view| view.reconnections).sum();
    report.lines.push(format!(
        "viewers: at most {:.1} s without new data of a host after a fault ({checked} times checked), \
         {reconnections} reconnections",
        longest.as_secs_f64()
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(at_s: &[u64]) -> Vec<Arrival> {
        at_s.iter().map(|at_s| Arrival { at: Duration::from_secs(*at_s), snapshot_ms: 0 }).collect()
    }

    #[test]
    fn gaps_are_measured_within_a_time() {
        let gap = |at_s: &[u64]| {
            longest_gap(&arrivals(at_s), Duration::from_secs(10), Duration::from_secs(20)).as_secs()
        };
        assert_eq!(gap(&[]), 10);
        assert_eq!(gap(&[9, 11, 12, 19, 25]), 7);
        assert_eq!(gap(&[12, 14, 16, 18, 20]), 2);
    }

    #[test]
    fn history_is_compared_by_sequence_numbers() {
        let acknowledged = BTreeSet::from([1, 2, 3]);
        let difference = compare(&acknowledged, &[2, 3, 3, 4]);
        assert_eq!(difference, HistoryDifference { lost: vec![1], twice: 1, stored: 3 });
    }

    #[test]
    fn faults_beside_others_are_not_checked() {
        let fault = |kind, from_s, to_s| AppliedFault {
            kind,
            hub: None,
            from: Duration::from_secs(from_s),
            to: Duration::from_secs(to_s),
        };
        let times = |index: usize, faults: &[AppliedFault]| -> Vec<(u64, u64)> {
            let times = recovery_times(&faults[index], faults).into_iter();
            times.map(|(from, to)| (from.as_secs(), to.as_secs())).collect()
        };
        let faults = [
            fault(FaultKind::KillHub, 10, 13),
            fault(FaultKind::SuspendRedis, 20, 30),
            fault(FaultKind::KillHub, 22, 25),
        ];
        assert_eq!(times(0, &faults), [(10, 20), (13, 20)]);
        assert_eq!(times(1, &faults), [(30, 40)]);
        assert!(times(2, &faults).is_empty());
    }
}
