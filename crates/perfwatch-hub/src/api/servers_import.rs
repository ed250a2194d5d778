//! `/api/v1/servers/import`: many servers from an ssh_config or a table; looked at first, then kept,
//! all of them or none.

use super::servers::{MAX_SERVERS, build_server, ensure_name_free, insert_statements};
use crate::app::App;
use crate::error::ApiError;
use crate::http::body::JsonBody;
use crate::http::extract::Audited;
use axum::Json;
use axum::extract::State;
use perfwatch_agentless::import::{self, ImportEntry};
use perfwatch_agentless::server::Thresholds;
use perfwatch_agentless::server_request::{CredentialsRequest, ServerRequest};
use perfwatch_agentless::Server;
use perfwatch_auth::Actor;
use perfwatch_model::HumanDuration;
use perfwatch_store::SqlStatement;
use perfwatch_store::servers::ServerRow;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// In what form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ImportFormat {
    /// As in `~/.ssh/config`.
    SshConfig,
    /// Columns `address`, and any of `name`, `port`, `user`, `password`, `jump`, `tags`, `interval`.
    Csv,
}

/// Servers as somebody has them.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerImportRequest {
    format: ImportFormat,
    text: String,
    /// Where a line says none.
    user: Option<String>,
    /// For all lines without a password of their own.
    credentials: Option<CredentialsRequest>,
    /// Of all, beside those of a line.
    #[serde(default)]
    tags: Vec<String>,
    #[schema(value_type = Option<String>)]
    interval: Option<HumanDuration>,
    #[serde(default)]
    enabled: bool,
    /// Only says what would be.
    #[serde(default)]
    dry_run: bool,
}

/// One line.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerImportEntry {
    line: usize,
    name: String,
    address: String,
    /// Why it can't be.
    error: Option<String>,
    /// There is one of that name: it stays as it is.
    exists: bool,
}

/// What a text brought.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerImportResponse {
    servers: Vec<ServerImportEntry>,
    /// How many are new.
    created: usize,
}

fn request_from_entry(
    found: &ImportEntry,
    all: &ServerImportRequest,
    names: &HashMap<String, Uuid>,
) -> Result<ServerRequest, ApiError> {
    let invalid = |why: String| ApiError::unprocessable("invalid_server", why);
    let login = match (&found.password, &all.credentials) {
        (Some(password), _) => CredentialsRequest::Password { password: Some(password.clone()) },
        (None, Some(login)) => login.clone(),
        (None, None) => return Err(invalid("login: it is needed".to_owned())),
    };
    let port = found
        .port
        .as_ref()
        .map(|port| port.parse().map_err(|_| invalid(format!("port: invalid value {port:?}"))));
    let interval = found.interval.as_ref().map(|text| {
        HumanDuration::parse(text).ok_or_else(|| invalid(format!("interval: invalid value {text:?}")))
    });
    let jump = found.jump.as_ref().map(|name| {
        names.get(name).copied().ok_or_else(|| invalid(format!("jump: server {name:?} not found")))
    });
    let user = found.user.clone().or_else(|| all.user.clone());
    Ok(ServerRequest {
        name: found.name.clone(),
        address: found.address.clone(),
        port: port.transpose()?.unwrap_or(22),
        user: user.ok_or_else(|| invalid("user: it is needed".to_owned()))?,
        credentials: login,
        jump: jump.transpose()?,
        tags: found.tags.iter().chain(&all.tags).cloned().collect(),
        interval: interval.transpose()?.or(all.interval).unwrap_or(HumanDuration::from_s(900)),
        thresholds: Thresholds::default(),
        enabled: all.enabled,
        version: None,
    })
}

/// Import agentless hosts
///
/// Those whose name is there already stay as they are. Lines may go through servers that are there,
/// or that stand further up.
#[utoipa::path(post, path = "/api/v1/servers/import", tag = "servers", request_body = ServerImportRequest,
    responses((status = 200, body = ServerImportResponse), (status = 409), (status = 422)))]
pub(crate) async fn import(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(wish): JsonBody<ServerImportRequest>,
) -> Result<Json<ServerImportResponse>, ApiError> {
    let bad = |why: String| ApiError::unprocessable("invalid_import", why);
    let found = match wish.format {
        ImportFormat::SshConfig => import::parse_ssh_config(&wish.text),
        ImportFormat::Csv => import::parse_csv(&wish.text).map_err(|error| bad(error.to_string()))?,
    };
    let turn = app.directory.begin_write().await?;
    let known = ServerRow::list(app.agentless.store()).await?;
    if known.len() + found.len() > MAX_SERVERS {
        return Err(ApiError::conflict("limit_reached", format!("no more than {MAX_SERVERS} servers")));
    }
    let named = |row: &ServerRow| Some((Server::from_row(row)?.name, row.id));
    let mut names: HashMap<String, Uuid> = known.iter().filter_map(named).collect();
    let (mut shown, mut changes, mut woken) = (Vec::new(), Vec::<SqlStatement>::new(), Vec::new());
    // Those that lead to others first.
    let (first, rest): (Vec<ImportEntry>, Vec<ImportEntry>) =
        found.into_iter().partition(|one| one.jump.is_none());
    for one in first.into_iter().chain(rest) {
        let is_known = ensure_name_free(&app, &known, &one.name, None).is_err();
        let problem = match is_known {
            true => None,
            false => match prepare(&app, &actor, &one, &wish, &names).await {
                Err(error) => Some(error.message().to_owned()),
                Ok(_) if names.contains_key(&one.name) => Some("name: duplicate entry".to_owned()),
                Ok((row, server, tags)) => {
                    names.insert(server.name, row.id);
                    changes.extend(insert_statements(&row, &tags, app.clock.wall_ms()));
                    woken.push(row.id);
                    None
                }
            },
        };
        shown.push(ServerImportEntry {
            line: one.line,
            name: one.name,
            address: one.address,
            error: problem,
            exists: is_known,
        });
    }
    shown.sort_by_key(|one| one.line);
    let created = woken.len();
    if !wish.dry_run {
        if let Some(one) = shown.iter().find(|one| one.error.is_some()) {
            let why = one.error.as_deref().unwrap_or_default();
            return Err(bad(format!("line {}, {}: {why}", one.line, one.name)));
        }
        if created > 0 {
            let entry = actor.audit("server.import", format!("{created} servers"));
            turn.commit(changes, Some(entry)).await?;
            app.agentless.notify_changed(None);
        }
    }
    Ok(Json(ServerImportResponse { servers: shown, created }))
}

async fn prepare(
    app: &App,
    actor: &Actor,
    found: &ImportEntry,
    all: &ServerImportRequest,
    names: &HashMap<String, Uuid>,
) -> Result<(ServerRow, Server, Vec<String>), ApiError> {
    let mut wish = request_from_entry(found, all, names)?;
    // What stands further up is not in the store yet; whether they may use it was seen there.
    let fresh = wish.jump.filter(|jump| names.values().any(|id| id == jump));
    let seen = match fresh {
        Some(jump) => ServerRow::get(app.agentless.store(), jump).await?.is_some(),
        None => true,
    };
    if seen {
        return build_server(app, &actor.identity, &wish).await;
    }
    wish.jump = None;
    let (row, server, tags) = build_server(app, &actor.identity, &wish).await?;
    let server = Server { jump: fresh, ..server };
    Ok((ServerRow { body: server.to_body(), ..row }, server, tags))
}
