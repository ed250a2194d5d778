//! Status and collection method of a host, derived from its registry entry.

use crate::host_registry::Host;
use serde::Serialize;

/// Grace period of a host whose interval is unknown, in milliseconds.
const UNKNOWN_INTERVAL_GRACE_MS: i64 = 3_600_000;
/// Shortest grace period in milliseconds.
const MIN_GRACE_MS: i64 = 10_000;
/// Intervals without a snapshot after which a host has no data.
const MAX_MISSED_INTERVALS: i64 = 3;

/// Status of a host, derived from its last snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HostStatus {
    /// No snapshot received yet.
    New,
    /// Snapshots arrive within the grace period.
    Online,
    /// No snapshot arrived within the grace period.
    NoData,
    /// Collection of the agentless host is disabled.
    Disabled,
    /// The status at a past time is not known: its history was not read, or was deleted.
    Unknown,
}

/// Method by which snapshots of a host are collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CollectionMethod {
    /// An agent or a script pushes snapshots.
    Agent,
    /// The hub collects over SSH.
    Ssh,
}

/// Time without a snapshot after which a host with an interval has no data, in milliseconds.
pub fn interval_grace_ms(interval_ms: u32) -> i64 {
    match interval_ms {
        0 => UNKNOWN_INTERVAL_GRACE_MS,
        interval_ms => (MAX_MISSED_INTERVALS * i64::from(interval_ms)).max(MIN_GRACE_MS),
    }
}

impl Host {
    /// Status at a time of the hub's clock, in Unix milliseconds.
    pub fn status(&self, now_ms: i64) -> HostStatus {
        let grace_ms = self.grace_ms();
        match self.last_seen_ms {
            _ if self.poll_schedule.is_some_and(|schedule| !schedule.enabled) => HostStatus::Disabled,
            // Has history, but sent nothing since this hub started.
            None if self.record.last_snapshot_ms.is_some() => HostStatus::NoData,
            None => HostStatus::New,
            Some(seen_ms) if now_ms - seen_ms <= grace_ms => HostStatus::Online,
            Some(_) => HostStatus::NoData,
        }
    }

    /// Time without a snapshot after which the host has no data, in milliseconds.
    pub fn grace_ms(&self) -> i64 {
        interval_grace_ms(self.arrival_interval_ms())
    }

    /// Time of the newest known snapshot, clock of the host, Unix milliseconds.
    pub fn newest_ms(&self) -> Option<i64> {
        self.last_at_ms.max(self.record.last_snapshot_ms)
    }

    /// Method by which snapshots of this host are collected.
    pub fn collection_method(&self) -> CollectionMethod {
        match self.poll_schedule {
            Some(_) => CollectionMethod::Ssh,
            None => CollectionMethod::Agent,
        }
    }
}
