//! `/api/v1/channels`: who is told, and by which way; `/api/v1/messages`: what became of it.

use super::body::JsonBody;
use super::params;
use crate::alerting::{MOST_CHANNELS, Planned, State as Alerts, body};
use crate::app::App;
use crate::auth::Doer;
use crate::error::ApiError;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use perfwatch_alert::channel::{Channel, Hears, Quiet, Template};
use perfwatch_alert::deliver::{self, Kind, Message, SendError};
use perfwatch_alert::words;
use perfwatch_model::Span;
use perfwatch_store::alerts::{Noun, Outbox, OutboxFilter, OutboxRow};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A channel; what lets one in is not shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChannelJson {
    id: Uuid,
    name: String,
    kind: String,
    enabled: bool,
    /// Without what is secret.
    settings: BTreeMap<String, String>,
    /// Which secrets are set.
    secrets: Vec<String>,
    /// Why nothing can be said by it: its settings were sealed by another key. Say them anew.
    closed: Option<String>,
    hears: Hears,
    /// Only of what nobody acknowledged for so long.
    after: Span,
    /// Once more as long as nobody acknowledged; never if none.
    repeat: Span,
    /// When it is over, too.
    resolved: bool,
    quiet: Option<Quiet>,
    template: Template,
}

/// Channels.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChannelsJson {
    channels: Vec<ChannelJson>,
}

/// Kinds of channels.
#[derive(Serialize, ToSchema)]
pub(crate) struct KindsJson {
    kinds: Vec<Kind>,
}

/// A channel that somebody wants.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelWish {
    name: String,
    kind: String,
    #[serde(default = "yes")]
    enabled: bool,
    /// By the names of the kind's fields; a secret that is left out stays as it was.
    #[serde(default)]
    settings: BTreeMap<String, String>,
    #[serde(default)]
    hears: Hears,
    #[serde(default)]
    after: Span,
    #[serde(default)]
    repeat: Span,
    #[serde(default = "yes")]
    resolved: bool,
    #[serde(default)]
    quiet: Option<Quiet>,
    #[serde(default)]
    template: Template,
}

fn yes() -> bool {
    true
}

fn show(app: &App, channel: &Channel) -> ChannelJson {
    let opened = app.alerting.opened(channel);
    let closed = opened.as_ref().err().map(ToString::to_string);
    let settings = opened.map(|channel| channel.settings).unwrap_or_default();
    let kind = deliver::kind(&**app.alerting.notifier(), &channel.kind);
    let secret = |name: &str| {
        kind.is_none_or(|kind| kind.fields.iter().any(|field| field.name == name && field.secret))
    };
    let (hidden, open): (BTreeMap<_, _>, BTreeMap<_, _>) =
        settings.into_iter().partition(|(name, _)| secret(name));
    ChannelJson {
        id: channel.id,
        name: channel.name.clone(),
        kind: channel.kind.clone(),
        enabled: channel.enabled,
        settings: open,
        secrets: hidden.into_keys().collect(),
        closed,
        hears: channel.hears.clone(),
        after: channel.after,
        repeat: channel.repeat,
        resolved: channel.resolved,
        quiet: channel.quiet.clone(),
        template: channel.template.clone(),
    }
}

/// All channels
#[utoipa::path(get, path = "/api/v1/channels", tag = "channels", responses((status = 200, body = ChannelsJson)))]
pub(crate) async fn list(State(app): State<Arc<App>>, doer: Doer) -> Result<Json<ChannelsJson>, ApiError> {
    params::everywhere(&doer.identity)?;
    Ok(Json(ChannelsJson {
        channels: app.alerting.now().asked.channels.iter().map(|one| show(&app, one)).collect(),
    }))
}

/// The kinds there are, and what each needs
#[utoipa::path(get, path = "/api/v1/channels/kinds", tag = "channels", responses((status = 200, body = KindsJson)))]
pub(crate) async fn kinds(State(app): State<Arc<App>>) -> Json<KindsJson> {
    Json(KindsJson { kinds: app.alerting.notifier().kinds().to_vec() })
}

fn invalid(field: &str, why: &str) -> ApiError {
    ApiError::unprocessable("invalid_channel", format!("{field}: {why}"))
}

/// A channel of a wish; secrets that are left out are those that it had.
fn checked(app: &App, wish: ChannelWish, id: Uuid, before: Option<&Channel>) -> Result<Channel, ApiError> {
    let notifier = app.alerting.notifier();
    let before = before.and_then(|before| app.alerting.opened(before).ok());
    let mut settings = wish.settings;
    settings.retain(|_, value| !value.trim().is_empty());
    if let (Some(before), Some(kind)) = (&before, deliver::kind(&**notifier, &wish.kind)) {
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
                    return Err(invalid(field.name, "say it again: the server is another one"));
                }
                settings.insert(field.name.to_owned(), known.clone());
            }
        }
    }
    if let Some((field, why)) = notifier.problem(&wish.kind, &settings) {
        return Err(invalid(&field, &why));
    }
    let templates = deliver::kind(&**notifier, &wish.kind).into_iter().flat_map(|kind| kind.fields);
    for field in templates.filter(|field| field.long) {
        for message in [app.alerting.example(), app.alerting.test_message()] {
            let text = settings.get(field.name).map_or("", String::as_str);
            notifier.render(text, &message).map_err(|why| invalid(field.name, &why))?;
        }
    }
    if let Some(why) = wish.quiet.as_ref().and_then(|quiet| quiet.hours.problem()) {
        return Err(invalid("quiet", &why));
    }
    let week = Span::from_s(7 * 86_400);
    if wish.after > week || wish.repeat > week || (1..60_000).contains(&wish.repeat.ms()) {
        return Err(invalid("repeat", "from 1m to 7d, as long as after is no more than 7d"));
    }
    let only = &wish.hears.only;
    if only.hosts.len() > 1_000 || only.tags.len() > 100 || only.rules.len() > 500 {
        return Err(invalid("hears", "too many hosts, tags or rules"));
    }
    let template = wish.template;
    for (field, text) in [("template.title", &template.title), ("template.text", &template.text)] {
        if text.len() > 20_000 {
            return Err(invalid(field, "no more than 20,000 bytes"));
        }
        notifier.render(text, &app.alerting.example()).map_err(|why| invalid(field, &why))?;
    }
    Ok(Channel {
        id,
        name: params::label(&wish.name)?,
        kind: wish.kind,
        enabled: wish.enabled,
        settings,
        hears: wish.hears,
        after: wish.after,
        repeat: wish.repeat,
        resolved: wish.resolved,
        quiet: wish.quiet,
        template,
    })
}

async fn put(
    app: &App,
    doer: &Doer,
    channel: Channel,
    before: Option<&Channel>,
) -> Result<ChannelJson, ApiError> {
    let (was, is) = (before.map(|before| show(app, before)), show(app, &channel));
    let channel = Arc::new(app.alerting.sealed(&channel).ok_or_else(ApiError::no_key)?);
    let action = if before.is_some() { "channel.change" } else { "channel.create" };
    let entry = doer.changed(action, format!("channel {}", channel.name), was.as_ref(), Some(&is));
    let plan = |state: &Alerts, _: i64| {
        let mut asked = state.asked.clone();
        match (asked.channels.iter().position(|known| known.id == channel.id), before.is_some()) {
            (Some(at), true) => asked.channels[at] = channel.clone(),
            (None, false) if asked.channels.len() >= MOST_CHANNELS => {
                return Err(ApiError::conflict("too_many", format!("no more than {MOST_CHANNELS} channels")));
            }
            (None, false) => asked.channels.push(channel.clone()),
            _ => return Err(ApiError::not_found("there is no such channel")),
        }
        let changes = vec![Noun::Channel.put(channel.id, &body(&*channel))];
        Ok((Planned { asked: Some(asked), changes, board: None }, ()))
    };
    app.alerting.change(Some(entry), plan).await?;
    Ok(is)
}

/// A new channel
#[utoipa::path(post, path = "/api/v1/channels", tag = "channels", request_body = ChannelWish,
    responses((status = 201, body = ChannelJson), (status = 409), (status = 422)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    doer: Doer,
    JsonBody(wish): JsonBody<ChannelWish>,
) -> Result<(StatusCode, Json<ChannelJson>), ApiError> {
    params::everywhere(&doer.identity)?;
    let channel = checked(&app, wish, Uuid::now_v7(), None)?;
    Ok((StatusCode::CREATED, Json(put(&app, &doer, channel, None).await?)))
}

fn find(app: &App, id: &str) -> Result<Arc<Channel>, ApiError> {
    let state = app.alerting.now();
    let channel = id.parse().ok().and_then(|id| state.asked.channel(id).cloned());
    channel.ok_or_else(|| ApiError::not_found("there is no such channel"))
}

/// Another channel in its place
#[utoipa::path(put, path = "/api/v1/channels/{id}", tag = "channels", params(("id" = String, Path)),
    request_body = ChannelWish, responses((status = 200, body = ChannelJson), (status = 409), (status = 422)))]
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
    JsonBody(wish): JsonBody<ChannelWish>,
) -> Result<Json<ChannelJson>, ApiError> {
    params::everywhere(&doer.identity)?;
    let before = find(&app, &id)?;
    let channel = checked(&app, wish, before.id, Some(&before))?;
    Ok(Json(put(&app, &doer, channel, Some(&before)).await?))
}

/// Removes a channel; what waits for it waits no more
#[utoipa::path(delete, path = "/api/v1/channels/{id}", tag = "channels", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    params::everywhere(&doer.identity)?;
    let before = find(&app, &id)?;
    let was = show(&app, &before);
    let entry = doer.changed("channel.remove", format!("channel {}", before.name), Some(&was), None);
    let plan = |state: &Alerts, now_ms: i64| {
        let mut asked = state.asked.clone();
        asked.channels.retain(|channel| channel.id != before.id);
        let changes = vec![Noun::Channel.remove(before.id), Outbox::forget(before.id, now_ms)];
        Ok::<_, ApiError>((Planned { asked: Some(asked), changes, board: None }, ()))
    };
    app.alerting.change(Some(entry), plan).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a channel was heard.
#[derive(Serialize, ToSchema)]
pub(crate) struct TriedJson {
    heard: bool,
    /// Why not.
    error: Option<String>,
}

async fn try_out(app: &App, channel: &Channel) -> TriedJson {
    let error = app.alerting.say(channel, &app.alerting.test_message()).await.err();
    let error = error.map(|error| match error {
        SendError::Retry { why, .. } => format!("not now: {why}"),
        SendError::Permanent(why) => format!("refused: {why}"),
    });
    TriedJson { heard: error.is_none(), error }
}

/// Says something by a channel, to see whether it is heard
#[utoipa::path(post, path = "/api/v1/channels/{id}/test", tag = "channels", params(("id" = String, Path)),
    responses((status = 200, body = TriedJson)))]
pub(crate) async fn test(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<Json<TriedJson>, ApiError> {
    params::everywhere(&doer.identity)?;
    let channel = find(&app, &id)?;
    app.people.note(doer.did("channel.test", format!("channel {}", channel.name))).await;
    Ok(Json(try_out(&app, &channel).await))
}

/// A channel before it is kept, or as it is with changes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TryWish {
    /// Whose secrets stay where they are left out.
    id: Option<Uuid>,
    channel: ChannelWish,
}

/// The same before it is kept
#[utoipa::path(post, path = "/api/v1/channels/test", tag = "channels", request_body = TryWish,
    responses((status = 200, body = TriedJson), (status = 422)))]
pub(crate) async fn test_wish(
    State(app): State<Arc<App>>,
    doer: Doer,
    JsonBody(wish): JsonBody<TryWish>,
) -> Result<Json<TriedJson>, ApiError> {
    params::everywhere(&doer.identity)?;
    let state = app.alerting.now();
    let before = wish.id.and_then(|id| state.asked.channel(id));
    let channel = checked(&app, wish.channel, wish.id.unwrap_or_default(), before.map(|before| &**before))?;
    app.people.note(doer.did("channel.test", format!("channel {}", channel.name))).await;
    Ok(Json(try_out(&app, &channel).await))
}

/// What a template makes of the newest incident.
#[derive(Serialize, ToSchema)]
pub(crate) struct PreviewJson {
    title: String,
    text: String,
    /// All that a template may name.
    #[schema(value_type = Object)]
    message: Message,
}

/// Shows what a template makes of the newest incident
#[utoipa::path(post, path = "/api/v1/channels/preview", tag = "channels", request_body = Template,
    responses((status = 200, body = PreviewJson), (status = 422)))]
pub(crate) async fn preview(
    State(app): State<Arc<App>>,
    doer: Doer,
    JsonBody(template): JsonBody<Template>,
) -> Result<Json<PreviewJson>, ApiError> {
    params::everywhere(&doer.identity)?;
    let message = app.alerting.example();
    let render = |field: &str, template: &str, usual: String| match template {
        "" => Ok(usual),
        template if template.len() > 20_000 => Err(invalid(field, "no more than 20,000 bytes")),
        template => app.alerting.notifier().render(template, &message).map_err(|why| invalid(field, &why)),
    };
    let title = render("template.title", &template.title, words::title(&message))?;
    let text = render("template.text", &template.text, words::text(&message))?;
    Ok(Json(PreviewJson { title, text, message }))
}

/// A message on its way, or what became of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessageJson {
    id: i64,
    channel: Uuid,
    channel_name: String,
    incident: Uuid,
    notice: String,
    severity: String,
    subject: String,
    /// `waiting`, `sent`, `dead`, `skipped`.
    state: String,
    created_ms: i64,
    /// Not tried before this.
    due_ms: i64,
    done_ms: Option<i64>,
    tries: i64,
    error: Option<String>,
}

/// Messages, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessagesJson {
    messages: Vec<MessageJson>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MessagesQuery {
    /// `waiting`, `sent`, `dead` or `skipped`.
    state: Option<String>,
    channel: Option<Uuid>,
    /// 500 at most.
    limit: Option<i64>,
}

/// What was said, waits, or could not be said
#[utoipa::path(get, path = "/api/v1/messages", tag = "channels", params(MessagesQuery),
    responses((status = 200, body = MessagesJson)))]
pub(crate) async fn messages(
    State(app): State<Arc<App>>,
    doer: Doer,
    query: Result<Query<MessagesQuery>, QueryRejection>,
) -> Result<Json<MessagesJson>, ApiError> {
    params::everywhere(&doer.identity)?;
    let Query(query) = query.map_err(|error| ApiError::bad_request("bad_query", error.body_text()))?;
    let filter = OutboxFilter {
        state: query.state,
        channel: query.channel,
        incident: None,
        limit: query.limit.unwrap_or(100).clamp(1, 500),
    };
    let state = app.alerting.now();
    let rows = Outbox::list(app.alerting.store(), filter).await?.into_iter();
    let show = |row: OutboxRow| MessageJson {
        channel_name: state
            .asked
            .channel(row.channel)
            .map_or("a removed channel", |one| &one.name)
            .to_owned(),
        subject: serde_json::from_str::<Message>(&row.body)
            .map(|message| message.subject)
            .unwrap_or_default(),
        id: row.id,
        channel: row.channel,
        incident: row.incident,
        notice: row.notice,
        severity: row.severity,
        state: row.state,
        created_ms: row.created_ms,
        due_ms: row.due_ms.max(row.next_ms),
        done_ms: row.done_ms,
        tries: row.tries,
        error: row.error,
    };
    Ok(Json(MessagesJson { messages: rows.map(show).collect() }))
}

/// Tries a message again that was given up
#[utoipa::path(post, path = "/api/v1/messages/{id}/retry", tag = "channels", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    params::everywhere(&doer.identity)?;
    let id: i64 = id.parse().map_err(|_| ApiError::not_found("there is no such message"))?;
    let entry = doer.did("message.retry", format!("message {id}"));
    app.alerting.revive(id, entry).await?;
    Ok(StatusCode::NO_CONTENT)
}
