//! `/api/v1/servers/import`: atomic import of agentless hosts from an ssh_config or a CSV table.

use super::servers::{MAX_SERVERS, build_server, ensure_name_free, insert_server};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use perfwatch_agentless::Server;
use perfwatch_agentless::import::{self, ImportEntry};
use perfwatch_agentless::server::Thresholds;
use perfwatch_agentless::server_request::{CredentialsRequest, ServerRequest};
use perfwatch_auth::Actor;
use perfwatch_http::body::JsonBody;
use perfwatch_http::{ApiError, Audited};
use perfwatch_model::HumanDuration;
use perfwatch_store::Transaction;
use perfwatch_store::servers::ServerRow;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Format of the imported text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ImportFormat {
    /// OpenSSH client configuration (`~/.ssh/config`).
    SshConfig,
    /// CSV with the column `address` and any of `name`, `port`, `user`, `password`, `jump`, `tags`,
    /// `interval`.
    Csv,
}

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
    /// Collection of the imported servers is enabled.
    #[serde(default)]
    enabled: bool,
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

fn request_from_entry(
    entry: &ImportEntry,
    defaults: &ServerImportRequest,
    names: &HashMap<String, Uuid>,
) -> Result<ServerRequest, ApiError> {
    let invalid = |message: String| ApiError::unprocessable("invalid_server", message);
    let credentials = match (&entry.password, &defaults.credentials) {
        (Some(password), _) => CredentialsRequest::Password { password: Some(password.clone()) },
        (None, Some(credentials)) => credentials.clone(),
        (None, None) => return Err(invalid("credentials: required".to_owned())),
    };
    let port = entry
        .port
        .as_ref()
        .map(|port| port.parse().map_err(|_| invalid(format!("port: invalid value {port:?}"))));
    let interval = entry.interval.as_ref().map(|text| {
        HumanDuration::parse(text).ok_or_else(|| invalid(format!("interval: invalid value {text:?}")))
    });
    let jump = entry.jump.as_ref().map(|name| {
        names.get(name).copied().ok_or_else(|| invalid(format!("jump: server {name:?} not found")))
    });
    let user = entry.user.clone().or_else(|| defaults.user.clone());
    Ok(ServerRequest {
        name: entry.name.clone(),
        address: entry.address.clone(),
        port: port.transpose()?.unwrap_or(22),
        user: user.ok_or_else(|| invalid("user: required".to_owned()))?,
        credentials,
        jump: jump.transpose()?,
        tags: entry.tags.iter().chain(&defaults.tags).cloned().collect(),
        interval: interval.transpose()?.or(defaults.interval).unwrap_or(HumanDuration::from_s(900)),
        thresholds: Thresholds::default(),
        enabled: defaults.enabled,
        version: None,
    })
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
    let entries = match request.format {
        ImportFormat::SshConfig => import::parse_ssh_config(&request.text),
        ImportFormat::Csv => import::parse_csv(&request.text).map_err(|error| invalid(error.to_string()))?,
    };
    let guard = app.directory.begin_write().await?;
    let servers = ServerRow::list(app.agentless.store()).await?;
    if servers.len() + entries.len() > MAX_SERVERS {
        return Err(ApiError::conflict(
            "limit_reached",
            format!("at most {MAX_SERVERS} servers are allowed"),
        ));
    }
    let name_and_id = |row: &ServerRow| Some((Server::from_row(row)?.name, row.id));
    let mut names: HashMap<String, Uuid> = servers.iter().filter_map(name_and_id).collect();
    let (mut results, mut tx, mut created) = (Vec::new(), Transaction::default(), 0);
    // Jump hosts must be prepared before the servers behind them.
    let (direct, jumping): (Vec<ImportEntry>, Vec<ImportEntry>) =
        entries.into_iter().partition(|entry| entry.jump.is_none());
    for entry in direct.into_iter().chain(jumping) {
        let exists = ensure_name_free(&app, &servers, &entry.name, None).is_err();
        let error = match exists {
            true => None,
            false => match prepare(&app, &actor, &entry, &request, &names).await {
                Err(error) => Some(error.message().to_owned()),
                Ok(_) if names.contains_key(&entry.name) => Some("name: duplicate entry".to_owned()),
                Ok((row, server, tags)) => {
                    names.insert(server.name, row.id);
                    insert_server(&mut tx, &row, &tags, app.clock.wall_ms());
                    created += 1;
                    None
                }
            },
        };
        let ImportEntry { line, name, address, .. } = entry;
        results.push(ServerImportEntry { line, name, address, error, exists });
    }
    results.sort_by_key(|entry| entry.line);
    if !request.dry_run {
        if let Some(entry) = results.iter().find(|entry| entry.error.is_some()) {
            let error = entry.error.as_deref().unwrap_or_default();
            return Err(invalid(format!("line {}, {}: {error}", entry.line, entry.name)));
        }
        if created > 0 {
            let entry = actor.audit("server.import", format!("{created} servers"));
            guard.commit(tx, Some(entry)).await?;
            app.agentless.notify_changed(None);
        }
    }
    Ok(Json(ServerImportResponse { servers: results, created }))
}

/// Row and tags of an entry. A jump host of the same import is not in the store yet: its access was checked
/// with its own entry.
async fn prepare(
    app: &App,
    actor: &Actor,
    entry: &ImportEntry,
    defaults: &ServerImportRequest,
    names: &HashMap<String, Uuid>,
) -> Result<(ServerRow, Server, Vec<String>), ApiError> {
    let mut request = request_from_entry(entry, defaults, names)?;
    let jump = request.jump.filter(|jump| names.values().any(|id| id == jump));
    let is_stored = match jump {
        Some(jump) => ServerRow::get(app.agentless.store(), jump).await?.is_some(),
        None => true,
    };
    if is_stored {
        return build_server(app, &actor.identity, &request).await;
    }
    request.jump = None;
    let (row, server, tags) = build_server(app, &actor.identity, &request).await?;
    let server = Server { jump, ..server };
    Ok((ServerRow { body: server.to_body(), ..row }, server, tags))
}
