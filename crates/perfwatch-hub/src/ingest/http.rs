//! `POST /ingest/metrics`: JSON from scripts, the compact form from agents.

use super::body;
use super::pipeline::{Submission, SubmitError};
use crate::app::App;
use crate::error::ApiError;
use crate::http::extract::Caller;
use crate::openapi::schemas;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use perfwatch_auth::Identity;
use perfwatch_auth::identity::IngestScope;
use perfwatch_live::host_registry::HostRegistryError;
use perfwatch_model::wire::{self, IngestResponse, RejectedSnapshot, WireError};
use perfwatch_model::{HostRef, Snapshot, json, limits};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// A sender's clock that is further off than a hundred years is off by that.
const MAX_CLOCK_SKEW_MS: i64 = 100 * 366 * 86_400_000;

/// A request's share of what all together may hold.
type DecodedBytesPermit = Arc<OwnedSemaphorePermit>;

/// Ingest snapshots
///
/// Accepts one snapshot or a list as JSON (optionally gzip or zstd), or a protobuf batch. Accepted snapshots are
/// durable when the response is sent.
#[utoipa::path(
    post, path = "/ingest/metrics", tag = "ingest",
    request_body(
        content(
            (schemas::Snapshot = "application/json"),
            (Vec<u8> = "application/vnd.perfwatch.batch.v1+protobuf"),
        ),
    ),
    responses((status = 200, body = IngestResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn ingest(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<IngestResponse>, ApiError> {
    let began = app.clock.monotonic();
    let bytes = body::read(body).await.inspect_err(|error| app.metrics.ingest_failed(error.code()))?;
    app.metrics.ingest_bytes(bytes.len());
    let result = decode_and_submit(&app, &identity, &headers, bytes).await;
    app.metrics.record_ingest_duration(app.clock.monotonic().saturating_sub(began));
    if let Err(error) = &result {
        app.metrics.ingest_failed(error.code());
    }
    result.map(Json)
}

async fn decode_and_submit(
    app: &Arc<App>,
    identity: &Identity,
    headers: &HeaderMap,
    bytes: Bytes,
) -> Result<IngestResponse, ApiError> {
    let leaving = |_| ApiError::unavailable("shutting_down", "the hub is stopping", 5);
    // What was decompressed waits for room with this in hand, so that not many do.
    let few = app.decompression_permits.acquire().await.map_err(leaving)?;
    let bytes = body::decompress(headers, bytes)?;
    let kib = u32::try_from(bytes.len() >> 10).unwrap_or(u32::MAX) + 1;
    let room = Arc::new(app.decoded_bytes_permits.clone().acquire_many_owned(kib).await.map_err(leaving)?);
    drop(few);
    let kind =
        headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("application/json");
    match kind.split(';').next().unwrap_or_default().trim() {
        wire::CONTENT_TYPE => ingest_protobuf(app, identity, bytes, &room).await,
        // What `curl -d` says when nobody tells it otherwise.
        "application/json" | "application/x-www-form-urlencoded" => {
            ingest_json(app, identity, &bytes, &room).await
        }
        other => {
            let message = format!(
                "Content-Type {other:?} is not known here; send application/json or {}",
                wire::CONTENT_TYPE
            );
            Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_type", message))
        }
    }
}

async fn ingest_protobuf(
    app: &Arc<App>,
    identity: &Identity,
    bytes: Bytes,
    room: &DecodedBytesPermit,
) -> Result<IngestResponse, ApiError> {
    let batch = wire::decode_batch(bytes).map_err(|error| malformed(&error))?;
    let host = batch.host().map_err(|error| malformed(&error))?;
    authorize_host(app, identity, &host)?;
    if batch.snapshots.len() > limits::MAX_BATCH_SNAPSHOTS {
        return Err(too_many());
    }
    // Held for this batch whatever becomes of the shared table meanwhile.
    let mut sent = HashMap::new();
    for shape in batch.shapes.into_iter().take(limits::MAX_BATCH_SNAPSHOTS) {
        let shape = app.pipeline.intern_shape(wire::decode_shape(shape).map_err(|error| malformed(&error))?);
        sent.insert(shape.id(), shape);
    }
    let shapes = |id| sent.get(&id).cloned().or_else(|| app.pipeline.shape(id));
    let texts = |text: &str| app.pipeline.intern_text(text);
    let mut rejected = Vec::new();
    let mut snapshots = Vec::with_capacity(batch.snapshots.len());
    for (index, bytes) in batch.snapshots.into_iter().enumerate() {
        let decoded = if bytes.len() > limits::MAX_SNAPSHOT_BYTES {
            Err(WireError::Invalid(format!("a snapshot of more than {} bytes", limits::MAX_SNAPSHOT_BYTES)))
        } else {
            wire::decode_snapshot(bytes, &shapes, &texts)
        };
        match decoded {
            Ok(snapshot) => snapshots.push((index, snapshot)),
            Err(WireError::UnknownShape(id)) => {
                let message = format!("unknown shape {id}; resend with shapes and host facts");
                return Err(ApiError::new(StatusCode::CONFLICT, wire::ERROR_UNKNOWN_SHAPE, message));
            }
            Err(error) => rejected.push(RejectedSnapshot {
                index,
                code: "malformed_batch".into(),
                message: error.to_string(),
            }),
        }
    }
    app.metrics.rejected(rejected.len());
    let facts = batch.facts.map(|facts| Arc::new(wire::facts_from_message(facts)));
    let skew_ms = (batch.sent_at_ms != 0).then(|| {
        batch.sent_at_ms.saturating_sub(app.clock.wall_ms()).clamp(-MAX_CLOCK_SKEW_MS, MAX_CLOCK_SKEW_MS)
    });
    let mut answer = submit(app, room, Submission { host, snapshots, facts, clock_skew_ms: skew_ms }).await?;
    answer.rejected.extend(rejected);
    Ok(answer)
}

/// One object, or a list of them. A single refused snapshot is the request's own error.
async fn ingest_json(
    app: &Arc<App>,
    identity: &Identity,
    bytes: &[u8],
    room: &DecodedBytesPermit,
) -> Result<IngestResponse, ApiError> {
    let value: serde_json::Value = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad_request("malformed_json", format!("the body is not JSON: {error}")))?;
    let (objects, single) = match value {
        serde_json::Value::Array(objects) => (objects, false),
        object => (vec![object], true),
    };
    if objects.len() > limits::MAX_BATCH_SNAPSHOTS {
        return Err(too_many());
    }
    let now_ms = app.clock.wall_ms();
    let mut answer = IngestResponse::default();
    let mut by_host: HashMap<HostRef, Vec<(usize, Snapshot)>> = HashMap::new();
    for (index, object) in objects.iter().enumerate() {
        match json::read_snapshot(object, &app.catalog, now_ms) {
            Ok(parsed) => by_host.entry(parsed.host).or_default().push((index, parsed.snapshot)),
            Err(error) if single => {
                return Err(ApiError::unprocessable("invalid_snapshot", error.to_string()));
            }
            Err(error) => {
                answer.rejected.push(RejectedSnapshot {
                    index,
                    code: "invalid_snapshot".into(),
                    message: error.to_string(),
                });
            }
        }
    }
    app.metrics.rejected(answer.rejected.len());
    by_host.keys().try_for_each(|host| authorize_host(app, identity, host))?;
    for (host, snapshots) in by_host {
        let submission = Submission { host, snapshots, facts: None, clock_skew_ms: None };
        let part = submit(app, room, submission).await?;
        answer.accepted += part.accepted;
        answer.duplicates += part.duplicates;
        answer.rejected.extend(part.rejected);
        answer.interval_ms = part.interval_ms;
    }
    match answer.rejected.pop_if(|_| single) {
        Some(refused) => Err(ApiError::unprocessable(refused.code, refused.message)),
        None => Ok(answer),
    }
}

/// An agent speaks for its own host alone.
fn authorize_host(app: &App, identity: &Identity, host: &HostRef) -> Result<(), ApiError> {
    // Of two names of one host the id counts, as it does on the way in.
    let known = || match host.id {
        Some(id) => Some(id),
        None => app.hosts.find(&host.name).map(|host| host.record.id),
    };
    match identity.ingest_scope() {
        IngestScope::AnyHost if identity.host_tags.is_empty() => Ok(()),
        // An identity that is limited to some hosts must not create others.
        IngestScope::AnyHost
            if known().is_some_and(|id| identity.is_in_scope(&app.directory.snapshot(), id)) =>
        {
            Ok(())
        }
        IngestScope::Host(agent_host) if host.id == Some(agent_host) => Ok(()),
        _ => {
            let message = "the credential is not allowed to send for this host";
            Err(ApiError::new(StatusCode::FORBIDDEN, "host_mismatch", message))
        }
    }
}

async fn submit(
    app: &Arc<App>,
    room: &DecodedBytesPermit,
    submission: Submission,
) -> Result<IngestResponse, ApiError> {
    // A sender that goes away meanwhile leaves nothing half done: what is kept is published too.
    let task = app.clone();
    let room = room.clone();
    let task = tokio::spawn(async move {
        let done = task.pipeline.submit(submission).await;
        // Taken for as long as the rows are held, whoever still waits for them.
        drop(room);
        done
    });
    let done = task.await.map_err(|error| {
        tracing::error!(%error, "ingest task panicked; please report this");
        ApiError::unavailable("internal_error", "internal error; see the hub log", 5)
    })?;
    done.map_err(|error| match error {
        SubmitError::ClockNotSet => ApiError::unavailable("hub_clock_not_set", error.to_string(), 10),
        SubmitError::HostRegistry(HostRegistryError::InvalidName(why)) => {
            ApiError::unprocessable("invalid_host", why)
        }
        SubmitError::HostRegistry(full @ HostRegistryError::LimitReached) => {
            ApiError::new(StatusCode::FORBIDDEN, "too_many_hosts", full.to_string())
        }
        SubmitError::HostRegistry(HostRegistryError::Store(error)) | SubmitError::Store(error) => {
            // Each sender asks again: the store says once that it can't, and once that it can again.
            tracing::debug!(%error, "ingest request failed");
            ApiError::unavailable("store_unavailable", error.to_string(), 5)
        }
    })
}

fn malformed(error: &WireError) -> ApiError {
    ApiError::bad_request("malformed_batch", error.to_string())
}

fn too_many() -> ApiError {
    ApiError::too_large(
        "too_many_snapshots",
        format!("more than {} snapshots in one request", limits::MAX_BATCH_SNAPSHOTS),
    )
}
