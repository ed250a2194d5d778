//! `/api/v1/servers/import`: many servers from an ssh_config or a table; looked at first, then kept,
//! all of them or none.

use super::body::JsonBody;
use super::servers::{MOST_SERVERS, add, made, taken};
use crate::app::App;
use crate::auth::Doer;
use crate::error::ApiError;
use crate::servers::import::{self, Found};
use crate::servers::record::{LoginWish, ServerWish, Thresholds};
use crate::servers::{Server, Servers};
use axum::Json;
use axum::extract::State;
use perfwatch_model::Span;
use perfwatch_store::Change;
use perfwatch_store::servers::ServerRow;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// In what form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    /// As in `~/.ssh/config`.
    SshConfig,
    /// Columns `address`, and any of `name`, `port`, `user`, `password`, `jump`, `tags`, `interval`.
    Csv,
}

/// Servers as somebody has them.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportWish {
    form: Form,
    text: String,
    /// Where a line says none.
    user: Option<String>,
    /// For all lines without a password of their own.
    login: Option<LoginWish>,
    /// Of all, beside those of a line.
    #[serde(default)]
    tags: Vec<String>,
    #[schema(value_type = Option<String>)]
    interval: Option<Span>,
    #[serde(default)]
    enabled: bool,
    /// Only says what would be.
    #[serde(default)]
    dry_run: bool,
}

/// One line.
#[derive(Serialize, ToSchema)]
pub(crate) struct ImportedJson {
    line: usize,
    name: String,
    address: String,
    /// Why it can't be.
    problem: Option<String>,
    /// There is one of that name: it stays as it is.
    known: bool,
}

/// What a text brought.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServersImportJson {
    servers: Vec<ImportedJson>,
    /// How many are new.
    created: usize,
}

fn wish_of(found: &Found, all: &ImportWish, names: &HashMap<String, Uuid>) -> Result<ServerWish, ApiError> {
    let invalid = |why: String| ApiError::unprocessable("invalid_server", why);
    let login = match (&found.password, &all.login) {
        (Some(password), _) => LoginWish::Password { password: Some(password.clone()) },
        (None, Some(login)) => login.clone(),
        (None, None) => return Err(invalid("login: it is needed".to_owned())),
    };
    let port =
        found.port.as_ref().map(|port| port.parse().map_err(|_| invalid(format!("port: {port:?} is none"))));
    let interval = found
        .interval
        .as_ref()
        .map(|text| Span::parse(text).ok_or_else(|| invalid(format!("interval: {text:?} is none"))));
    let jump = found.jump.as_ref().map(|name| {
        names.get(name).copied().ok_or_else(|| invalid(format!("jump: there is no server called {name:?}")))
    });
    let user = found.user.clone().or_else(|| all.user.clone());
    Ok(ServerWish {
        name: found.name.clone(),
        address: found.address.clone(),
        port: port.transpose()?.unwrap_or(22),
        user: user.ok_or_else(|| invalid("user: it is needed".to_owned()))?,
        login,
        jump: jump.transpose()?,
        tags: found.tags.iter().chain(&all.tags).cloned().collect(),
        interval: interval.transpose()?.or(all.interval).unwrap_or(Span::from_s(900)),
        thresholds: Thresholds::default(),
        enabled: all.enabled,
        version: None,
    })
}

/// Servers from an ssh_config or a table; all that are new, or none
///
/// Those whose name is there already stay as they are. Lines may go through servers that are there,
/// or that stand further up.
#[utoipa::path(post, path = "/api/v1/servers/import", tag = "servers", request_body = ImportWish,
    responses((status = 200, body = ServersImportJson), (status = 409), (status = 422)))]
pub(crate) async fn import(
    State(app): State<Arc<App>>,
    doer: Doer,
    JsonBody(wish): JsonBody<ImportWish>,
) -> Result<Json<ServersImportJson>, ApiError> {
    let bad = |why: String| ApiError::unprocessable("bad_import", why);
    let found = match wish.form {
        Form::SshConfig => import::ssh_config(&wish.text),
        Form::Csv => import::csv(&wish.text).map_err(bad)?,
    };
    let turn = app.people.turn().await?;
    let known = ServerRow::all(app.servers.store()).await?;
    if known.len() + found.len() > MOST_SERVERS {
        return Err(ApiError::conflict("too_many", format!("no more than {MOST_SERVERS} servers")));
    }
    let named = |row: &ServerRow| Some((Servers::record(row)?.name, row.id));
    let mut names: HashMap<String, Uuid> = known.iter().filter_map(named).collect();
    let (mut shown, mut changes, mut woken) = (Vec::new(), Vec::<Change>::new(), Vec::new());
    // Those that lead to others first.
    let (first, rest): (Vec<Found>, Vec<Found>) = found.into_iter().partition(|one| one.jump.is_none());
    for one in first.into_iter().chain(rest) {
        let is_known = taken(&app, &known, &one.name, None).is_err();
        let problem = match is_known {
            true => None,
            false => match planned(&app, &doer, &one, &wish, &names).await {
                Err(error) => Some(error.message().to_owned()),
                Ok(_) if names.contains_key(&one.name) => Some("name: it stands here twice".to_owned()),
                Ok((row, server, tags)) => {
                    names.insert(server.name, row.id);
                    changes.extend(add(&row, &tags, app.clock.wall_ms()));
                    woken.push(row.id);
                    None
                }
            },
        };
        shown.push(ImportedJson {
            line: one.line,
            name: one.name,
            address: one.address,
            problem,
            known: is_known,
        });
    }
    shown.sort_by_key(|one| one.line);
    let created = woken.len();
    if !wish.dry_run {
        if let Some(one) = shown.iter().find(|one| one.problem.is_some()) {
            let why = one.problem.as_deref().unwrap_or_default();
            return Err(bad(format!("line {}, {}: {why}", one.line, one.name)));
        }
        if created > 0 {
            let entry = doer.did("server.import", format!("{created} servers"));
            turn.commit(changes, Some(entry)).await?;
            app.servers.wake(None);
        }
    }
    Ok(Json(ServersImportJson { servers: shown, created }))
}

async fn planned(
    app: &App,
    doer: &Doer,
    found: &Found,
    all: &ImportWish,
    names: &HashMap<String, Uuid>,
) -> Result<(ServerRow, Server, Vec<String>), ApiError> {
    let mut wish = wish_of(found, all, names)?;
    // What stands further up is not in the store yet; whether they may use it was seen there.
    let fresh = wish.jump.filter(|jump| names.values().any(|id| id == jump));
    let seen = match fresh {
        Some(jump) => ServerRow::one(app.servers.store(), jump).await?.is_some(),
        None => true,
    };
    if seen {
        return made(app, &doer.identity, &wish).await;
    }
    wish.jump = None;
    let (row, server, tags) = made(app, &doer.identity, &wish).await?;
    let server = Server { jump: fresh, ..server };
    Ok((ServerRow { body: server.body(), ..row }, server, tags))
}
