//! Hosts that a caller may see, and checks of callers limited by host tags.

use crate::app::App;
use perfwatch_auth::Identity;
use perfwatch_http::ApiError;
pub(crate) use perfwatch_http::extract::require_all_hosts;
use perfwatch_live::host_registry::Host;
use perfwatch_model::HostId;
use std::collections::HashSet;
use uuid::Uuid;

/// Host with this id or name.
///
/// # Errors
/// Returns `not_found` if the host does not exist or is not visible to the caller, and `ambiguous_host` with
/// the ids if several visible hosts have the name.
pub(crate) fn host(app: &App, identity: &Identity, id: &str) -> Result<Host, ApiError> {
    let auth_snapshot = app.directory.snapshot();
    let mut hosts = app.hosts.find(id);
    hosts.retain(|host| identity.can_view(&auth_snapshot, host.record.id));
    match hosts.len() {
        0 | 1 => hosts.pop().ok_or_else(|| ApiError::not_found(format!("host {id:?} not found"))),
        _ => Err(ambiguous(id, &hosts)),
    }
}

/// `409` with the ids of the hosts that have the name.
pub(crate) fn ambiguous(name: &str, hosts: &[Host]) -> ApiError {
    let ids: Vec<HostId> = hosts.iter().map(|host| host.record.id).collect();
    ApiError::conflict("ambiguous_host", perfwatch_model::ambiguous_host_name(name, &ids))
}

/// Hosts visible to the caller, sorted by name.
pub(crate) fn hosts(app: &App, identity: &Identity) -> Vec<Host> {
    let auth_snapshot = app.directory.snapshot();
    let mut hosts = app.hosts.list();
    hosts.retain(|host| identity.can_view(&auth_snapshot, host.record.id));
    hosts
}

/// Text instead of details of a connection that leads through hidden servers.
pub(crate) const HIDDEN_PATH: &str = "hidden: the path leads through a server that you may not view";

/// Servers whose path leads through a server that the caller may not view. Errors and steps of their
/// collections contain its address.
///
/// # Errors
/// Returns the error of the store if the servers cannot be read.
pub(crate) async fn hidden_paths(app: &App, identity: &Identity) -> Result<HashSet<Uuid>, ApiError> {
    if identity.host_tags.is_empty() {
        return Ok(HashSet::new());
    }
    let (table, auth_snapshot) = (app.agentless.server_table().await?, app.directory.snapshot());
    Ok(table.hidden_paths(|id| identity.can_view(&auth_snapshot, HostId(id))))
}
