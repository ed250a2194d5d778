//! `GET /api/v1/catalog`: every metric this build knows.

use crate::app::App;
use axum::Json;
use axum::extract::State;
use perfwatch_model::MetricDef;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Every metric.
#[derive(Serialize, ToSchema)]
pub(crate) struct CatalogJson {
    #[schema(value_type = Vec<crate::openapi::shapes::MetricDef>)]
    metrics: Vec<MetricDef>,
}

/// Every metric that this hub knows
#[utoipa::path(get, path = "/api/v1/catalog", tag = "hosts", responses((status = 200, body = CatalogJson)))]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<CatalogJson> {
    Json(CatalogJson { metrics: app.catalog.metrics().to_vec() })
}
