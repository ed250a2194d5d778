//! Snapshots of a host of a hub: polls its live messages and reads its history over HTTP.

use crate::commands::hub_api::{HubAddress, HubApi, RequestError};
use anyhow::bail;
use perfwatch_agent::METRICS;
use perfwatch_collect::catalog;
use perfwatch_model::printable::printable;
use perfwatch_model::{Catalog, Clock, HostFacts, HostId, SystemClock};
use perfwatch_terminal::hub_json::{
    HubHost, HubHostList, decode_live, decode_ribbon, decode_snapshot, encode_component,
};
use perfwatch_terminal::{HostFrame, HostSource, Ribbon, SeekTarget};
use std::sync::Arc;
use std::time::Duration;

/// Number of hosts that an error names.
const MAX_NAMED_HOSTS: usize = 20;
/// Points of a ribbon; screens rarely have more columns.
const MAX_RIBBON_POINTS: u32 = 300;
/// Maximum number of requests to find the next snapshot after a gap.
const MAX_SEEK_REQUESTS: u32 = 40;

/// Host of a hub.
pub(crate) struct HubTarget {
    pub(crate) address: HubAddress,
    /// Name or id; `None` if the hub has a single host.
    pub(crate) host: Option<String>,
}

/// Clock of the hub: the clock of this machine, corrected by the difference at the start.
pub(super) struct HubClock {
    clock: SystemClock,
    offset_ms: i64,
}

impl Clock for HubClock {
    fn wall_ms(&self) -> i64 {
        self.clock.wall_ms().saturating_add(self.offset_ms)
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

/// Source of a host of a hub.
pub(super) struct HubSource {
    api: HubApi,
    catalog: Catalog,
    id: HostId,
    name: String,
    /// Facts that the first snapshot carries to the view.
    facts: Option<Arc<HostFacts>>,
    interval_ms: i64,
    /// Time of the newest snapshot received, or before the first snapshot to receive.
    since_ms: i64,
    /// Last snapshot of a host that sends nothing, read from the history once.
    last_snapshot_ms: Option<i64>,
    /// Distance of the snapshots at the displayed time.
    resolution_ms: i64,
    offset_ms: i64,
    clock: SystemClock,
}

impl HubSource {
    /// Checks URL, token and host. Returns the source and the clock of the hub.
    ///
    /// # Errors
    /// Fails if the hub cannot be reached, rejects the token, or does not have the host.
    pub(super) fn connect(hub: &HubTarget, clock: SystemClock) -> anyhow::Result<(Self, HubClock)> {
        let api = HubApi::new(&hub.address)?;
        let list: HubHostList = api.read(&format!("/api/v1/hosts?limit={MAX_NAMED_HOSTS}"))?;
        let host: HubHost = match &hub.host {
            Some(name) => api.read(&format!("/api/v1/hosts/{}", encode_component(name)))?,
            None => only_host(&list)?,
        };
        let offset_ms = list.now_ms.saturating_sub(clock.wall_ms());
        let interval_ms = i64::from(host.interval_ms.max(1));
        let source = Self {
            api,
            catalog: catalog(METRICS),
            id: host.id,
            name: host.name,
            facts: host.facts,
            interval_ms,
            since_ms: host.last_snapshot_ms.unwrap_or(list.now_ms).saturating_sub(1),
            last_snapshot_ms: host.last_snapshot_ms,
            resolution_ms: interval_ms,
            offset_ms,
            clock,
        };
        Ok((source, HubClock { clock, offset_ms }))
    }

    pub(super) fn host_name(&self) -> &str {
        &self.name
    }

    /// Expected time between two snapshots.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.interval_ms).unwrap_or(1))
    }

    /// Newest snapshot at or before a time, at most an hour older.
    fn snapshot_at(&mut self, at_ms: i64) -> Result<Option<HostFrame>, String> {
        match self.api.get(&format!("/api/v1/hosts/{}/snapshot?at={at_ms}", self.id)) {
            Ok(text) => {
                let frame = decode_snapshot(&text, &self.catalog)?;
                self.resolution_ms = frame.resolution_ms.max(1);
                Ok(Some(frame))
            }
            // No data in the hour before the time.
            Err(RequestError { status: 404, .. }) => Ok(None),
            Err(error) => Err(error.message),
        }
    }

    /// Snapshot `count` intervals after a time. After a gap, the interval of the search doubles until a snapshot is
    /// found; then the first snapshot after the gap is searched by bisection.
    fn step_forward(&mut self, from_ms: i64, count: i64) -> Result<Option<HostFrame>, String> {
        let now_ms = self.clock.wall_ms().saturating_add(self.offset_ms);
        let resolution_ms = self.resolution_ms;
        let mut offset_ms = resolution_ms.saturating_mul(count).saturating_add(resolution_ms / 2);
        let (mut missing_ms, mut requests) = (from_ms, 0);
        let is_later =
            |frame: &Option<HostFrame>| frame.as_ref().is_some_and(|frame| frame.at_ms() > from_ms);
        let mut found = loop {
            let at_ms = from_ms.saturating_add(offset_ms);
            let frame = self.snapshot_at(at_ms)?;
            requests += 1;
            if is_later(&frame) {
                break frame;
            }
            if at_ms >= now_ms || requests >= MAX_SEEK_REQUESTS {
                return Ok(None);
            }
            missing_ms = at_ms;
            offset_ms = offset_ms.saturating_mul(2);
        };
        while missing_ms > from_ms && requests < MAX_SEEK_REQUESTS {
            let found_ms = found.as_ref().map_or(missing_ms, HostFrame::at_ms);
            if found_ms - missing_ms <= resolution_ms {
                break;
            }
            let middle_ms = missing_ms + (found_ms - missing_ms) / 2;
            let frame = self.snapshot_at(middle_ms)?;
            requests += 1;
            if is_later(&frame) { found = frame } else { missing_ms = middle_ms }
        }
        Ok(found)
    }
}

impl HostSource for HubSource {
    fn poll(&mut self) -> Result<Option<HostFrame>, String> {
        let path = format!("/api/v1/live?host={}&processes=true&since={}", self.id, self.since_ms);
        let text = self.api.get(&path).map_err(|error| error.message)?;
        if let Some(mut snapshot) = decode_live(&text, &self.catalog)? {
            self.last_snapshot_ms = None;
            self.since_ms = self.since_ms.max(snapshot.at_ms);
            snapshot.facts = self.facts.take();
            return Ok(Some(HostFrame::from_snapshot(Arc::new(snapshot))));
        }
        // A host that has sent nothing for minutes: its last snapshot is only in the history.
        match self.last_snapshot_ms.take() {
            Some(last_ms) => self.snapshot_at(last_ms),
            None => Ok(None),
        }
    }

    fn seek(&mut self, target: SeekTarget) -> Result<Option<HostFrame>, String> {
        match target {
            SeekTarget::At(at_ms) => self.snapshot_at(at_ms),
            SeekTarget::Step { from_ms, count } if count > 0 => self.step_forward(from_ms, i64::from(count)),
            SeekTarget::Step { from_ms, count } => {
                // The newest snapshot before the time is the first step.
                let further_ms = (i64::from(count) + 1).saturating_mul(self.resolution_ms);
                self.snapshot_at(from_ms.saturating_sub(1).saturating_add(further_ms))
            }
        }
    }

    fn ribbon(&mut self, from_ms: i64, to_ms: i64) -> Result<Ribbon, String> {
        let path = format!(
            "/api/v1/hosts/{}/series?metric=cpu.usage,memory.used_percent&from={from_ms}&to={to_ms}&points={MAX_RIBBON_POINTS}",
            self.id
        );
        let text = self.api.get(&path).map_err(|error| error.message)?;
        decode_ribbon(&text, from_ms, to_ms)
    }
}

/// Host of a hub that has a single host.
fn only_host(list: &HubHostList) -> anyhow::Result<HubHost> {
    match &list.hosts[..] {
        [] => bail!("the hub has no hosts that the token may view"),
        [only] => Ok(only.clone()),
        hosts => {
            let names: Vec<_> =
                hosts.iter().take(MAX_NAMED_HOSTS).map(|host| printable(&host.name)).collect();
            let more = if list.total > names.len() { ", …" } else { "" };
            bail!("the hub has {} hosts; name one: {}{more}", list.total, names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str], total: usize) -> HubHostList {
        let hosts: Vec<_> = names
            .iter()
            .map(|name| serde_json::json!({ "id": HostId::HUBS, "name": name, "facts": null, "interval_ms": 2000, "last_snapshot_ms": null }))
            .collect();
        serde_json::from_value(serde_json::json!({ "hosts": hosts, "total": total, "now_ms": 1 })).unwrap()
    }

    #[test]
    fn host_is_optional_if_there_is_a_single_host() {
        assert_eq!(only_host(&list(&["web"], 1)).unwrap().name, "web");
        assert!(only_host(&list(&[], 0)).is_err());
        let error = only_host(&list(&["a", "b\u{1b}"], 30)).unwrap_err().to_string();
        assert_eq!(error, "the hub has 30 hosts; name one: a, b\\u{1b}, …");
    }
}
