//! `/api/v1/rules`: what people ask to be told of, and what it would have been in the past.

use super::body::JsonBody;
use super::params;
use crate::alerting::backtest;
use crate::alerting::{MOST_RULES, Planned, State as Alerts, body};
use crate::app::App;
use crate::auth::{Doer, Identity};
use crate::error::ApiError;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use perfwatch_alert::backtest::Fire;
use perfwatch_alert::rule::{Rule, RuleProblem};
use perfwatch_alert::{defaults, thresholds, words};
use perfwatch_store::alerts::Noun;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// A rule, and how it stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct RuleJson {
    rule: Rule,
    /// What it asks, in words.
    asks: String,
    /// Its alerts that fire, of hosts that one may see.
    firing: usize,
    /// One that every hub begins with.
    builtin: bool,
    /// Made of thresholds of hosts without an agent, and changed there.
    of_servers: bool,
}

/// Rules.
#[derive(Serialize, ToSchema)]
pub(crate) struct RulesJson {
    rules: Vec<RuleJson>,
}

fn invalid(problem: &RuleProblem) -> ApiError {
    ApiError::unprocessable("invalid_rule", problem.to_string())
}

fn show(app: &App, state: &Alerts, identity: &Identity, rule: &Rule) -> RuleJson {
    let everyone = app.people.now();
    let firing = state.board.incidents().flat_map(|live| live.firing());
    let firing = firing.filter(|alert| alert.rule == rule.id && identity.sees(&everyone, alert.host)).count();
    RuleJson {
        rule: rule.clone(),
        asks: words::condition(rule, &app.catalog),
        firing,
        builtin: defaults::rules().iter().any(|builtin| builtin.id == rule.id),
        of_servers: thresholds::is_one(rule.id),
    }
}

/// All rules
#[utoipa::path(get, path = "/api/v1/rules", tag = "rules", responses((status = 200, body = RulesJson)))]
pub(crate) async fn list(State(app): State<Arc<App>>, identity: Identity) -> Json<RulesJson> {
    let state = app.alerting.now();
    let rules = state.asked.rules.iter().map(|rule| show(&app, &state, &identity, rule)).collect();
    Json(RulesJson { rules })
}

/// Those that are made of thresholds would be made again.
fn of_people(rule: Uuid) -> Result<(), ApiError> {
    match thresholds::is_one(rule) {
        true => Err(ApiError::conflict(
            "of_servers",
            "this is a threshold of hosts without an agent: change it there",
        )),
        false => Ok(()),
    }
}

/// Keeps a rule, new or changed.
async fn put(app: &App, doer: &Doer, rule: Rule, new: bool) -> Result<RuleJson, ApiError> {
    params::everywhere(&doer.identity)?;
    of_people(rule.id)?;
    rule.check().map_err(|problem| invalid(&problem))?;
    let before = app.alerting.now().asked.rule(rule.id).cloned();
    let action = if new { "rule.create" } else { "rule.change" };
    let entry = doer.changed(action, format!("rule {}", rule.name), before.as_deref(), Some(&rule));
    let plan = |state: &Alerts, _: i64| {
        let mut asked = state.asked.clone();
        let place = asked.rules.iter().position(|known| known.id == rule.id);
        match (place, new) {
            (Some(at), false) => asked.rules[at] = Arc::new(rule.clone()),
            (None, true) if asked.rules.len() >= MOST_RULES => {
                return Err(ApiError::conflict("too_many", format!("no more than {MOST_RULES} rules")));
            }
            (None, true) => asked.rules.push(Arc::new(rule.clone())),
            _ => return Err(ApiError::not_found("there is no such rule")),
        }
        let changes = vec![Noun::Rule.put(rule.id, &body(&rule))];
        Ok((Planned { asked: Some(asked), changes, board: None }, ()))
    };
    app.alerting.change(Some(entry), plan).await?;
    Ok(show(app, &app.alerting.now(), &doer.identity, &rule))
}

/// A new rule
#[utoipa::path(post, path = "/api/v1/rules", tag = "rules", request_body = Rule,
    responses((status = 201, body = RuleJson), (status = 409), (status = 422)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    doer: Doer,
    JsonBody(rule): JsonBody<Rule>,
) -> Result<(StatusCode, Json<RuleJson>), ApiError> {
    let rule = Rule { id: Uuid::now_v7(), ..rule };
    Ok((StatusCode::CREATED, Json(put(&app, &doer, rule, true).await?)))
}

fn parse(id: &str) -> Result<Uuid, ApiError> {
    id.parse().map_err(|_| ApiError::not_found("there is no such rule"))
}

/// Another rule in its place; what fires by it goes on until the new one says no
#[utoipa::path(put, path = "/api/v1/rules/{id}", tag = "rules", params(("id" = String, Path)), request_body = Rule,
    responses((status = 200, body = RuleJson), (status = 409), (status = 422)))]
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
    JsonBody(rule): JsonBody<Rule>,
) -> Result<Json<RuleJson>, ApiError> {
    let rule = Rule { id: parse(&id)?, ..rule };
    Ok(Json(put(&app, &doer, rule, false).await?))
}

/// Removes a rule; what fires by it ends
#[utoipa::path(delete, path = "/api/v1/rules/{id}", tag = "rules", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    params::everywhere(&doer.identity)?;
    let id = parse(&id)?;
    of_people(id)?;
    let missing = || ApiError::not_found("there is no such rule");
    let before = app.alerting.now().asked.rule(id).cloned().ok_or_else(missing)?;
    let entry = doer.changed("rule.remove", format!("rule {}", before.name), Some(&*before), None);
    let plan = |state: &Alerts, _: i64| {
        let mut asked = state.asked.clone();
        asked.rules.retain(|rule| rule.id != id);
        let changes = vec![Noun::Rule.remove(id)];
        Ok::<_, ApiError>((Planned { asked: Some(asked), changes, board: None }, ()))
    };
    app.alerting.change(Some(entry), plan).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A rule to be tried on the past.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestWish {
    rule: Rule,
    /// Milliseconds since 1970, RFC 3339, or `-7d`, which it is without.
    from: Option<String>,
    to: Option<String>,
}

/// What a rule would have done at one host.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostTestJson {
    host: Uuid,
    name: String,
    /// Values that were looked at.
    points: usize,
    /// By averages of minutes, not tick by tick.
    coarse: bool,
    fires: Vec<Fire>,
}

/// What a rule would have done.
#[derive(Serialize, ToSchema)]
pub(crate) struct TestJson {
    from_ms: i64,
    to_ms: i64,
    /// How often, all hosts together.
    fires: usize,
    /// Those where it would have fired most come first.
    hosts: Vec<HostTestJson>,
    /// Hosts that there was no time for.
    left_out: usize,
    /// A threshold by which it would fire about once a day and host, or less; none where this one does.
    suggested: Option<f64>,
    took_ms: u64,
}

/// What a rule would have done, before anybody is woken by it
#[utoipa::path(post, path = "/api/v1/rules/test", tag = "rules", request_body = TestWish,
    responses((status = 200, body = TestJson), (status = 422)))]
pub(crate) async fn test(
    State(app): State<Arc<App>>,
    identity: Identity,
    JsonBody(wish): JsonBody<TestWish>,
) -> Result<Json<TestJson>, ApiError> {
    let began = app.clock.monotonic();
    wish.rule.check().map_err(|problem| invalid(&problem))?;
    if let Some(why) = backtest::problem(&wish.rule) {
        return Err(ApiError::unprocessable("no_history", why));
    }
    let now_ms = app.clock.wall_ms();
    let range = params::range(wish.from.as_deref().or(Some("-7d")), wish.to.as_deref(), now_ms)?;
    if range.1 - range.0 > 31 * 86_400_000 {
        return Err(ApiError::unprocessable("range_too_long", "31 days at most"));
    }
    let everyone = app.people.now();
    let mut hosts = params::hosts(&app, &identity);
    hosts.retain(|host| wish.rule.hosts.selects(host.record.id.0, everyone.tags(host.record.id)));
    // Those that send now say most.
    hosts.sort_by_key(|host| std::cmp::Reverse(host.last_seen_ms));
    let ids = hosts.iter().map(|host| host.record.id).collect();
    let result = app.alerting.backtest(wish.rule, ids, range).await?;
    let mut shown: Vec<HostTestJson> = result
        .hosts
        .into_iter()
        .map(|one| HostTestJson {
            host: one.host.0,
            name: app.fleet.name(one.host),
            points: one.points,
            coarse: one.coarse,
            fires: one.fires,
        })
        .collect();
    shown.sort_by_key(|one| std::cmp::Reverse(one.fires.len()));
    let took = app.clock.monotonic().saturating_sub(began).as_millis();
    Ok(Json(TestJson {
        from_ms: range.0,
        to_ms: range.1,
        fires: result.fires,
        hosts: shown,
        left_out: result.left_out,
        suggested: result.suggested,
        took_ms: u64::try_from(took).unwrap_or_default(),
    }))
}

/// As a file says it: by name, without an id.
#[derive(Serialize)]
struct Exported {
    rules: Vec<serde_json::Value>,
}

/// All rules as YAML, to be kept or taken to another hub
#[utoipa::path(get, path = "/api/v1/rules/export", tag = "rules",
    responses((status = 200, content_type = "application/yaml", body = Object)))]
pub(crate) async fn export(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let plain = |rule: &Arc<Rule>| {
        let mut value = serde_json::to_value(&**rule).unwrap_or_default();
        value.as_object_mut().map(|fields| fields.remove("id"));
        value
    };
    // Thresholds are the servers' own.
    let state = app.alerting.now();
    let rules = state.asked.rules.iter().filter(|rule| !thresholds::is_one(rule.id)).map(plain).collect();
    let failed = |error: serde_saphyr::ser::Error| ApiError::conflict("not_yaml", error.to_string());
    let text = serde_saphyr::to_string(&Exported { rules }).map_err(failed)?;
    let headers = [
        (header::CONTENT_TYPE, "application/yaml"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"perfwatch-rules.yaml\""),
    ];
    Ok((headers, text).into_response())
}

/// What a file brought.
#[derive(Serialize, ToSchema)]
pub(crate) struct ImportJson {
    created: usize,
    changed: usize,
    unchanged: usize,
}

/// A file of rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Imported {
    rules: Vec<Rule>,
}

/// Rules from YAML
///
/// Those of a name that is there take its place; others are new. All of the file, or nothing.
#[utoipa::path(post, path = "/api/v1/rules/import", tag = "rules",
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, body = ImportJson), (status = 409), (status = 422)))]
pub(crate) async fn import(
    State(app): State<Arc<App>>,
    doer: Doer,
    super::body::YamlBody(text): super::body::YamlBody,
) -> Result<Json<ImportJson>, ApiError> {
    params::everywhere(&doer.identity)?;
    let read: Imported = serde_saphyr::from_str(&text)
        .map_err(|error| ApiError::unprocessable("bad_rules", error.to_string()))?;
    for rule in &read.rules {
        rule.check().map_err(|problem| {
            ApiError::unprocessable("invalid_rule", format!("{:?}: {problem}", rule.name))
        })?;
    }
    let entry = doer.did("rule.import", format!("{} rules", read.rules.len()));
    let plan = |state: &Alerts, _: i64| {
        let (mut asked, mut changes) = (state.asked.clone(), Vec::new());
        let mut done = ImportJson { created: 0, changed: 0, unchanged: 0 };
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
                    done.changed += 1;
                }
                None => {
                    asked.rules.push(rule.clone());
                    done.created += 1;
                }
            }
            changes.push(Noun::Rule.put(id, &body(&*rule)));
        }
        if asked.rules.len() > MOST_RULES {
            return Err(ApiError::conflict("too_many", format!("no more than {MOST_RULES} rules")));
        }
        Ok((Planned { asked: Some(asked), changes, board: None }, done))
    };
    Ok(Json(app.alerting.change(Some(entry), plan).await?))
}
