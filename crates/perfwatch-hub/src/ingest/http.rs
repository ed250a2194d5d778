//! `POST /ingest/metrics`: JSON of scripts and protobuf batches of agents.

use super::pipeline::{SnapshotClock, Submission, SubmitError};
use crate::app::App;
use crate::host_access;
use crate::openapi::schemas;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use perfwatch_auth::Identity;
use perfwatch_auth::identity::IngestScope;
use perfwatch_http::compressed_body;
use perfwatch_http::{ApiError, Caller};
use perfwatch_live::host_registry::HostRegistryError;
use perfwatch_model::validation::remove_invalid_values;
use perfwatch_model::wire::{self, IngestResponse, RejectedSnapshot, WireError};
use perfwatch_model::{HostId, HostRef, Snapshot, json, limit_table, limits};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Maximum recorded clock skew of a sender: one hundred years.
const MAX_CLOCK_SKEW_MS: i64 = 100 * 366 * 86_400_000;

/// Share of a request in the memory limit of all requests.
type DecodedBytesPermit = Arc<OwnedSemaphorePermit>;

/// Ingest snapshots
///
/// Accepts one snapshot or a list as JSON (optionally gzip or zstd), or a protobuf batch. Accepted snapshots
/// are durable when the response is sent.
#[utoipa::path(
    post, path = "/ingest/metrics", tag = "ingest",
    request_body(
        content(
            (schemas::Snapshot = "application/json"),
            (Vec<u8> = "application/vnd.perfwatch.batch.v1+protobuf"),
        ),
    ),
    responses((status = 200, body = IngestResponse), (status = 409), (status = 422), (status = 429)),
)]
pub(crate) async fn ingest(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<IngestResponse>, ApiError> {
    let started = app.clock.monotonic();
    let bytes =
        compressed_body::read(body).await.inspect_err(|error| app.metrics.ingest_failed(error.code()))?;
    app.metrics.ingest_bytes(bytes.len());
    let result = decode_and_submit(&app, &identity, &headers, bytes).await;
    app.metrics.record_ingest_duration(app.clock.monotonic().saturating_sub(started));
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
    let shutting_down = |_| ApiError::unavailable("shutting_down", "hub is shutting down", 5);
    // Held until the memory permit is acquired, so that few decompressed bodies wait for memory.
    let decompression = app.ingest_limits.decompressions.acquire().await.map_err(shutting_down)?;
    let bytes = compressed_body::decompress(headers, bytes)?;
    let kib = u32::try_from(bytes.len() >> 10).unwrap_or(u32::MAX) + 1;
    let memory = app.ingest_limits.decoded_kib.clone();
    let permit = Arc::new(memory.acquire_many_owned(kib).await.map_err(shutting_down)?);
    drop(decompression);
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match content_type.unwrap_or("application/json").split(';').next().unwrap_or_default().trim() {
        wire::CONTENT_TYPE => ingest_protobuf(app, identity, bytes, &permit).await,
        // Default content type of `curl -d`.
        "application/json" | "application/x-www-form-urlencoded" => {
            ingest_json(app, identity, &bytes, &permit).await
        }
        other => {
            let message = format!(
                "unsupported Content-Type {other:?}; expected application/json or {}",
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
    permit: &DecodedBytesPermit,
) -> Result<IngestResponse, ApiError> {
    let batch = wire::decode_batch(bytes).map_err(|error| malformed(&error))?;
    let host = batch.host().map_err(|error| malformed(&error))?;
    let host = authorize_host(app, identity, host)?;
    if batch.snapshots.len() > limits::MAX_BATCH_SNAPSHOTS {
        return Err(too_many());
    }
    // Keeps the shapes of this batch alive if the registry is pruned concurrently.
    let mut batch_shapes = HashMap::new();
    for shape in batch.shapes.into_iter().take(limits::MAX_BATCH_SNAPSHOTS) {
        let (id, shape) = wire::decode_sent_shape(shape).map_err(|error| malformed(&error))?;
        batch_shapes.insert(id, app.pipeline.intern_shape(id, shape));
    }
    let shapes = |id| batch_shapes.get(&id).cloned().or_else(|| app.pipeline.shape(id));
    let texts = |text: &str| app.pipeline.intern_text(text);
    let mut rejected = Vec::new();
    let mut snapshots = Vec::with_capacity(batch.snapshots.len());
    for (index, bytes) in batch.snapshots.into_iter().enumerate() {
        let decoded = if bytes.len() > limits::MAX_SNAPSHOT_BYTES {
            Err(WireError::Invalid(format!("snapshot exceeds {} bytes", limits::MAX_SNAPSHOT_BYTES)))
        } else {
            wire::decode_snapshot(bytes, &shapes, &texts)
        };
        match decoded {
            Ok(mut snapshot) => {
                remove_invalid_values(&mut snapshot, &app.catalog);
                snapshots.push((index, snapshot));
            }
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
    let mut response = submit(
        app,
        permit,
        Submission::new(identity, host, snapshots, facts, SnapshotClock::Sender { skew_ms }),
    )
    .await?;
    response.rejected.extend(rejected);
    Ok(response)
}

/// Ingests one snapshot or a list. The rejection of a single snapshot is the error of the request.
async fn ingest_json(
    app: &Arc<App>,
    identity: &Identity,
    bytes: &[u8],
    permit: &DecodedBytesPermit,
) -> Result<IngestResponse, ApiError> {
    let value: serde_json::Value = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad_request("malformed_json", format!("body is not JSON: {error}")))?;
    let (objects, is_single) = match value {
        serde_json::Value::Array(objects) => (objects, false),
        object => (vec![object], true),
    };
    if objects.len() > limits::MAX_BATCH_SNAPSHOTS {
        return Err(too_many());
    }
    let now_ms = app.clock.wall_ms();
    let mut response = IngestResponse::default();
    let mut by_host: HashMap<HostRef, Vec<(usize, Snapshot)>> = HashMap::new();
    for (index, object) in objects.iter().enumerate() {
        match json::read_snapshot(object, &app.catalog, now_ms) {
            Ok(parsed) => by_host.entry(parsed.host).or_default().push((index, parsed.snapshot)),
            Err(error) if is_single => {
                return Err(ApiError::unprocessable("invalid_snapshot", error.to_string()));
            }
            Err(error) => {
                response.rejected.push(RejectedSnapshot {
                    index,
                    code: "invalid_snapshot".into(),
                    message: error.to_string(),
                });
            }
        }
    }
    app.metrics.rejected(response.rejected.len());
    let mut authorized = Vec::with_capacity(by_host.len());
    let mut ambiguous = None;
    for (host, snapshots) in by_host {
        match authorize_host(app, identity, host) {
            Ok(host) => authorized.push((host, snapshots)),
            // Other hosts of the list are accepted.
            Err(error) if error.code() == "ambiguous_host" => {
                response.rejected.extend(snapshots.iter().map(|(index, _)| RejectedSnapshot {
                    index: *index,
                    code: error.code().to_owned(),
                    message: error.message().to_owned(),
                }));
                app.metrics.rejected(snapshots.len());
                ambiguous = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(error) = ambiguous.filter(|_| authorized.is_empty()) {
        return Err(error);
    }
    for (host, snapshots) in authorized {
        let clock = SnapshotClock::Sender { skew_ms: None };
        let submission = Submission::new(identity, host, snapshots, None, clock);
        let host_response = submit(app, permit, submission).await?;
        response.accepted += host_response.accepted;
        response.duplicates += host_response.duplicates;
        response.rejected.extend(host_response.rejected);
        response.interval_ms = host_response.interval_ms;
    }
    match response.rejected.pop_if(|_| is_single) {
        Some(rejected) => Err(ApiError::unprocessable(rejected.code, rejected.message)),
        None => Ok(response),
    }
}

/// Checks that the credential may send for the host: agents for their own host only, callers limited by
/// host tags for existing hosts in their scope. Adds the id of a host that is given by its name.
///
/// # Errors
/// Returns `ambiguous_host` for the name of several hosts in scope, and `host_mismatch` if the credential may
/// not send.
fn authorize_host(app: &App, identity: &Identity, mut host: HostRef) -> Result<HostRef, ApiError> {
    let auth_snapshot = app.directory.snapshot();
    let is_in_scope = |id: HostId| identity.is_in_scope(&auth_snapshot, id);
    let is_allowed = match identity.ingest_scope() {
        IngestScope::AnyHost => {
            if host.id.is_none() {
                let mut named = app.hosts.find(&host.name);
                named.retain(|named| named.record.name == host.name && is_in_scope(named.record.id));
                if named.len() > 1 {
                    return Err(host_access::ambiguous(&host.name, &named));
                }
                host.id = named.first().map(|named| named.record.id);
            }
            // An identity that is limited to some hosts must not create others.
            identity.host_tags.is_empty() || host.id.is_some_and(is_in_scope)
        }
        IngestScope::Host(agent_host) => host.id == Some(agent_host),
        IngestScope::Denied => false,
    };
    if !is_allowed {
        let message = "the credential is not allowed to send for this host";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "host_mismatch", message));
    }
    Ok(host)
}

async fn submit(
    app: &Arc<App>,
    permit: &DecodedBytesPermit,
    submission: Submission,
) -> Result<IngestResponse, ApiError> {
    // A separate task: a client that disconnects must not cancel between storing and publishing.
    let task_app = app.clone();
    let permit = permit.clone();
    let task = tokio::spawn(async move {
        let result = task_app.pipeline.submit(submission).await;
        // Held as long as the snapshots, also after the client disconnected.
        drop(permit);
        result
    });
    let result = task.await.map_err(|error| {
        tracing::error!(error = %error, "ingest task panicked; please report this");
        ApiError::unavailable("internal_error", "internal error; see the hub log", 5)
    })?;
    result.map_err(|error| match error {
        SubmitError::ClockNotSet => ApiError::unavailable("hub_clock_not_set", error.to_string(), 10),
        SubmitError::HostRegistry(HostRegistryError::InvalidName(message)) => {
            ApiError::unprocessable("invalid_host", message)
        }
        SubmitError::HostRegistry(HostRegistryError::AmbiguousName(message)) => {
            ApiError::conflict("ambiguous_host", message)
        }
        SubmitError::HostRegistry(error @ HostRegistryError::LimitReached) => {
            ApiError::new(StatusCode::FORBIDDEN, "too_many_hosts", error.to_string())
        }
        SubmitError::Share(exceeded) => ApiError::too_many(exceeded.to_string(), exceeded.retry_after),
        SubmitError::HostRegistry(HostRegistryError::Store(error)) | SubmitError::Store(error) => {
            // The store logs its failure and its recovery; each sender retries.
            tracing::debug!(error = %error, "ingest request failed");
            ApiError::unavailable("store_unavailable", error.to_string(), 5)
        }
    })
}

fn malformed(error: &WireError) -> ApiError {
    ApiError::bad_request("malformed_batch", error.to_string())
}

fn too_many() -> ApiError {
    limit_table::BATCH_SNAPSHOTS.refuse();
    ApiError::too_large(
        "too_many_snapshots",
        format!("more than {} snapshots in one request", limits::MAX_BATCH_SNAPSHOTS),
    )
}
