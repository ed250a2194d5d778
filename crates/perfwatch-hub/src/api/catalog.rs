//! `GET /api/v1/catalog`: every metric this build knows.

use crate::app::App;
use axum::Json;
use axum::extract::State;
use perfwatch_model::MetricDef;
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
pub(crate) struct CatalogJson {
    metrics: Vec<MetricDef>,
}

pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<CatalogJson> {
    Json(CatalogJson { metrics: app.catalog.metrics().to_vec() })
}
