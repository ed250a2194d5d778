//! `POST /api/v1/capsules`: incident capsules. They are built by `perfwatch-capsule`.

use crate::app::App;
use crate::host_access;
use axum::extract::State;
use axum::response::Response;
use perfwatch_capsule::CapsuleRequest;
use perfwatch_http::body::JsonBody;
use perfwatch_http::read_limiter::Reader;
use perfwatch_http::{ApiError, Audited};
use std::sync::Arc;

/// Create an incident capsule
///
/// Returns a file with a window of the chosen hosts: series, processes, gaps, alerts and incidents. Secrets in
/// command lines are always masked. The dashboard, its static viewer and other hubs open the file.
#[utoipa::path(
    post, path = "/api/v1/capsules", tag = "capsules",
    request_body = CapsuleRequest,
    responses(
        (status = 200, content((Vec<u8> = "application/vnd.perfwatch.capsule"))),
        (status = 404), (status = 409), (status = 422),
    ),
)]
pub(crate) async fn create_capsule(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    reader: Reader,
    JsonBody(request): JsonBody<CapsuleRequest>,
) -> Result<Response, ApiError> {
    let find_host = |id: &str| host_access::host(&app, &actor.identity, id);
    let file = app.capsules.build((&actor, &reader), &app.overview, find_host, request).await?;
    Ok(reader.respond_file("application/vnd.perfwatch.capsule", &file.name, file.bytes))
}
