//! Poll schedules of agentless hosts.

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
