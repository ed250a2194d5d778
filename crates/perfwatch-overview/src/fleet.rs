//! State of all hosts, read once per refresh and shared by all views.

use crate::host_values::{HostValues, ShapeIndices};
use perfwatch_alerting::AlertingSnapshot;
use perfwatch_live::LiveFeed;
use perfwatch_live::host_registry::{Host, HostRegistry};
use perfwatch_live::host_status::HostStatus;
use perfwatch_model::HostId;
use perfwatch_rules::rule::Severity;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// One host with its newest values.
#[derive(Debug)]
pub(crate) struct FleetHost {
    pub(crate) host: Host,
    pub(crate) status: HostStatus,
    /// `None` without recent data.
    pub(crate) values: Option<Arc<HostValues>>,
    /// Firing alerts: critical, warning.
    pub(crate) alerts: [u32; 2],
}

/// All hosts at the same time, ordered by name.
#[derive(Debug)]
pub(crate) struct FleetState {
    /// Number of the refresh.
    pub(crate) sequence: u64,
    /// Time of the hub's clock in Unix milliseconds.
    pub(crate) now_ms: i64,
    pub(crate) hosts: Vec<FleetHost>,
}

/// Values that live longer than a refresh.
#[derive(Default)]
pub(crate) struct FleetReader {
    pub(crate) shapes: ShapeIndices,
    values: HashMap<HostId, Arc<HostValues>>,
    sequence: u64,
}

impl FleetReader {
    /// Filesystems of a host whose filling is forecast.
    pub(crate) fn mounts(&self, id: HostId) -> Vec<Arc<str>> {
        let values = self.values.get(&id);
        values.into_iter().flat_map(|values| values.mounts.iter().map(|usage| usage.mount.clone())).collect()
    }

    /// Reads the current state of all hosts.
    pub(crate) fn read(
        &mut self,
        (hosts, live_feed): (&HostRegistry, &LiveFeed),
        alerting: &AlertingSnapshot,
        now_ms: i64,
    ) -> FleetState {
        let mut shapes = HashSet::new();
        for published in live_feed.latest_per_host() {
            let snapshot = &published.snapshot;
            shapes.insert(snapshot.shape.id());
            let is_known =
                self.values.get(&published.host).is_some_and(|known| known.at_ms == snapshot.at_ms);
            if !is_known {
                let index = self.shapes.get(&snapshot.shape);
                self.values.insert(published.host, Arc::new(HostValues::new(snapshot, &index)));
            }
        }
        self.shapes.retain(|id| shapes.contains(id));
        let mut alerts: HashMap<HostId, [u32; 2]> = HashMap::new();
        for alert in alerting.incidents.iter().flat_map(|open| open.firing()) {
            let counts = alerts.entry(alert.host).or_default();
            match alert.severity {
                Severity::Critical => counts[0] += 1,
                Severity::Warning => counts[1] += 1,
                Severity::Info => {}
            }
        }
        let to_fleet_host = |host: Host| {
            let status = host.status(now_ms);
            let id = host.record.id;
            // The values of a host without data would look current.
            let values = (status == HostStatus::Online).then(|| self.values.get(&id).cloned()).flatten();
            FleetHost { host, status, values, alerts: alerts.get(&id).copied().unwrap_or_default() }
        };
        let fleet: Vec<FleetHost> = hosts.list().into_iter().map(to_fleet_host).collect();
        let present: HashSet<HostId> = fleet.iter().map(|host| host.host.record.id).collect();
        self.values.retain(|id, _| present.contains(id));
        self.sequence += 1;
        FleetState { sequence: self.sequence, now_ms, hosts: fleet }
    }
}
