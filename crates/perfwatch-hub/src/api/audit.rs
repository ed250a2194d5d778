//! `GET /api/v1/audit`: the audit log.

use crate::app::App;
use crate::host_access;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use perfwatch_http::{ApiError, Caller};
use perfwatch_store::audit::{AuditEntry, AuditFilter};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Recorded change with its actor.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditEntryResponse {
    id: i64,
    at_ms: i64,
    /// User, token or agent that made the change.
    actor: String,
    /// Client address of the actor.
    address: String,
    /// Action as `object.verb`.
    action: String,
    object: String,
    /// State before the change, without secrets.
    #[schema(value_type = Option<Object>)]
    before: Option<serde_json::Value>,
    /// State after the change, without secrets.
    #[schema(value_type = Option<Object>)]
    after: Option<serde_json::Value>,
}

/// Page of audit entries, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditPageResponse {
    entries: Vec<AuditEntryResponse>,
    /// Value of `before` for the next page; `null` on the last page.
    next: Option<i64>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// Substring of actor, action, object or address.
    text: Option<String>,
    /// `next` of the previous page.
    before: Option<i64>,
    /// Maximum number of entries: 1 to 500, default 100.
    limit: Option<i64>,
}

fn to_response(entry: AuditEntry) -> AuditEntryResponse {
    let json = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
    AuditEntryResponse {
        id: entry.id,
        at_ms: entry.at_ms,
        actor: entry.actor,
        address: entry.address,
        action: entry.action,
        object: entry.object,
        before: json(entry.before),
        after: json(entry.after),
    }
}

/// List audit log entries
#[utoipa::path(
    get, path = "/api/v1/audit", tag = "audit",
    params(AuditQuery),
    responses((status = 200, body = AuditPageResponse)),
)]
pub(crate) async fn list_audit_entries(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<AuditPageResponse>, ApiError> {
    // Entries name hosts of all users, in texts that cannot be filtered.
    host_access::require_all_hosts(&identity)?;
    let Query(query) = query.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let limit = query.limit.unwrap_or(100).clamp(1, 500);
    let text = query.text.filter(|text| !text.contains('\0'));
    let filter = AuditFilter { before_id: query.before, text, limit };
    let entries: Vec<AuditEntryResponse> =
        app.directory.audit(filter).await?.into_iter().map(to_response).collect();
    let full = i64::try_from(entries.len()).is_ok_and(|count| count == limit);
    let next = entries.last().filter(|_| full).map(|entry| entry.id);
    Ok(Json(AuditPageResponse { entries, next }))
}
