//! `/api/v1/rules`: alert rules, and their import and export as YAML.

use super::definitions;
use crate::app::App;
use crate::host_access;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use perfwatch_alerting::{
    AlertingSnapshot, DailyFirings, MAX_RULES, RuleImportCounts, StateChange, visible_rule,
};
use perfwatch_auth::{Actor, Identity};
use perfwatch_http::body::{JsonBody, YamlBody};
use perfwatch_http::{ApiError, Audited, Caller};
use perfwatch_rules::rule::{Rule, RuleError};
use perfwatch_rules::rule_warnings::rule_warnings;
use perfwatch_rules::{builtin_rules, managed_rule, render};
use perfwatch_store::Transaction;
use perfwatch_workers::{WorkKind, WorkRequest};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Alert rule with its state.
#[derive(Serialize, ToSchema)]
pub(crate) struct RuleResponse {
    rule: Rule,
    /// Description of the condition.
    summary: String,
    /// Number of firing alerts of hosts that the caller may view.
    firing_count: usize,
    /// Number of alerts of these hosts that fired in each of the last seven periods of 24 hours, oldest first.
    #[schema(value_type = Vec<u32>)]
    fires_7d: DailyFirings,
    /// Rule that a new hub contains.
    builtin: bool,
    /// Derived from the thresholds of agentless hosts; read-only.
    managed: bool,
    /// Reasons why the rule probably never fires, such as an unknown metric.
    warnings: Vec<String>,
}

/// All alert rules.
#[derive(Serialize, ToSchema)]
pub(crate) struct RuleListResponse {
    rules: Vec<RuleResponse>,
}

pub(super) fn invalid_rule(error: &RuleError) -> ApiError {
    ApiError::unprocessable("invalid_rule", error.to_string())
}

fn to_response(
    app: &App,
    state: &AlertingSnapshot,
    (identity, firings): (&Identity, &HashMap<Uuid, DailyFirings>),
    rule: &Rule,
) -> RuleResponse {
    let auth_snapshot = app.directory.snapshot();
    let firing = state.incidents.iter().flat_map(|incident| incident.firing());
    let visible =
        firing.filter(|alert| alert.rule == rule.id && identity.can_view(&auth_snapshot, alert.host));
    RuleResponse {
        rule: rule.clone(),
        summary: render::render_condition(rule, &app.catalog),
        firing_count: visible.count(),
        fires_7d: firings.get(&rule.id).copied().unwrap_or_default(),
        builtin: builtin_rules::builtin_rules().iter().any(|builtin| builtin.id == rule.id),
        managed: managed_rule::is_managed_rule(rule.id),
        warnings: rule_warnings(rule, &app.catalog),
    }
}

/// List rules
#[utoipa::path(
    get, path = "/api/v1/rules", tag = "rules",
    responses((status = 200, body = RuleListResponse)),
)]
pub(crate) async fn list_rules(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Result<Json<RuleListResponse>, ApiError> {
    let (state, auth_snapshot) = (app.alerting.snapshot(), app.directory.snapshot());
    let rules = state.definitions.rules.iter();
    let visible = rules.filter_map(|rule| visible_rule(rule, &identity, &auth_snapshot));
    let firings = app.alerting.daily_firings(&identity, auth_snapshot.clone()).await?;
    let to_response = |rule| to_response(&app, &state, (&identity, &firings), &rule);
    Ok(Json(RuleListResponse { rules: visible.map(to_response).collect() }))
}

/// Rejects changes of rules that are derived from thresholds: the reconciler would revert them.
fn reject_managed_rule(rule: Uuid) -> Result<(), ApiError> {
    match managed_rule::is_managed_rule(rule) {
        true => Err(ApiError::conflict(
            "managed_rule",
            "this rule is managed by agentless thresholds; change the thresholds instead",
        )),
        false => Ok(()),
    }
}

/// Checks that the caller may save the rule, and that the rule is valid.
fn authorize_and_validate(actor: &Actor, rule: &Rule) -> Result<(), ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    reject_managed_rule(rule.id)?;
    rule.validate().map_err(|error| invalid_rule(&error))
}

/// Create a rule
#[utoipa::path(
    post, path = "/api/v1/rules", tag = "rules",
    request_body = Rule,
    responses((status = 201, body = RuleResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn create_rule(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(rule): JsonBody<Rule>,
) -> Result<(StatusCode, Json<RuleResponse>), ApiError> {
    let rule = Rule { id: Uuid::now_v7(), ..rule };
    authorize_and_validate(&actor, &rule)?;
    let rule = definitions::create(&app, &actor, &rule, Rule::clone).await?;
    let response = to_response(&app, &app.alerting.snapshot(), (&actor.identity, &HashMap::new()), &rule);
    Ok((StatusCode::CREATED, Json(response)))
}

fn parse_id(id: &str) -> Result<Uuid, ApiError> {
    id.parse().map_err(|_| ApiError::not_found("rule not found"))
}

/// Replace a rule
#[utoipa::path(
    put, path = "/api/v1/rules/{id}", tag = "rules",
    params(("id" = String, Path, description = "Id of the rule")),
    request_body = Rule,
    responses((status = 200, body = RuleResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn update_rule(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(rule): JsonBody<Rule>,
) -> Result<Json<RuleResponse>, ApiError> {
    let rule = Rule { id: parse_id(&id)?, ..rule };
    authorize_and_validate(&actor, &rule)?;
    let rule = definitions::replace(&app, &actor, &rule, Rule::clone).await?;
    let firings = app.alerting.daily_firings(&actor.identity, app.directory.snapshot()).await?;
    Ok(Json(to_response(&app, &app.alerting.snapshot(), (&actor.identity, &firings), &rule)))
}

/// Delete a rule and resolve its alerts
#[utoipa::path(
    delete, path = "/api/v1/rules/{id}", tag = "rules",
    params(("id" = String, Path, description = "Id of the rule")),
    responses((status = 204), (status = 409)),
)]
pub(crate) async fn delete_rule(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    reject_managed_rule(parse_id(&id)?)?;
    definitions::delete(&app, &actor, &id, Rule::clone).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Content of an exported file: rules without ids, matched by name on import.
#[derive(Serialize)]
struct RuleFile {
    rules: Vec<serde_json::Value>,
}

/// Export rules as YAML
#[utoipa::path(
    get, path = "/api/v1/rules/export", tag = "rules",
    responses((status = 200, content_type = "application/yaml", body = Object)),
)]
pub(crate) async fn export(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Result<Response, ApiError> {
    let without_id = |rule: Rule| {
        let mut value = serde_json::to_value(rule).unwrap_or_default();
        value.as_object_mut().map(|fields| fields.remove("id"));
        value
    };
    let (state, auth_snapshot) = (app.alerting.snapshot(), app.directory.snapshot());
    let rules = state.definitions.rules.iter();
    let rules = rules.filter_map(|rule| visible_rule(rule, &identity, &auth_snapshot));
    // Managed rules are exported with the servers' thresholds.
    let exported = rules.filter(|rule| !managed_rule::is_managed_rule(rule.id));
    let file = RuleFile { rules: exported.map(without_id).collect() };
    let failed = |error: serde_saphyr::ser::Error| ApiError::conflict("invalid_yaml", error.to_string());
    let text = serde_saphyr::to_string(&file).map_err(failed)?;
    let headers = [
        (header::CONTENT_TYPE, "application/yaml"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"perfwatch-rules.yaml\""),
    ];
    Ok((headers, text).into_response())
}

/// Number of imported rules by outcome.
#[derive(Serialize, ToSchema)]
pub(crate) struct RuleImportResponse {
    created: usize,
    updated: usize,
    unchanged: usize,
    /// Warnings about rules of the file, with the name of the rule.
    warnings: Vec<String>,
}

/// Content of a file to import.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleImport {
    rules: Vec<Rule>,
}

/// Parses and validates rules in YAML.
fn parse_rules(text: &str) -> Result<RuleImport, ApiError> {
    let file: RuleImport = serde_saphyr::from_str(text)
        .map_err(|error| ApiError::unprocessable("invalid_rules", error.to_string()))?;
    // Before the lock of the definitions is taken.
    if file.rules.len() > MAX_RULES {
        return Err(definitions::limit_reached::<Rule>(MAX_RULES));
    }
    for rule in &file.rules {
        rule.validate()
            .map_err(|error| ApiError::unprocessable("invalid_rule", format!("{:?}: {error}", rule.name)))?;
    }
    Ok(file)
}

/// Import rules from YAML
///
/// Rules with an existing name are replaced, others are created. The import is atomic.
#[utoipa::path(
    post, path = "/api/v1/rules/import", tag = "rules",
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, body = RuleImportResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn import(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    YamlBody(text): YamlBody,
) -> Result<Json<RuleImportResponse>, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    let principal = actor.identity.share_key();
    let work = WorkRequest { kind: WorkKind::Bundle, principal: &principal, input_bytes: text.len() };
    let file = app.alerting.workers().run(work, move |_| parse_rules(&text)).await??;
    let names: Vec<&str> = file.rules.iter().map(|rule| rule.name.as_str()).collect();
    let entry = actor.audit_change("rule.import", format!("{} rules", file.rules.len()), None, Some(&names));
    let max_rules = actor.identity.max_objects(MAX_RULES);
    let change = |state: &AlertingSnapshot, _: i64| {
        let (mut definitions, mut tx) = (state.definitions.clone(), Transaction::default());
        let counts = definitions.import_rules(&file.rules, &mut tx);
        if counts.created > 0 && definitions.rules.len() > max_rules {
            return Err(definitions::limit_reached::<Rule>(max_rules));
        }
        Ok((StateChange { definitions: Some(definitions), tx, incidents: None }, counts))
    };
    let RuleImportCounts { created, updated, unchanged } =
        app.alerting.update_as((&actor, entry), change).await?;
    let warnings = file.rules.iter().flat_map(|rule| {
        let warnings = rule_warnings(rule, &app.catalog).into_iter();
        warnings.map(|warning| format!("{:?}: {warning}", rule.name))
    });
    Ok(Json(RuleImportResponse { created, updated, unchanged, warnings: warnings.collect() }))
}
