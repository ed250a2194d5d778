//! Every route, in reading order. Who may use which stands in [`crate::auth::access`].

use crate::app::App;
use crate::error::ApiError;
use crate::{api, guard, ingest, live, openapi, serve, ui};
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

/// A request that is not answered by then never is.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Nothing but our own files, and no script that stands in a page.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// What is answered within a time.
fn answered() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(ingest::http::ingest))
        .routes(routes!(api::recent::recent))
        .routes(routes!(api::catalog::list))
        .routes(routes!(api::hosts::list))
        .routes(routes!(api::hosts::one, api::hosts::remove))
        .routes(routes!(api::hosts::tags))
        .routes(routes!(api::history::series))
        .routes(routes!(api::history::snapshot))
        .routes(routes!(api::history::processes))
        .routes(routes!(api::alerts::active))
        .routes(routes!(api::alerts::history))
        .routes(routes!(api::alerts::one))
        .routes(routes!(api::alerts::of_host))
        .routes(routes!(api::incidents::acknowledge, api::incidents::unacknowledge))
        .routes(routes!(api::incidents::comment))
        .routes(routes!(api::rules::list, api::rules::create))
        .routes(routes!(api::rules::test))
        .routes(routes!(api::rules::export))
        .routes(routes!(api::rules::import))
        .routes(routes!(api::rules::change, api::rules::remove))
        .merge(servers())
        .routes(routes!(api::silences::list, api::silences::create))
        .routes(routes!(api::silences::change, api::silences::remove))
        .routes(routes!(api::channels::list, api::channels::create))
        .routes(routes!(api::channels::kinds))
        .routes(routes!(api::channels::preview))
        .routes(routes!(api::channels::test_wish))
        .routes(routes!(api::channels::change, api::channels::remove))
        .routes(routes!(api::channels::test))
        .routes(routes!(api::channels::messages))
        .routes(routes!(api::channels::retry))
        .routes(routes!(api::system::system))
        .routes(routes!(api::auth::state))
        .routes(routes!(api::auth::set_up))
        .routes(routes!(api::auth::login))
        .routes(routes!(api::auth::logout))
        .routes(routes!(api::auth::token))
        .routes(routes!(api::oidc::begin))
        .routes(routes!(api::oidc::callback))
        .routes(routes!(api::account::me))
        .routes(routes!(api::account::password))
        .routes(routes!(api::account::totp_offer, api::account::totp_on, api::account::totp_off))
        .routes(routes!(api::account::sessions, api::account::end_sessions))
        .routes(routes!(api::tokens::list, api::tokens::create))
        .routes(routes!(api::tokens::remove))
        .routes(routes!(api::users::list, api::users::create))
        .routes(routes!(api::users::change, api::users::remove))
        .routes(routes!(api::agents::list))
        .routes(routes!(api::agents::enrol))
        .routes(routes!(api::agents::revoke))
        .routes(routes!(api::agents::remove))
        .routes(routes!(api::enrolments::list, api::enrolments::create))
        .routes(routes!(api::enrolments::remove))
        .routes(routes!(api::audit::list))
        .routes(routes!(api::install::script))
        .routes(routes!(api::health::metrics))
        .routes(routes!(openapi::serve))
        .layer(CompressionLayer::new())
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT))
}

/// Hosts without an agent, and the queue of looks at them.
fn servers() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(api::servers::list, api::servers::create))
        .routes(routes!(api::servers::one, api::servers::change, api::servers::remove))
        .routes(routes!(api::servers_import::import))
        .routes(routes!(api::servers::summary))
        .routes(routes!(api::servers::trust))
        .routes(routes!(api::looks::list))
        .routes(routes!(api::queue::collect))
        .routes(routes!(api::queue::collect_all))
        .routes(routes!(api::queue::stats))
        .routes(routes!(api::queue::jobs))
        .routes(routes!(api::queue::pause))
        .routes(routes!(api::queue::resume))
        .routes(routes!(api::queue::clean))
        .routes(routes!(api::queue::retry))
}

/// All routes with their descriptions.
pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    // Takes as long as its reader.
    let streamed = OpenApiRouter::new().routes(routes!(api::history::export)).layer(CompressionLayer::new());
    // Ends by itself, each step within its own time.
    let tried = OpenApiRouter::new().routes(routes!(api::looks::try_out)).routes(routes!(api::looks::test));
    OpenApiRouter::with_openapi(openapi::base())
        .merge(answered())
        .merge(streamed)
        .merge(tried)
        .routes(routes!(api::install::download))
        .routes(routes!(live::ws::upgrade))
        .routes(routes!(api::health::healthz))
        .routes(routes!(api::health::readyz))
}

pub(crate) fn router(app: Arc<App>) -> Router {
    let fixed = |name: HeaderName, value| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    let (routes, _) = routes().split_for_parts();
    let docs = SwaggerUi::new("/api/docs").config(utoipa_swagger_ui::Config::from("/api/openapi.json"));
    let docs = Router::from(docs).layer(CompressionLayer::new());
    let router = Router::new()
        .merge(routes)
        .merge(docs)
        .fallback(ui::serve)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(app.clone(), guard::guard))
        .layer(fixed(header::CONTENT_SECURITY_POLICY, POLICY))
        .layer(fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(fixed(header::X_FRAME_OPTIONS, "DENY"))
        .layer(fixed(header::REFERRER_POLICY, "no-referrer"))
        .layer(fixed(HeaderName::from_static("cross-origin-opener-policy"), "same-origin"))
        .layer(fixed(HeaderName::from_static("cross-origin-resource-policy"), "same-origin"))
        .layer(from_fn(no_store));
    let router = if app.config.tls.is_some() { router.layer(from_fn(serve::to_https)) } else { router };
    router.layer(CatchPanicLayer::custom(panicked)).with_state(app)
}

/// What is one's own is kept by no cache.
async fn no_store(request: Request, next: Next) -> Response {
    let api =
        request.uri().path().starts_with("/api/v1/") || request.uri().path().starts_with("/api/metrics/");
    let mut response = next.run(request).await;
    if api && !response.headers().contains_key(header::CACHE_CONTROL) {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this route knows no such method")
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let what =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = what.unwrap_or("?"), "a request panicked; please report it");
    drop(panic);
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the hub made a mistake; see its log")
        .into_response()
}
