//! `GET /api/v1/catalog`: definitions of all metrics.

use crate::app::App;
use axum::Json;
use axum::extract::State;
use perfwatch_model::MetricDef;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Definitions of all metrics.
#[derive(Serialize, ToSchema)]
pub(crate) struct CatalogResponse {
    #[schema(value_type = Vec<perfwatch_http::schemas::MetricDef>)]
    metrics: Vec<MetricDef>,
}

/// List metrics
#[utoipa::path(
    get, path = "/api/v1/catalog", tag = "hosts",
    responses((status = 200, body = CatalogResponse)),
)]
pub(crate) async fn list_metrics(State(app): State<Arc<App>>) -> Json<CatalogResponse> {
    Json(CatalogResponse { metrics: app.catalog.metrics().to_vec() })
}
