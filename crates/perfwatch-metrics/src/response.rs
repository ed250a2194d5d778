//! Types of the hub's health that the API shows.

use serde::Serialize;

/// Route with its requests of the last hour.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RouteResponse {
    /// HTTP method.
    pub method: String,
    /// Path as declared.
    pub path: String,
    /// Number of requests.
    pub requests: u64,
    /// Requests per second.
    pub rate: f64,
    /// Median time to the start of the response.
    pub p50_ms: Option<f64>,
    /// Time that 1 % of the requests exceed.
    pub p99_ms: Option<f64>,
    /// Responses with a status of 500 or more.
    pub errors: u64,
}

/// Requests of the last hour by route.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RouteListResponse {
    /// Time that the numbers cover, an hour at most.
    pub period_s: f64,
    /// Routes with requests, most frequent first.
    pub routes: Vec<RouteResponse>,
}

/// Open WebSocket connection.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConnectionResponse {
    /// User or token.
    pub actor: String,
    /// Address of the client.
    pub address: String,
    /// Time of the connection, Unix milliseconds.
    pub since_ms: i64,
    /// Number of selected hosts; `null` for all visible hosts.
    pub hosts: Option<u64>,
    /// Messages sent.
    pub messages: u64,
    /// Messages per second since the connection was opened.
    pub messages_per_second: f64,
    /// Bytes sent.
    pub bytes: u64,
    /// Snapshots that were not sent because the client was too slow.
    pub dropped: u64,
}

/// Open WebSocket connections of the hub that answers.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConnectionListResponse {
    /// Number of open connections.
    pub total: usize,
    /// Maximum number of connections.
    pub max: usize,
    /// Connections, oldest first; at most 200.
    pub connections: Vec<ConnectionResponse>,
}

/// Last run of a background task.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskResponse {
    /// Name of the task.
    pub name: &'static str,
    /// End of the last run, Unix milliseconds.
    pub last_ms: i64,
    /// Duration of the last run.
    pub took_ms: f64,
    /// Time of the next run, Unix milliseconds; `null` if events start it.
    pub next_ms: Option<i64>,
    /// Runs since the start of the hub.
    pub runs: u64,
    /// Failed runs since the start of the hub.
    pub failures: u64,
    /// Error of the last run, if it failed.
    pub error: Option<String>,
}

/// Background tasks of the hub that answers.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskListResponse {
    /// Tasks that ran, by name. Tasks of which another hub holds the lease are not among them.
    pub tasks: Vec<TaskResponse>,
}
