//! `POST /api/v1/query`: series of many hosts. The queries are run by `perfwatch-query`.

use crate::app::App;
use axum::extract::State;
use axum::response::Response;
use perfwatch_http::body::JsonBody;
use perfwatch_http::read_limiter::Reader;
use perfwatch_http::{ApiError, Caller};
use perfwatch_query::{QueryRequest, QueryResponse};
use std::sync::Arc;

/// Query series of many hosts
///
/// Groups and aggregates the series of the visible hosts on a common time grid. Limits shorten the answer instead
/// of failing it: `left_out` counts the hosts and series that are missing.
#[utoipa::path(
    post, path = "/api/v1/query", tag = "query",
    request_body = QueryRequest,
    responses((status = 200, body = QueryResponse), (status = 422)),
)]
pub(crate) async fn query(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    reader: Reader,
    JsonBody(request): JsonBody<QueryRequest>,
) -> Result<Response, ApiError> {
    let response = app.queries.run(&identity, &reader, request).await?;
    let text = serde_json::to_string(&response);
    drop(response);
    Ok(reader.respond(text.unwrap_or_default()))
}
