//! Response with the configuration and the collection state of a server.

use crate::host_access::HIDDEN_PATH;
use perfwatch_agentless::Server;
use perfwatch_agentless::server::{AuthMethod, Thresholds};
use perfwatch_agentless::summary::ServerSummary;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_model::remote_collector::FailureCause;
use perfwatch_model::{HostId, HumanDuration};
use perfwatch_store::servers::ServerRow;
use serde::Serialize;
use std::collections::HashSet;
use utoipa::ToSchema;
use uuid::Uuid;

/// Result of the last collection.
#[derive(Serialize, ToSchema)]
struct LastCollection {
    finished_ms: i64,
    duration_ms: i64,
    /// Cause of the failure; `null` after a success.
    #[schema(value_type = Option<FailureCause>)]
    cause: Option<String>,
    error: Option<String>,
}

/// Reason why a server is not collected until it is changed.
#[derive(Serialize, ToSchema)]
struct BlockedReason {
    #[schema(value_type = FailureCause)]
    cause: String,
    /// Host key that the server offered instead of the pinned key.
    offered_host_key: Option<String>,
}

/// Agentless host with its collection state, without credentials.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerResponse {
    pub(super) id: Uuid,
    pub(super) name: String,
    address: String,
    port: u16,
    user: String,
    auth_method: AuthMethod,
    /// Server through which the connection is made.
    jump: Option<Uuid>,
    /// The path leads through a server that the caller may not view; `jump` is then `null`.
    jump_hidden: bool,
    tags: Vec<String>,
    #[schema(value_type = String)]
    interval: HumanDuration,
    thresholds: Thresholds,
    enabled: bool,
    /// Version of the configuration; send it with a change to detect concurrent changes.
    version: i64,
    /// Pinned host key.
    host_key: Option<String>,
    blocked: Option<BlockedReason>,
    last: Option<LastCollection>,
    /// Time of the last successful collection.
    last_success_ms: Option<i64>,
    /// Time of the next scheduled collection.
    next_run_ms: Option<i64>,
    /// Values of the last collection, at most one hour old.
    summary: Option<ServerSummary>,
}

pub(super) fn to_response(
    row: ServerRow,
    server: Server,
    summary: Option<ServerSummary>,
    auth_snapshot: &AuthSnapshot,
    hidden_paths: &HashSet<Uuid>,
) -> ServerResponse {
    let Server { name, address, port, user, auth_method, jump, interval, thresholds } = server;
    let is_hidden = hidden_paths.contains(&row.id);
    let last = row.last_run_ms.map(|at_ms| LastCollection {
        finished_ms: at_ms,
        duration_ms: row.last_duration_ms.unwrap_or_default(),
        cause: row.last_cause,
        error: row.last_error.map(|error| if is_hidden { HIDDEN_PATH.to_owned() } else { error }),
    });
    let offered_host_key = row.offered_host_key;
    ServerResponse {
        id: row.id,
        name,
        address,
        port,
        user,
        auth_method,
        jump: jump.filter(|_| !is_hidden),
        jump_hidden: is_hidden,
        tags: auth_snapshot.host_tags(HostId(row.id)).to_vec(),
        interval,
        thresholds,
        enabled: row.enabled,
        version: row.version,
        host_key: row.host_key,
        blocked: row.blocked_reason.map(|cause| BlockedReason { cause, offered_host_key }),
        last,
        last_success_ms: row.last_success_ms,
        next_run_ms: row.next_run_ms,
        summary,
    }
}
