//! `/api/v1/notifications`: notifications and the outcome of their delivery.

use crate::app::App;
use crate::host_access;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use perfwatch_http::{ApiError, Audited};
use perfwatch_rules::notification::{Notification, RecipientResult};
use perfwatch_store::outbox::{NotificationFilter, NotificationRow, NotificationState, Outbox};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Notification of an incident to one channel.
#[derive(Serialize, ToSchema)]
pub(crate) struct NotificationResponse {
    id: i64,
    channel: Uuid,
    channel_name: String,
    incident: Uuid,
    /// Event of the incident that caused the notification.
    reason: String,
    severity: String,
    subject: String,
    state: NotificationState,
    created_ms: i64,
    /// Earliest time of the next attempt.
    due_ms: i64,
    finished_ms: Option<i64>,
    /// Number of delivery attempts.
    attempts: i64,
    /// Error of the last attempt, or the recipients that did not accept the notification.
    error: Option<String>,
    /// Results by recipient; empty before the first attempt and for channels with one receiver.
    recipients: Vec<RecipientResult>,
}

/// Page of notifications, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct NotificationListResponse {
    notifications: Vec<NotificationResponse>,
    /// Value of `before` for the next page; `null` on the last page.
    next: Option<i64>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct NotificationsQuery {
    /// State of the notifications; all states if missing.
    state: Option<NotificationState>,
    /// Id of a channel.
    channel: Option<Uuid>,
    /// `next` of the previous page.
    before: Option<i64>,
    /// Maximum number of notifications: 1 to 500, default 100.
    limit: Option<i64>,
}

/// List notifications
#[utoipa::path(
    get, path = "/api/v1/notifications", tag = "channels",
    params(NotificationsQuery),
    responses((status = 200, body = NotificationListResponse)),
)]
pub(crate) async fn list_notifications(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    query: Result<Query<NotificationsQuery>, QueryRejection>,
) -> Result<Json<NotificationListResponse>, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    let Query(query) = query.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let limit = query.limit.unwrap_or(100).clamp(1, 500);
    // One more than the page shows whether there is a next page.
    let filter = NotificationFilter {
        state: query.state,
        channel: query.channel,
        incident: None,
        before_id: query.before,
        limit: limit + 1,
    };
    let state = app.alerting.snapshot();
    let mut rows = Outbox::list(app.alerting.store(), filter).await?;
    let has_more = rows.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    if has_more {
        rows.pop();
    }
    let next = rows.last().filter(|_| has_more).map(|row| row.id);
    let to_response = |row: NotificationRow| {
        let content = serde_json::from_str::<Notification>(&row.body).ok();
        let (subject, recipients) =
            content.map(|content| (content.subject, content.recipients)).unwrap_or_default();
        NotificationResponse {
            channel_name: state
                .definitions
                .channel(row.channel)
                .map_or("deleted channel", |channel| &channel.name)
                .to_owned(),
            subject,
            recipients,
            id: row.id,
            channel: row.channel,
            incident: row.incident,
            reason: row.reason,
            severity: row.severity,
            state: row.state,
            created_ms: row.created_ms,
            due_ms: row.due_ms.max(row.retry_at_ms),
            finished_ms: row.finished_ms,
            attempts: row.attempts,
            error: row.error,
        }
    };
    let notifications = rows.into_iter().map(to_response).collect();
    Ok(Json(NotificationListResponse { notifications, next }))
}

/// Retry a failed notification
#[utoipa::path(
    post, path = "/api/v1/notifications/{id}/retry", tag = "channels",
    params(("id" = i64, Path, description = "Id of the notification")),
    responses((status = 204), (status = 409)),
)]
pub(crate) async fn retry_notification(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    host_access::require_all_hosts(&actor.identity)?;
    let id: i64 = id.parse().map_err(|_| ApiError::not_found("notification not found"))?;
    let entry = actor.audit("notification.retry", format!("notification {id}"));
    app.alerting.requeue(id, (&actor, entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}
