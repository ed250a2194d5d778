//! Overview of a set of visible hosts.

use crate::day::HostDay;
use crate::fleet::{FleetHost, FleetState};
use crate::host_values::{HostValues, ShapeIndices, process_io, recent_values};
use crate::response::{
    FillingFilesystem, OpenIncidentCounts, OverviewHost, OverviewResponse, OverviewTotals, OverviewValues,
    RecentCourse, TopProcess, TopProcesses,
};
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_live::host_status::HostStatus;
use perfwatch_live::{LiveFeed, RecentRows};
use perfwatch_model::{HostId, ProcessRow, limits};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Length of each list of processes.
const MAX_TOP_PROCESSES: usize = 8;
/// Length of the list of filesystems that become full.
const MAX_FILLING: usize = 8;
/// Hosts up to which the course of the last minutes is included: beyond, the map shows no course.
const MAX_COURSE_HOSTS: usize = 500;
/// Width of a point of the recent course in milliseconds.
const COURSE_STEP_MS: i64 = 10_000;

/// Rounds to one decimal: more would only lengthen the response.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last * percent + 50) / 100).copied()
}

/// Values at 5 % and 95 %.
pub(crate) fn band(mut values: Vec<f64>) -> (Option<f64>, Option<f64>) {
    values.sort_by(f64::total_cmp);
    (percentile(&values, 5).map(rounded), percentile(&values, 95).map(rounded))
}

pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "the number of hosts is small")]
    let count = values.len() as f64;
    (!values.is_empty()).then(|| rounded(values.iter().sum::<f64>() / count))
}

/// Hosts of the state that are in the list, in the same order.
pub(crate) struct VisibleHosts<'a>(pub(crate) Vec<&'a FleetHost>);

impl VisibleHosts<'_> {
    fn totals(&self, [info, warning, critical]: [usize; 3]) -> OverviewTotals {
        let incidents = OpenIncidentCounts { critical, warning, info };
        let mut totals = OverviewTotals { hosts: self.0.len(), incidents, ..OverviewTotals::default() };
        let (mut cpu, mut busy_cores, mut cores) = (Vec::new(), 0.0, 0.0);
        for host in &self.0 {
            match host.status {
                HostStatus::Online => totals.online += 1,
                HostStatus::NoData => totals.no_data += 1,
                HostStatus::New => totals.new += 1,
                HostStatus::Disabled => totals.disabled += 1,
                HostStatus::Unknown => totals.unknown += 1,
            }
            let host_cores = host.host.record.facts.as_ref().map_or(0, |facts| facts.cores);
            totals.cores += u64::from(host_cores);
            let Some(values) = &host.values else { continue };
            if let Some(usage) = values.cpu {
                let weight = f64::from(host_cores.max(1));
                cpu.push(usage);
                busy_cores += usage * weight;
                cores += weight;
            }
            totals.memory_used += values.memory_used.unwrap_or(0.0);
            totals.memory_total += values.memory_total.unwrap_or(0.0);
            totals.storage_used += values.storage_used;
            totals.storage_size += values.storage_size;
            totals.rx += values.rx.unwrap_or(0.0);
            totals.tx += values.tx.unwrap_or(0.0);
        }
        totals.cpu = (cores > 0.0).then(|| rounded(busy_cores / cores));
        totals.cpu_p95 = band(cpu).1;
        totals
    }

    fn values(&self) -> OverviewValues {
        let mut columns = OverviewValues::default();
        for host in &self.0 {
            let values = host.values.as_deref();
            let get = |value: fn(&HostValues) -> Option<f64>| values.and_then(value).map(rounded);
            columns.status.push(host.status);
            columns.last_seen_ms.push(host.host.last_seen_ms.or(host.host.record.last_snapshot_ms));
            columns.cpu.push(get(|values| values.cpu));
            columns.memory.push(get(|values| values.memory));
            let fullest = values.and_then(|values| values.mounts.first());
            columns.disk.push(fullest.map(|usage| rounded(usage.percent)));
            columns.disk_mount.push(fullest.map(|usage| usage.mount.clone()));
            columns.rx.push(get(|values| values.rx.map(f64::round)));
            columns.tx.push(get(|values| values.tx.map(f64::round)));
            columns
                .load
                .push(values.and_then(|values| values.load).map(|load| (load * 100.0).round() / 100.0));
            columns.pressure.push(get(|values| values.pressure));
            columns.uptime_s.push(get(|values| values.uptime_s.map(f64::round)));
            columns.critical.push(host.alerts[0]);
            columns.warning.push(host.alerts[1]);
        }
        columns
    }

    /// Largest processes of the largest few of each host.
    fn top(&self, list: usize, value: impl Fn(&ProcessRow) -> f64) -> Vec<TopProcess> {
        let mut top: Vec<(f64, &FleetHost, &ProcessRow)> = Vec::new();
        for host in &self.0 {
            let Some(values) = &host.values else { continue };
            top.extend(values.processes[list].iter().map(|process| (value(process), *host, process)));
        }
        top.sort_by(|a, b| b.0.total_cmp(&a.0));
        top.truncate(MAX_TOP_PROCESSES);
        let to_response = |(value, host, process): (f64, &FleetHost, &ProcessRow)| TopProcess {
            host: host.host.record.id,
            host_name: host.host.record.name.clone(),
            pid: process.pid,
            name: process.name.clone(),
            user: process.user.clone(),
            command: process.command.clone(),
            value,
        };
        top.into_iter().map(to_response).collect()
    }

    fn top_processes(&self) -> TopProcesses {
        #[expect(clippy::cast_precision_loss, reason = "a shown number of bytes")]
        let bytes = |bytes: u64| bytes as f64;
        TopProcesses {
            cpu: self.top(0, |process| f64::from(process.cpu_tenths) / 1_000.0),
            memory: self.top(1, |process| bytes(process.memory_bytes)),
            disk: self.top(2, |process| bytes(process_io(process))),
        }
    }

    fn filling(&self, days: &HashMap<HostId, HostDay>) -> Vec<FillingFilesystem> {
        let mut filling: Vec<FillingFilesystem> = Vec::new();
        for host in self.0.iter().filter(|host| host.values.is_some()) {
            let record = &host.host.record;
            let Some(day) = days.get(&record.id) else { continue };
            filling.extend(day.filling.iter().map(|filling| FillingFilesystem {
                host: record.id,
                host_name: record.name.clone(),
                mount: filling.mount.clone(),
                percent: rounded(filling.percent),
                full_at_ms: filling.full_at_ms,
            }));
        }
        filling.sort_by_key(|filling| filling.full_at_ms);
        filling.truncate(MAX_FILLING);
        filling
    }

    /// Hosts without their values.
    fn hosts(&self, auth_snapshot: &AuthSnapshot) -> Vec<OverviewHost> {
        let to_response = |host: &&FleetHost| {
            let record = &host.host.record;
            let facts = record.facts.as_ref();
            OverviewHost {
                id: record.id,
                name: record.name.clone(),
                tags: auth_snapshot.host_tags(record.id).to_vec(),
                collection_method: host.host.collection_method(),
                os: facts.map(|facts| facts.os.clone()),
                cores: facts.map(|facts| facts.cores),
                memory_bytes: facts.map(|facts| facts.memory_bytes),
            }
        };
        self.0.iter().map(to_response).collect()
    }

    /// Course of the last minutes; `None` for large fleets.
    pub(crate) fn course(
        &self,
        live_feed: &LiveFeed,
        shapes: &mut ShapeIndices,
        now_ms: i64,
    ) -> Option<RecentCourse> {
        if self.0.len() > MAX_COURSE_HOSTS {
            return None;
        }
        let points = usize::try_from(limits::RECENT_WINDOW_MS / COURSE_STEP_MS).unwrap_or_default();
        let start_ms = now_ms - limits::RECENT_WINDOW_MS;
        let mut course = RecentCourse { step_ms: COURSE_STEP_MS, cpu: Vec::new(), rx: Vec::new() };
        for host in &self.0 {
            let (mut cpu, mut rx) = (vec![None; points], vec![None; points]);
            let recent = live_feed.recent_rows(host.host.record.id, start_ms, now_ms);
            for published in recent.map(RecentRows::decode).unwrap_or_default() {
                let snapshot = &published.snapshot;
                let index = shapes.get(&snapshot.shape);
                let position =
                    usize::try_from((snapshot.at_ms - start_ms) / COURSE_STEP_MS).unwrap_or_default();
                let (Some(cpu_point), Some(rx_point)) = (cpu.get_mut(position), rx.get_mut(position)) else {
                    continue;
                };
                let (usage, received) = recent_values(snapshot, &index);
                *cpu_point = usage.map(rounded);
                *rx_point = received.map(f64::round);
            }
            course.cpu.push(cpu);
            course.rx.push(rx);
        }
        Some(course)
    }
}

/// Revision of a list of hosts.
fn revision(hosts: &[OverviewHost]) -> String {
    let mut hasher = DefaultHasher::new();
    for host in hosts {
        (host.id, &host.name, &host.tags, host.collection_method as u8).hash(&mut hasher);
        (&host.os, host.cores, host.memory_bytes).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

/// Builds the overview of the visible hosts with the list of hosts and without their recent course.
pub(crate) fn build(
    state: &FleetState,
    visible: &VisibleHosts<'_>,
    incidents: [usize; 3],
    (auth_snapshot, days): (&AuthSnapshot, &HashMap<HostId, HostDay>),
) -> OverviewResponse {
    let hosts = visible.hosts(auth_snapshot);
    OverviewResponse {
        now_ms: state.now_ms,
        revision: revision(&hosts),
        totals: visible.totals(incidents),
        hosts: Some(hosts),
        recent: None,
        values: visible.values(),
        top_processes: visible.top_processes(),
        filling: visible.filling(days),
        replay: None,
    }
}
