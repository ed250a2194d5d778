//! `POST /ingest/metrics`: JSON of scripts and protobuf batches of agents.

use crate::app::App;
use crate::host_access;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use perfwatch_auth::identity::IngestScope;
use perfwatch_auth::{Actor, Identity};
use perfwatch_http::ingest_body::{self, IngestContent};
use perfwatch_http::ingest_memory::{DecodedPermit, ReceivedBody, Sender};
use perfwatch_http::schemas;
use perfwatch_http::{ApiError, Audited, compressed_body};
use perfwatch_ingest::{ReceivedSnapshot, SnapshotClock, Submission, SubmitError};
use perfwatch_live::host_registry::HostRegistryError;
use perfwatch_model::json::{self, ParsedSnapshot};
use perfwatch_model::validation::remove_invalid_values;
use perfwatch_model::wire::{self, Batch, IngestResponse, RejectedSnapshot, WireError};
use perfwatch_model::{HostId, HostRef, Shape, ShapeId, limits};
use std::collections::HashMap;
use std::sync::Arc;

/// Maximum recorded clock skew of a sender: one hundred years.
const MAX_CLOCK_SKEW_MS: i64 = 100 * 366 * 86_400_000;

/// Pause that senders observe while the store is unavailable, in seconds. Short: a database restarts within seconds,
/// agents double their own pauses, and another hub may accept the next request.
const STORE_RETRY_AFTER_S: u64 = 1;

/// Decoded snapshots of a request, by host.
struct DecodedBody {
    submissions: Vec<Submission>,
    /// Response so far, with the snapshots that are rejected already.
    response: IngestResponse,
    /// Whether the rejection of the only snapshot is the error of the request.
    is_single: bool,
}

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
    responses(
        (status = 200, body = IngestResponse),
        (status = 409),
        (status = 413),
        (status = 422),
        (status = 429),
    ),
)]
pub(crate) async fn ingest(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<IngestResponse>, ApiError> {
    let started = app.clock.monotonic();
    let sender = Sender::new(&actor.identity);
    let body = app.ingest_memory.receive(sender, &headers, body).await;
    let body = body.inspect_err(|error| app.metrics.ingest_failed(error.code()))?;
    app.metrics.ingest_bytes(body.bytes.len());
    let result = decode_and_submit(&app, actor, sender, &headers, body).await;
    app.metrics.record_ingest_duration(app.clock.monotonic().saturating_sub(started));
    if let Err(error) = &result {
        app.metrics.ingest_failed(error.code());
    }
    result.map(Json)
}

async fn decode_and_submit(
    app: &Arc<App>,
    actor: Actor,
    sender: Sender,
    headers: &HeaderMap,
    received: ReceivedBody,
) -> Result<IngestResponse, ApiError> {
    let memory = &app.ingest_memory;
    let is_compressed = compressed_body::is_compressed(headers);
    let size = if is_compressed { limits::MAX_DECOMPRESSED_BYTES } else { received.bytes.len() };
    let share = memory.acquire_share(sender, size).await?;
    let body = {
        let _decompression = memory.decompression().await?;
        ingest_body::open(headers, received.bytes.clone()).await?
    };
    drop(received);
    let permit = Arc::new(memory.acquire_decoded(share, body.memory_bytes).await?);
    // The body may have arrived for longer than the credential lasted.
    actor.recheck()?;
    let identity = actor.identity;
    let decoded = if body.is_large {
        let app = app.clone();
        let task = tokio::task::spawn_blocking(move || decode(&app, &identity, body.content));
        task.await.map_err(|_| internal_error())??
    } else {
        decode(app, &identity, body.content)?
    };
    let DecodedBody { submissions, mut response, is_single } = decoded;
    let mut failure = None;
    for submission in submissions {
        // A host above its share does not affect the others of a list; the sender repeats all of them.
        let of_host = match submit(app, &permit, submission).await {
            Ok(of_host) => of_host,
            Err(error) => {
                failure = failure.or(Some(error));
                continue;
            }
        };
        response.accepted += of_host.accepted;
        response.duplicates += of_host.duplicates;
        response.rejected.extend(of_host.rejected);
        response.facts_requested |= of_host.facts_requested;
        (response.interval_ms, response.collectors) = (of_host.interval_ms, of_host.collectors);
    }
    if let Some(error) = failure {
        return Err(error);
    }
    match response.rejected.pop_if(|_| is_single) {
        Some(rejected) => Err(ApiError::unprocessable(rejected.code, rejected.message)),
        None => Ok(response),
    }
}

fn decode(app: &App, identity: &Identity, content: IngestContent) -> Result<DecodedBody, ApiError> {
    match content {
        IngestContent::Batch(batch) => decode_batch(app, identity, *batch),
        IngestContent::Json(bytes) => decode_json(app, identity, &bytes),
    }
}

fn decode_batch(app: &App, identity: &Identity, batch: Batch) -> Result<DecodedBody, ApiError> {
    let host = batch.host().map_err(|error| malformed(&error))?;
    let host = authorize_host(app, identity, host)?;
    // Keeps the shapes of this batch alive if the registry is pruned concurrently.
    let mut batch_shapes = HashMap::new();
    for shape in batch.shapes.into_iter().take(limits::MAX_BATCH_SNAPSHOTS) {
        let (id, shape) = wire::decode_sent_shape(shape).map_err(|error| malformed(&error))?;
        batch_shapes.insert(id, app.pipeline.shape(id).unwrap_or_else(|| Arc::new(shape)));
    }
    let shapes = |id| batch_shapes.get(&id).cloned().or_else(|| app.pipeline.shape(id));
    let texts = |text: &str| app.pipeline.intern_text(text);
    let mut rejected = Vec::new();
    let mut snapshots: Vec<ReceivedSnapshot> = Vec::with_capacity(batch.snapshots.len());
    for (index, bytes) in batch.snapshots.into_iter().enumerate() {
        let decoded = if bytes.len() > limits::MAX_SNAPSHOT_BYTES {
            Err(WireError::Invalid(format!("snapshot exceeds {} bytes", limits::MAX_SNAPSHOT_BYTES)))
        } else {
            let processes = snapshots.last().map_or(&[][..], |previous| &previous.snapshot.processes);
            wire::decode_next_snapshot(processes, bytes.clone(), &shapes, &texts)
        };
        match decoded {
            Ok((mut snapshot, is_canonical)) => {
                let is_changed = remove_invalid_values(&mut snapshot, &app.catalog);
                let encoded = (is_canonical && !is_changed).then_some(bytes);
                snapshots.push(ReceivedSnapshot { index, snapshot, encoded });
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
    let clock = SnapshotClock::Sender { skew_ms };
    let submission = Submission::new(identity, host, snapshots, facts, clock);
    let submissions = vec![Submission { shapes: batch_shapes, ..submission }];
    let response = IngestResponse { rejected, ..IngestResponse::default() };
    Ok(DecodedBody { submissions, response, is_single: false })
}

/// Decodes one snapshot or a list. The rejection of a single snapshot is the error of the request.
fn decode_json(app: &App, identity: &Identity, bytes: &[u8]) -> Result<DecodedBody, ApiError> {
    let is_single = bytes.trim_ascii_start().first() != Some(&b'[');
    let now_ms = app.clock.wall_ms();
    let mut response = IngestResponse::default();
    let mut by_host: HashMap<HostRef, Vec<ReceivedSnapshot>> = HashMap::new();
    let mut shapes: HashMap<ShapeId, Arc<Shape>> = HashMap::new();
    json::for_each_snapshot(bytes, &mut |index, object| {
        match json::read_snapshot(&object, &app.catalog, now_ms) {
            Ok(ParsedSnapshot { host, mut snapshot }) => {
                // One copy of a shape for all snapshots of the body.
                snapshot.shape = shapes.entry(snapshot.shape.id()).or_insert(snapshot.shape).clone();
                let received = ReceivedSnapshot { index, snapshot, encoded: None };
                by_host.entry(host).or_default().push(received);
            }
            Err(error) => response.rejected.push(RejectedSnapshot {
                index,
                code: "invalid_snapshot".into(),
                message: error.to_string(),
            }),
        }
    })
    .map_err(|error| ingest_body::malformed_json(&error))?;
    if let Some(rejected) = response.rejected.pop_if(|_| is_single) {
        return Err(ApiError::unprocessable(rejected.code, rejected.message));
    }
    app.metrics.rejected(response.rejected.len());
    let mut authorized = Vec::with_capacity(by_host.len());
    let mut ambiguous = None;
    for (host, snapshots) in by_host {
        match authorize_host(app, identity, host) {
            Ok(host) => authorized.push((host, snapshots)),
            // Other hosts of the list are accepted.
            Err(error) if error.code() == "ambiguous_host" => {
                response.rejected.extend(snapshots.iter().map(|received| RejectedSnapshot {
                    index: received.index,
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
    let clock = SnapshotClock::Sender { skew_ms: None };
    let submission = |(host, snapshots)| Submission::new(identity, host, snapshots, None, clock);
    let submissions = authorized.into_iter().map(submission).collect();
    Ok(DecodedBody { submissions, response, is_single })
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
    permit: &Arc<DecodedPermit>,
    submission: Submission,
) -> Result<IngestResponse, ApiError> {
    let result = app.pipeline.submit_detached(submission, permit.clone()).await;
    result.map_err(|error| match error {
        SubmitError::Panicked => internal_error(),
        SubmitError::ClockNotSet => ApiError::unavailable("hub_clock_not_set", error.to_string(), 10),
        SubmitError::HostRegistry(HostRegistryError::InvalidName(message)) => {
            ApiError::unprocessable("invalid_host", message)
        }
        SubmitError::HostRegistry(HostRegistryError::AmbiguousName(message)) => {
            ApiError::conflict("ambiguous_host", message)
        }
        SubmitError::HostRegistry(
            error @ (HostRegistryError::LimitReached | HostRegistryError::SenderLimitReached),
        ) => ApiError::new(StatusCode::FORBIDDEN, "too_many_hosts", error.to_string()),
        SubmitError::HostRegistry(ref error @ HostRegistryError::TooManyNewHosts { retry_after }) => {
            ApiError::too_many(error.to_string(), retry_after)
        }
        SubmitError::Share(exceeded) => match exceeded.retry_after {
            Some(retry_after) => ApiError::too_many(exceeded.to_string(), retry_after),
            None => ApiError::too_large("batch_too_large", exceeded.to_string()),
        },
        SubmitError::HostRegistry(HostRegistryError::Store(error)) | SubmitError::Store(error) => {
            // The store logs its failure and its recovery; each sender retries.
            tracing::debug!(error = %error, "ingest request failed");
            ApiError::unavailable("store_unavailable", error.to_string(), STORE_RETRY_AFTER_S)
        }
    })
}

fn malformed(error: &WireError) -> ApiError {
    ApiError::bad_request("malformed_batch", error.to_string())
}

fn internal_error() -> ApiError {
    ApiError::unavailable("internal_error", "internal error; see the hub log", 5)
}
