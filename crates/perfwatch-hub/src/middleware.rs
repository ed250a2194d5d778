//! What every request passes: checks before its handler (client address, origin, identity, access and rate limit), and
//! headers of its response.

use crate::app::App;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use perfwatch_auth::access::{self, Access, RouteMatch};
use perfwatch_auth::identity::{Credential, RequestCredentials, identify};
use perfwatch_auth::{Grant, Identity};
use perfwatch_http::listener::{self, Transport};
use perfwatch_http::origin::Origin;
use perfwatch_http::params::query_pairs;
use perfwatch_http::public_address::BaseUrl;
use perfwatch_http::public_address::RequestAddress;
use perfwatch_http::{ApiError, default_response, read_limiter};
use std::net::SocketAddr;
use std::sync::Arc;

/// Route that alone accepts `?token=`: browsers cannot set headers of WebSocket requests.
const QUERY_TOKEN_ROUTE: &str = "/api/ws/metrics";
/// Routes of WebSocket handshakes.
const WEBSOCKET_ROUTES: [&str; 2] = [QUERY_TOKEN_ROUTE, "/api/ws/probe"];

/// Serves a request and completes its response. One function instead of a layer for each part: every layer of a router
/// is cloned for every request, by each layer around it.
pub(crate) async fn serve(
    State(app): State<Arc<App>>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let polls = app.metrics.polls.clone();
    polls.measure_response(complete_response(app, path, request, next)).await
}

async fn complete_response(
    app: Arc<App>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let depends_on_caller = default_response::depends_on_caller(request.uri().path());
    let redirect = match app.config.tls {
        Some(_) => listener::https_redirect(app.public_address().public_url.as_ref(), &request),
        None => None,
    };
    let mut response = match redirect {
        Some(redirect) => redirect,
        None => default_response::catch_panics(authorize_and_run(&app, path, request, next)).await,
    };
    default_response::add_default_headers(&mut response, depends_on_caller);
    // The next request reaches another hub.
    if should_close(app.draining.is_cancelled(), response.status()) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Returns whether a response closes its connection. A balancer of TCP connections does not see that this hub lost its
/// database, and moves clients only when they connect again.
fn should_close(is_draining: bool, status: StatusCode) -> bool {
    // The responses of WebSocket handshakes have their own value.
    (is_draining && status != StatusCode::SWITCHING_PROTOCOLS) || status == StatusCode::SERVICE_UNAVAILABLE
}

/// Rejects requests that are not authorized; runs the others with the caller's identity and address, reads off the
/// serving threads and within their limits.
async fn authorize_and_run(
    app: &App,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = path.as_ref().map(MatchedPath::as_str);
    let address = request_address(app, &request);
    let hsts = app.config.hsts.filter(|_| address.client_addr.is_tls);
    let seen = app.directory.snapshot();
    let mut result = check_request(app, path, address.clone(), &mut request);
    // The credential may have been created a moment ago by another hub or by the command line.
    let is_unknown = |error: &ApiError| error.status() == StatusCode::UNAUTHORIZED;
    if result.as_ref().is_err_and(is_unknown)
        && has_credentials(app, &request)
        && app.directory.refresh_after_miss(&seen).await
    {
        result = check_request(app, path, address, &mut request);
    }
    let (method, started) = (request.method().clone(), app.clock.monotonic());
    let mut response = match result {
        Ok(()) => read_limiter::run_reads(app.rate_limiters.reads.clone(), request, next).await,
        Err(error) => error.into_response(),
    };
    if let Some(path) = path {
        let (now, is_error) = (app.clock.monotonic(), response.status().is_server_error());
        app.metrics.routes.record((method.as_str(), path), is_error, now.saturating_sub(started), now);
    }
    if let Some(max_age) = hsts {
        // HTTP Strict Transport Security (RFC 6797).
        let policy = HeaderValue::try_from(format!("max-age={}", max_age.as_secs()));
        response.headers_mut().extend(policy.map(|policy| (header::STRICT_TRANSPORT_SECURITY, policy)));
    }
    response
}

fn request_address(app: &App, request: &Request) -> RequestAddress {
    let extensions = request.extensions();
    let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
    let peer = peer.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    let is_tls = extensions.get::<Transport>().is_some_and(|transport| transport.tls);
    let authority = request.uri().authority().map(Authority::as_str);
    let proxies = &app.config.trusted_proxies;
    app.public_address().read_request((peer, is_tls), request.headers(), authority, proxies)
}

fn check_request(
    app: &App,
    path: Option<&str>,
    address: RequestAddress,
    request: &mut Request,
) -> Result<(), ApiError> {
    let client_addr = address.client_addr;
    // Dashboard files are public: whoever can read them may also embed them.
    let Some(path) = path else {
        app.rate_limiters.check_anonymous(client_addr.address)?;
        return Ok(());
    };
    let (access, accepts) = match access::match_route(request.method().as_str(), path) {
        RouteMatch::Matched(access, accepts) => (access, accepts),
        RouteMatch::MethodNotAllowed => {
            return Err(ApiError::method_not_allowed());
        }
        RouteMatch::NotFound => {
            tracing::error!(path, "route is missing from the access table; please report this");
            return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", "route is not accessible"));
        }
    };
    if WEBSOCKET_ROUTES.contains(&path) {
        app.public_address().record_handshake(request.headers());
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let origin = Origin::from_headers(request.headers(), &address.origins);
    let token = query_token(path, request.uri().query());
    // A signed token in the URL is not sent by browsers themselves, unlike cookies.
    if origin == Origin::Cross && token.is_none() && !(is_read && access == Access::Public) {
        return Err(cross_origin(&app.public_address().reject_origin(request.headers(), &address)));
    }
    let cookies = app.public_address().cookies.session.values(request.headers());
    let confirmations = app.public_address().cookies.confirmation.values(request.headers());
    let credentials = request_credentials(request.headers(), (&cookies, &confirmations), token.as_deref());
    let identity = match identify(&app.directory, credentials) {
        Err(error) if access != Access::Public => {
            app.rate_limiters.check_anonymous(client_addr.address)?;
            return Err(error.into());
        }
        result => result.unwrap_or_default(),
    };
    if let Some(identity) = &identity {
        let changes_state = !is_read || path == QUERY_TOKEN_ROUTE;
        if matches!(identity.credential, Credential::Session(_)) && changes_state && origin == Origin::Unknown
        {
            return Err(cross_origin("state-changing requests with a session cookie need an Origin header"));
        }
    }
    access::authorize(access, accepts, identity.as_ref())?;
    match &identity {
        Some(identity) if access == Access::Ingest => {
            identity.record_transport(&app.directory, client_addr.address, address.is_encrypted());
            app.rate_limiters.check_ingest(identity)?;
        }
        Some(identity) => app.rate_limiters.check_authenticated(identity)?,
        None => app.rate_limiters.check_anonymous(client_addr.address)?,
    }
    let base_url = BaseUrl(app.public_address().base_url(&address));
    let to_grant = |identity: &Identity| {
        Grant::new(app.directory.clone(), identity.clone(), (access, accepts), &confirmations)
    };
    let grant = identity.as_ref().map(to_grant);
    let extensions = request.extensions_mut();
    extensions.insert(client_addr);
    extensions.insert(base_url);
    extensions.insert(address);
    identity.and_then(|identity| extensions.insert(identity));
    grant.and_then(|grant| extensions.insert(grant));
    Ok(())
}

/// Returns whether the request has a credential, valid or not.
fn has_credentials(app: &App, request: &Request) -> bool {
    let headers = request.headers();
    headers.contains_key(header::AUTHORIZATION)
        || !app.public_address().cookies.session.values(headers).is_empty()
        || query_token(QUERY_TOKEN_ROUTE, request.uri().query()).is_some()
}

fn cross_origin(message: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "cross_origin", message)
}

fn request_credentials<'a>(
    headers: &'a HeaderMap,
    (session_cookies, confirmation_cookies): (&'a [&'a str], &'a [&'a str]),
    query_token: Option<&'a str>,
) -> RequestCredentials<'a> {
    // A header that is not text is invalid; it must not count as absent.
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    RequestCredentials { authorization, session_cookies, confirmation_cookies, query_token }
}

fn query_token(path: &str, query: Option<&str>) -> Option<String> {
    let mut pairs = query_pairs(query.filter(|_| path == QUERY_TOKEN_ROUTE));
    pairs.find(|(name, _)| name == "token").map(|(_, token)| token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_end_if_another_hub_may_serve() {
        assert!(should_close(false, StatusCode::SERVICE_UNAVAILABLE) && should_close(true, StatusCode::OK));
        assert!(!should_close(false, StatusCode::OK) && !should_close(false, StatusCode::TOO_MANY_REQUESTS));
        assert!(!should_close(true, StatusCode::SWITCHING_PROTOCOLS));
    }
}
