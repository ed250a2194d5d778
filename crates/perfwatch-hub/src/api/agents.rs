//! `/api/v1/agents`: those that were let in, and how one is.

use crate::app::App;
use crate::error::ApiError;
use crate::http::body::JsonBody;
use crate::http::extract::{Audited, Caller, Client};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_auth::{Identity, actor, secret};
use perfwatch_model::{HostId, limits};
use perfwatch_store::CommitError;
use perfwatch_store::agents::{Agent, EnrollmentToken, HostTags};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// An agent that sent so lately is there: another can't take its host.
const ONLINE_WINDOW_MS: i64 = 120_000;

/// An agent, without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentResponse {
    id: Uuid,
    #[schema(value_type = String, format = Uuid)]
    host: HostId,
    /// None before its first snapshot.
    host_name: Option<String>,
    version: Option<String>,
    /// Name of what let it in.
    enrollment_token: String,
    /// Where it came from then.
    address: String,
    created_ms: i64,
    seen_ms: i64,
    /// Since when it may not send any more.
    revoked_ms: Option<i64>,
}

/// Agents.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentListResponse {
    agents: Vec<AgentResponse>,
    /// The hub's clock.
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
        seen_ms: app.directory.agent_last_seen_ms(agent),
        revoked_ms: agent.revoked_ms,
    }
}

/// List agents
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents", responses((status = 200, body = AgentListResponse)))]
pub(crate) async fn list_agents(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Json<AgentListResponse> {
    let now = app.directory.snapshot();
    let seen = now.agents.values().filter(|agent| identity.can_view(&now, agent.host));
    let mut agents: Vec<AgentResponse> = seen.map(|agent| to_response(&app, agent)).collect();
    agents.sort_by_key(|agent| -agent.created_ms);
    Json(AgentListResponse { agents, now_ms: app.clock.wall_ms() })
}

/// An agent that wants in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnrollRequest {
    /// An enrolment token.
    token: String,
    /// The host's own id, made once on it.
    #[schema(value_type = String, format = Uuid)]
    host_id: HostId,
    host_name: String,
}

/// Who an agent is from now on; its secret is told this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct EnrollResponse {
    agent_id: Uuid,
    secret: String,
}

/// Enroll an agent
#[utoipa::path(post, path = "/api/v1/agents/enroll", tag = "agents", request_body = EnrollRequest,
    responses((status = 201, body = EnrollResponse), (status = 401), (status = 403), (status = 409), (status = 422)))]
pub(crate) async fn enroll_agent(
    State(app): State<Arc<App>>,
    Client(client): Client,
    JsonBody(wish): JsonBody<EnrollRequest>,
) -> Result<(StatusCode, Json<EnrollResponse>), ApiError> {
    let refuse = || {
        let message = "invalid or expired enrollment token";
        ApiError::new(StatusCode::UNAUTHORIZED, "invalid_enrollment_token", message)
    };
    perfwatch_live::host_registry::validate_host_name(&wish.host_name)
        .map_err(|error| ApiError::unprocessable("invalid_host", error.to_string()))?;
    let turn = app.directory.begin_write().await?;
    let (now, now_ms) = (app.directory.snapshot(), app.clock.wall_ms());
    let enrolment = now.enrollment_tokens.get(&secret::hash_secret(&wish.token)).ok_or_else(refuse)?;
    let earlier: Vec<&Agent> = now.agents.values().filter(|agent| agent.host == wish.host_id).collect();
    // Its answer got lost, or it asked another hub: it came by this very token and never sent.
    let again = |agent: &&Agent| {
        agent.enrollment_token == enrolment.name
            && agent.revoked_ms.is_none()
            && agent.created_ms >= enrolment.created_ms
            && app.directory.agent_last_seen_ms(agent) == 0
    };
    let again = earlier.iter().any(again);
    if (enrolment.uses_left <= 0 && !again) || enrolment.expires_ms <= now_ms {
        return Err(refuse());
    }
    if now.agents.len() >= limits::MAX_HOSTS {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "too_many_hosts",
            "the agent limit of this hub is reached",
        ));
    }
    let host = app.hosts.get(wish.host_id);
    let heard = host.as_ref().and_then(|host| host.last_seen_ms).unwrap_or_default();
    let there = |agent: &&Agent| {
        agent.revoked_ms.is_none() && now_ms - app.directory.agent_last_seen_ms(agent) < ONLINE_WINDOW_MS
    };
    // Also of one that sends by a token of a script, or is the hub's own.
    let shut_out = earlier.iter().any(|agent| agent.revoked_ms.is_some());
    if earlier.iter().copied().any(|agent| there(&agent)) || (now_ms - heard < ONLINE_WINDOW_MS && !shut_out)
    {
        let message = "another agent is enrolled for this host; revoke it first. If this machine is a clone, delete its host-id file";
        return Err(ApiError::conflict("host_already_enrolled", message));
    }
    let text = secret::generate(secret::SecretKind::Agent);
    let agent = Agent {
        id: Uuid::now_v7(),
        hash: secret::hash_secret(&text),
        host: wish.host_id,
        enrollment_token: enrolment.name.clone(),
        address: client.address.to_string(),
        created_ms: now_ms,
        // Not before it sends.
        last_seen_ms: 0,
        revoked_ms: None,
    };
    let mut changes = vec![agent.insert()];
    changes.extend((!again).then(|| EnrollmentToken::consume(enrolment.id, now_ms)));
    changes.extend(earlier.iter().map(|agent| Agent::delete(agent.id)));
    // Of a host that is there already, a token decides nothing.
    if !enrolment.tags.is_empty() && host.is_none() && !now.host_tags.contains_key(&wish.host_id) {
        changes.push(HostTags::set(wish.host_id, &enrolment.tags));
    }
    let object = format!("agent {} of {}", agent.id, wish.host_name);
    let entry = actor::audit_entry(format!("enrolment {}", enrolment.name), &client, "agent.enroll", object);
    turn.commit(changes, Some(entry)).await.map_err(|error| match error {
        // Many come at once by several hubs: it comes again.
        CommitError::Conflict => {
            ApiError::unavailable("enrollment_in_progress", "another agent is being enrolled; retry", 1)
        }
        CommitError::Store(error) => error.into(),
    })?;
    tracing::info!(host = wish.host_name, host.id = %wish.host_id, "agent enrolled");
    Ok((StatusCode::CREATED, Json(EnrollResponse { agent_id: agent.id, secret: text })))
}

fn find(app: &App, identity: &Identity, id: &str) -> Result<Agent, ApiError> {
    let now = app.directory.snapshot();
    let agent =
        now.agents.values().find(|agent| agent.id.to_string() == id && identity.can_view(&now, agent.host));
    let agent = agent.cloned();
    agent.ok_or_else(|| ApiError::not_found("agent not found"))
}

fn audit_object(app: &App, agent: &Agent) -> String {
    format!("agent {} of {}", agent.id, app.hosts.get(agent.host).map_or("?".into(), |host| host.record.name))
}

/// Revoke an agent
#[utoipa::path(post, path = "/api/v1/agents/{id}/revoke", tag = "agents", params(("id" = String, Path)),
    responses((status = 200, body = AgentResponse), (status = 409)))]
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<Json<AgentResponse>, ApiError> {
    let turn = app.directory.begin_write().await?;
    let agent = find(&app, &actor.identity, &id)?;
    if agent.revoked_ms.is_some() {
        return Err(ApiError::conflict("already_revoked", "this agent is already revoked"));
    }
    let entry = actor.audit("agent.revoke", audit_object(&app, &agent));
    turn.commit([Agent::revoke(agent.id, app.clock.wall_ms())], Some(entry)).await?;
    Ok(Json(to_response(&app, &find(&app, &actor.identity, &id)?)))
}

/// Delete a revoked agent
#[utoipa::path(delete, path = "/api/v1/agents/{id}", tag = "agents", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn delete_agent(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let turn = app.directory.begin_write().await?;
    let agent = find(&app, &actor.identity, &id)?;
    if agent.revoked_ms.is_none() {
        return Err(ApiError::conflict("agent_not_revoked", "revoke the agent before deleting it"));
    }
    let entry = actor.audit("agent.delete", audit_object(&app, &agent));
    turn.commit([Agent::delete(agent.id)], Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}
