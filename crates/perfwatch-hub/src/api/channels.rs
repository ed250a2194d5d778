//! `/api/v1/channels`: who is told, and by which way; `/api/v1/notifications`: what became of it.

use crate::app::App;
use crate::error::ApiError;
use crate::http::body::JsonBody;
use crate::http::extract::Audited;
use crate::http::query;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use perfwatch_alerting::{AlertingSnapshot as Alerts, MAX_CHANNELS, StateChange, to_json};
use perfwatch_auth::{Actor, AuthError};
use perfwatch_model::HumanDuration;
use perfwatch_rules::channel::{Channel, ChannelFilter, NotificationTemplate, QuietHours};
use perfwatch_rules::notification::{self, ChannelKind, Notification, SendError};
use perfwatch_rules::render;
use perfwatch_store::definitions::DefinitionKind;
use perfwatch_store::outbox::{NotificationFilter, NotificationRow, NotificationState, Outbox};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A channel; what lets one in is not shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChannelResponse {
    id: Uuid,
    name: String,
    kind: String,
    enabled: bool,
    /// Without what is secret.
    settings: BTreeMap<String, String>,
    /// Which secrets are set.
    secrets_set: Vec<String>,
    /// Why nothing can be said by it: its settings were sealed by another key. Say them anew.
    decryption_error: Option<String>,
    filter: ChannelFilter,
    /// Only of what nobody acknowledged for so long.
    escalate_after: HumanDuration,
    /// Once more as long as nobody acknowledged; never if none.
    repeat_interval: HumanDuration,
    /// When it is over, too.
    send_resolved: bool,
    quiet_hours: Option<QuietHours>,
    template: NotificationTemplate,
}

/// Channels.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChannelListResponse {
    channels: Vec<ChannelResponse>,
}

/// Kinds of channels.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChannelKindListResponse {
    kinds: Vec<ChannelKind>,
}

/// A channel that somebody wants.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelRequest {
    name: String,
    kind: String,
    #[serde(default = "default_true")]
    enabled: bool,
    /// By the names of the kind's fields; a secret that is left out stays as it was.
    #[serde(default)]
    settings: BTreeMap<String, String>,
    #[serde(default)]
    hears: ChannelFilter,
    #[serde(default)]
    after: HumanDuration,
    #[serde(default)]
    repeat: HumanDuration,
    #[serde(default = "default_true")]
    resolved: bool,
    #[serde(default)]
    quiet: Option<QuietHours>,
    #[serde(default)]
    template: NotificationTemplate,
}

fn default_true() -> bool {
    true
}

fn to_response(app: &App, channel: &Channel) -> ChannelResponse {
    let opened = app.alerting.decrypt(channel);
    let closed = opened.as_ref().err().map(ToString::to_string);
    let settings = opened.map(|channel| channel.settings).unwrap_or_default();
    let kind = notification::find_kind(&**app.alerting.notifier(), &channel.kind);
    let secret = |name: &str| {
        kind.is_none_or(|kind| kind.fields.iter().any(|field| field.name == name && field.secret))
    };
    let (hidden, open): (BTreeMap<_, _>, BTreeMap<_, _>) =
        settings.into_iter().partition(|(name, _)| secret(name));
    ChannelResponse {
        id: channel.id,
        name: channel.name.clone(),
        kind: channel.kind.clone(),
        enabled: channel.enabled,
        settings: open,
        secrets_set: hidden.into_keys().collect(),
        decryption_error: closed,
        filter: channel.filter.clone(),
        escalate_after: channel.escalate_after,
        repeat_interval: channel.repeat_interval,
        send_resolved: channel.send_resolved,
        quiet_hours: channel.quiet_hours.clone(),
        template: channel.template.clone(),
    }
}

/// List notification channels
#[utoipa::path(get, path = "/api/v1/channels", tag = "channels", responses((status = 200, body = ChannelListResponse)))]
pub(crate) async fn list_channels(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
) -> Result<Json<ChannelListResponse>, ApiError> {
    query::require_all_hosts(&actor.identity)?;
    Ok(Json(ChannelListResponse {
        channels: app
            .alerting
            .snapshot()
            .definitions
            .channels
            .iter()
            .map(|one| to_response(&app, one))
            .collect(),
    }))
}

/// List channel kinds and their settings
#[utoipa::path(get, path = "/api/v1/channels/kinds", tag = "channels", responses((status = 200, body = ChannelKindListResponse)))]
pub(crate) async fn kinds(State(app): State<Arc<App>>) -> Json<ChannelKindListResponse> {
    Json(ChannelKindListResponse { kinds: app.alerting.notifier().kinds().to_vec() })
}

fn invalid(field: &str, why: &str) -> ApiError {
    ApiError::unprocessable("invalid_channel", format!("{field}: {why}"))
}

/// A channel of a wish; secrets that are left out are those that it had.
fn validate(
    app: &App,
    wish: ChannelRequest,
    id: Uuid,
    before: Option<&Channel>,
) -> Result<Channel, ApiError> {
    let notifier = app.alerting.notifier();
    let before = before.and_then(|before| app.alerting.decrypt(before).ok());
    let mut settings = wish.settings;
    settings.retain(|_, value| !value.trim().is_empty());
    if let (Some(before), Some(kind)) = (&before, notification::find_kind(&**notifier, &wish.kind)) {
        // To another address they don't go by themselves.
        let moved = kind.fields.iter().any(|field| {
            let there = matches!(field.name, "server" | "url");
            // A secret address that is left out stays.
            let said = !field.secret || settings.contains_key(field.name);
            there && said && before.settings.get(field.name) != settings.get(field.name)
        });
        for field in kind.fields.iter().filter(|field| field.secret && before.kind == wish.kind) {
            if let Some(known) =
                before.settings.get(field.name).filter(|_| !settings.contains_key(field.name))
            {
                if moved {
                    return Err(invalid(field.name, "secret is required because the server changed"));
                }
                settings.insert(field.name.to_owned(), known.clone());
            }
        }
    }
    if let Some((field, why)) = notifier.validate(&wish.kind, &settings) {
        return Err(invalid(&field, &why));
    }
    let templates = notification::find_kind(&**notifier, &wish.kind).into_iter().flat_map(|kind| kind.fields);
    for field in templates.filter(|field| field.multiline) {
        for message in [app.alerting.example_notification(), app.alerting.test_notification()] {
            let text = settings.get(field.name).map_or("", String::as_str);
            notifier.render(text, &message).map_err(|why| invalid(field.name, &why))?;
        }
    }
    if let Some(why) = wish.quiet.as_ref().and_then(|quiet| quiet.window.validate()) {
        return Err(invalid("quiet", &why));
    }
    let week = HumanDuration::from_s(7 * 86_400);
    if wish.after > week || wish.repeat > week || (1..60_000).contains(&wish.repeat.ms()) {
        return Err(invalid("repeat", "must be between 1m and 7d"));
    }
    let only = &wish.hears.matcher;
    if only.hosts.len() > 1_000 || only.tags.len() > 100 || only.rules.len() > 500 {
        return Err(invalid("hears", "too many hosts, tags or rules"));
    }
    let template = wish.template;
    for (field, text) in [("template.title", &template.title), ("template.text", &template.text)] {
        if text.len() > 20_000 {
            return Err(invalid(field, "no more than 20,000 bytes"));
        }
        notifier.render(text, &app.alerting.example_notification()).map_err(|why| invalid(field, &why))?;
    }
    Ok(Channel {
        id,
        name: query::validate_label(&wish.name)?,
        kind: wish.kind,
        enabled: wish.enabled,
        settings,
        filter: wish.hears,
        escalate_after: wish.after,
        repeat_interval: wish.repeat,
        send_resolved: wish.resolved,
        quiet_hours: wish.quiet,
        template,
    })
}

async fn save(
    app: &App,
    actor: &Actor,
    channel: Channel,
    before: Option<&Channel>,
) -> Result<ChannelResponse, ApiError> {
    let (was, is) = (before.map(|before| to_response(app, before)), to_response(app, &channel));
    let channel = Arc::new(app.alerting.encrypt(&channel).ok_or(AuthError::EncryptionKeyMissing)?);
    let action = if before.is_some() { "channel.update" } else { "channel.create" };
    let entry = actor.audit_change(action, format!("channel {}", channel.name), was.as_ref(), Some(&is));
    let plan = |state: &Alerts, _: i64| {
        let mut asked = state.definitions.clone();
        match (asked.channels.iter().position(|known| known.id == channel.id), before.is_some()) {
            (Some(at), true) => asked.channels[at] = channel.clone(),
            (None, false) if asked.channels.len() >= MAX_CHANNELS => {
                return Err(ApiError::conflict(
                    "limit_reached",
                    format!("no more than {MAX_CHANNELS} channels"),
                ));
            }
            (None, false) => asked.channels.push(channel.clone()),
            _ => return Err(ApiError::not_found("there is no such channel")),
        }
        let changes = vec![DefinitionKind::Channel.upsert(channel.id, &to_json(&*channel))];
        Ok((StateChange { definitions: Some(asked), statements: changes, incidents: None }, ()))
    };
    app.alerting.update(Some(entry), plan).await?;
    Ok(is)
}

/// Create a channel
#[utoipa::path(post, path = "/api/v1/channels", tag = "channels", request_body = ChannelRequest,
    responses((status = 201, body = ChannelResponse), (status = 409), (status = 422)))]
pub(crate) async fn create_channel(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(wish): JsonBody<ChannelRequest>,
) -> Result<(StatusCode, Json<ChannelResponse>), ApiError> {
    query::require_all_hosts(&actor.identity)?;
    let channel = validate(&app, wish, Uuid::now_v7(), None)?;
    Ok((StatusCode::CREATED, Json(save(&app, &actor, channel, None).await?)))
}

fn find(app: &App, id: &str) -> Result<Arc<Channel>, ApiError> {
    let state = app.alerting.snapshot();
    let channel = id.parse().ok().and_then(|id| state.definitions.channel(id).cloned());
    channel.ok_or_else(|| ApiError::not_found("there is no such channel"))
}

/// Replace a channel
#[utoipa::path(put, path = "/api/v1/channels/{id}", tag = "channels", params(("id" = String, Path)),
    request_body = ChannelRequest, responses((status = 200, body = ChannelResponse), (status = 409), (status = 422)))]
pub(crate) async fn update_channel(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(wish): JsonBody<ChannelRequest>,
) -> Result<Json<ChannelResponse>, ApiError> {
    query::require_all_hosts(&actor.identity)?;
    let before = find(&app, &id)?;
    let channel = validate(&app, wish, before.id, Some(&before))?;
    Ok(Json(save(&app, &actor, channel, Some(&before)).await?))
}

/// Delete a channel and suppress its pending notifications
#[utoipa::path(delete, path = "/api/v1/channels/{id}", tag = "channels", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn delete_channel(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    query::require_all_hosts(&actor.identity)?;
    let before = find(&app, &id)?;
    let was = to_response(&app, &before);
    let entry = actor.audit_change("channel.delete", format!("channel {}", before.name), Some(&was), None);
    let plan = |state: &Alerts, now_ms: i64| {
        let mut asked = state.definitions.clone();
        asked.channels.retain(|channel| channel.id != before.id);
        let changes =
            vec![DefinitionKind::Channel.delete(before.id), Outbox::suppress_for_channel(before.id, now_ms)];
        Ok::<_, ApiError>((
            StateChange { definitions: Some(asked), statements: changes, incidents: None },
            (),
        ))
    };
    app.alerting.update(Some(entry), plan).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a channel was heard.
#[derive(Serialize, ToSchema)]
pub(crate) struct TestNotificationResponse {
    delivered: bool,
    /// Why not.
    error: Option<String>,
}

async fn send_test(app: &App, channel: &Channel) -> TestNotificationResponse {
    let error = app.alerting.send(channel, &app.alerting.test_notification()).await.err();
    let error = error.map(|error| match error {
        SendError::Retry { reason: why, .. } => format!("temporary failure: {why}"),
        SendError::Permanent(why) => format!("permanent failure: {why}"),
    });
    TestNotificationResponse { delivered: error.is_none(), error }
}

/// Send a test notification
#[utoipa::path(post, path = "/api/v1/channels/{id}/test", tag = "channels", params(("id" = String, Path)),
    responses((status = 200, body = TestNotificationResponse)))]
pub(crate) async fn test(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<Json<TestNotificationResponse>, ApiError> {
    query::require_all_hosts(&actor.identity)?;
    let channel = find(&app, &id)?;
    app.directory.record_audit(actor.audit("channel.test", format!("channel {}", channel.name))).await;
    Ok(Json(send_test(&app, &channel).await))
}

/// A channel before it is kept, or as it is with changes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestChannelRequest {
    /// Whose secrets stay where they are left out.
    id: Option<Uuid>,
    channel: ChannelRequest,
}

/// Send a test notification through an unsaved channel
#[utoipa::path(post, path = "/api/v1/channels/test", tag = "channels", request_body = TestChannelRequest,
    responses((status = 200, body = TestNotificationResponse), (status = 422)))]
pub(crate) async fn test_unsaved_channel(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(wish): JsonBody<TestChannelRequest>,
) -> Result<Json<TestNotificationResponse>, ApiError> {
    query::require_all_hosts(&actor.identity)?;
    let state = app.alerting.snapshot();
    let before = wish.id.and_then(|id| state.definitions.channel(id));
    let channel = validate(&app, wish.channel, wish.id.unwrap_or_default(), before.map(|before| &**before))?;
    app.directory.record_audit(actor.audit("channel.test", format!("channel {}", channel.name))).await;
    Ok(Json(send_test(&app, &channel).await))
}

/// What a template makes of the newest incident.
#[derive(Serialize, ToSchema)]
pub(crate) struct TemplatePreviewResponse {
    title: String,
    text: String,
    /// All that a template may name.
    #[schema(value_type = Object)]
    message: Notification,
}

/// Preview a notification template
#[utoipa::path(post, path = "/api/v1/channels/preview", tag = "channels", request_body = NotificationTemplate,
    responses((status = 200, body = TemplatePreviewResponse), (status = 422)))]
pub(crate) async fn preview(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(template): JsonBody<NotificationTemplate>,
) -> Result<Json<TemplatePreviewResponse>, ApiError> {
    query::require_all_hosts(&actor.identity)?;
    let message = app.alerting.example_notification();
    let render = |field: &str, template: &str, usual: String| match template {
        "" => Ok(usual),
        template if template.len() > 20_000 => Err(invalid(field, "no more than 20,000 bytes")),
        template => app.alerting.notifier().render(template, &message).map_err(|why| invalid(field, &why)),
    };
    let title = render("template.title", &template.title, render::render_title(&message))?;
    let text = render("template.text", &template.text, render::render_text(&message))?;
    Ok(Json(TemplatePreviewResponse { title, text, message }))
}

/// A message on its way, or what became of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct NotificationResponse {
    id: i64,
    channel: Uuid,
    channel_name: String,
    incident: Uuid,
    reason: String,
    severity: String,
    subject: String,
    /// `waiting`, `sent`, `dead`, `skipped`.
    state: String,
    created_ms: i64,
    /// Not tried before this.
    due_ms: i64,
    finished_ms: Option<i64>,
    attempts: i64,
    error: Option<String>,
}

/// Messages, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct NotificationListResponse {
    notifications: Vec<NotificationResponse>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct NotificationsQuery {
    /// State of the notifications; all states if missing.
    state: Option<NotificationState>,
    channel: Option<Uuid>,
    /// 500 at most.
    limit: Option<i64>,
}

/// List notifications
#[utoipa::path(get, path = "/api/v1/notifications", tag = "channels", params(NotificationsQuery),
    responses((status = 200, body = NotificationListResponse)))]
pub(crate) async fn list_notifications(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    query: Result<Query<NotificationsQuery>, QueryRejection>,
) -> Result<Json<NotificationListResponse>, ApiError> {
    query::require_all_hosts(&actor.identity)?;
    let Query(query) = query.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let filter = NotificationFilter {
        state: query.state,
        channel: query.channel,
        incident: None,
        limit: query.limit.unwrap_or(100).clamp(1, 500),
    };
    let state = app.alerting.snapshot();
    let rows = Outbox::list(app.alerting.store(), filter).await?.into_iter();
    let show = |row: NotificationRow| NotificationResponse {
        channel_name: state
            .definitions
            .channel(row.channel)
            .map_or("deleted channel", |one| &one.name)
            .to_owned(),
        subject: serde_json::from_str::<Notification>(&row.body)
            .map(|message| message.subject)
            .unwrap_or_default(),
        id: row.id,
        channel: row.channel,
        incident: row.incident,
        reason: row.reason,
        severity: row.severity,
        state: row.state.name().to_owned(),
        created_ms: row.created_ms,
        due_ms: row.due_ms.max(row.retry_at_ms),
        finished_ms: row.finished_ms,
        attempts: row.attempts,
        error: row.error,
    };
    Ok(Json(NotificationListResponse { notifications: rows.map(show).collect() }))
}

/// Retry a failed notification
#[utoipa::path(post, path = "/api/v1/notifications/{id}/retry", tag = "channels", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn retry_notification(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    query::require_all_hosts(&actor.identity)?;
    let id: i64 = id.parse().map_err(|_| ApiError::not_found("there is no such message"))?;
    let entry = actor.audit("notification.retry", format!("message {id}"));
    app.alerting.requeue(id, entry).await?;
    Ok(StatusCode::NO_CONTENT)
}
