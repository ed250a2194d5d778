//! `/api/v1/rules`: what people ask to be told of, and what it would have been in the past.

use crate::app::App;
use crate::error::ApiError;
use crate::http::body::JsonBody;
use crate::http::extract::{Audited, Caller};
use crate::http::query;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use perfwatch_alerting::backtester;
use perfwatch_alerting::{AlertingSnapshot as Alerts, MAX_RULES, StateChange, to_json};
use perfwatch_auth::{Actor, Identity};
use perfwatch_rules::backtest::FiringInterval;
use perfwatch_rules::rule::{Rule, RuleError};
use perfwatch_rules::{builtin_rules, managed_rule, render};
use perfwatch_store::definitions::DefinitionKind;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// A rule, and how it stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct RuleResponse {
    rule: Rule,
    /// What it asks, in words.
    summary: String,
    /// Its alerts that fire, of hosts that one may see.
    firing_count: usize,
    /// One that every hub begins with.
    builtin: bool,
    /// Made of thresholds of hosts without an agent, and changed there.
    managed: bool,
}

/// Rules.
#[derive(Serialize, ToSchema)]
pub(crate) struct RuleListResponse {
    rules: Vec<RuleResponse>,
}

fn invalid(problem: &RuleError) -> ApiError {
    ApiError::unprocessable("invalid_rule", problem.to_string())
}

fn to_response(app: &App, state: &Alerts, identity: &Identity, rule: &Rule) -> RuleResponse {
    let everyone = app.directory.snapshot();
    let firing = state.incidents.iter().flat_map(|live| live.firing());
    let firing =
        firing.filter(|alert| alert.rule == rule.id && identity.can_view(&everyone, alert.host)).count();
    RuleResponse {
        rule: rule.clone(),
        summary: render::render_condition(rule, &app.catalog),
        firing_count: firing,
        builtin: builtin_rules::builtin_rules().iter().any(|builtin| builtin.id == rule.id),
        managed: managed_rule::is_managed_rule(rule.id),
    }
}

/// List rules
#[utoipa::path(get, path = "/api/v1/rules", tag = "rules", responses((status = 200, body = RuleListResponse)))]
pub(crate) async fn list_rules(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Json<RuleListResponse> {
    let state = app.alerting.snapshot();
    let rules =
        state.definitions.rules.iter().map(|rule| to_response(&app, &state, &identity, rule)).collect();
    Json(RuleListResponse { rules })
}

/// Those that are made of thresholds would be made again.
fn reject_managed_rule(rule: Uuid) -> Result<(), ApiError> {
    match managed_rule::is_managed_rule(rule) {
        true => Err(ApiError::conflict(
            "managed_rule",
            "this rule is managed by agentless thresholds; change the thresholds instead",
        )),
        false => Ok(()),
    }
}

/// Keeps a rule, new or changed.
async fn save(app: &App, actor: &Actor, rule: Rule, new: bool) -> Result<RuleResponse, ApiError> {
    query::require_all_hosts(&actor.identity)?;
    reject_managed_rule(rule.id)?;
    rule.validate().map_err(|problem| invalid(&problem))?;
    let before = app.alerting.snapshot().definitions.rule(rule.id).cloned();
    let action = if new { "rule.create" } else { "rule.update" };
    let entry = actor.audit_change(action, format!("rule {}", rule.name), before.as_deref(), Some(&rule));
    let plan = |state: &Alerts, _: i64| {
        let mut asked = state.definitions.clone();
        let place = asked.rules.iter().position(|known| known.id == rule.id);
        match (place, new) {
            (Some(at), false) => asked.rules[at] = Arc::new(rule.clone()),
            (None, true) if asked.rules.len() >= MAX_RULES => {
                return Err(ApiError::conflict("limit_reached", format!("no more than {MAX_RULES} rules")));
            }
            (None, true) => asked.rules.push(Arc::new(rule.clone())),
            _ => return Err(ApiError::not_found("there is no such rule")),
        }
        let changes = vec![DefinitionKind::Rule.upsert(rule.id, &to_json(&rule))];
        Ok((StateChange { definitions: Some(asked), statements: changes, incidents: None }, ()))
    };
    app.alerting.update(Some(entry), plan).await?;
    Ok(to_response(app, &app.alerting.snapshot(), &actor.identity, &rule))
}

/// Create a rule
#[utoipa::path(post, path = "/api/v1/rules", tag = "rules", request_body = Rule,
    responses((status = 201, body = RuleResponse), (status = 409), (status = 422)))]
pub(crate) async fn create_rule(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(rule): JsonBody<Rule>,
) -> Result<(StatusCode, Json<RuleResponse>), ApiError> {
    let rule = Rule { id: Uuid::now_v7(), ..rule };
    Ok((StatusCode::CREATED, Json(save(&app, &actor, rule, true).await?)))
}

fn parse_id(id: &str) -> Result<Uuid, ApiError> {
    id.parse().map_err(|_| ApiError::not_found("there is no such rule"))
}

/// Replace a rule
#[utoipa::path(put, path = "/api/v1/rules/{id}", tag = "rules", params(("id" = String, Path)), request_body = Rule,
    responses((status = 200, body = RuleResponse), (status = 409), (status = 422)))]
pub(crate) async fn update_rule(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(rule): JsonBody<Rule>,
) -> Result<Json<RuleResponse>, ApiError> {
    let rule = Rule { id: parse_id(&id)?, ..rule };
    Ok(Json(save(&app, &actor, rule, false).await?))
}

/// Delete a rule and resolve its alerts
#[utoipa::path(delete, path = "/api/v1/rules/{id}", tag = "rules", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn delete_rule(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    query::require_all_hosts(&actor.identity)?;
    let id = parse_id(&id)?;
    reject_managed_rule(id)?;
    let missing = || ApiError::not_found("there is no such rule");
    let before = app.alerting.snapshot().definitions.rule(id).cloned().ok_or_else(missing)?;
    let entry = actor.audit_change("rule.delete", format!("rule {}", before.name), Some(&*before), None);
    let plan = |state: &Alerts, _: i64| {
        let mut asked = state.definitions.clone();
        asked.rules.retain(|rule| rule.id != id);
        let changes = vec![DefinitionKind::Rule.delete(id)];
        Ok::<_, ApiError>((
            StateChange { definitions: Some(asked), statements: changes, incidents: None },
            (),
        ))
    };
    app.alerting.update(Some(entry), plan).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A rule to be tried on the past.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BacktestRequest {
    rule: Rule,
    /// Milliseconds since 1970, RFC 3339, or `-7d`, which it is without.
    from: Option<String>,
    to: Option<String>,
}

/// What a rule would have done at one host.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostBacktestResponse {
    host: Uuid,
    name: String,
    /// Values that were looked at.
    value_count: usize,
    /// By averages of minutes, not tick by tick.
    downsampled: bool,
    firing_intervals: Vec<FiringInterval>,
}

/// What a rule would have done.
#[derive(Serialize, ToSchema)]
pub(crate) struct BacktestResponse {
    from_ms: i64,
    to_ms: i64,
    /// How often, all hosts together.
    firing_count: usize,
    /// Those where it would have fired most come first.
    hosts: Vec<HostBacktestResponse>,
    /// Hosts that there was no time for.
    skipped_hosts: usize,
    /// A threshold by which it would fire about once a day and host, or less; none where this one does.
    suggested_threshold: Option<f64>,
    duration_ms: u64,
}

/// Backtest a rule
#[utoipa::path(post, path = "/api/v1/rules/backtest", tag = "rules", request_body = BacktestRequest,
    responses((status = 200, body = BacktestResponse), (status = 422)))]
pub(crate) async fn test(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    JsonBody(wish): JsonBody<BacktestRequest>,
) -> Result<Json<BacktestResponse>, ApiError> {
    let began = app.clock.monotonic();
    wish.rule.validate().map_err(|problem| invalid(&problem))?;
    if let Some(why) = backtester::unsupported_reason(&wish.rule) {
        return Err(ApiError::unprocessable("backtest_unsupported", why));
    }
    let now_ms = app.clock.wall_ms();
    let range = query::range(wish.from.as_deref().or(Some("-7d")), wish.to.as_deref(), now_ms)?;
    if range.1 - range.0 > 31 * 86_400_000 {
        return Err(ApiError::unprocessable("range_too_long", "31 days at most"));
    }
    let everyone = app.directory.snapshot();
    let mut hosts = query::hosts(&app, &identity);
    hosts.retain(|host| wish.rule.hosts.matches(host.record.id.0, everyone.host_tags(host.record.id)));
    // Those that send now say most.
    hosts.sort_by_key(|host| std::cmp::Reverse(host.last_seen_ms));
    let ids = hosts.iter().map(|host| host.record.id).collect();
    let result = app.alerting.backtest(wish.rule, ids, range).await?;
    let mut shown: Vec<HostBacktestResponse> = result
        .hosts
        .into_iter()
        .map(|one| HostBacktestResponse {
            host: one.host.0,
            name: app.hosts.name(one.host),
            value_count: one.value_count,
            downsampled: one.downsampled,
            firing_intervals: one.firing_intervals,
        })
        .collect();
    shown.sort_by_key(|one| std::cmp::Reverse(one.firing_intervals.len()));
    let took = app.clock.monotonic().saturating_sub(began).as_millis();
    Ok(Json(BacktestResponse {
        from_ms: range.0,
        to_ms: range.1,
        firing_count: result.firing_count,
        hosts: shown,
        skipped_hosts: result.skipped_hosts,
        suggested_threshold: result.suggested_threshold,
        duration_ms: u64::try_from(took).unwrap_or_default(),
    }))
}

/// As a file says it: by name, without an id.
#[derive(Serialize)]
struct RuleFile {
    rules: Vec<serde_json::Value>,
}

/// Export rules as YAML
#[utoipa::path(get, path = "/api/v1/rules/export", tag = "rules",
    responses((status = 200, content_type = "application/yaml", body = Object)))]
pub(crate) async fn export(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let plain = |rule: &Arc<Rule>| {
        let mut value = serde_json::to_value(&**rule).unwrap_or_default();
        value.as_object_mut().map(|fields| fields.remove("id"));
        value
    };
    // Thresholds are the servers' own.
    let state = app.alerting.snapshot();
    let rules = state
        .definitions
        .rules
        .iter()
        .filter(|rule| !managed_rule::is_managed_rule(rule.id))
        .map(plain)
        .collect();
    let failed = |error: serde_saphyr::ser::Error| ApiError::conflict("invalid_yaml", error.to_string());
    let text = serde_saphyr::to_string(&RuleFile { rules }).map_err(failed)?;
    let headers = [
        (header::CONTENT_TYPE, "application/yaml"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"perfwatch-rules.yaml\""),
    ];
    Ok((headers, text).into_response())
}

/// What a file brought.
#[derive(Serialize, ToSchema)]
pub(crate) struct RuleImportResponse {
    created: usize,
    updated: usize,
    unchanged: usize,
}

/// A file of rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleImport {
    rules: Vec<Rule>,
}

/// Import rules from YAML
///
/// Those of a name that is there take its place; others are new. All of the file, or nothing.
#[utoipa::path(post, path = "/api/v1/rules/import", tag = "rules",
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, body = RuleImportResponse), (status = 409), (status = 422)))]
pub(crate) async fn import(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    crate::http::body::YamlBody(text): crate::http::body::YamlBody,
) -> Result<Json<RuleImportResponse>, ApiError> {
    query::require_all_hosts(&actor.identity)?;
    let read: RuleImport = serde_saphyr::from_str(&text)
        .map_err(|error| ApiError::unprocessable("invalid_rules", error.to_string()))?;
    for rule in &read.rules {
        rule.validate().map_err(|problem| {
            ApiError::unprocessable("invalid_rule", format!("{:?}: {problem}", rule.name))
        })?;
    }
    let entry = actor.audit("rule.import", format!("{} rules", read.rules.len()));
    let plan = |state: &Alerts, _: i64| {
        let (mut asked, mut changes) = (state.definitions.clone(), Vec::new());
        let mut done = RuleImportResponse { created: 0, updated: 0, unchanged: 0 };
        for rule in &read.rules {
            let place = asked.rules.iter().position(|known| known.name == rule.name);
            let id = place.map_or_else(Uuid::now_v7, |at| asked.rules[at].id);
            let rule = Arc::new(Rule { id, ..rule.clone() });
            match place {
                Some(at) if asked.rules[at] == rule => {
                    done.unchanged += 1;
                    continue;
                }
                Some(at) => {
                    asked.rules[at] = rule.clone();
                    done.updated += 1;
                }
                None => {
                    asked.rules.push(rule.clone());
                    done.created += 1;
                }
            }
            changes.push(DefinitionKind::Rule.upsert(id, &to_json(&*rule)));
        }
        if asked.rules.len() > MAX_RULES {
            return Err(ApiError::conflict("limit_reached", format!("no more than {MAX_RULES} rules")));
        }
        Ok((StateChange { definitions: Some(asked), statements: changes, incidents: None }, done))
    };
    Ok(Json(app.alerting.update(Some(entry), plan).await?))
}
