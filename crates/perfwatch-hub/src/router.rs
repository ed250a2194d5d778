//! Routes of the hub with their middleware. [`perfwatch_auth::access`] lists the required access.

use crate::app::App;
use crate::{api, ingest, middleware, openapi, ws};
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::{Json, Router};
use perfwatch_http::{ApiError, layers, listener, ui};
use serde_json::Value;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tower_http::compression::CompressionLayer;
use tower_http::timeout::TimeoutLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

/// Time limit of requests, except streamed exports, downloads and connection tests.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Routes with a time limit.
fn timed_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(ingest::http::ingest))
        .routes(routes!(api::recent::recent))
        .routes(routes!(api::catalog::list_metrics))
        .routes(routes!(api::hosts::list_hosts))
        .routes(routes!(api::hosts::get_host, api::hosts::delete_host))
        .routes(routes!(api::hosts::set_host_tags))
        .routes(routes!(api::history::series))
        .routes(routes!(api::history::snapshot))
        .routes(routes!(api::history::processes))
        .routes(routes!(api::incidents::list_incidents))
        .routes(routes!(api::incidents::list_incident_history))
        .routes(routes!(api::incidents::get_incident))
        .routes(routes!(api::incidents::list_host_alerts))
        .routes(routes!(api::incidents::actions::acknowledge, api::incidents::actions::unacknowledge))
        .routes(routes!(api::incidents::actions::comment))
        .routes(routes!(api::rules::list_rules, api::rules::create_rule))
        .routes(routes!(api::backtest::backtest))
        .routes(routes!(api::rules::export))
        .routes(routes!(api::rules::import))
        .routes(routes!(api::rules::update_rule, api::rules::delete_rule))
        .merge(agentless_routes())
        .routes(routes!(api::silences::list_silences, api::silences::create_silence))
        .routes(routes!(api::silences::update_silence, api::silences::delete_silence))
        .routes(routes!(api::channels::list_channels, api::channels::create_channel))
        .routes(routes!(api::channels::kinds))
        .routes(routes!(api::channels::preview))
        .routes(routes!(api::channels::test_unsaved_channel))
        .routes(routes!(api::channels::update_channel, api::channels::delete_channel))
        .routes(routes!(api::channels::test))
        .routes(routes!(api::notifications::list_notifications))
        .routes(routes!(api::notifications::retry_notification))
        .routes(routes!(api::system::system))
        .routes(routes!(api::auth::login_options))
        .routes(routes!(api::auth::setup))
        .routes(routes!(api::auth::login))
        .routes(routes!(api::auth::logout))
        .routes(routes!(api::auth::token))
        .routes(routes!(api::oidc::begin))
        .routes(routes!(api::oidc::callback))
        .routes(routes!(api::account::me))
        .routes(routes!(api::account::password))
        .routes(routes!(api::account::begin_totp, api::account::enable_totp, api::account::disable_totp))
        .routes(routes!(api::account::sessions, api::account::end_sessions))
        .routes(routes!(api::tokens::list_tokens, api::tokens::create_token))
        .routes(routes!(api::tokens::delete_token))
        .routes(routes!(api::users::list_users, api::users::create_user))
        .routes(routes!(api::users::update_user, api::users::delete_user))
        .routes(routes!(api::agents::list_agents))
        .routes(routes!(api::agents::enroll_agent))
        .routes(routes!(api::agents::revoke))
        .routes(routes!(api::agents::delete_agent))
        .routes(routes!(
            api::enrollment_tokens::list_enrollment_tokens,
            api::enrollment_tokens::create_enrollment_token
        ))
        .routes(routes!(api::enrollment_tokens::delete_enrollment_token))
        .routes(routes!(api::audit::list_audit_entries))
        .routes(routes!(api::install::script))
        .routes(routes!(api::health::metrics))
        .routes(routes!(openapi_json))
        .layer(CompressionLayer::new())
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT))
}

/// Agentless hosts and the collection queue.
fn agentless_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(api::servers::list_servers, api::servers::create_server))
        .routes(routes!(api::servers::get_server, api::servers::update_server, api::servers::delete_server))
        .routes(routes!(api::servers_import::import))
        .routes(routes!(api::servers::summary))
        .routes(routes!(api::servers::accept_host_key))
        .routes(routes!(api::collections::list_collections))
        .routes(routes!(api::collection_jobs::collect))
        .routes(routes!(api::collection_jobs::collect_all))
        .routes(routes!(api::collection_jobs::stats))
        .routes(routes!(api::collection_jobs::jobs))
        .routes(routes!(api::collection_jobs::pause))
        .routes(routes!(api::collection_jobs::resume))
        .routes(routes!(api::collection_jobs::clean))
        .routes(routes!(api::collection_jobs::retry))
}

/// All routes with their descriptions.
fn routes() -> OpenApiRouter<Arc<App>> {
    // Lasts as long as the client reads.
    let streamed = OpenApiRouter::new().routes(routes!(api::history::export)).layer(CompressionLayer::new());
    // Each stage of a connection test has a timeout.
    let connection_tests = OpenApiRouter::new()
        .routes(routes!(api::collections::test_unsaved))
        .routes(routes!(api::collections::test));
    OpenApiRouter::with_openapi(openapi::base())
        .merge(timed_routes())
        .merge(streamed)
        .merge(connection_tests)
        .routes(routes!(api::install::download))
        .routes(routes!(ws::upgrade))
        .routes(routes!(api::health::healthz))
        .routes(routes!(api::health::readyz))
}

/// OpenAPI document of all routes.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| openapi::finish(routes().into_openapi()));

/// OpenAPI document, generated at the first use.
pub(crate) fn openapi_document() -> &'static Value {
    &DOCUMENT
}

/// OpenAPI document
#[utoipa::path(get, path = "/api/openapi.json", tag = "hub", responses((status = 200, body = Object)))]
async fn openapi_json() -> Json<&'static Value> {
    Json(openapi_document())
}

/// Router of all routes, the API browser and the dashboard.
pub(crate) fn router(app: Arc<App>) -> Router {
    let (routes, _) = routes().split_for_parts();
    let docs = SwaggerUi::new("/api/docs").config(utoipa_swagger_ui::Config::from("/api/openapi.json"));
    let docs = Router::from(docs).layer(CompressionLayer::new());
    let router = Router::new()
        .merge(routes)
        .merge(docs)
        .fallback(ui::serve)
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(from_fn_with_state(app.clone(), middleware::auth_middleware));
    let router = layers::security_headers(router);
    let router =
        if app.config.tls.is_some() { router.layer(from_fn(listener::redirect_to_https)) } else { router };
    layers::catch_panics(router).with_state(app)
}
