//! `/api/v1/agents`: enrolled agents, enrollment and revocation.

use crate::app::App;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_auth::enrollment::{AcceptedClaim, ClaimError, HostClaim};
use perfwatch_auth::{ClientAddr, Identity, actor, secret};
use perfwatch_http::body::JsonBody;
use perfwatch_http::{ApiError, Audited, Caller, Client};
use perfwatch_live::host_registry::{Host, validate_host_name};
use perfwatch_model::{HostId, limits};
use perfwatch_store::agents::{Agent, is_known_host};
use perfwatch_store::{CommitError, Transaction};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Maximum time since the last snapshot of an agent that counts as online. Another agent cannot enroll for
/// the host of an online agent.
const ONLINE_WINDOW_MS: i64 = 120_000;

/// Enrolled agent without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentResponse {
    id: Uuid,
    #[schema(value_type = String, format = Uuid)]
    host: HostId,
    /// Name of the host; `null` before the first snapshot.
    host_name: Option<String>,
    /// Version of the agent; `null` before the first snapshot.
    version: Option<String>,
    /// Name of the enrollment token that the agent used.
    enrollment_token: String,
    /// Client address at enrollment.
    address: String,
    created_ms: i64,
    /// Time of the last request; 0 before the first.
    last_seen_ms: i64,
    /// Time of the revocation.
    revoked_ms: Option<i64>,
    /// The latest request came from another machine over plain HTTP.
    unencrypted: bool,
}

/// Agents of the visible hosts.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentListResponse {
    agents: Vec<AgentResponse>,
    /// Current time of the hub.
    now_ms: i64,
}

fn to_response(app: &App, agent: &Agent) -> AgentResponse {
    let host = app.hosts.get(agent.host);
    AgentResponse {
        id: agent.id,
        host: agent.host,
        version: host.as_ref().and_then(|host| Some(host.record.facts.as_ref()?.agent_version.clone())),
        host_name: host.map(|host| host.record.name),
        enrollment_token: agent.enrollment_token.clone(),
        address: agent.address.clone(),
        created_ms: agent.created_ms,
        last_seen_ms: app.directory.agent_last_seen_ms(agent),
        revoked_ms: agent.revoked_ms,
        unencrypted: app.directory.is_unencrypted(agent.id),
    }
}

/// List agents
#[utoipa::path(
    get, path = "/api/v1/agents", tag = "agents",
    responses((status = 200, body = AgentListResponse)),
)]
pub(crate) async fn list_agents(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Json<AgentListResponse> {
    let auth_snapshot = app.directory.snapshot();
    let visible = auth_snapshot.agents.values().filter(|agent| identity.can_view(&auth_snapshot, agent.host));
    let mut agents: Vec<AgentResponse> = visible.map(|agent| to_response(&app, agent)).collect();
    agents.sort_by_key(|agent| -agent.created_ms);
    Json(AgentListResponse { agents, now_ms: app.clock.wall_ms() })
}

/// Enrollment of an agent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnrollRequest {
    /// Secret of an enrollment token (`pwe_`).
    token: String,
    /// Id of the host, generated on the host.
    #[schema(value_type = String, format = Uuid)]
    host_id: HostId,
    host_name: String,
    /// Secret of an earlier enrollment of this host, also if it is revoked.
    #[serde(default)]
    previous_secret: Option<String>,
}

/// Credential of the enrolled agent; the secret is returned only here.
#[derive(Serialize, ToSchema)]
pub(crate) struct EnrollResponse {
    agent_id: Uuid,
    secret: String,
}

fn claim_error(error: ClaimError) -> ApiError {
    match error {
        ClaimError::InvalidToken => {
            ApiError::new(StatusCode::UNAUTHORIZED, "invalid_enrollment_token", error.to_string())
        }
        ClaimError::OtherHost => ApiError::new(StatusCode::FORBIDDEN, "host_mismatch", error.to_string()),
        ClaimError::KnownHost => ApiError::conflict("host_already_enrolled", error.to_string()),
    }
}

/// Checks that no online agent or script sends for the host.
///
/// # Errors
/// Returns `host_already_enrolled` otherwise.
fn ensure_host_is_free(
    app: &App,
    previous: &[&Agent],
    host: Option<&Host>,
    now_ms: i64,
) -> Result<(), ApiError> {
    let is_online = |agent: &&Agent| {
        agent.revoked_ms.is_none() && now_ms - app.directory.agent_last_seen_ms(agent) < ONLINE_WINDOW_MS
    };
    // Snapshots also arrive with API tokens and from the embedded agent. After a revocation, the last
    // snapshot is that of the revoked agent.
    let last_seen_ms = host.and_then(|host| host.last_seen_ms).unwrap_or_default();
    let has_revoked_agent = previous.iter().any(|agent| agent.revoked_ms.is_some());
    if previous.iter().any(is_online) || (now_ms - last_seen_ms < ONLINE_WINDOW_MS && !has_revoked_agent) {
        let message = "another agent is enrolled for this host; revoke it first. \
            If this machine is a clone, delete its host-id file";
        return Err(ApiError::conflict("host_already_enrolled", message));
    }
    Ok(())
}

/// Enroll an agent
#[utoipa::path(
    post, path = "/api/v1/agents/enroll", tag = "agents",
    request_body = EnrollRequest,
    responses(
        (status = 201, body = EnrollResponse),
        (status = 401),
        (status = 403),
        (status = 409),
        (status = 422),
        (status = 429),
    ),
)]
pub(crate) async fn enroll_agent(
    State(app): State<Arc<App>>,
    Client(client): Client,
    JsonBody(request): JsonBody<EnrollRequest>,
) -> Result<(StatusCode, Json<EnrollResponse>), ApiError> {
    // Unknown tokens must not occupy the write lock that logins wait for.
    if !app.directory.has_enrollment_token(&request.token).await {
        app.accounts.login.record_failed_secret(&client, "agent.enroll_failed").await?;
        return Err(claim_error(ClaimError::InvalidToken));
    }
    let enrolled = enroll(&app, &client, request).await;
    if enrolled.as_ref().is_err_and(|error| error.status() == StatusCode::UNAUTHORIZED) {
        app.accounts.login.record_failed_secret(&client, "agent.enroll_failed").await?;
    }
    enrolled
}

async fn enroll(
    app: &App,
    client: &ClientAddr,
    request: EnrollRequest,
) -> Result<(StatusCode, Json<EnrollResponse>), ApiError> {
    validate_host_name(&request.host_name)
        .map_err(|error| ApiError::unprocessable("invalid_host", error.to_string()))?;
    let guard = app.directory.begin_unattended_write().await?;
    let (auth_snapshot, now_ms) = (app.directory.snapshot(), app.clock.wall_ms());
    let token = auth_snapshot
        .enrollment_tokens
        .get(&secret::hash_secret(&request.token))
        .ok_or(ClaimError::InvalidToken)
        .map_err(claim_error)?;
    let previous: Vec<&Agent> =
        auth_snapshot.agents.values().filter(|agent| agent.host == request.host_id).collect();
    let agents: Vec<_> =
        previous.iter().map(|agent| (*agent, app.directory.agent_last_seen_ms(agent))).collect();
    let host = app.hosts.get(request.host_id);
    let claim = HostClaim {
        host: request.host_id,
        token,
        previous_secret: request.previous_secret.as_deref(),
        agents: &agents,
        is_known_host: host.is_some() || is_known_host(app.history.backend(), request.host_id).await?,
    };
    let is_known_host = claim.is_known_host;
    let is_retry = claim.check(now_ms).map_err(claim_error)? == AcceptedClaim::Retry;
    if auth_snapshot.agents.len() >= limits::MAX_HOSTS {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "too_many_hosts",
            "the agent limit of this hub is reached",
        ));
    }
    ensure_host_is_free(app, &previous, host.as_ref(), now_ms)?;
    let secret = secret::generate(secret::SecretKind::Agent);
    let agent = Agent {
        id: Uuid::now_v7(),
        hash: secret::hash_secret(&secret),
        host: request.host_id,
        enrollment_token: token.name.clone(),
        enrollment_token_id: Some(token.id),
        previous_hash: claim.known_secret(),
        address: client.address.to_string(),
        created_ms: now_ms,
        // Set by the first snapshot.
        last_seen_ms: 0,
        revoked_ms: None,
    };
    let mut tx = Transaction::default();
    tx.agents().insert(&agent);
    if !is_retry {
        tx.enrollment_tokens().consume(token.id, now_ms);
    }
    previous.iter().for_each(|agent| tx.agents().delete(agent.id));
    // The tags of the token apply to new hosts only.
    if !token.tags.is_empty() && !is_known_host && !auth_snapshot.host_tags.contains_key(&request.host_id) {
        tx.host_tags().set(request.host_id, &token.tags);
    }
    let object = format!("agent {} of {}", agent.id, request.host_name);
    let entry =
        actor::audit_entry(format!("enrollment token {}", token.name), client, "agent.enroll", object);
    guard.commit(tx, Some(entry)).await.map_err(|error| match error {
        // Concurrent enrollments at several hubs; the agent retries.
        CommitError::Conflict => {
            ApiError::unavailable("enrollment_in_progress", "another agent is being enrolled; retry", 1)
        }
        CommitError::Store(error) => error.into(),
    })?;
    tracing::info!(host.name = request.host_name, host.id = %request.host_id, "agent enrolled");
    Ok((StatusCode::CREATED, Json(EnrollResponse { agent_id: agent.id, secret })))
}

fn find(app: &App, identity: &Identity, id: &str) -> Result<Agent, ApiError> {
    let auth_snapshot = app.directory.snapshot();
    let mut agents = auth_snapshot.agents.values();
    let agent =
        agents.find(|agent| agent.id.to_string() == id && identity.can_view(&auth_snapshot, agent.host));
    agent.cloned().ok_or_else(|| ApiError::not_found("agent not found"))
}

fn audit_object(app: &App, agent: &Agent) -> String {
    format!("agent {} of {}", agent.id, app.hosts.get(agent.host).map_or("?".into(), |host| host.record.name))
}

/// Revoke an agent
#[utoipa::path(
    post, path = "/api/v1/agents/{id}/revoke", tag = "agents",
    params(("id" = String, Path, description = "Id of the agent")),
    responses((status = 200, body = AgentResponse), (status = 409)),
)]
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<Json<AgentResponse>, ApiError> {
    let guard = app.directory.begin_write(&actor).await?;
    let agent = find(&app, &actor.identity, &id)?;
    if agent.revoked_ms.is_some() {
        return Err(ApiError::conflict("already_revoked", "this agent is already revoked"));
    }
    let entry = actor.audit("agent.revoke", audit_object(&app, &agent));
    let tx = Transaction::build(|tx| tx.agents().revoke(agent.id, app.clock.wall_ms()));
    guard.commit(tx, Some(entry)).await?;
    Ok(Json(to_response(&app, &find(&app, &actor.identity, &id)?)))
}

/// Delete a revoked agent
#[utoipa::path(
    delete, path = "/api/v1/agents/{id}", tag = "agents",
    params(("id" = String, Path, description = "Id of the agent")),
    responses((status = 204), (status = 409)),
)]
pub(crate) async fn delete_agent(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let guard = app.directory.begin_write(&actor).await?;
    let agent = find(&app, &actor.identity, &id)?;
    if agent.revoked_ms.is_none() {
        return Err(ApiError::conflict("agent_not_revoked", "revoke the agent before deleting it"));
    }
    let entry = actor.audit("agent.delete", audit_object(&app, &agent));
    guard.commit(Transaction::build(|tx| tx.agents().delete(agent.id)), Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}
