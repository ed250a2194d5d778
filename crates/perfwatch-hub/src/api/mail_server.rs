//! `/api/v1/settings/mail`: mail server of the hub, which e-mail channels without a server use.

use super::channels::{self, TestNotificationResponse};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use perfwatch_alerting::mail_server::{MAIL_KIND, MailServer, uses_hub_server};
use perfwatch_alerting::{AlertingSnapshot, StateChange};
use perfwatch_auth::AuthError;
use perfwatch_http::body::JsonBody;
use perfwatch_http::{AllHosts, ApiError, Audited};
use perfwatch_rules::channel::Channel;
use perfwatch_rules::notification;
use perfwatch_store::Transaction;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

/// Recipient for the validation of a server, which has none.
const EXAMPLE_RECIPIENT: &str = "test@example.org";

/// Mail server of the hub without its password.
#[derive(Serialize, ToSchema)]
pub(crate) struct MailServerResponse {
    /// Version of the mail server, required by a change.
    version: i64,
    /// Time of the last change, Unix milliseconds.
    changed_ms: Option<i64>,
    /// Actor of the last change.
    changed_by: Option<String>,
    /// `server`, `port`, `security` (`starttls`, `tls` or `none`), `user` and `from`; empty without a mail server.
    settings: BTreeMap<String, String>,
    /// A password is stored.
    has_password: bool,
    /// Error if the settings cannot be decrypted; enter them again to restore the mail server.
    decryption_error: Option<String>,
    /// Number of channels that use the mail server.
    channels: usize,
}

/// Change of the mail server.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateMailServerRequest {
    /// Version that the change is based on.
    version: i64,
    /// Settings as in the response, and `password`, which is kept if it is missing and the server is unchanged. Empty
    /// to remove the mail server.
    settings: BTreeMap<String, String>,
}

/// Mail server to test.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestMailServerRequest {
    /// Settings as in a change.
    settings: BTreeMap<String, String>,
    /// Recipients of the test, separated by commas.
    to: String,
}

fn invalid(field: &str, message: &str) -> ApiError {
    ApiError::unprocessable("invalid_mail_server", format!("{field}: {message}"))
}

fn stored_channel(state: &AlertingSnapshot) -> Option<&Channel> {
    state.definitions.mail_server.as_ref()?.channel.as_ref()
}

/// Number of channels that use the mail server.
fn count_users(app: &App, state: &AlertingSnapshot) -> usize {
    let uses_hub = |channel: &&Arc<Channel>| {
        let decrypted = app.alerting.decrypt(channel);
        decrypted.is_ok_and(|channel| uses_hub_server(&channel.kind, &channel.settings))
    };
    state.definitions.channels.iter().filter(uses_hub).count()
}

fn to_response(app: &App) -> MailServerResponse {
    let state = app.alerting.snapshot();
    let server = state.definitions.mail_server.as_deref();
    let (mut settings, mut decryption_error) = (BTreeMap::new(), None);
    match stored_channel(&state).map(|channel| app.alerting.decrypt(channel)) {
        Some(Ok(channel)) => settings = channel.settings,
        Some(Err(error)) => decryption_error = Some(error.to_string()),
        None => {}
    }
    MailServerResponse {
        version: server.map_or(0, |server| server.version),
        changed_ms: server.map(|server| server.changed_ms),
        changed_by: server.map(|server| server.changed_by.clone()),
        has_password: settings.remove("password").is_some(),
        settings,
        decryption_error,
        channels: count_users(app, &state),
    }
}

/// Validates the settings of a mail server as those of a channel with a recipient, and adds the stored password.
///
/// # Errors
/// Returns `invalid_mail_server` with the first invalid field, also if the password belongs to another server.
fn validate(app: &App, mut settings: BTreeMap<String, String>, to: &str) -> Result<Channel, ApiError> {
    settings.retain(|_, value| !value.trim().is_empty());
    if settings.contains_key("to") {
        return Err(invalid("to", "unknown setting"));
    }
    let (notifier, state) = (app.alerting.notifier(), app.alerting.snapshot());
    let stored = stored_channel(&state).and_then(|channel| app.alerting.decrypt(channel).ok());
    if let (Some(stored), Some(kind)) = (stored, notification::find_kind(&**notifier, MAIL_KIND)) {
        channels::keep_secrets(kind, &stored, &mut settings)
            .map_err(|field| invalid(field, channels::SECRET_REQUIRED))?;
    }
    // A channel may leave them to this server.
    if let Some(field) = ["server", "from"].into_iter().find(|name| !settings.contains_key(*name)) {
        return Err(invalid(field, "required"));
    }
    settings.insert("to".to_owned(), to.to_owned());
    if let Some((field, message)) = notifier.validate(MAIL_KIND, &settings) {
        return Err(invalid(&field, &message));
    }
    Ok(MailServer::to_channel(settings))
}

/// Get the mail server
#[utoipa::path(
    get, path = "/api/v1/settings/mail", tag = "settings",
    responses((status = 200, body = MailServerResponse)),
)]
pub(crate) async fn get_mail_server(State(app): State<Arc<App>>, _: AllHosts) -> Json<MailServerResponse> {
    Json(to_response(&app))
}

/// Change the mail server
///
/// Takes effect on all hubs within a second. A stored password is used only with the server that it was entered for.
#[utoipa::path(
    put, path = "/api/v1/settings/mail", tag = "settings",
    request_body = UpdateMailServerRequest,
    responses((status = 200, body = MailServerResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn update_mail_server(
    State(app): State<Arc<App>>,
    _: AllHosts,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<UpdateMailServerRequest>,
) -> Result<Json<MailServerResponse>, ApiError> {
    let UpdateMailServerRequest { version, settings } = request;
    let is_removed = settings.values().all(|value| value.trim().is_empty());
    let (mut after, mut channel) = (None, None);
    if !is_removed {
        let mut valid = validate(&app, settings, EXAMPLE_RECIPIENT)?;
        valid.settings.remove("to");
        let encrypted = app.alerting.encrypt(&valid).ok_or(AuthError::EncryptionKeyMissing)?;
        valid.settings.remove("password");
        (after, channel) = (Some(valid.settings), Some(encrypted));
    }
    let before = Some(to_response(&app).settings).filter(|settings| !settings.is_empty());
    let entry =
        actor.audit_change("mail_server.update", "mail server".to_owned(), before.as_ref(), after.as_ref());
    let changed_by = actor.identity.actor_name();
    let change = |state: &AlertingSnapshot, now_ms: i64| {
        if state.definitions.mail_server.as_ref().map_or(0, |server| server.version) != version {
            return Err(ApiError::conflict("conflict", "modified concurrently; reload and retry"));
        }
        if channel.is_none() && count_users(&app, state) > 0 {
            return Err(ApiError::conflict("mail_server_in_use", "e-mail channels use the mail server"));
        }
        let (changed_by, channel) = (changed_by.clone(), channel.clone());
        let server = MailServer { version: version + 1, changed_ms: now_ms, changed_by, channel };
        let tx = Transaction::build(|tx| server.put(tx));
        let mut definitions = state.definitions.clone();
        definitions.mail_server = Some(Arc::new(server));
        Ok((StateChange { definitions: Some(definitions), tx, incidents: None }, ()))
    };
    app.alerting.update_as((&actor, entry), change).await?;
    Ok(Json(to_response(&app)))
}

/// Send a test mail
#[utoipa::path(
    post, path = "/api/v1/settings/mail/test", tag = "settings",
    request_body = TestMailServerRequest,
    responses((status = 200, body = TestNotificationResponse), (status = 422)),
)]
pub(crate) async fn test_mail_server(
    State(app): State<Arc<App>>,
    _: AllHosts,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<TestMailServerRequest>,
) -> Result<Json<TestNotificationResponse>, ApiError> {
    let channel = validate(&app, request.settings, &request.to)?;
    actor.record(actor.audit("mail_server.test", format!("mail to {}", request.to.trim()))).await?;
    Ok(Json(channels::send_test(&app, &actor.identity, &channel).await?))
}
