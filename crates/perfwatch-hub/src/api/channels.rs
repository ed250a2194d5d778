//! `/api/v1/channels`: notification channels, their kinds, and test notifications.

use super::definitions;
use crate::app::App;
use crate::host_access;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_alerting::ChannelHealth;
use perfwatch_alerting::mail_server::{find_stray_setting, uses_hub_server};
use perfwatch_auth::{AuthError, Identity};
use perfwatch_http::body::JsonBody;
use perfwatch_http::{ApiError, Audited, params};
use perfwatch_model::HumanDuration;
use perfwatch_rules::channel::{Channel, ChannelFilter, NotificationTemplate, QuietHours};
use perfwatch_rules::hostile::hostile_notification;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{self, ChannelKind, Notification, RecipientResult, SendError};
use perfwatch_rules::render;
use perfwatch_workers::{WorkKind, WorkRequest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Period of the health of a channel: 24 hours.
const HEALTH_PERIOD_MS: i64 = 86_400_000;
/// Maximum length of a template.
const MAX_TEMPLATE_BYTES: usize = 20_000;

/// Notification channel without its secrets.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChannelResponse {
    id: Uuid,
    name: String,
    /// Name of the channel kind, such as `slack`.
    kind: String,
    enabled: bool,
    /// Settings by field name, without secrets.
    settings: BTreeMap<String, String>,
    /// Names of the secrets that are set.
    secrets_set: Vec<String>,
    /// Error if the settings cannot be decrypted; enter the settings again to restore the channel.
    decryption_error: Option<String>,
    filter: ChannelFilter,
    /// Notifies only about incidents that stay unacknowledged this long.
    escalate_after: HumanDuration,
    /// Interval of reminders for unacknowledged incidents; 0 for none.
    repeat_interval: HumanDuration,
    /// Also notifies about resolved incidents.
    send_resolved: bool,
    quiet_hours: Option<QuietHours>,
    template: NotificationTemplate,
    /// Delivered and pending notifications; only in the list of channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    health: Option<ChannelHealth>,
}

/// All notification channels.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChannelListResponse {
    channels: Vec<ChannelResponse>,
}

/// Values of new channels whose request leaves them out.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChannelDefaults {
    repeat_interval: HumanDuration,
    send_resolved: bool,
}

/// All channel kinds with their settings.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChannelKindListResponse {
    kinds: Vec<ChannelKind>,
    defaults: ChannelDefaults,
    /// The hub has a mail server, which e-mail channels without a server use.
    has_mail_server: bool,
}

/// Settings of a notification channel.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelRequest {
    name: String,
    /// Name of the channel kind, such as `slack`.
    kind: String,
    #[serde(default = "perfwatch_model::default_true")]
    enabled: bool,
    /// Settings by field name of the kind; missing secrets keep their value.
    #[serde(default)]
    settings: BTreeMap<String, String>,
    #[serde(default)]
    filter: ChannelFilter,
    /// Notifies only about incidents that stay unacknowledged this long.
    #[serde(default)]
    escalate_after: HumanDuration,
    /// Interval of reminders for unacknowledged incidents; 0 for none; default: the setting
    /// `channel_repeat_interval_s`.
    #[schema(value_type = Option<String>)]
    repeat_interval: Option<HumanDuration>,
    /// Also notifies about resolved incidents; default: the setting `channel_send_resolved`.
    send_resolved: Option<bool>,
    #[serde(default)]
    quiet_hours: Option<QuietHours>,
    #[serde(default)]
    template: NotificationTemplate,
}

fn to_response(app: &App, channel: &Channel) -> ChannelResponse {
    let decrypted = app.alerting.decrypt(channel);
    let decryption_error = decrypted.as_ref().err().map(ToString::to_string);
    let settings = decrypted.map(|channel| channel.settings).unwrap_or_default();
    let kind = notification::find_kind(&**app.alerting.notifier(), &channel.kind);
    // Unknown fields are treated as secrets.
    let is_secret = |name: &str| {
        kind.is_none_or(|kind| kind.fields.iter().any(|field| field.name == name && field.secret))
    };
    let (secrets, settings): (BTreeMap<_, _>, BTreeMap<_, _>) =
        settings.into_iter().partition(|(name, _)| is_secret(name));
    ChannelResponse {
        id: channel.id,
        name: channel.name.clone(),
        kind: channel.kind.clone(),
        enabled: channel.enabled,
        settings,
        secrets_set: secrets.into_keys().collect(),
        decryption_error,
        filter: channel.filter.clone(),
        escalate_after: channel.escalate_after,
        repeat_interval: channel.repeat_interval,
        send_resolved: channel.send_resolved,
        quiet_hours: channel.quiet_hours.clone(),
        template: channel.template.clone(),
        health: None,
    }
}

/// List notification channels
#[utoipa::path(
    get, path = "/api/v1/channels", tag = "channels",
    responses((status = 200, body = ChannelListResponse)),
)]
pub(crate) async fn list_channels(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
) -> Result<Json<ChannelListResponse>, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    let state = app.alerting.snapshot();
    let health = app.alerting.channel_health(app.clock.wall_ms() - HEALTH_PERIOD_MS).await?;
    let with_health = |channel: &Arc<Channel>| ChannelResponse {
        health: Some(health.get(&channel.id).copied().unwrap_or_default()),
        ..to_response(&app, channel)
    };
    Ok(Json(ChannelListResponse { channels: state.definitions.channels.iter().map(with_health).collect() }))
}

/// List channel kinds and their settings
#[utoipa::path(
    get, path = "/api/v1/channels/kinds", tag = "channels",
    responses((status = 200, body = ChannelKindListResponse)),
)]
pub(crate) async fn kinds(State(app): State<Arc<App>>) -> Json<ChannelKindListResponse> {
    let state = app.alerting.snapshot();
    let has_mail_server =
        state.definitions.mail_server.as_ref().is_some_and(|server| server.channel.is_some());
    let kinds = app.alerting.notifier().kinds().to_vec();
    Json(ChannelKindListResponse { kinds, defaults: defaults(&app), has_mail_server })
}

fn defaults(app: &App) -> ChannelDefaults {
    let values = app.settings.values();
    ChannelDefaults {
        repeat_interval: HumanDuration::from_s(values.channel_repeat_interval_s()),
        send_resolved: values.channel_send_resolved(),
    }
}

fn invalid(field: &str, message: &str) -> ApiError {
    ApiError::unprocessable("invalid_channel", format!("{field}: {message}"))
}

/// Error of a secret that [`keep_secrets`] does not keep.
pub(super) const SECRET_REQUIRED: &str = "secret is required because the server changed";

/// Adds the secrets of the saved channel that the request does not contain.
///
/// # Errors
/// Returns the name of a secret if the server of the channel changes: saved secrets must not be sent to another
/// server.
pub(super) fn keep_secrets(
    kind: &ChannelKind,
    saved: &Channel,
    settings: &mut BTreeMap<String, String>,
) -> Result<(), &'static str> {
    let is_moved = kind.fields.iter().any(|field| {
        // A port may belong to another program, and without TLS a secret is sent to everyone on the way.
        let is_server = matches!(field.name, "server" | "url" | "port" | "security");
        // A secret URL that is missing in the request stays the same.
        let is_given = !field.secret || settings.contains_key(field.name);
        is_server && is_given && saved.settings.get(field.name) != settings.get(field.name)
    });
    for field in kind.fields.iter().filter(|field| field.secret) {
        let saved_secret = saved.settings.get(field.name);
        let Some(secret) = saved_secret.filter(|_| !settings.contains_key(field.name)) else { continue };
        if is_moved {
            return Err(field.name);
        }
        settings.insert(field.name.to_owned(), secret.clone());
    }
    Ok(())
}

fn validate_template(app: &App, template: &NotificationTemplate) -> Result<(), ApiError> {
    for (field, text) in [("template.title", &template.title), ("template.text", &template.text)] {
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(invalid(field, "at most 20,000 bytes"));
        }
        let hostile = hostile_notification(NotificationReason::Opened);
        for example in [app.alerting.example_notification(), hostile] {
            app.alerting.notifier().render(text, &example).map_err(|error| invalid(field, &error))?;
        }
    }
    Ok(())
}

/// Runs work on templates of the caller in the worker pool.
async fn run_work<T: Send + 'static>(
    app: &Arc<App>,
    identity: &Identity,
    work: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let principal = identity.share_key();
    let request = WorkRequest { kind: WorkKind::Template, principal: &principal, input_bytes: 0 };
    let app_in_pool = app.clone();
    app.alerting.workers().run(request, move |_| work(&app_in_pool)).await?
}

/// Channel of a request, with the secrets of the saved channel where the request has none.
fn validate(
    app: &App,
    request: ChannelRequest,
    id: Uuid,
    saved: Option<&Channel>,
) -> Result<Channel, ApiError> {
    let notifier = app.alerting.notifier();
    let kind = notification::find_kind(&**notifier, &request.kind);
    let saved = saved.and_then(|saved| app.alerting.decrypt(saved).ok());
    let mut settings = request.settings;
    settings.retain(|_, value| !value.trim().is_empty());
    if let (Some(saved), Some(kind)) = (saved.filter(|saved| saved.kind == request.kind), kind) {
        // A channel without a server uses the password of the hub.
        if !uses_hub_server(kind.name, &settings) {
            keep_secrets(kind, &saved, &mut settings).map_err(|field| invalid(field, SECRET_REQUIRED))?;
        }
    }
    if let Some(field) = find_stray_setting(&request.kind, &settings) {
        return Err(invalid(field, "requires a server"));
    }
    for field in kind.into_iter().flat_map(|kind| kind.fields).filter(|field| field.multiline) {
        for example in [app.alerting.example_notification(), app.alerting.test_notification()] {
            let text = settings.get(field.name).map_or("", String::as_str);
            notifier.render(text, &example).map_err(|error| invalid(field.name, &error))?;
        }
    }
    if let Some(message) = request.quiet_hours.as_ref().and_then(|quiet| quiet.window.validate()) {
        return Err(invalid("quiet_hours", &message));
    }
    let defaults = defaults(app);
    let repeat_interval = request.repeat_interval.unwrap_or(defaults.repeat_interval);
    let week = HumanDuration::from_s(7 * 86_400);
    if request.escalate_after > week {
        return Err(invalid("escalate_after", "must be at most 7d"));
    }
    if repeat_interval > week || (1..60_000).contains(&repeat_interval.ms()) {
        return Err(invalid("repeat_interval", "must be between 1m and 7d, or 0s"));
    }
    let matcher = &request.filter.matcher;
    if matcher.hosts.len() > 1_000 || matcher.tags.len() > 100 || matcher.rules.len() > 500 {
        return Err(invalid("filter", "too many hosts, tags or rules"));
    }
    validate_template(app, &request.template)?;
    let channel = Channel {
        id,
        name: params::validate_label(&request.name)?,
        kind: request.kind,
        enabled: request.enabled,
        settings,
        filter: request.filter,
        escalate_after: request.escalate_after,
        repeat_interval,
        send_resolved: request.send_resolved.unwrap_or(defaults.send_resolved),
        quiet_hours: request.quiet_hours,
        template: request.template,
    };
    validate_completed(app, &channel)?;
    Ok(channel)
}

/// Validates the settings of a channel together with the mail server of the hub.
fn validate_completed(app: &App, channel: &Channel) -> Result<(), ApiError> {
    let completed = app.alerting.decrypt_completed(channel);
    let completed =
        completed.map_err(|error| invalid("server", &format!("mail server of the hub: {error}")))?;
    let problem = app.alerting.notifier().validate(&completed.kind, &completed.settings);
    problem.map_or(Ok(()), |(field, message)| Err(invalid(&field, &message)))
}

fn encrypt(app: &App, channel: &Channel) -> Result<Channel, ApiError> {
    app.alerting.encrypt(channel).ok_or_else(|| AuthError::EncryptionKeyMissing.into())
}

/// Create a channel
#[utoipa::path(
    post, path = "/api/v1/channels", tag = "channels",
    request_body = ChannelRequest,
    responses((status = 201, body = ChannelResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn create_channel(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<ChannelRequest>,
) -> Result<(StatusCode, Json<ChannelResponse>), ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    let plan = |app: &App| encrypt(app, &validate(app, request, Uuid::now_v7(), None)?);
    let channel = run_work(&app, &actor.identity, plan).await?;
    let to_audited = |channel: &Channel| to_response(&app, channel);
    let channel = definitions::create(&app, &actor, &channel, to_audited).await?;
    Ok((StatusCode::CREATED, Json(to_response(&app, &channel))))
}

/// Replace a channel
#[utoipa::path(
    put, path = "/api/v1/channels/{id}", tag = "channels",
    params(("id" = String, Path, description = "Id of the channel")),
    request_body = ChannelRequest,
    responses((status = 200, body = ChannelResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn update_channel(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<ChannelRequest>,
) -> Result<Json<ChannelResponse>, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    let saved = definitions::find::<Channel>(&app, &id)?;
    let plan = move |app: &App| encrypt(app, &validate(app, request, saved.id, Some(&saved))?);
    let channel = run_work(&app, &actor.identity, plan).await?;
    let to_audited = |channel: &Channel| to_response(&app, channel);
    let channel = definitions::replace(&app, &actor, &channel, to_audited).await?;
    Ok(Json(to_response(&app, &channel)))
}

/// Delete a channel and suppress its pending notifications
#[utoipa::path(
    delete, path = "/api/v1/channels/{id}", tag = "channels",
    params(("id" = String, Path, description = "Id of the channel")),
    responses((status = 204), (status = 409)),
)]
pub(crate) async fn delete_channel(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    definitions::delete(&app, &actor, &id, |channel: &Channel| to_response(&app, channel)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Outcome of a test notification.
#[derive(Serialize, ToSchema)]
pub(crate) struct TestNotificationResponse {
    delivered: bool,
    /// Delivery error, or the recipients that did not accept the notification; `null` if all did.
    error: Option<String>,
    /// Results by recipient; empty for channels with one receiver.
    recipients: Vec<RecipientResult>,
}

pub(super) async fn send_test(
    app: &Arc<App>,
    identity: &Identity,
    channel: &Channel,
) -> Result<TestNotificationResponse, ApiError> {
    let _permit = app.rate_limiters.begin_channel_test(identity).await?;
    let failed =
        |error: String| TestNotificationResponse { delivered: false, error: Some(error), recipients: vec![] };
    // A channel that was saved before a check existed.
    if let Ok(channel) = app.alerting.decrypt_completed(channel) {
        let check = move |app: &App| Ok(app.alerting.notifier().validate(&channel.kind, &channel.settings));
        if let Some((field, error)) = run_work(app, identity, check).await? {
            return Ok(failed(format!("permanent failure: {field}: {error}")));
        }
    }
    Ok(match app.alerting.send(channel, &app.alerting.test_notification()).await {
        Ok(delivery) => TestNotificationResponse {
            delivered: delivery.is_sent(),
            error: delivery.problem(),
            recipients: delivery.recipients,
        },
        Err(SendError::Transient { reason, .. }) => failed(format!("temporary failure: {reason}")),
        Err(SendError::Permanent(reason)) => failed(format!("permanent failure: {reason}")),
    })
}

/// Send a test notification
#[utoipa::path(
    post, path = "/api/v1/channels/{id}/test", tag = "channels",
    params(("id" = String, Path, description = "Id of the channel")),
    responses((status = 200, body = TestNotificationResponse)),
)]
pub(crate) async fn test(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<Json<TestNotificationResponse>, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    let channel = definitions::find::<Channel>(&app, &id)?;
    actor.record(actor.audit("channel.test", format!("channel {}", channel.name))).await?;
    Ok(Json(send_test(&app, &actor.identity, &channel).await?))
}

/// Unsaved channel to test.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestChannelRequest {
    /// Saved channel whose secrets are used if the request contains none.
    id: Option<Uuid>,
    channel: ChannelRequest,
}

/// Send a test notification through an unsaved channel
#[utoipa::path(
    post, path = "/api/v1/channels/test", tag = "channels",
    request_body = TestChannelRequest,
    responses((status = 200, body = TestNotificationResponse), (status = 422)),
)]
pub(crate) async fn test_unsaved_channel(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<TestChannelRequest>,
) -> Result<Json<TestNotificationResponse>, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    let state = app.alerting.snapshot();
    let saved = request.id.and_then(|id| state.definitions.channel(id)).cloned();
    let id = request.id.unwrap_or_default();
    let plan = move |app: &App| validate(app, request.channel, id, saved.as_deref());
    let channel = run_work(&app, &actor.identity, plan).await?;
    actor.record(actor.audit("channel.test", format!("channel {}", channel.name))).await?;
    Ok(Json(send_test(&app, &actor.identity, &channel).await?))
}

/// Rendered template with its variables.
#[derive(Serialize, ToSchema)]
pub(crate) struct TemplatePreviewResponse {
    title: String,
    text: String,
    /// Variables of the template: the notification of the newest incident or an example.
    #[schema(value_type = Object)]
    notification: Notification,
}

/// Preview a notification template
#[utoipa::path(
    post, path = "/api/v1/channels/preview", tag = "channels",
    request_body = NotificationTemplate,
    responses((status = 200, body = TemplatePreviewResponse), (status = 422)),
)]
pub(crate) async fn preview(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(template): JsonBody<NotificationTemplate>,
) -> Result<Json<TemplatePreviewResponse>, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    Ok(Json(run_work(&app, &actor.identity, move |app| render_preview(app, &template)).await?))
}

fn render_preview(app: &App, template: &NotificationTemplate) -> Result<TemplatePreviewResponse, ApiError> {
    validate_template(app, template)?;
    let notification = app.alerting.example_notification();
    let render = |field: &str, template: &str, default: String| match template {
        "" => Ok(default),
        template => {
            let text = app.alerting.notifier().render(template, &notification);
            text.map_err(|error| invalid(field, &error))
        }
    };
    let title = render("template.title", &template.title, render::render_title(&notification))?;
    let text = render("template.text", &template.text, render::render_text(&notification))?;
    Ok(TemplatePreviewResponse { title, text, notification })
}
