//! Types of the overview in the API.

use perfwatch_live::host_status::{CollectionMethod, HostStatus};
use perfwatch_model::HostId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Overview of all visible hosts: totals, newest values, largest processes.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OverviewResponse {
    /// Current time of the hub.
    pub(crate) now_ms: i64,
    /// Revision of `hosts`, for the parameter `revision`.
    pub(crate) revision: String,
    pub(crate) totals: OverviewTotals,
    /// Visible hosts by name; `null` if the parameter `revision` is the current revision.
    pub(crate) hosts: Option<Vec<OverviewHost>>,
    /// Course of the last minutes, with `hosts` and up to 500 hosts.
    pub(crate) recent: Option<RecentCourse>,
    pub(crate) values: OverviewValues,
    pub(crate) top_processes: TopProcesses,
    /// Filesystems that become full within 30 days if the trend of the last 24 hours continues, soonest first.
    pub(crate) filling: Vec<FillingFilesystem>,
    /// Present if the overview is about a past time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replay: Option<OverviewReplay>,
}

/// Overview at a past time. `values` and `totals` are those of this time; names, tags and cores are the current.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OverviewReplay {
    /// Time of the overview in Unix milliseconds.
    pub(crate) at_ms: i64,
    /// Resolution of the values of each host: `raw`, `1m` or `1h`; `null` without values.
    pub(crate) tiers: Vec<Option<&'static str>>,
    /// Incidents with an alert that fired at this time, worst first.
    pub(crate) incidents: Vec<ReplayIncident>,
    pub(crate) left_out: Vec<ReplayLeftOut>,
    pub(crate) duration_ms: u64,
}

/// Incident as it was at a past time, from its visible alerts that fired then.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplayIncident {
    pub(crate) id: uuid::Uuid,
    /// Highest severity: `critical`, `warning` or `info`.
    pub(crate) severity: &'static str,
    /// Name of the rule of the first alert.
    pub(crate) rule: String,
    /// Name of the host of the first alert; empty for the hub.
    pub(crate) host_name: String,
    /// Number of hosts.
    pub(crate) hosts: usize,
    /// Number of firing alerts.
    pub(crate) alerts: usize,
    /// Time at which the first of these alerts fired.
    pub(crate) fired_ms: i64,
}

/// Part of an overview at a past time that is missing.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplayLeftOut {
    pub(crate) part: ReplayPart,
    pub(crate) reason: ReplayReason,
    /// Number of hosts without this part; of incidents, their number if it is known.
    pub(crate) count: usize,
}

/// Part of an overview at a past time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReplayPart {
    /// Values of hosts; their status is `unknown`.
    Values,
    /// Processes of hosts.
    Processes,
    /// Incidents.
    Incidents,
    /// Forecasts of full filesystems.
    Filling,
}

/// Reason for which a part of an overview at a past time is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReplayReason {
    /// Reading would have taken longer than 20 seconds.
    Time,
    /// More stored values than a request may decode.
    Limit,
    /// A block is corrupt.
    Unreadable,
    /// Retention deleted it, or replaced it by roll-ups, which have no processes.
    Retention,
    /// Forecasts are made from the newest day only.
    Past,
}

/// Totals of all visible hosts with current data.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OverviewTotals {
    pub(crate) hosts: usize,
    pub(crate) online: usize,
    pub(crate) no_data: usize,
    pub(crate) new: usize,
    pub(crate) disabled: usize,
    /// Hosts whose status at a past time is unknown.
    pub(crate) unknown: usize,
    pub(crate) cores: u64,
    /// Mean CPU usage, weighted by cores, in percent.
    pub(crate) cpu: Option<f64>,
    /// CPU usage that 95 % of the hosts do not exceed.
    pub(crate) cpu_p95: Option<f64>,
    /// Used memory in bytes.
    pub(crate) memory_used: f64,
    /// Total memory in bytes.
    pub(crate) memory_total: f64,
    /// Used space of all filesystems in bytes.
    pub(crate) storage_used: f64,
    /// Size of all filesystems in bytes.
    pub(crate) storage_size: f64,
    /// Received bytes per second.
    pub(crate) rx: f64,
    /// Sent bytes per second.
    pub(crate) tx: f64,
    pub(crate) incidents: OpenIncidentCounts,
}

/// Open incidents by severity.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenIncidentCounts {
    pub(crate) critical: usize,
    pub(crate) warning: usize,
    pub(crate) info: usize,
}

/// Host of the overview without its values.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OverviewHost {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub(crate) id: HostId,
    pub(crate) name: String,
    pub(crate) tags: Vec<String>,
    pub(crate) collection_method: CollectionMethod,
    pub(crate) os: Option<String>,
    pub(crate) cores: Option<u32>,
    /// Total memory in bytes.
    pub(crate) memory_bytes: Option<u64>,
}

/// Newest values as columns over the hosts; `null` without current data.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OverviewValues {
    pub(crate) status: Vec<HostStatus>,
    /// Time at which the hub received the last snapshot.
    pub(crate) last_seen_ms: Vec<Option<i64>>,
    /// CPU usage in percent.
    pub(crate) cpu: Vec<Option<f64>>,
    /// Used memory in percent.
    pub(crate) memory: Vec<Option<f64>>,
    /// Used space of the fullest filesystem in percent.
    pub(crate) disk: Vec<Option<f64>>,
    /// Mount point of the fullest filesystem.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Option<String>>))]
    pub(crate) disk_mount: Vec<Option<Arc<str>>>,
    /// Received bytes per second.
    pub(crate) rx: Vec<Option<f64>>,
    /// Sent bytes per second.
    pub(crate) tx: Vec<Option<f64>>,
    /// Load average over a minute.
    pub(crate) load: Vec<Option<f64>>,
    /// Highest of the pressures of CPU, memory and I/O in percent.
    pub(crate) pressure: Vec<Option<f64>>,
    /// Uptime in seconds.
    pub(crate) uptime_s: Vec<Option<f64>>,
    /// Number of firing critical alerts.
    pub(crate) critical: Vec<u32>,
    /// Number of firing warnings.
    pub(crate) warning: Vec<u32>,
}

/// CPU usage and received bytes of the last five minutes, a list per host.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecentCourse {
    /// Width of a point in milliseconds.
    pub(crate) step_ms: i64,
    /// CPU usage in percent, oldest first.
    pub(crate) cpu: Vec<Vec<Option<f64>>>,
    /// Received bytes per second, oldest first.
    pub(crate) rx: Vec<Vec<Option<f64>>>,
}

/// Largest processes of all visible hosts by resource.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopProcesses {
    /// By CPU usage; the value is a number of cores.
    pub(crate) cpu: Vec<TopProcess>,
    /// By resident memory; the value is in bytes.
    pub(crate) memory: Vec<TopProcess>,
    /// By disk throughput; the value is in bytes per second.
    pub(crate) disk: Vec<TopProcess>,
}

/// Process of a host with a high usage of a resource.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopProcess {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub(crate) host: HostId,
    pub(crate) host_name: String,
    pub(crate) pid: u32,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub(crate) name: Arc<str>,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub(crate) user: Arc<str>,
    /// Masked command line.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub(crate) command: Arc<str>,
    pub(crate) value: f64,
}

/// Filesystem with the time at which it becomes full.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FillingFilesystem {
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub(crate) host: HostId,
    pub(crate) host_name: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub(crate) mount: Arc<str>,
    /// Used space in percent.
    pub(crate) percent: f64,
    pub(crate) full_at_ms: i64,
}

/// Range of all visible hosts, the last 24 hours in steps of 15 minutes by default; `null` without data.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OverviewHistoryResponse {
    /// Width of a step in milliseconds.
    pub(crate) step_ms: i64,
    /// Starts of the steps in Unix milliseconds.
    pub(crate) t: Vec<i64>,
    /// Hosts with data.
    pub(crate) hosts: Vec<usize>,
    /// Mean CPU usage of the hosts in percent.
    pub(crate) cpu: Vec<Option<f64>>,
    /// CPU usage that 5 % of the hosts do not exceed.
    pub(crate) cpu_p5: Vec<Option<f64>>,
    /// CPU usage that 95 % of the hosts do not exceed.
    pub(crate) cpu_p95: Vec<Option<f64>>,
    /// Mean memory usage of the hosts in percent.
    pub(crate) memory: Vec<Option<f64>>,
    /// Sum of the received bytes per second.
    pub(crate) rx: Vec<Option<f64>>,
    /// Sum of the sent bytes per second.
    pub(crate) tx: Vec<Option<f64>>,
    pub(crate) health: HealthCourse,
    /// Coarsest resolution that was read: `raw`, `1m` or `1h`; `null` for the last 24 hours by default.
    pub(crate) tier: Option<&'static str>,
    /// Hosts that were not read.
    pub(crate) left_out: Vec<ReplayLeftOut>,
}

/// Hosts by their worst state in each step.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthCourse {
    /// Hosts with data and without alerts.
    pub(crate) healthy: Vec<usize>,
    /// Hosts with a firing warning.
    pub(crate) warning: Vec<usize>,
    /// Hosts with a firing critical alert.
    pub(crate) critical: Vec<usize>,
    /// Hosts without data and without alerts.
    pub(crate) unknown: Vec<usize>,
}

/// Kind of an entry of the activity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ActivityKind {
    /// An alert fired; `text` is the name of its rule.
    AlertFired,
    /// An alert was resolved; `text` is the name of its rule.
    AlertResolved,
    /// A host sent its first snapshot.
    HostJoined,
    /// A host was booted.
    HostRebooted,
    /// An entry of the audit log; `text` is its action, `object` its object. Only for administrators.
    Audit,
}

/// Recent event of the fleet.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActivityEntry {
    pub(crate) at_ms: i64,
    pub(crate) kind: ActivityKind,
    /// Severity of an alert: `critical`, `warning` or `info`.
    pub(crate) severity: Option<String>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub(crate) host: Option<HostId>,
    pub(crate) host_name: String,
    pub(crate) incident: Option<uuid::Uuid>,
    pub(crate) actor: String,
    pub(crate) text: String,
    pub(crate) object: String,
}

/// Recent events of the fleet, newest first.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActivityResponse {
    pub(crate) entries: Vec<ActivityEntry>,
    /// Current time of the hub.
    pub(crate) now_ms: i64,
}

/// Kind of an event of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HostEventKind {
    /// An alert fired; `text` is the name of its rule, `detail` its summary, `to_ms` the time of its resolution.
    Alert,
    /// Data is missing; `detail` is the reason, as in the gaps of series.
    Gap,
    /// The host was booted between `from_ms` and `to_ms`.
    Reboot,
    /// The host sent its first snapshot.
    FirstSeen,
    /// A fact changed: `os`, `kernel` or `cores` is in `text`.
    System,
    /// The version of the agent changed, or an entry of the audit log: an enrollment or revocation.
    Agent,
    /// Tags or name changed, by the audit log.
    Change,
    /// The SSH connection changed, by the audit log.
    Connection,
}

/// Event of a host.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostEvent {
    pub(crate) kind: HostEventKind,
    pub(crate) from_ms: i64,
    /// End of an event with a duration; `null` if it has none or is not over.
    pub(crate) to_ms: Option<i64>,
    /// Severity of an alert: `critical`, `warning` or `info`.
    pub(crate) severity: Option<String>,
    pub(crate) incident: Option<uuid::Uuid>,
    /// Rule, changed fact, or action of the audit log.
    pub(crate) text: String,
    pub(crate) detail: String,
    pub(crate) actor: String,
    /// Value before a change.
    pub(crate) before: String,
    /// Value after a change.
    pub(crate) after: String,
}

/// Events of a host in a time range, newest first. Changes by users are only listed for administrators.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostEventsResponse {
    pub(crate) events: Vec<HostEvent>,
    /// Older events of the range were left out.
    pub(crate) is_truncated: bool,
}
