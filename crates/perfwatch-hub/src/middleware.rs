//! Checks of every request before its handler: client address, origin, identity, access and rate limit.

use crate::app::App;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::AsHeaderName;
use axum::http::{HeaderMap, Method, StatusCode, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use perfwatch_auth::ClientAddr;
use perfwatch_auth::access::{self, Access, RouteMatch};
use perfwatch_auth::client_addr::{ForwardedHeaders, is_trusted_proxy};
use perfwatch_auth::identity::{Credential, RequestCredentials, identify};
use perfwatch_http::listener::Transport;
use perfwatch_http::origin::Origin;
use perfwatch_http::params::query_pairs;
use perfwatch_http::{ApiError, cookies};
use std::net::SocketAddr;
use std::sync::Arc;

/// Route that alone accepts `?token=`: browsers cannot set headers of WebSocket requests.
const QUERY_TOKEN_ROUTE: &str = "/api/ws/metrics";

/// Rejects requests that are not authorized; adds the caller's identity and address to the others.
pub(crate) async fn auth_middleware(
    State(app): State<Arc<App>>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = path.as_ref().map(MatchedPath::as_str);
    let mut result = check_request(&app, path, &mut request);
    // The credential may have been created a moment ago by another hub or by the command line.
    let is_unknown = |error: &ApiError| error.status() == StatusCode::UNAUTHORIZED;
    if result.as_ref().is_err_and(is_unknown)
        && has_credentials(&request)
        && app.directory.refresh_after_miss().await
    {
        result = check_request(&app, path, &mut request);
    }
    match result {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_request(app: &App, path: Option<&str>, request: &mut Request) -> Result<(), ApiError> {
    let extensions = request.extensions();
    let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
    let peer = peer.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    let tls = extensions.get::<Transport>().is_some_and(|transport| transport.tls);
    let proxies = &app.config.trusted_proxies;
    let client_addr = ClientAddr::from_request(peer, tls, &forwarded_headers(request.headers()), proxies);
    let authority = request.uri().authority().map(Authority::as_str);
    let host = request_host(request.headers(), authority, is_trusted_proxy(proxies, peer.ip()));
    let origin = Origin::from_headers(request.headers(), host, app.config.public_host());
    if origin == Origin::Cross {
        return Err(cross_origin("cross-origin requests are not allowed"));
    }
    let base_url = app.config.base_url(host, client_addr.is_tls);
    // The dashboard is public.
    let Some(path) = path else {
        app.rate_limiters.check_anonymous(client_addr.address)?;
        return Ok(());
    };
    let access = match access::match_route(request.method().as_str(), path) {
        RouteMatch::Matched(access) => access,
        RouteMatch::MethodNotAllowed => {
            return Err(ApiError::method_not_allowed());
        }
        RouteMatch::NotFound => {
            tracing::error!(path, "route is missing from the access table; please report this");
            return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", "route is not accessible"));
        }
    };
    let token = query_token(path, request.uri().query());
    let result = identify(&app.directory, request_credentials(request.headers(), token.as_deref()));
    let identity = match result {
        Err(error) if access != Access::Public => {
            app.rate_limiters.check_anonymous(client_addr.address)?;
            return Err(error.into());
        }
        result => result.unwrap_or_default(),
    };
    if let Some(identity) = &identity {
        let changes_state =
            !matches!(*request.method(), Method::GET | Method::HEAD) || path == QUERY_TOKEN_ROUTE;
        if matches!(identity.credential, Credential::Session(_)) && changes_state && origin == Origin::Unknown
        {
            return Err(cross_origin("state-changing requests with a session cookie need an Origin header"));
        }
    }
    access::authorize(access, identity.as_ref())?;
    match &identity {
        Some(identity) if access == Access::Ingest => app.rate_limiters.check_ingest(identity)?,
        Some(identity) => app.rate_limiters.check_authenticated(identity)?,
        None => app.rate_limiters.check_anonymous(client_addr.address)?,
    }
    let extensions = request.extensions_mut();
    extensions.insert(client_addr);
    extensions.insert(base_url);
    if let Some(identity) = identity {
        extensions.insert(identity);
    }
    Ok(())
}

/// Returns whether the request has a credential, valid or not.
fn has_credentials(request: &Request) -> bool {
    let headers = request.headers();
    headers.contains_key(header::AUTHORIZATION)
        || cookies::get(headers, cookies::SESSION_COOKIE).is_some()
        || query_token(QUERY_TOKEN_ROUTE, request.uri().query()).is_some()
}

fn cross_origin(message: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "cross_origin", message)
}

fn text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn forwarded_headers(headers: &HeaderMap) -> ForwardedHeaders<'_> {
    let lines = headers.get_all("x-forwarded-for").iter();
    ForwardedHeaders {
        forwarded_for: lines.map(|line| line.to_str().unwrap_or("?")).collect(),
        forwarded_proto: text(headers, "x-forwarded-proto"),
    }
}

fn request_credentials<'a>(headers: &'a HeaderMap, query_token: Option<&'a str>) -> RequestCredentials<'a> {
    // A header that is not text is invalid; it must not count as absent.
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    let session_cookie = cookies::get(headers, cookies::SESSION_COOKIE);
    RequestCredentials { authorization, session_cookie, query_token }
}

/// Host name by which the browser reached the hub: `X-Forwarded-Host` of a trusted proxy, else `Host`.
fn request_host<'a>(
    headers: &'a HeaderMap,
    authority: Option<&'a str>,
    behind_proxy: bool,
) -> Option<&'a str> {
    let forwarded = text(headers, "x-forwarded-host").filter(|_| behind_proxy);
    forwarded.or_else(|| text(headers, header::HOST)).or(authority)
}

fn query_token(path: &str, query: Option<&str>) -> Option<String> {
    let mut pairs = query_pairs(query.filter(|_| path == QUERY_TOKEN_ROUTE));
    pairs.find(|(name, _)| name == "token").map(|(_, token)| token)
}
