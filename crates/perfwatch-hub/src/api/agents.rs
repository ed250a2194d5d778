//! `/api/v1/agents`: those that were let in, and how one is.

use super::body::JsonBody;
use crate::app::App;
use crate::auth::{Client, Doer, Identity, doer, secret};
use crate::error::ApiError;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_model::{HostId, limits};
use perfwatch_store::CommitError;
use perfwatch_store::people::{Agent, Enrolment, HostTags};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// An agent that sent so lately is there: another can't take its host.
const THERE_MS: i64 = 120_000;

/// An agent, without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentJson {
    id: Uuid,
    #[schema(value_type = String, format = Uuid)]
    host: HostId,
    /// None before its first snapshot.
    host_name: Option<String>,
    version: Option<String>,
    /// Name of what let it in.
    enrolment: String,
    /// Where it came from then.
    address: String,
    created_ms: i64,
    seen_ms: i64,
    /// Since when it may not send any more.
    revoked_ms: Option<i64>,
}

/// Agents.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentsJson {
    agents: Vec<AgentJson>,
    /// The hub's clock.
    now_ms: i64,
}

fn show(app: &App, agent: &Agent) -> AgentJson {
    let host = app.fleet.get(agent.host);
    AgentJson {
        id: agent.id,
        host: agent.host,
        version: host.as_ref().and_then(|host| Some(host.record.facts.as_ref()?.agent_version.clone())),
        host_name: host.map(|host| host.record.name),
        enrolment: agent.enrolment.clone(),
        address: agent.address.clone(),
        created_ms: agent.created_ms,
        seen_ms: app.people.agent_seen_ms(agent),
        revoked_ms: agent.revoked_ms,
    }
}

/// All agents that were let in, the latest first
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents", responses((status = 200, body = AgentsJson)))]
pub(crate) async fn list(State(app): State<Arc<App>>, identity: Identity) -> Json<AgentsJson> {
    let now = app.people.now();
    let seen = now.agents.values().filter(|agent| identity.sees(&now, agent.host));
    let mut agents: Vec<AgentJson> = seen.map(|agent| show(&app, agent)).collect();
    agents.sort_by_key(|agent| -agent.created_ms);
    Json(AgentsJson { agents, now_ms: app.clock.wall_ms() })
}

/// An agent that wants in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Enrol {
    /// An enrolment token.
    token: String,
    /// The host's own id, made once on it.
    #[schema(value_type = String, format = Uuid)]
    host_id: HostId,
    host_name: String,
}

/// Who an agent is from now on; its secret is told this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct Enrolled {
    agent_id: Uuid,
    secret: String,
}

/// Lets an agent in
#[utoipa::path(post, path = "/api/v1/agents/enrol", tag = "agents", request_body = Enrol,
    responses((status = 201, body = Enrolled), (status = 401), (status = 403), (status = 409), (status = 422)))]
pub(crate) async fn enrol(
    State(app): State<Arc<App>>,
    client: Client,
    JsonBody(wish): JsonBody<Enrol>,
) -> Result<(StatusCode, Json<Enrolled>), ApiError> {
    let refuse = || {
        let message = "this enrolment token is not good, or not any more";
        ApiError::new(StatusCode::UNAUTHORIZED, "bad_enrolment", message)
    };
    crate::fleet::check_name(&wish.host_name)
        .map_err(|error| ApiError::unprocessable("invalid_host", error.to_string()))?;
    let turn = app.people.turn().await?;
    let (now, now_ms) = (app.people.now(), app.clock.wall_ms());
    let enrolment = now.enrolments.get(&secret::hash(&wish.token)).ok_or_else(refuse)?;
    let earlier: Vec<&Agent> = now.agents.values().filter(|agent| agent.host == wish.host_id).collect();
    // Its answer got lost, or it asked another hub: it came by this very token and never sent.
    let again = |agent: &&Agent| {
        agent.enrolment == enrolment.name
            && agent.revoked_ms.is_none()
            && agent.created_ms >= enrolment.created_ms
            && app.people.agent_seen_ms(agent) == 0
    };
    let again = earlier.iter().any(again);
    if (enrolment.uses_left <= 0 && !again) || enrolment.expires_ms <= now_ms {
        return Err(refuse());
    }
    if now.agents.len() >= limits::HOSTS {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "too_many_hosts", "this hub takes no more agents"));
    }
    let host = app.fleet.get(wish.host_id);
    let heard = host.as_ref().and_then(|host| host.last_seen_ms).unwrap_or_default();
    let there =
        |agent: &&Agent| agent.revoked_ms.is_none() && now_ms - app.people.agent_seen_ms(agent) < THERE_MS;
    // Also of one that sends by a token of a script, or is the hub's own.
    let shut_out = earlier.iter().any(|agent| agent.revoked_ms.is_some());
    if earlier.iter().copied().any(|agent| there(&agent)) || (now_ms - heard < THERE_MS && !shut_out) {
        let message = "another agent sends for this host: revoke it first, or, where this machine is a copy of that one, remove its host-id";
        return Err(ApiError::conflict("host_taken", message));
    }
    let text = secret::generate(secret::Kind::Agent);
    let agent = Agent {
        id: Uuid::now_v7(),
        hash: secret::hash(&text),
        host: wish.host_id,
        enrolment: enrolment.name.clone(),
        address: client.address.to_string(),
        created_ms: now_ms,
        // Not before it sends.
        seen_ms: 0,
        revoked_ms: None,
    };
    let mut changes = vec![agent.add()];
    changes.extend((!again).then(|| Enrolment::use_one(enrolment.id, now_ms)));
    changes.extend(earlier.iter().map(|agent| Agent::remove(agent.id)));
    // Of a host that is there already, a token decides nothing.
    if !enrolment.tags.is_empty() && host.is_none() && !now.host_tags.contains_key(&wish.host_id) {
        changes.push(HostTags::put(wish.host_id, &enrolment.tags));
    }
    let object = format!("agent {} of {}", agent.id, wish.host_name);
    let entry = doer::entry(format!("enrolment {}", enrolment.name), &client, "agent.enrol", object);
    turn.commit(changes, Some(entry)).await.map_err(|error| match error {
        // Many come at once by several hubs: it comes again.
        CommitError::Conflict => ApiError::unavailable("busy", "another agent is let in just now", 1),
        CommitError::Store(error) => error.into(),
    })?;
    tracing::info!(host = wish.host_name, host.id = %wish.host_id, "an agent was let in");
    Ok((StatusCode::CREATED, Json(Enrolled { agent_id: agent.id, secret: text })))
}

fn find(app: &App, identity: &Identity, id: &str) -> Result<Agent, ApiError> {
    let now = app.people.now();
    let agent =
        now.agents.values().find(|agent| agent.id.to_string() == id && identity.sees(&now, agent.host));
    let agent = agent.cloned();
    agent.ok_or_else(|| ApiError::not_found("there is no such agent"))
}

fn object(app: &App, agent: &Agent) -> String {
    format!("agent {} of {}", agent.id, app.fleet.get(agent.host).map_or("?".into(), |host| host.record.name))
}

/// Shuts an agent out: it is refused at once, and stops
#[utoipa::path(post, path = "/api/v1/agents/{id}/revoke", tag = "agents", params(("id" = String, Path)),
    responses((status = 200, body = AgentJson), (status = 409)))]
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<Json<AgentJson>, ApiError> {
    let turn = app.people.turn().await?;
    let agent = find(&app, &doer.identity, &id)?;
    if agent.revoked_ms.is_some() {
        return Err(ApiError::conflict("already_revoked", "this agent was revoked before"));
    }
    let entry = doer.did("agent.revoke", object(&app, &agent));
    turn.commit([Agent::revoke(agent.id, app.clock.wall_ms())], Some(entry)).await?;
    Ok(Json(show(&app, &find(&app, &doer.identity, &id)?)))
}

/// Forgets an agent that was revoked
#[utoipa::path(delete, path = "/api/v1/agents/{id}", tag = "agents", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let turn = app.people.turn().await?;
    let agent = find(&app, &doer.identity, &id)?;
    if agent.revoked_ms.is_none() {
        return Err(ApiError::conflict(
            "not_revoked",
            "revoke it first: an agent that is only forgotten tries for ever",
        ));
    }
    let entry = doer.did("agent.remove", object(&app, &agent));
    turn.commit([Agent::remove(agent.id)], Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}
