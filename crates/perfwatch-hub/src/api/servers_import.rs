//! `/api/v1/servers/import`: import of agentless hosts in one commit, from an ssh_config, a CSV table or YAML.

use super::servers::{
    MAX_SERVERS, change_error, ensure_below_limit, ensure_in_scope, insert_server, limit_reached,
};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use perfwatch_agentless::ImportFailure;
use perfwatch_agentless::import::ImportError;
use perfwatch_agentless::import_plan::{
    ImportAccess, ImportFormat, ImportPlan, ImportRequest, PlannedEntry, PlannedServer,
};
use perfwatch_agentless::server_request::CredentialsRequest;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_auth::{Actor, Identity};
use perfwatch_http::body::JsonBody;
use perfwatch_http::{ApiError, Audited, params};
use perfwatch_model::{HostId, HumanDuration};
use perfwatch_store::Transaction;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Text to import, with defaults for all entries.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerImportRequest {
    format: ImportFormat,
    /// Content of the file.
    text: String,
    /// User of entries without a user.
    user: Option<String>,
    /// Credentials of entries without a password.
    credentials: Option<CredentialsRequest>,
    /// Tags of all entries, in addition to their own.
    #[serde(default)]
    tags: Vec<String>,
    /// Interval of entries without an interval; default: `15m`.
    #[schema(value_type = Option<String>)]
    interval: Option<HumanDuration>,
    /// Collection of the imported servers is enabled; true by default.
    #[serde(default = "perfwatch_model::default_true")]
    enabled: bool,
    /// Saves the valid entries although others are invalid; by default, one invalid entry rejects all.
    #[serde(default)]
    skip_invalid: bool,
    /// Validates the entries without saving them.
    #[serde(default)]
    dry_run: bool,
}

/// Entry of the imported text.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerImportEntry {
    /// Line number, from 1.
    line: usize,
    name: String,
    address: String,
    /// Reason why the entry is invalid.
    error: Option<String>,
    /// A server or host with this name exists and is left unchanged.
    exists: bool,
}

/// Result of an import.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerImportResponse {
    servers: Vec<ServerImportEntry>,
    /// Number of new servers.
    created: usize,
}

/// Checks of an import on behalf of the caller.
struct CallerAccess {
    app: Arc<App>,
    identity: Identity,
    auth_snapshot: Arc<AuthSnapshot>,
}

impl ImportAccess for CallerAccess {
    fn is_name_taken(&self, name: &str) -> bool {
        self.app.hosts.find(name).iter().any(|host| host.record.name == name)
    }

    fn validate_tags(&self, tags: &[String]) -> Result<Vec<String>, String> {
        let tags = params::validate_tags(tags).map_err(|error| error.message().to_owned())?;
        ensure_in_scope(&self.identity, &tags).map_err(|error| error.message().to_owned())?;
        Ok(tags)
    }

    fn can_view(&self, server: Uuid) -> bool {
        self.identity.can_view(&self.auth_snapshot, HostId(server))
    }
}

/// Import agentless hosts
///
/// Existing names are left unchanged. Jump hosts may be existing servers or earlier entries of the same
/// import.
#[utoipa::path(
    post, path = "/api/v1/servers/import", tag = "servers",
    request_body = ServerImportRequest,
    responses((status = 200, body = ServerImportResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn import(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<ServerImportRequest>,
) -> Result<Json<ServerImportResponse>, ApiError> {
    let invalid = |message: String| ApiError::unprocessable("invalid_import", message);
    let (dry_run, skip_invalid) = (request.dry_run, request.skip_invalid);
    let credentials = request.credentials.map(CredentialsRequest::into_credentials).transpose();
    let request = ImportRequest {
        format: request.format,
        text: request.text,
        user: request.user,
        credentials: credentials.map_err(|error| change_error(&error.into()))?,
        tags: request.tags,
        interval: request.interval,
        enabled: request.enabled,
    };
    let (identity, auth_snapshot) = (actor.identity.clone(), app.directory.snapshot());
    let access = CallerAccess { app: app.clone(), identity, auth_snapshot };
    let plan = app.agentless.plan_import(&actor.identity.share_key(), request, access).await?;
    let plan = plan.map_err(|failure| match failure {
        ImportFailure::Text(ImportError::TooManyEntries) => limit_reached(MAX_SERVERS),
        ImportFailure::Text(error) => invalid(error.to_string()),
        ImportFailure::Credentials(error) => change_error(&error),
        ImportFailure::Work(error) => error.into(),
    })?;
    if !dry_run {
        let invalid_entry = plan.entries.iter().find(|entry| entry.error.is_some());
        if let Some(entry) = invalid_entry.filter(|_| !skip_invalid) {
            let error = entry.error.as_deref().unwrap_or_default();
            return Err(invalid(format!("line {}, {}: {error}", entry.line, entry.name)));
        }
        create_servers(&app, &actor, &plan).await?;
    }
    let created = plan.servers.len();
    let to_response = |entry: PlannedEntry| {
        let PlannedEntry { line, name, address, error, exists } = entry;
        ServerImportEntry { line, name, address, error, exists }
    };
    Ok(Json(ServerImportResponse { servers: plan.entries.into_iter().map(to_response).collect(), created }))
}

/// Creates the planned servers. The write lock, which logins wait for, is held for the commit only.
///
/// # Errors
/// Returns `conflict` if servers were changed since the import was planned.
async fn create_servers(app: &App, actor: &Actor, plan: &ImportPlan) -> Result<(), ApiError> {
    if plan.servers.is_empty() {
        return Ok(());
    }
    let now_ms = app.clock.wall_ms();
    let object = format!("{} servers", plan.servers.len());
    let servers = plan.audited_servers();
    let insert = |tx: &mut Transaction| {
        for PlannedServer { row, tags } in &plan.servers {
            insert_server(tx, row, tags, now_ms);
        }
    };
    let (tx, entry) =
        (Transaction::build(insert), actor.audit_change("server.import", object, None, Some(&servers)));
    let guard = app.directory.begin_write(actor).await?;
    let table = app.agentless.server_table().await?;
    let is_unchanged = plan.is_current(&table);
    if !is_unchanged {
        return Err(ApiError::conflict("conflict", "servers were modified concurrently; retry"));
    }
    ensure_below_limit(&actor.identity, table.count() + plan.servers.len())?;
    guard.commit(tx, Some(entry)).await?;
    app.agentless.notify_changed(None);
    Ok(())
}
