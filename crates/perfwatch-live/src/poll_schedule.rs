//! Poll schedules of agentless hosts, and when hosts are expected.

use perfwatch_model::HostId;

/// Expected interval of a host with a poll schedule. While on-demand polling runs, the observed interval is
/// shorter; the polling can end at any time.
pub(crate) fn scheduled_interval_ms(interval_ms: u32, schedule: Option<PollSchedule>) -> u32 {
    schedule.map_or(interval_ms, |schedule| interval_ms.max(schedule.interval_ms))
}

/// Poll schedule of an agentless host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollSchedule {
    /// Set while scheduled collections run.
    pub enabled: bool,
    /// Interval between scheduled collections in milliseconds.
    pub interval_ms: u32,
    /// Time of the last successful collection by any hub, or of the last resume if that is later, Unix
    /// milliseconds.
    pub last_success_ms: Option<i64>,
}

/// Time of the last snapshot of a host, and the expected interval.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat {
    /// Host of the heartbeat.
    pub host: HostId,
    /// Time at which the last snapshot was accepted, clock of the hub, Unix milliseconds.
    pub last_seen_ms: Option<i64>,
    /// Expected time between two arrivals in milliseconds; 0 if unknown.
    pub interval_ms: u32,
    /// Set for agentless hosts, which the hub collects over SSH.
    pub is_agentless: bool,
}
